"""What exposure targets have won, and how much attention there was: folded from impressions, exactly once in effect.

The engine writes into each impression what the page did for each target in force (`context.targets`: attention won,
attention of the page, impressions that count for a frequency cap). The worker adds this up in shards, one per target
and log partition, and the attention of all pages by placement, region and hour. Impressions that clients sent count for
nothing here, so placements are those there are; regions are as pages are asked for, and what one of them leaves behind
is gone after `TRAFFIC_TTL_S`, long before its viewer is. A shard has one writer and carries the last offset it has
folded; an event at or below it changes nothing. As with item states, what counts is decided from the viewers' states
(`features.state.fold`), so shards are made durable before these.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from features.events.schema import ViewerEvent, is_engine_impression
from features.state.codec import StateError, decode_state, encode_state
from features.state.corrupt_state import CorruptStateCounter
from features.state.keys import COUNTS, TRAFFIC
from features.state.online.compare_and_set import Reader, decode_or_raise, update
from features.state.online.port import OnlineStore
from recsys.domain.decay import DAY_S

if TYPE_CHECKING:
    from features.state.votes import WeightedEvent

TRAFFIC_TTL_S = 36 * 86_400.0
"""How long the traffic of a day is kept: five weeks for the forecast."""

MAX_TARGETS_PER_VIEWER = 50  # times a viewer's state remembers of a target: no frequency cap is higher


class DeliveryCount(msgspec.Struct, frozen=True):
    """What one log partition says of one target."""

    key: str
    delivered: float = 0.0  # attention of its items
    available: float = 0.0  # attention of all pages it was in force on
    pages: int = 0
    impressions: int = 0  # those that count for its frequency cap
    until_offset: float = 0.0  # unix second of the newest impression
    offset: int = -1


class TrafficDay(msgspec.Struct, frozen=True):
    """What one log partition says of one placement and region on one day (days since 1970, UTC)."""

    placement: str
    region: str
    day: int
    attention: tuple[float, ...] = (0.0,) * 24  # by hour
    pages: tuple[int, ...] = (0,) * 24
    offset: int = -1


_count = msgspec.msgpack.Decoder(DeliveryCount)
_traffic = msgspec.msgpack.Decoder(TrafficDay)
_recorded = CorruptStateCounter()


def count_key(key: str, source: str) -> str:
    """Where the count of a target (`outlet/control`) in one log partition lives (`source` = "topic/partition")."""
    return f"{COUNTS}{{{key}}}:{source}"


def traffic_key(placement: str, region: str, day: int, source: str) -> str:
    """Where the traffic of a placement and region on one day in one log partition lives."""
    return f"{TRAFFIC}{{{placement}|{region}}}:{day}:{source}"


def credits_of(event: ViewerEvent) -> dict[str, tuple[float, float, int]]:
    """Target -> attention won, attention of the page, impressions for its cap. Anything else in their place is left
    out: the context is ours, but an old engine may have written it."""
    said = event.context.get("targets") if is_engine_impression(event) else None
    answer: dict[str, tuple[float, float, int]] = {}
    for key, numbers in said.items() if isinstance(said, dict) else ():
        if isinstance(numbers, list) and len(numbers) == 3 and all(_counts(n) for n in numbers):
            won, served, impressions = (float(n) for n in numbers)
            answer[key] = (won, served, int(impressions))
    return answer


def _counts(number: object) -> bool:
    return isinstance(number, int | float) and not isinstance(number, bool) and 0 <= number < 1e6


def record_impression(exposed: dict[str, tuple[float, ...]], event: ViewerEvent) -> None:
    """Note when items of targets with a frequency cap were shown to a viewer; the newest stand last."""
    for key, (_, _, impressions) in credits_of(event).items():
        if impressions:
            times = sorted((*exposed.get(key, ()), *(event.at,) * impressions))
            exposed[key] = tuple(times[-MAX_TARGETS_PER_VIEWER:])


def fold_count(count: DeliveryCount, events: Sequence[WeightedEvent]) -> DeliveryCount:
    """The count after these events: `sift`ed, all crediting the target, of one source, in offset order."""
    won, served, pages, impressions = count.delivered, count.available, count.pages, count.impressions
    upto, offset = count.until_offset, count.offset
    for one in events:
        if one.offset <= offset:
            continue
        offset = one.offset
        more = credits_of(one.event)[count.key]
        won, served, pages, impressions = won + more[0], served + more[1], pages + 1, impressions + more[2]
        upto = max(upto, one.event.at)
    return DeliveryCount(count.key, won, served, pages, impressions, upto, offset)


def fold_traffic(day: TrafficDay, events: Sequence[WeightedEvent]) -> TrafficDay:
    """The traffic after these impressions of its day, placement, region and source, in offset order."""
    attention, pages, offset = list(day.attention), list(day.pages), day.offset
    for one in events:
        if one.offset <= offset:
            continue
        offset = one.offset
        hour = int(one.event.at % 86_400 // 3600)
        attention[hour] += sum(one.event.attention)
        pages[hour] += 1
    return TrafficDay(day.placement, day.region, day.day, tuple(attention), tuple(pages), offset)


def fold_exposure(online: OnlineStore, fresh: Sequence[WeightedEvent], read: Reader = decode_or_raise) -> None:
    """Fold events (`sift`ed, in the order of the log) into the shards they concern. Raises Unavailable, and what `read`
    raises for shards that are none."""
    counts: dict[tuple[str, str], list[WeightedEvent]] = defaultdict(list)
    traffic: dict[tuple[str, str, int, str], list[WeightedEvent]] = defaultdict(list)
    for one in fresh:
        event = one.event
        for key in credits_of(event):
            counts[key, one.source].append(one)
        if is_engine_impression(event) and event.placement and event.attention:
            traffic[event.placement, event.region, int(event.at // 86_400), one.source].append(one)
    count_keys = {count_key(*at): at for at in counts}
    traffic_keys = {traffic_key(*at): at for at in traffic}

    def counted(key: str, count: DeliveryCount | None) -> bytes:
        at = count_keys[key]
        return encode_state(fold_count(count or DeliveryCount(at[0]), counts[at]))

    def passed(key: str, day: TrafficDay | None) -> bytes:
        at = traffic_keys[key]
        return encode_state(fold_traffic(day or TrafficDay(*at[:3]), traffic[at]))

    update(online, list(count_keys), count_at, counted, read=read)
    update(online, list(traffic_keys), traffic_at, passed, TRAFFIC_TTL_S, read)


def decode_count(raw: bytes) -> DeliveryCount:
    """The count in these bytes. Raises StateError."""
    return decode_state(raw, _count)


def decode_traffic(raw: bytes) -> TrafficDay:
    """The traffic in these bytes. Raises StateError."""
    one = decode_state(raw, _traffic)
    if not len(one.attention) == len(one.pages) == 24:
        raise StateError("a day has 24 hours")
    return one


def count_at(key: str, raw: bytes) -> DeliveryCount:
    """The count that was read at this key. Raises StateError, also when it is another target's."""
    count = decode_count(raw)
    if not key.startswith(count_key(count.key, "")):
        raise StateError("the count is another target's")
    return count


