"""Fold the stream into online state and event log, exactly once in effect: at-least-once delivery, idempotent fold.

The order of the stages of a step gives this guarantee. After a crash between two of them, the next step repeats work:

1. Publish unreadable messages as dead letters.
2. Write item states and the counts of exposure targets, decided from the viewer states as they were before the batch
   (`features.state.fold`).
3. Write viewer states, which from now on contain the batch.
4. Append to the event log, whose files are named by offsets. If stage 2 meets a damaged state of an item or target,
   this comes first: the state is refolded from the log, which must not lack events that viewers' states already contain
   (`features.worker.repair`).
5. Commit. Only from now on are these messages not delivered again.

A partition has one owner in the consumer group, and all events of a viewer are in one partition, so each state has one
writer. A worker that was suspended during a rebalance has not yet noticed that it lost its partitions. Therefore states
are never written blindly: compare-and-set refuses a write based on an outdated state
(`features.state.online.compare_and_set`). The worker then folds again from the current state, which already contains
its events, and the stream refuses its commit. During a rebuild of the store workers wait
(`features.worker.rebuild_fence`).
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
from features.history.erasures import viewer_hash
from features.history.event_log import EventLog
from features.history.log_epochs import LogEpoch, epoch_partition
from features.state.codec import encode_item, encode_viewer, item_at, item_key, viewer_at, viewer_key
from features.state.exposure_counts import fold_exposure
from features.state.fold import FOREVER, fold_item
from features.state.online.compare_and_set import update
from features.state.online.port import OnlineStore
from features.state.quarantine import discard
from features.state.viewer_fold import ViewerFold
from features.state.votes import LoggedEvent, WeightedEvent, items_of
from features.worker.rebuild_fence import RebuildFence
from features.worker.repair import RepairBatch, StateRepairer
from recsys.domain.errors import EventError, Unavailable
from recsys.domain.item_statistics import ItemState
from recsys.domain.viewer import ViewerState

BATCH = 20_000
"""Default maximum number of messages in a step."""

FIRST_BATCH, MIN_BATCH = 2_000, 200
STEP_S = 1.0
"""A step that took longer is followed by a smaller one, so that events take effect soon on slow machines too."""

POLL_S = 0.2
TTL_SLACK_S = 1.0
"""The store drops an idle viewer or item this much after `recsys.domain.viewer.is_expired` does, never before."""

RETRY_FIRST_S, RETRY_MAX_S = 0.5, 15.0

logger = logging.getLogger(__name__)
S = TypeVar("S")


class Worker:
    """A member of the consumer group that folds a topic."""

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
        """Create a worker; its first step joins the group.

        viewer_ttl_s, item_ttl_s  idle time after which viewers and items are dropped from the store; None for never
        batch                     maximum number of messages in a step; the actual number follows the duration of steps
        clock                     monotonic seconds

        `n_dead_letters` counts the messages that could not be read.
        """
        self.n_dead_letters = 0
        self._stream, self._online, self._log = stream, online, log
        self._topic, self._group = topic, group
        self._viewer_ttl_s, self._max_batch = viewer_ttl_s, batch
        self._batch_size, self._clock = min(batch, FIRST_BATCH), clock
        self._viewer_store_ttl_s = None if viewer_ttl_s is None else viewer_ttl_s + TTL_SLACK_S
        self._item_ttl_s = item_ttl_s
        self._item_store_ttl_s = None if item_ttl_s is None else item_ttl_s + TTL_SLACK_S
        self._fence: RebuildFence | None = None  # set during a step; a worker that rebuilds the store has none
        self._repairer = StateRepairer(online, log, self._fold_into)
        self._consumer: Consumer | None = None
        self._identity = self._epoch = ""  # identity and epoch name of the log that was joined

    def step(self, wait_s: float = POLL_S) -> int:
        """Process one batch completely and return its number of messages, 0 if none arrived within `wait_s`.

        Raises Unavailable when a store or the stream does not answer. Nothing is committed then, and the worker must
        be closed so that the batch is delivered again. Raises NewerState for a state of a newer version.
        """
        consumer = self.join()
        started_at = self._clock()  # includes the poll: large messages take time to read and verify
        messages = consumer.poll(self._batch_size, wait_s)
        if messages:
            if self._stream.identity(self._topic) != self._identity:  # after the poll: the messages are of that log
                raise Unavailable(f"topic {self._topic} was recreated; the worker rejoins its group on the new topic")
            with paused_gc():
                self._process(consumer, messages)
            took_s = self._clock() - started_at
            self._batch_size = next_batch_size(self._batch_size, self._max_batch, len(messages), took_s)
        return len(messages)

    def run(
        self,
        stop: Event,
        until_idle_s: float | None = None,
        ready: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> int:
        """Step until `stop` is set or no message has arrived for `until_idle_s`; return the number of messages.

        `ready` is called once, when the worker first polls. Unavailable services are retried with growing delays.
        """
        total, retry_s, busy_at, polling = 0, RETRY_FIRST_S, clock(), False
        while not stop.is_set():
            try:
                self.join()
                if not polling:
                    polling = True
                    ready()
                count = self.step()
            except Unavailable as error:
                logger.warning("worker step failed: %s; retrying in %.1f s", error, retry_s)
                self.close()
                stop.wait(retry_s)
                retry_s, busy_at = min(2 * retry_s, RETRY_MAX_S), clock()
                continue
            retry_s = RETRY_FIRST_S
            if count:
                total, busy_at = total + count, clock()
            elif until_idle_s is not None and clock() - busy_at >= until_idle_s:
                break
        return total

    def join(self) -> Consumer:
        """Join the group, unless already joined, and return the consumer. Raises Unavailable, Conflict."""
        if self._consumer is None:
            self._identity = self._stream.identity(self._topic)  # before joining: no message is of an older log
            self._epoch = self._epoch_name(self._identity)
            self._consumer = self._stream.consumer(self._topic, self._group)
        return self._consumer

    def close(self) -> None:
        """Leave the group; the next step joins again and continues after the last commit."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.close()

    def log_name(self) -> str:
        """Return the epoch name of the topic's current log. Raises Unavailable, Conflict."""
        return self._epoch_name(self._stream.identity(self._topic))

    def _epoch_name(self, identity: str) -> str:
        epoch = LogEpoch(identity, self._stream.partitions(self._topic))
        return self._log.epochs.name(self._online, self._topic, epoch)

    def _process(self, consumer: Consumer, messages: Sequence[Message]) -> None:
        self._fence = RebuildFence(self._online)
        decoded, dead_letters = decode_messages(messages, self._epoch)
        dead_letters = [dead_letter for dead_letter in dead_letters if not self._is_erased(dead_letter)]
        if dead_letters:
            self._stream.publish(dead_topic(self._topic), [as_record(dead_letter) for dead_letter in dead_letters])
            self._log_dead_letters(dead_letters)
        erased = self._log.erasures.all()
        events = self._log.erasures.without_erased(decoded)
        first = {source: span[0] for source, span in self._spans(messages).items()}
        last = {logged.source: logged.offset for logged in events}
        self._repairer.begin(RepairBatch(first, last, lambda: self._append(messages, events)))
        if len(events) < len(decoded):
            self._delete_erased_states(decoded, erased)
        self._fold(events)
        self._check_erasures(events, erased)
        self._append(messages, events)
        self._fence.check()
        consumer.commit(_last_offsets(messages))

    def refold(self, events: Sequence[LoggedEvent]) -> None:
        """Fold events, in offset order per source, into the online store only: for a store that was wiped.

        Raises Unavailable.
        """
        with paused_gc():
            self._fold(events)

    def _fold_into(self, store: OnlineStore) -> Callable[[Sequence[LoggedEvent]], None]:
        """Return the same fold into another store."""
        return Worker(
            self._stream,
            store,
            self._log,
            topic=self._topic,
            group=self._group,
            viewer_ttl_s=self._viewer_ttl_s,
            item_ttl_s=self._item_ttl_s,
        ).refold

    def _delete_erased_states(self, events: Iterable[LoggedEvent], erased: Mapping[str, float]) -> None:
        """Delete states of erased viewers, and their quarantine, that a crashed worker wrote unaware of the erasure."""
        viewers = {logged.event.viewer_id for logged in events}
        erased_at = {
            viewer_key(viewer): at for viewer in viewers if (at := erased.get(viewer_hash(viewer))) is not None
        }
        values = zip(erased_at, self._online.get(list(erased_at)), strict=True)
        states = self._read({key: raw for key, raw in values if raw is not None}, viewer_at)
        self._online.delete([key for key, state in states.items() if state is None or state.at <= erased_at[key]])
        discard(self._online, list(erased_at))

    def _check_erasures(self, events: Iterable[LoggedEvent], erased: Mapping[str, float]) -> None:
        """Delete the states of viewers who were erased since `erased` was read; raise Unavailable if there are any."""
        now = self._log.erasures.all()
        if now is erased or now == erased:
            return
        viewers = {logged.event.viewer_id for logged in events}
        keys = [
            viewer_key(viewer) for viewer in viewers if now.get(viewer_hash(viewer)) != erased.get(viewer_hash(viewer))
        ]
        if keys:
            self._online.delete(keys)
            discard(self._online, keys)
            raise Unavailable("a viewer was erased during this step; the batch will be processed again")

    def _is_erased(self, dead_letter: DeadLetter) -> bool:
        """Return whether the dead letter belongs to a viewer who was erased after the server received it."""
        at = self._log.erasures.erased_at(viewer_of_dead_letter(dead_letter))
        return at >= 0 and received_at(dead_letter.value) <= at

    def _log_dead_letters(self, dead_letters: Sequence[DeadLetter]) -> None:
        """Count the dead letters and log one line for the batch."""
        self.n_dead_letters += len(dead_letters)
        logger.warning(
            "%d unreadable message(s) written to %s; first %s: %s. To list them: mainstay dlq list",
            len(dead_letters),
            dead_topic(self._topic),
            dead_letters[0].location,
            dead_letters[0].cause,
        )

    def _fold(self, events: Sequence[LoggedEvent]) -> None:
        """Read the states that the events concern, fold in log order, and write items before viewers."""
        ids = list(dict.fromkeys(logged.event.viewer_id for logged in events))
        keys = [viewer_key(viewer_id) for viewer_id in ids]
        values = dict(zip(keys, self._online.get(keys), strict=True))
        states = self._read(values, viewer_at)
        self._repairer.register(states.values())
        folds = {viewer_id: self._viewer_fold(viewer_id, states[key]) for viewer_id, key in zip(ids, keys, strict=True)}
        weighted = [folds[logged.event.viewer_id].apply(logged) for logged in events]
        counted = [event for event in weighted if event is not None]
        self._fold_items(counted)
        fold_exposure(self._online, counted, self._read)
        swaps = {key: (values[key], encode_viewer(folds[i].finalize())) for i, key in zip(ids, keys, strict=True)}
        if self._fence is not None:  # otherwise viewers could record events that a rebuild removed from their items
            self._fence.check()
        if refused := self._online.compare_and_set(swaps, self._viewer_store_ttl_s):
            self._refold_viewers(refused, events)

    def _read(self, values: Mapping[str, bytes | None], decode: Callable[[str, bytes], S]) -> Mapping[str, S | None]:
        """Decode values that were just read and repair damaged ones.

        Raises Unavailable if a rebuild has begun since the step did.
        """
        if self._fence is not None:
            self._fence.check()
        return self._repairer.read(values, decode)

    def _refold_viewers(self, keys: Sequence[str], events: Sequence[LoggedEvent]) -> None:
        """Refold viewers whose states another writer has changed since they were read.

        The votes need not be computed again: the same events in the same order give the same votes
        from an older state too.
        """
        by_key: dict[str, list[LoggedEvent]] = {}
        for logged in events:
            by_key.setdefault(viewer_key(logged.event.viewer_id), []).append(logged)

        def folded(key: str, state: ViewerState | None) -> bytes:
            fold = self._viewer_fold(by_key[key][0].event.viewer_id, state)
            for logged in by_key[key]:
                fold.apply(logged)
            return encode_viewer(fold.finalize())

        update(self._online, keys, viewer_at, folded, self._viewer_store_ttl_s, self._read)

    def _viewer_fold(self, viewer_id: str, state: ViewerState | None) -> ViewerFold:
        """Return a fold that continues from this state."""
        ttl_s = FOREVER if self._viewer_ttl_s is None else self._viewer_ttl_s
        return ViewerFold.of(state or ViewerState(viewer_id), ttl_s)

    def _fold_items(self, counted: Sequence[WeightedEvent]) -> None:
        shards: dict[str, list[WeightedEvent]] = {}
        names: dict[str, str] = {}
        for weighted in counted:
            for item_id in items_of(weighted.event):
                key = item_key(item_id, weighted.source)
                names[key] = item_id
                shards.setdefault(key, []).append(weighted)

        ttl_s = FOREVER if self._item_ttl_s is None else self._item_ttl_s

        def folded(key: str, state: ItemState | None) -> bytes:
            return encode_item(fold_item(state or ItemState(names[key]), shards[key], ttl_s))

        update(self._online, list(shards), item_at, folded, self._item_store_ttl_s, self._read)

    def _append(self, messages: Sequence[Message], events: Sequence[LoggedEvent]) -> None:
        """Append the events to the event log, duplicates included: readers of the log skip them."""
        by_source: dict[str, list[LoggedEvent]] = defaultdict(list)
        for logged in events:
            by_source[logged.source].append(logged)
        for source, (first, last) in self._spans(messages).items():
            self._log.append(source, first, last, by_source.get(source, []))

    def _spans(self, messages: Sequence[Message]) -> dict[str, tuple[int, int]]:
        """Return the first and the last offset of each source."""
        spans: dict[str, tuple[int, int]] = {}  # all messages of a step are of one topic
        for partition, last in _last_offsets(messages).items():
            first = next(message.offset for message in messages if message.partition == partition)
            spans[epoch_partition(self._epoch, partition)] = first, last
        return spans


