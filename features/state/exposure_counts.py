"""Delivery counts of exposure targets, and traffic: folded from impressions, exactly once in effect.

The engine writes into each impression what the page delivered for each active target (`context.targets`: attention
delivered, attention of the page, impressions that count for a frequency cap). The worker sums this in shards, one per
target and log partition, and sums the attention of all pages by placement, region and hour. Impressions that clients
report do not count here, so every placement exists; regions are those of page requests, and their traffic expires
after `TRAFFIC_TTL_S`, long before viewers do. A shard has one writer and stores the last offset it has folded; an event
at or below that offset changes nothing. As with item states, the viewers' states decide which events count
(`features.state.fold`), so shards are made durable before them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from features.events.schema import ViewerEvent, is_engine_impression
from features.state.codec import StateError, decode_state, encode_state
from features.state.keys import COUNTS, TRAFFIC
from features.state.online.compare_and_set import Reader, decode_or_raise, update
from features.state.online.port import OnlineStore
from features.state.quarantine import CorruptStateCounter
from recsys.domain.decay import DAY_S

if TYPE_CHECKING:
    from features.state.votes import WeightedEvent

TRAFFIC_TTL_S = 36 * 86_400.0
"""TTL of a day's traffic: five weeks for the forecast, and a day to spare."""

MAX_TARGETS_PER_VIEWER = 50  # impression times per target in a viewer's state: no frequency cap is higher


class DeliveryCount(msgspec.Struct, frozen=True):
    """The delivery of one exposure target, counted from one log partition."""

    key: str
    delivered: float = 0.0  # attention of its items
    available: float = 0.0  # attention of all pages on which it was active
    pages: int = 0
    impressions: int = 0  # those that count for the frequency cap
    newest_at: float = 0.0  # unix second of the newest impression
    offset: int = -1


class TrafficDay(msgspec.Struct, frozen=True):
    """The traffic of one placement and region on one day (days since 1970, UTC), counted from one log partition."""

    placement: str
    region: str
    day: int
    attention: tuple[float, ...] = (0.0,) * 24  # by hour
    pages: tuple[int, ...] = (0,) * 24
    offset: int = -1


_count_decoder = msgspec.msgpack.Decoder(DeliveryCount)
_traffic_decoder = msgspec.msgpack.Decoder(TrafficDay)
_corrupt_states = CorruptStateCounter()


def count_key(key: str, source: str) -> str:
    """Return the key of a target's count in one log partition (`key` = outlet/control, `source` = topic/partition)."""
    return f"{COUNTS}{{{key}}}:{source}"


def traffic_key(placement: str, region: str, day: int, source: str) -> str:
    """Return the key of the traffic of a placement and region on one day in one log partition."""
    return f"{TRAFFIC}{{{placement}|{region}}}:{day}:{source}"


def target_credits(event: ViewerEvent) -> dict[str, tuple[float, float, int]]:
    """Return target -> (attention delivered, attention of the page, impressions for its frequency cap).

    Entries of another form are skipped: an older engine may have written the context.
    """
    targets = event.context.get("targets") if is_engine_impression(event) else None
    credits: dict[str, tuple[float, float, int]] = {}
    for key, numbers in targets.items() if isinstance(targets, dict) else ():
        if isinstance(numbers, list) and len(numbers) == 3 and all(_is_count(n) for n in numbers):
            delivered, available, impressions = (float(n) for n in numbers)
            credits[key] = (delivered, available, int(impressions))
    return credits


def _is_count(number: object) -> bool:
    return isinstance(number, int | float) and not isinstance(number, bool) and 0 <= number < 1e6


def record_impression(target_impressions: dict[str, tuple[float, ...]], event: ViewerEvent) -> None:
    """Record when items of targets with a frequency cap were shown to a viewer, newest last."""
    for key, (_, _, impressions) in target_credits(event).items():
        if impressions:
            times = sorted((*target_impressions.get(key, ()), *(event.at,) * impressions))
            target_impressions[key] = tuple(times[-MAX_TARGETS_PER_VIEWER:])


def fold_count(count: DeliveryCount, events: Sequence[WeightedEvent]) -> DeliveryCount:
    """Return the count after these deduplicated events of one source, which all credit the target, in offset order."""
    delivered, available, pages, impressions = count.delivered, count.available, count.pages, count.impressions
    newest_at, offset = count.newest_at, count.offset
    for event in events:
        if event.offset <= offset:
            continue
        offset = event.offset
        credit = target_credits(event.event)[count.key]
        delivered, available, pages, impressions = (
            delivered + credit[0],
            available + credit[1],
            pages + 1,
            impressions + credit[2],
        )
        newest_at = max(newest_at, event.event.at)
    return DeliveryCount(count.key, delivered, available, pages, impressions, newest_at, offset)


