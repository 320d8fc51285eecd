"""What the stores must hold, told from the accepted messages alone, in two ways that know nothing of each other.

*Replay*: every event once more through the pure fold, each viewer's whole history at once, no store, no batches, no
worker: the dump of the online store must be equal to it byte for byte. *Ledger*: plain sums with nothing of the engine
in them (`json`, a set of ids, additions in log order), so that a fold that is wrong in the same way twice is found too.
"""

from __future__ import annotations

import json
from base64 import b64decode
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq

from features.events.decode import decode
from features.events.stream.port import Message
from features.settings import Settings
from features.state.codec import (
    decode_state,
    decode_viewer,
    encode_item,
    encode_state,
    encode_viewer,
    item_key,
    viewer_key,
)
from features.state.exposure_counts import (
    DeliveryCount,
    TrafficDay,
    count_key,
    credits_of,
    fold_count,
    fold_traffic,
    traffic_key,
)
from features.state.fold import LoggedEvent, WeightedEvent, deduplicate_and_fold, fold_item, items_of
from features.state.keys import COUNTS, TRAFFIC, VIEWERS
from recsys.domain.errors import EventError
from recsys.domain.viewer import ItemState, ViewerState

VIEWER_TTL_S = 86_400.0 * Settings().viewer_ttl_days


@dataclass
class Oracle:
    """Fed with every accepted message, in log order per partition."""

    dead: set[tuple[int, int]] = field(default_factory=set)  # (partition, offset) of what cannot be read
    refused_kind: str = ""  # of the release that reads now; what it set aside stays aside
    events: dict[str, list[LoggedEvent]] = field(default_factory=lambda: defaultdict(list))
    _counted: dict[str, list[WeightedEvent]] = field(default_factory=dict)
    _by_shard: dict[tuple[Any, ...], list[WeightedEvent]] = field(default_factory=lambda: defaultdict(list))
    _dump: dict[str, bytes] = field(default_factory=dict)

    def apply(self, messages: Iterable[Message]) -> Mapping[str, bytes]:
        """Add messages; returns the dump the store must have now."""
        viewers = set()
        for message in messages:
            try:
                event = decode(message.value)
                if event.viewer_id != message.key or event.kind == self.refused_kind:
                    raise EventError("keyed by another, or not known yet")
            except EventError:
                self.dead.add((message.partition, message.offset))
                continue
            self.events[event.viewer_id].append(
                LoggedEvent(f"{message.topic}/{message.partition}", message.offset, event)
            )
            viewers.add(event.viewer_id)
        changed = [one for viewer_id in viewers for one in self._fold_viewer(viewer_id)]
        self._fold_items(changed)
        self._fold_exposure(changed)
        return self._dump

    def counted_events(self) -> set[tuple[str, str]]:
        """(viewer, event id) of every event that counts, once."""
        return {(one.event.viewer_id, one.event.id) for some in self._counted.values() for one in some}

    def _fold_viewer(self, viewer_id: str) -> list[WeightedEvent]:
        """Folds the viewer's whole history; returns what counts and did not before."""
        fresh, state = deduplicate_and_fold(ViewerState(viewer_id), self.events[viewer_id], VIEWER_TTL_S)
        self._dump[viewer_key(viewer_id)] = encode_viewer(state)
        before, self._counted[viewer_id] = len(self._counted.get(viewer_id, ())), fresh
        return self._counted[viewer_id][before:]

    def _fold_items(self, changed: list[WeightedEvent]) -> None:
        for item_id, source in self._group(changed, lambda one: [(item, one.source) for item in items_of(one.event)]):
            about = self._by_shard[item_id, source]
            self._dump[item_key(item_id, source)] = encode_item(fold_item(ItemState(item_id), about))

    def _fold_exposure(self, changed: list[WeightedEvent]) -> None:
        for at in self._group(changed, lambda one: [("count", key, one.source) for key in credits_of(one.event)]):
            self._dump[count_key(*at[1:])] = encode_state(fold_count(DeliveryCount(at[1]), self._by_shard[at]))
        for at in self._group(changed, _traffic):
            self._dump[traffic_key(*at[1:])] = encode_state(fold_traffic(TrafficDay(*at[1:4]), self._by_shard[at]))

    def _group(
        self, changed: list[WeightedEvent], shards: Callable[[WeightedEvent], Iterable[tuple[Any, ...]]]
    ) -> set[tuple[Any, ...]]:
        """The shards these events concern; their events are put in log order."""
        touched: set[tuple[Any, ...]] = set()
        for one in changed:
            for shard in shards(one):
                self._by_shard[shard].append(one)
                touched.add(shard)
        for shard in touched:
            self._by_shard[shard].sort(key=lambda one: one.offset)
        return touched