def next_batch_size(requested: int, maximum: int, count: int, took_s: float) -> int:
    """Return how many messages to request after a step that requested `requested` and got `count` in `took_s`.

    The result is what fits into STEP_S, at most `maximum`.

    >>> next_batch_size(2_000, 20_000, 2_000, 0.1)
    4000
    >>> next_batch_size(20_000, 20_000, 20_000, 4.0)
    5000
    >>> next_batch_size(5_000, 20_000, 300, 0.5)
    5000
    """
    fits = round(count * STEP_S / max(took_s, 1e-9))
    if took_s > STEP_S:
        return max(min(MIN_BATCH, maximum), min(requested, fits))
    return min(maximum, 2 * requested, max(requested, fits))


def decode_messages(messages: Iterable[Message], log: str) -> tuple[list[LoggedEvent], list[DeadLetter]]:
    """Decode messages of the log with this name.

    Returns the events with their source and offset, and a dead letter for each message that could not be read.
    """
    events, dead_letters = [], []
    for message in messages:
        try:
            if message.damaged:
                raise EventError("the stored message is damaged: its checksum does not match")
            event = decode(message.value)
            if event.viewer_id != message.key:  # otherwise two workers would write one viewer's state
                raise EventError(f"the message key is {ascii(message.key)[:60]}, but the viewer is {event.viewer_id}")
            events.append(LoggedEvent(epoch_partition(log, message.partition), message.offset, event))
        except EventError as error:
            dead_letters.append(to_dead_letter(message, str(error)))
    return events, dead_letters


def _last_offsets(messages: Iterable[Message]) -> dict[int, int]:
    return {message.partition: message.offset for message in messages}  # a later message replaces an earlier one