def fold_traffic(day: TrafficDay, events: Sequence[WeightedEvent]) -> TrafficDay:
    """Return the traffic after these impressions of its day, placement, region and source, in offset order."""
    attention, pages, offset = list(day.attention), list(day.pages), day.offset
    for event in events:
        if event.offset <= offset:
            continue
        offset = event.offset
        hour = int(event.event.at % 86_400 // 3600)
        attention[hour] += sum(event.event.attention)
        pages[hour] += 1
    return TrafficDay(day.placement, day.region, day.day, tuple(attention), tuple(pages), offset)


def fold_exposure(online: OnlineStore, events: Sequence[WeightedEvent], read: Reader = decode_or_raise) -> None:
    """Fold deduplicated events, in log order, into the shards of their targets and placements.

    Raises Unavailable, and whatever `read` raises for corrupt shards.
    """
    counts: dict[tuple[str, str], list[WeightedEvent]] = defaultdict(list)
    traffic: dict[tuple[str, str, int, str], list[WeightedEvent]] = defaultdict(list)
    for event in events:
        viewer_event = event.event
        for key in target_credits(viewer_event):
            counts[key, event.source].append(event)
        if is_engine_impression(viewer_event) and viewer_event.placement and viewer_event.attention:
            traffic[viewer_event.placement, viewer_event.region, int(viewer_event.at // 86_400), event.source].append(
                event
            )
    count_keys = {count_key(*at): at for at in counts}
    traffic_keys = {traffic_key(*at): at for at in traffic}

    def apply_count(key: str, count: DeliveryCount | None) -> bytes:
        at = count_keys[key]
        return encode_state(fold_count(count or DeliveryCount(at[0]), counts[at]))

    def apply_traffic(key: str, day: TrafficDay | None) -> bytes:
        at = traffic_keys[key]
        return encode_state(fold_traffic(day or TrafficDay(*at[:3]), traffic[at]))

    update(online, list(count_keys), count_at, apply_count, read=read)
    update(online, list(traffic_keys), traffic_at, apply_traffic, TRAFFIC_TTL_S, read)


def decode_count(raw: bytes) -> DeliveryCount:
    """Return the count in these bytes. Raises StateError."""
    return decode_state(raw, _count_decoder)


def decode_traffic(raw: bytes) -> TrafficDay:
    """Return the traffic in these bytes. Raises StateError."""
    day = decode_state(raw, _traffic_decoder)
    if not len(day.attention) == len(day.pages) == 24:
        raise StateError("traffic does not have 24 hours")
    return day


def count_at(key: str, raw: bytes) -> DeliveryCount:
    """Return the count that was read at this key. Raises StateError, also for the count of another target."""
    count = decode_count(raw)
    if not key.startswith(count_key(count.key, "")):
        raise StateError("the count belongs to another target")
    return count


def traffic_at(key: str, raw: bytes) -> TrafficDay:
    """Return the traffic that was read at this key. Raises StateError, also for another placement, region or day."""
    day = decode_traffic(raw)
    if not key.startswith(traffic_key(day.placement, day.region, day.day, "")):
        raise StateError("the traffic belongs to another placement, region or day")
    return day


def read_counts(online: OnlineStore, keys: Sequence[str], sources: Sequence[str]) -> dict[str, DeliveryCount]:
    """Return the counts of targets, summed over shards; `offset` is meaningless. Raises Unavailable, StateError."""
    raw = iter(online.get([count_key(key, source) for key in keys for source in sources]))
    totals = {}
    for key in keys:
        shards = [
            decode_state(shard_raw, _count_decoder)
            for shard_raw in (next(raw) for _ in sources)
            if shard_raw is not None
        ]
        totals[key] = DeliveryCount(
            key,
            sum(shard.delivered for shard in shards),
            sum(shard.available for shard in shards),
            sum(shard.pages for shard in shards),
            sum(shard.impressions for shard in shards),
            max((shard.newest_at for shard in shards), default=0.0),
        )
    return totals


def is_stale(raw: bytes, now: float) -> bool:
    """Return whether this traffic may have expired in the online store by unix second `now`. Raises StateError."""
    return decode_traffic(raw).day * DAY_S + TRAFFIC_TTL_S < now


def read_traffic(online: OnlineStore, corrupt_states: CorruptStateCounter = _corrupt_states) -> list[TrafficDay]:
    """Return the traffic in the online store, by shard. Corrupt states are skipped and counted. Raises Unavailable."""
    decoded = (corrupt_states.decode(key, raw, traffic_at) for key, raw in online.scan(TRAFFIC))
    return [day for day in decoded if day is not None]