def traffic_at(key: str, raw: bytes) -> TrafficDay:
    """The traffic that was read at this key. Raises StateError, also when it is another place's or day's."""
    one = decode_traffic(raw)
    if not key.startswith(traffic_key(one.placement, one.region, one.day, "")):
        raise StateError("the traffic is another place's or day's")
    return one


def read_counts(online: OnlineStore, keys: Sequence[str], sources: Sequence[str]) -> dict[str, DeliveryCount]:
    """The counts of targets, their shards summed; `offset` means nothing then. Raises Unavailable, StateError."""
    raw = iter(online.get([count_key(key, source) for key in keys for source in sources]))
    answer = {}
    for key in keys:
        shards = [decode_state(one, _count) for one in (next(raw) for _ in sources) if one is not None]
        answer[key] = DeliveryCount(
            key,
            sum(shard.delivered for shard in shards),
            sum(shard.available for shard in shards),
            sum(shard.pages for shard in shards),
            sum(shard.impressions for shard in shards),
            max((shard.until_offset for shard in shards), default=0.0),
        )
    return answer


def is_stale(raw: bytes, now: float) -> bool:
    """Whether the online store may have let go of this traffic by unix second `now`. Raises StateError."""
    return decode_traffic(raw).day * DAY_S + TRAFFIC_TTL_S < now


def read_traffic(online: OnlineStore, unreadable: CorruptStateCounter = _recorded) -> list[TrafficDay]:
    """All traffic that is remembered, in shards; what cannot be read is left out. Raises Unavailable."""
    read = (unreadable.decode(key, raw, traffic_at) for key, raw in online.scan(TRAFFIC))
    return [day for day in read if day is not None]