def _traffic(one: WeightedEvent) -> list[tuple[str, str, str, int, str]]:
    event = one.event
    if event.kind != "impression" or not event.placement or not event.attention:
        return []
    return [("traffic", event.placement, event.region, int(event.at // 86_400), one.source)]


@dataclass
class Ledger:
    """Plain sums over the same messages: how often each viewer did what, what targets won, how many pages were made."""

    ids: set[tuple[str, str]] = field(default_factory=set)
    repeats: int = 0
    viewers: dict[str, dict[str, int]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(int)))
    delivered: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    pages: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def apply(self, messages: Iterable[Message], dead: set[tuple[int, int]]) -> None:
        """Add messages, `dead` ones left out."""
        for message in messages:
            if (message.partition, message.offset) in dead:
                continue
            said = json.loads(message.value)
            viewer, kind, data = said["subject"], said["type"].rpartition(".")[2], said.get("data", {})
            if (viewer, said["id"]) in self.ids:
                self.repeats += 1
                continue
            self.ids.add((viewer, said["id"]))
            self.viewers[viewer][kind] += 1
            for target, (won, _, _) in data.get("context", {}).get("targets", {}).items():
                self.delivered[target] += won
            if data.get("attention") and data.get("placement"):
                self.pages[data["placement"]] += 1

    def mismatches(self, dump: Mapping[str, bytes]) -> int:
        """Viewers, targets and placements of which the store says something else."""
        viewers: dict[str, dict[str, int]] = {}
        won: dict[str, float] = defaultdict(float)
        pages: dict[str, int] = defaultdict(int)
        for key, raw in dump.items():
            if key.startswith(VIEWERS):
                viewer = decode_viewer(raw)
                viewers[viewer.viewer_id] = dict(viewer.counts)
            elif key.startswith(COUNTS):
                count = decode_state(raw, _COUNT)
                won[count.key] += count.delivered
            elif key.startswith(TRAFFIC):
                day = decode_state(raw, _DAY)
                pages[day.placement] += sum(day.pages)
        return (
            sum(viewers.get(v) != dict(self.viewers.get(v, {})) for v in viewers.keys() | self.viewers.keys())
            + sum(abs(won[t] - self.delivered[t]) > 1e-6 for t in won.keys() | self.delivered.keys())
            + sum(pages[p] != self.pages[p] for p in pages.keys() | self.pages.keys())
        )


_COUNT, _DAY = msgspec.msgpack.Decoder(DeliveryCount), msgspec.msgpack.Decoder(TrafficDay)


@dataclass(frozen=True)
class Verdict:
    """How far the stores are from the oracle: all noughts when nothing is missing and nothing is twice."""

    missing: int  # keys the store lacks
    extra: int  # keys it should not have
    different: int  # keys with other bytes
    ledger: int  # viewers, targets and placements whose sums differ
    unlogged: int  # events that count and are not in the event log
    unexpected: int  # events in the event log that were never accepted
    dead_letter_mismatches: int  # unreadable messages without a dead letter, or letters without a message
    truncated_files: int  # Parquet files that cannot be read

    @property
    def ok(self) -> bool:
        """Nothing missing, nothing twice."""
        return not any(vars(self).values())

    def __str__(self) -> str:
        return "equal" if self.ok else ", ".join(f"{count} {name}" for name, count in vars(self).items() if count)


def compare(
    expected: Mapping[str, bytes],
    found: Mapping[str, bytes],
    *,
    oracle: Oracle,
    ledger: Ledger,
    event_log: Path,
    known: dict[Path, set[tuple[str, str]]],
    letters: Iterable[Message],
) -> Verdict:
    """The stores against the oracle."""
    logged, half = logged_events(event_log, known)
    buried = {_position(message) for message in letters}
    return Verdict(
        missing=len(expected.keys() - found.keys()),
        extra=len(found.keys() - expected.keys()),
        different=sum(found[key] != raw for key, raw in expected.items() if key in found),
        ledger=ledger.mismatches(found),
        unlogged=len(oracle.counted_events() - logged),
        unexpected=len(logged - ledger.ids),
        dead_letter_mismatches=len(buried ^ oracle.dead),
        truncated_files=half,
    )


def _position(message: Message) -> tuple[int, int]:
    """Environment of the message that a dead letter is about; a letter keeps its first bytes."""
    said = json.loads(message.value)
    b64decode(said["raw"], validate=True)
    return said["partition"], said["offset"]


def logged_events(event_log: Path, known: dict[Path, set[tuple[str, str]]]) -> tuple[set[tuple[str, str]], int]:
    """(viewer, id) of all events in Parquet files that a reader would see, and how many files cannot be read.

    `known`: files read by earlier calls.
    """
    found: set[tuple[str, str]] = set()
    half = 0
    for file in event_log.rglob("*.parquet"):
        try:
            if file not in known:
                columns = pq.read_table(file, columns=["viewer_id", "id"], partitioning=None)
                known[file] = set(zip(columns["viewer_id"].to_pylist(), columns["id"].to_pylist(), strict=True))
            found |= known[file]
        except FileNotFoundError:
            continue  # compacted meanwhile
        except (OSError, ValueError):
            half += 1
    return found, half
