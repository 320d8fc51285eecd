"""Dead letters: messages that cannot be read leave the way, with cause and place, and nothing after them is lost.

A letter is written before the batch is committed, so after a crash it may be written again: it names the place of the
message in its log, and `read_letters` lists each message once.

That a letter's message was sent again (`revive`) is noted beside it, under the same key in the same topic: so the note
leaves with an erasure, and not before the letter (`sent_again`).
"""

from __future__ import annotations

import hashlib
import time
from base64 import b64decode, b64encode
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Annotated

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from features.events.decode import decode, encode
from features.events.partial_parse import viewer_of
from features.events.schema import LATEST, clock_skew_reason
from features.events.stream.port import Message, Record, Retention, Stream
from recsys.domain.errors import EventError

MAX_PAYLOAD_BYTES = 1 << 17  # so that hundreds of letters in a row fit into memory; what is longer is still in the log
RECOUNT_EVERY_S = 3600.0
_PAGE = 100
_NOTE = b'{"replayed":'  # how a note begins, and no letter


class DeadLetter(msgspec.Struct, frozen=True):
    """One unreadable message."""

    cause: str
    topic: str
    partition: int
    offset: int
    key: str
    size: int
    sha256: str
    raw: str  # base64 of the first KEPT_BYTES

    @property
    def location(self) -> str:
        """`topic/partition@offset`, the letter's name."""
        return f"{self.topic}/{self.partition}@{self.offset}"

    @property
    def value(self) -> bytes:
        """The message's bytes, as far as they were kept."""
        return b64decode(self.raw)

    @property
    def is_future_dated(self) -> bool:
        """Whether only its client's clock is against it."""
        with suppress(EventError):
            return bool(clock_skew_reason(decode(self.value, future=True)))
        return False

    @property
    def replay_key(self) -> bytes:
        """Sixteen bytes that stand for this message; a log that began anew gives its places out again."""
        return _replay_key(self.location, self.sha256)


class ReplayNote(msgspec.Struct, frozen=True):
    """Written beside a letter when its message was sent again."""

    replayed: str  # the letter's place
    sha256: str  # of the message
    at: Annotated[float, Meta(ge=0, le=LATEST)]  # unix seconds


def _replay_key(place: str, sha256: str) -> bytes:
    return hashlib.blake2b(f"{place} {sha256}".encode(), digest_size=16).digest()


def dead_topic(topic: str) -> str:
    """Where the dead letters of a topic go."""
    return f"{topic}.dead"


def to_dead_letter(message: Message, cause: str) -> DeadLetter:
    """The dead letter of a message."""
    value = message.value
    return DeadLetter(
        cause=cause,
        topic=message.topic,
        partition=message.partition,
        offset=message.offset,
        key=message.key,
        size=len(value),
        sha256=hashlib.sha256(value).hexdigest(),
        raw=b64encode(value[:MAX_PAYLOAD_BYTES]).decode(),
    )


def as_record(one: DeadLetter) -> Record:
    """Ready to be published, under the viewer it speaks of."""
    return Record(viewer_of_letter(one), msgspec.json.encode(one))


def viewer_of_letter(one: DeadLetter) -> str:
    """The viewer that the message's bytes name, however broken they are; its key where they name none."""
    return viewer_of(one.value) or one.key


def delete_letters(stream: Stream, retention: Retention, topic: str, viewer_id: str, groups: Sequence[str]) -> int:
    """Take away the letters of a viewer, under whatever key they stand, and the messages they tell of that name the
    viewer under another's key; how many of those messages a group still needs. Raises Unavailable.

    retention  of this stream
    """
    letters = [one for one in read_dead_letters(stream, topic) if _is_about(one, viewer_id)]

    def of_viewer(value: bytes) -> bool:
        return _is_about(_decode_letter(Message(dead_topic(topic), 0, 0, "", value)), viewer_id)

    retention.delete_key(dead_topic(topic), viewer_id)
    for key in sorted({key for one in letters for key in (one.key, viewer_of_letter(one))} - {viewer_id}):
        retention.delete_key(dead_topic(topic), key, about=of_viewer)
    others = sorted({one.key for one in letters} - {viewer_id})
    return sum(retention.delete_key(topic, key, groups, lambda value: viewer_of(value) == viewer_id) for key in others)


def _is_about(one: DeadLetter, viewer_id: str) -> bool:
    return viewer_id in (one.key, viewer_of_letter(one))


