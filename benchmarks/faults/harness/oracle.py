"""Computes what the stores must hold from the accepted messages alone, in two independent ways.

*Replay* folds each viewer's whole history with the pure fold, without stores, batches or a worker. The dump of the
online store must be equal byte for byte. *Ledger* keeps plain sums without any code of the engine (`json`, a set of
ids, additions in log order), so that it also finds errors of the fold itself.
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
    fold_count,
    fold_traffic,
    target_credits,
    traffic_key,
)
from features.state.fold import deduplicate_and_fold, fold_item
from features.state.keys import COUNTS, TRAFFIC, VIEWERS
from features.state.votes import LoggedEvent, WeightedEvent, items_of
from recsys.domain.errors import EventError
from recsys.domain.item_statistics import ItemState
from recsys.domain.viewer import ViewerState

VIEWER_TTL_S = 86_400.0 * Settings().viewer_ttl_days


@dataclass
class Oracle:
    """The expected online store, by replay. Takes every accepted message, in offset order per partition."""

    dead: set[tuple[int, int]] = field(default_factory=set)  # (partition, offset) of unreadable messages
    rejected_kind: str = ""  # event kind unknown to the release that runs now; its events become dead letters
    events: dict[str, list[LoggedEvent]] = field(default_factory=lambda: defaultdict(list))
    _counted: dict[str, list[WeightedEvent]] = field(default_factory=dict)
    _by_shard: dict[tuple[Any, ...], list[WeightedEvent]] = field(default_factory=lambda: defaultdict(list))
    _dump: dict[str, bytes] = field(default_factory=dict)

    def apply(self, messages: Iterable[Message]) -> Mapping[str, bytes]:
        """Add messages; returns the dump that the store must have now."""
        viewers = set()
        for message in messages:
            try:
                event = decode(message.value)
                if event.viewer_id != message.key or event.kind == self.rejected_kind:
                    raise EventError("keyed by another viewer, or of an unknown kind")
            except EventError:
                self.dead.add((message.partition, message.offset))
                continue
            self.events[event.viewer_id].append(
                LoggedEvent(f"{message.topic}/{message.partition}", message.offset, event)
            )
            viewers.add(event.viewer_id)
        changed = [event for viewer_id in viewers for event in self._fold_viewer(viewer_id)]
        self._fold_items(changed)
        self._fold_exposure(changed)
        return self._dump

    def counted_events(self) -> set[tuple[str, str]]:
        """Return (viewer, event id) of all events that count."""
        return {(e.event.viewer_id, e.event.id) for events in self._counted.values() for e in events}

    def _fold_viewer(self, viewer_id: str) -> list[WeightedEvent]:
        """Fold the viewer's whole history; returns the events that count and did not before."""
        counted, state = deduplicate_and_fold(ViewerState(viewer_id), self.events[viewer_id], VIEWER_TTL_S)
        self._dump[viewer_key(viewer_id)] = encode_viewer(state)
        n_before, self._counted[viewer_id] = len(self._counted.get(viewer_id, ())), counted
        return self._counted[viewer_id][n_before:]

    def _fold_items(self, changed: list[WeightedEvent]) -> None:
        for item_id, source in self._group(changed, lambda e: [(item, e.source) for item in items_of(e.event)]):
            events = self._by_shard[item_id, source]
            self._dump[item_key(item_id, source)] = encode_item(fold_item(ItemState(item_id), events))

    def _fold_exposure(self, changed: list[WeightedEvent]) -> None:
        for at in self._group(changed, lambda e: [("count", key, e.source) for key in target_credits(e.event)]):
            self._dump[count_key(*at[1:])] = encode_state(fold_count(DeliveryCount(at[1]), self._by_shard[at]))
        for at in self._group(changed, _traffic):
            self._dump[traffic_key(*at[1:])] = encode_state(fold_traffic(TrafficDay(*at[1:4]), self._by_shard[at]))

    def _group(
        self, changed: list[WeightedEvent], shards: Callable[[WeightedEvent], Iterable[tuple[Any, ...]]]
    ) -> set[tuple[Any, ...]]:
        """Add events to the shards they concern, sorted by offset; returns these shards."""
        touched: set[tuple[Any, ...]] = set()
        for event in changed:
            for shard in shards(event):
                self._by_shard[shard].append(event)
                touched.add(shard)
        for shard in touched:
            self._by_shard[shard].sort(key=lambda event: event.offset)
        return touched


