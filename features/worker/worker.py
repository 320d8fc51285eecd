"""From the stream into online state and event log. At-least-once delivery, an idempotent fold: exactly once in effect.

The order within a step carries the guarantee, and a crash between any two of them only makes the next step repeat work:

1. dead letters for what cannot be read;
2. item states and the counts of exposure targets, decided from the viewer states as they were (`features.state.fold`);
3. viewer states, which from now on know these events;
4. the event log, whose files are named by offsets (before 2. when a damaged state of an item or target is met there:
   it is made again from the log, and must not lack what viewers know already: `features.worker.repair`);
5. the commit: only now will the stream not deliver these messages again.

One worker owns a partition at a time, and all events of a viewer are in one partition: a state has one writer. A
worker that slept through the loss of its partitions does not know that yet; so states are swapped for the ones they
were folded from, never written blindly, and the sleeper's are refused (`features.state.online.compare_and_set`). It then folds again
from what stands there, which already holds its events, and its commit is refused by the log. While the store is made
anew a worker waits (`features.worker.rebuild_fence`).
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from threading import Event
from typing import TypeVar

from features.events.dead_letters import DeadLetter, as_record, dead_topic, to_dead_letter, viewer_of_dead_letter
from features.events.decode import decode
from features.events.partial_parse import received_at
from features.events.stream.port import Consumer, Message, Stream
from features.gc_pause import paused_gc
from features.history.erasures import hashed
from features.history.event_log import EventLog
from features.history.log_epochs import LogEpoch, epoch_partition
from features.state.codec import encode_item, encode_viewer, item_at, item_key, viewer_at, viewer_key
from features.state.exposure_counts import fold_exposure
from features.state.fold import FOREVER, LoggedEvent, ViewerFold, WeightedEvent, fold_item, items_of
from features.state.online.compare_and_set import update
from features.state.online.port import OnlineStore
from features.state.quarantine import discard
from features.worker.rebuild_fence import RebuildFence
from features.worker.repair import RepairBatch, StateRepairer
from recsys.domain.errors import EventError, Unavailable
from recsys.domain.viewer import ItemState, ViewerState

BATCH = 20_000  # at most: an idle worker takes what there is at once, one that is behind takes long strides
FIRST_BATCH, LEAST_BATCH = 2_000, 200
STEP_S = 1.0  # a step that took longer is followed by a smaller one: on a slow machine, too, something is seen soon
POLL_S = 0.2
TTL_SLACK_S = (
    1.0  # the store lets go of a viewer or an item just after `recsys.domain.viewer.forgotten` does, never before
)
RETRY_FIRST_S, RETRY_MAX_S = 0.5, 15.0

logger = logging.getLogger(__name__)
S = TypeVar("S")


class Worker:
    """One member of the group that folds a topic."""

    def __init__(
        self,
        stream: Stream,
        online: OnlineStore,
        log: EventLog,
        *,
        topic: str,
        group: str,
        viewer_ttl_s: float | None = None,
        item_ttl_s: float | None = None,
        batch: int = BATCH,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`viewer_ttl_s`, `item_ttl_s`: idle viewers and items are forgotten after this long. The first step joins the
        group.

        batch  messages in a step at most; how many are asked for follows how long steps take by `clock`

        `dead` counts the messages that could not be read.
        """
        self.dead = 0
        self._stream, self._online, self._log = stream, online, log
        self._topic, self._group = topic, group
        self._viewer_ttl_s, self._batch = viewer_ttl_s, batch
        self._stride, self._clock = min(batch, FIRST_BATCH), clock
        self._kept_s = None if viewer_ttl_s is None else viewer_ttl_s + TTL_SLACK_S
        self._item_ttl_s = item_ttl_s
        self._item_kept_s = None if item_ttl_s is None else item_ttl_s + TTL_SLACK_S
        self._undisturbed: RebuildFence | None = None  # of a step; whoever makes the store anew has none
        self._mender = StateRepairer(online, log, self._fold_into)
        self._consumer: Consumer | None = None
        self._identity = self._name = ""  # of the log that was joined

    def step(self, wait_s: float = POLL_S) -> int:
        """Take one batch all the way; returns how many messages it had, 0 when none came within `wait_s`.

        Raises Unavailable when a store or the stream does not answer: nothing is committed then, and the worker must
        be `close`d to be delivered the batch again. Raises NewerState for a state of a newer engine.
        """
        consumer = self.join()
        began = self._clock()  # reading counts: some messages are large, and clients may check their sums slowly
        messages = consumer.poll(self._stride, wait_s)
        if messages:
            if self._stream.identity(self._topic) != self._identity:  # asked afterwards: these are of the log joined
                raise Unavailable(f"topic {self._topic} was made anew: joining the new one")
            with paused_gc():
                self._process(consumer, messages)
            self._stride = next_batch_size(self._stride, self._batch, len(messages), self._clock() - began)
        return len(messages)

    def run(
        self,
        stop: Event,
        until_idle_s: float | None = None,
        ready: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> int:
        """Step until `stop` is set, or until no message came for `until_idle_s`; returns how many were taken.

        `ready` is called once, when the worker first polls. What does not answer is tried again, later each time.
        """
        taken, retry_s, busy_at, polling = 0, RETRY_FIRST_S, clock(), False
        while not stop.is_set():
            try:
                self.join()
                if not polling:
                    polling = True
                    ready()
                count = self.step()
            except Unavailable as error:
                logger.warning("%s; trying again in %.1f s", error, retry_s)
                self.close()
                stop.wait(retry_s)
                retry_s, busy_at = min(2 * retry_s, RETRY_MAX_S), clock()
                continue
            retry_s = RETRY_FIRST_S
            if count:
                taken, busy_at = taken + count, clock()
            elif until_idle_s is not None and clock() - busy_at >= until_idle_s:
                break
        return taken

    def join(self) -> Consumer:
        """Join the group unless it is joined. Raises Unavailable, Conflict."""
        if self._consumer is None:
            self._identity = self._stream.identity(self._topic)  # before: what is polled is not of an older log
            self._name = self._named(self._identity)
            self._consumer = self._stream.consumer(self._topic, self._group)
        return self._consumer

    def close(self) -> None:
        """Leave the group; a next step would join it again and continue after the last commit."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.close()

    def log_name(self) -> str:
        """What the log that stands under the topic's name by now is called. Raises Unavailable, Conflict."""
        return self._named(self._stream.identity(self._topic))

    def _named(self, identity: str) -> str:
        life = LogEpoch(identity, self._stream.partitions(self._topic))
        return self._log.lives.name(self._online, self._topic, life)

    def _process(self, consumer: Consumer, messages: Sequence[Message]) -> None:
        self._undisturbed = RebuildFence(self._online)
        placed, dead = read(messages, self._name)
        dead = [one for one in dead if not self._is_erased(one)]
        if dead:
            self._stream.publish(dead_topic(self._topic), [as_record(one) for one in dead])
            self._report(dead)
        erased = self._log.erased.all()
        living = self._log.erased.without_erased(placed)
        first = {source: span[0] for source, span in self._spans(messages).items()}
        last = {one.source: one.offset for one in living}
        self._mender.begin(RepairBatch(first, last, lambda: self._append(messages, living)))
        if len(living) < len(placed):
            self._store_dead_letters(placed, erased)
        placed = living
        self._fold(placed)
        self._delete_erased(placed, erased)
        self._append(messages, placed)
        self._undisturbed.check()
        consumer.commit(_last_offsets(messages))

    def refold(self, placed: Sequence[LoggedEvent]) -> None:
        """Fold events, in offset order per source, into the online store alone: for a store that was wiped.

        Raises Unavailable.
        """
        with paused_gc():
            self._fold(placed)

    def _fold_into(self, into: OnlineStore) -> Callable[[Sequence[LoggedEvent]], None]:
        """The same fold into another store."""
        return Worker(
            self._stream,
            into,
            self._log,
            topic=self._topic,
            group=self._group,
            viewer_ttl_s=self._viewer_ttl_s,
            item_ttl_s=self._item_ttl_s,
        ).refold

    def _store_dead_letters(self, placed: Iterable[LoggedEvent], erased: Mapping[str, float]) -> None:
        """States of erased viewers that a worker wrote which died before it knew, and damaged ones it set aside."""
        viewers = {one.event.viewer_id for one in placed}
        upto = {viewer_key(viewer): at for viewer in viewers if (at := erased.get(hashed(viewer))) is not None}
        found = {key: raw for key, raw in zip(upto, self._online.get(list(upto)), strict=True) if raw is not None}
        states = self._read(found, viewer_at)
        self._online.delete([key for key, state in states.items() if state is None or state.at <= upto[key]])
        discard(self._online, list(upto))

    def _delete_erased(self, placed: Iterable[LoggedEvent], erased: Mapping[str, float]) -> None:
        """Take away the states of viewers who were erased since `erased` was read, and try again without them."""
        now = self._log.erased.all()
        if now is erased or now == erased:
            return
        viewers = {one.event.viewer_id for one in placed}
        gone = [viewer for viewer in viewers if now.get(hashed(viewer)) != erased.get(hashed(viewer))]
        if gone:
            self._online.delete([viewer_key(viewer) for viewer in gone])
            discard(self._online, [viewer_key(viewer) for viewer in gone])
            raise Unavailable("a viewer was erased meanwhile: the batch is folded again")

    def _is_erased(self, one: DeadLetter) -> bool:
        """Whether this is of a viewer who was erased since the server received it."""
        at = self._log.erased.of(viewer_of_dead_letter(one))
        return at >= 0 and received_at(one.value) <= at

    def _report(self, dead: Sequence[DeadLetter]) -> None:
        """Count them, and say so once for a batch, however many there are."""
        self.dead += len(dead)
        logger.warning(
            "%d unreadable message(s) set aside in %s; the first, %s: %s. See: recsys-worker dlq list",
            len(dead),
            dead_topic(self._topic),
            dead[0].location,
            dead[0].cause,
        )

    def _fold(self, placed: Sequence[LoggedEvent]) -> None:
        """Read the states these events concern, fold in the order of the log, write items first."""
        ids = list(dict.fromkeys(one.event.viewer_id for one in placed))
        keys = [viewer_key(viewer_id) for viewer_id in ids]
        found = dict(zip(keys, self._online.get(keys), strict=True))
        states = self._read(found, viewer_at)
        self._mender.register(states.values())
        viewers = {viewer_id: self._viewer(viewer_id, states[key]) for viewer_id, key in zip(ids, keys, strict=True)}
        counted = [one for one in (viewers[some.event.viewer_id].apply(some) for some in placed) if one is not None]
        self._fold_items(counted)
        fold_exposure(self._online, counted, self._read)
        swaps = {key: (found[key], encode_viewer(viewers[i].finalize())) for i, key in zip(ids, keys, strict=True)}
        if self._undisturbed is not None:  # else viewers might know what their items have lost
            self._undisturbed.check()
        if refused := self._online.compare_and_set(swaps, self._kept_s):
            self._refold(refused, placed)

    def _read(self, found: Mapping[str, bytes | None], decode: Callable[[str, bytes], S]) -> Mapping[str, S | None]:
        """States of what was found just now, damaged ones made again. Raises Unavailable when the store was made anew
        since the step began."""
        if self._undisturbed is not None:
            self._undisturbed.check()
        return self._mender.read(found, decode)

    def _refold(self, keys: Sequence[str], placed: Sequence[LoggedEvent]) -> None:
        """Viewers whose states another writer changed since they were read. What counts for items was decided right:
        from an older state the same events in the same order count the same."""
        theirs: dict[str, list[LoggedEvent]] = {}
        for one in placed:
            theirs.setdefault(viewer_key(one.event.viewer_id), []).append(one)

        def folded(key: str, state: ViewerState | None) -> bytes:
            fold = self._viewer(theirs[key][0].event.viewer_id, state)
            for one in theirs[key]:
                fold.apply(one)
            return encode_viewer(fold.finalize())

        update(self._online, keys, viewer_at, folded, self._kept_s, self._read)

    def _viewer(self, viewer_id: str, state: ViewerState | None) -> ViewerFold:
        """A fold that goes on from this state."""
        ttl_s = FOREVER if self._viewer_ttl_s is None else self._viewer_ttl_s
        return ViewerFold.of(state or ViewerState(viewer_id), ttl_s)

    def _fold_items(self, counted: Sequence[WeightedEvent]) -> None:
        shards: dict[str, list[WeightedEvent]] = {}
        names: dict[str, str] = {}
        for one in counted:
            for item_id in items_of(one.event):
                key = item_key(item_id, one.source)
                names[key] = item_id
                shards.setdefault(key, []).append(one)

        ttl_s = FOREVER if self._item_ttl_s is None else self._item_ttl_s

        def folded(key: str, state: ItemState | None) -> bytes:
            return encode_item(fold_item(state or ItemState(names[key]), shards[key], ttl_s))

        update(self._online, list(shards), item_at, folded, self._item_kept_s, self._read)

    def _append(self, messages: Sequence[Message], placed: Sequence[LoggedEvent]) -> None:
        """Into the event log, duplicates too: whoever reads it leaves them out."""
        by_source: dict[str, list[LoggedEvent]] = defaultdict(list)
        for one in placed:
            by_source[one.source].append(one)
        for source, (first, last) in self._spans(messages).items():
            self._log.append(source, first, last, by_source.get(source, []))

    def _spans(self, messages: Sequence[Message]) -> dict[str, tuple[int, int]]:
        """The first and the last offset of each source."""
        spans: dict[str, tuple[int, int]] = {}  # of one topic: a step takes from no other
        for partition, last in _last_offsets(messages).items():
            first = next(message.offset for message in messages if message.partition == partition)
            spans[epoch_partition(self._name, partition)] = first, last
        return spans


def next_batch_size(asked: int, most: int, count: int, took_s: float) -> int:
    """How many messages to ask for after a step that asked for `asked` and got `count`: what fits into STEP_S.

    >>> stride(2_000, 20_000, 2_000, 0.1), stride(20_000, 20_000, 20_000, 4.0), stride(5_000, 20_000, 300, 0.5)
    (4000, 5000, 5000)
    """
    fits = round(count * STEP_S / max(took_s, 1e-9))
    if took_s > STEP_S:
        return max(min(LEAST_BATCH, most), min(asked, fits))
    return min(most, 2 * asked, max(asked, fits))


def read(messages: Iterable[Message], log: str) -> tuple[list[LoggedEvent], list[DeadLetter]]:
    """Events with their place in the log of this name, and dead letters for the messages that are none."""
    placed, dead = [], []
    for message in messages:
        try:
            event = decode(message.value)
            if event.viewer_id != message.key:  # two workers would write one viewer's state
                raise EventError(f"keyed by {ascii(message.key)[:60]}, not by its viewer {event.viewer_id}")
            placed.append(LoggedEvent(epoch_partition(log, message.partition), message.offset, event))
        except EventError as error:
            dead.append(to_dead_letter(message, str(error)))
    return placed, dead


def _last_offsets(messages: Iterable[Message]) -> dict[int, int]:
    return {message.partition: message.offset for message in messages}  # the last of each partition stays