def read_dead_letters(stream: Stream, topic: str, ends: Mapping[int, int] | None = None) -> Iterator[DeadLetter]:
    """The dead letters of a topic, each message once, a page in memory at a time. Raises Unavailable.

    ends  partition -> the offset after the last letter wanted (`letter_ends`); None for all, also those that come
          while the others are read
    """
    dead, listed = dead_topic(topic), set[bytes]()  # sixteen bytes for each
    for partition in range(stream.partitions(dead)):
        for page in _pages(stream, dead, partition, 0):
            for message in page:
                if ends is not None and message.offset >= ends.get(partition, 0):
                    break
                if decode_replay_note(message.value) is not None:
                    continue
                found = _decode_letter(message)
                if (mark := found.replay_key) not in listed:
                    listed.add(mark)
                    yield found


def _decode_letter(message: Message) -> DeadLetter:
    try:
        return msgspec.json.decode(message.value, type=DeadLetter)
    except ValueError as error:  # somebody else writes here
        return to_dead_letter(message, f"no dead letter: {error}")


def replayed_at(stream: Stream, topic: str) -> dict[bytes, float]:
    """Letters whose message was sent again: `DeadLetter.mark` -> when, at last, in unix seconds. Raises Unavailable."""
    dead, times = dead_topic(topic), dict[bytes, float]()
    for partition in range(stream.partitions(dead)):
        for page in _pages(stream, dead, partition, 0):
            for note in (decode_replay_note(message.value) for message in page):
                if note is not None:
                    mark = _replay_key(note.replayed, note.sha256)
                    times[mark] = max(note.at, times.get(mark, note.at))
    return times


def decode_replay_note(value: bytes) -> ReplayNote | None:
    """The note in these bytes; None when they are a letter, or whatever others write."""
    if value.startswith(_NOTE):
        with suppress(ValueError):
            return msgspec.json.decode(value, type=ReplayNote)
    return None


def dead_letter_ends(stream: Stream, topic: str) -> dict[int, int]:
    """Where the dead letters of a topic end by now: partition -> the offset after the last one. Raises Unavailable."""
    dead, ends = dead_topic(topic), dict[int, int]()
    for partition in range(stream.partitions(dead)):
        for page in _pages(stream, dead, partition, 0):
            ends[partition] = page[-1].offset + 1
    return ends


def _pages(stream: Stream, topic: str, partition: int, offset: int) -> Iterator[list[Message]]:
    while page := stream.read(topic, partition, offset, _PAGE):
        yield page
        if len(page) < _PAGE:  # its end: a broker would be waited for once more, to say that nothing came
            return
        offset = page[-1].offset + 1


class DeadLetterCounter:
    """How many dead letters a topic has, looked at again and again. One written twice, after a crash, counts twice.

    Of those that are known only the oldest are seen to leave; all are counted anew once an hour, and then those of an
    erased viewer are missing too.
    """

    def __init__(self, stream: Stream, topic: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._dead, self._clock = stream, dead_topic(topic), clock
        self._anew_at = float("-inf")
        self._there: dict[int, list[int]] = {}  # offsets by partition
        self._next: dict[int, int] = {}

    def refresh(self) -> int:
        """As many as there are now. Raises Unavailable."""
        if self._clock() >= self._anew_at:
            self._there, self._next, self._anew_at = {}, {}, self._clock() + RECOUNT_EVERY_S
        for partition in range(self._stream.partitions(self._dead)):
            there = self._there.setdefault(partition, [])
            for page in _pages(self._stream, self._dead, partition, self._next.get(partition, 0)):
                there += [message.offset for message in page if decode_replay_note(message.value) is None]
                self._next[partition] = page[-1].offset + 1
            if there:
                del there[: bisect_left(there, self._stream.oldest(self._dead, partition))]
        return sum(map(len, self._there.values()))


def replay(
    stream: Stream, one: DeadLetter, without_client_time: bool = False, clock: Callable[[], float] = time.time
) -> None:
    """Send the message again under its viewer's key, and note that it was, at unix second `clock()`. Raises EventError
    when it is still unreadable, Unavailable; then it may have been sent without a note.

    Doing it twice counts once, as far as the viewer's state remembers the event's id. `without_client_time`: what a
    client's clock said is left out, so that events from the future are taken, at the time when they came.
    """
    value = _payload_of(stream, one)
    if without_client_time:
        value = encode(replace(decode(value, future=True), client_at=None))
    stream.publish(one.topic, [Record(decode(value).viewer_id, value)])
    note = ReplayNote(one.location, one.sha256, clock())
    stream.publish(dead_topic(one.topic), [Record(viewer_of_letter(one), msgspec.json.encode(note))])


def _payload_of(stream: Stream, one: DeadLetter) -> bytes:
    """All bytes of the message; from its log when the letter kept a part. Raises EventError when it is gone."""
    value = one.value
    if one.size > len(value):
        value = next((m.value for m in stream.read(one.topic, one.partition, one.offset, 1)), b"")
    if hashlib.sha256(value).hexdigest() != one.sha256:
        raise EventError(f"only {len(one.value):,} of {one.size:,} bytes were kept, and the log has it no more")
    return value