def _traffic(weighted: WeightedEvent) -> list[tuple[str, str, str, int, str]]:
    event = weighted.event
    if event.kind != "impression" or not event.placement or not event.attention:
        return []
    return [("traffic", event.placement, event.region, int(event.at // 86_400), weighted.source)]


@dataclass
class Ledger:
    """Plain sums over the same messages: events of each viewer by kind, delivery of targets, pages of placements."""

    ids: set[tuple[str, str]] = field(default_factory=set)
    repeats: int = 0
    viewers: dict[str, dict[str, int]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(int)))
    delivered: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    pages: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def apply(self, messages: Iterable[Message], dead: set[tuple[int, int]]) -> None:
        """Add messages, except those at the positions `dead`."""
        for message in messages:
            if (message.partition, message.offset) in dead:
                continue
            envelope = json.loads(message.value)
            viewer, kind, data = envelope["subject"], envelope["type"].rpartition(".")[2], envelope.get("data", {})
            if (viewer, envelope["id"]) in self.ids:
                self.repeats += 1
                continue
            self.ids.add((viewer, envelope["id"]))
            self.viewers[viewer][kind] += 1
            for target, (won, _, _) in data.get("context", {}).get("targets", {}).items():
                self.delivered[target] += won
            if data.get("attention") and data.get("placement"):
                self.pages[data["placement"]] += 1

    def mismatches(self, dump: Mapping[str, bytes]) -> int:
        """Return the number of viewers, targets and placements whose sums differ in the store."""
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
    """Differences between the stores and the oracle, as counts. All are zero if nothing is lost or counted twice."""

    missing: int  # keys that the store lacks
    extra: int  # keys that it should not have
    different: int  # keys with different bytes
    ledger: int  # viewers, targets and placements whose sums differ
    unlogged: int  # events that count, but are not in the event log
    unexpected: int  # events in the event log that were never accepted
    dead_letter_mismatches: int  # unreadable messages without a dead letter, or the reverse
    truncated_files: int  # Parquet files that cannot be read

    @property
    def ok(self) -> bool:
        """Whether there is no difference."""
        return not any(vars(self).values())

    def __str__(self) -> str:
        counts = [f"{count} {name.replace('_', ' ')}" for name, count in vars(self).items() if count]
        return ", ".join(counts) or "equal"


def compare(
    expected: Mapping[str, bytes],
    actual: Mapping[str, bytes],
    *,
    oracle: Oracle,
    ledger: Ledger,
    event_log: Path,
    read_files: dict[Path, set[tuple[str, str]]],
    dead_letters: Iterable[Message],
) -> Verdict:
    """Compare online store, event log and dead letters with the oracle."""
    logged, half = logged_events(event_log, read_files)
    buried = {_position(message) for message in dead_letters}
    return Verdict(
        missing=len(expected.keys() - actual.keys()),
        extra=len(actual.keys() - expected.keys()),
        different=sum(actual[key] != raw for key, raw in expected.items() if key in actual),
        ledger=ledger.mismatches(actual),
        unlogged=len(oracle.counted_events() - logged),
        unexpected=len(logged - ledger.ids),
        dead_letter_mismatches=len(buried ^ oracle.dead),
        truncated_files=half,
    )


def _position(message: Message) -> tuple[int, int]:
    """Return (partition, offset) of the message in a dead letter. Raises if its payload is not valid base64."""
    dead_letter = json.loads(message.value)
    b64decode(dead_letter["raw"], validate=True)
    return dead_letter["partition"], dead_letter["offset"]


def logged_events(event_log: Path, read_files: dict[Path, set[tuple[str, str]]]) -> tuple[set[tuple[str, str]], int]:
    """Return (viewer, id) of all events in the Parquet files that a reader sees, and the number of unreadable files.

    `read_files` caches the events of files between calls.
    """
    logged: set[tuple[str, str]] = set()
    n_truncated = 0
    for file in event_log.rglob("*.parquet"):
        try:
            if file not in read_files:
                columns = pq.read_table(file, columns=["viewer_id", "id"], partitioning=None)
                read_files[file] = set(zip(columns["viewer_id"].to_pylist(), columns["id"].to_pylist(), strict=True))
            logged |= read_files[file]
        except FileNotFoundError:
            continue  # compacted in the meantime
        except (OSError, ValueError):
            n_truncated += 1
    return logged, n_truncated
