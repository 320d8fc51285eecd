"""Dead letters: unreadable messages, moved to the topic `<topic>.dead` so that consumers can continue past them.

A dead letter is written before the batch is committed, so it may be written twice after a crash. It names the
partition and offset of its message, and `read_dead_letters` yields each message once.

`replay` publishes a message again and writes a replay note to the dead-letter topic under the same key. An erasure of
the viewer therefore deletes the note as well, and retention never deletes it before its dead letter (`replayed_at`).
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

MAX_PAYLOAD_BYTES = 1 << 17  # so that a page of dead letters fits into memory; the log still has longer messages
RECOUNT_EVERY_S = 3600.0
_PAGE_SIZE = 100
_NOTE_PREFIX = b'{"replayed":'  # every replay note starts with this, and no dead letter does


class DeadLetter(msgspec.Struct, frozen=True):
    """An unreadable message and the reason why it is unreadable."""

    cause: str
    topic: str
    partition: int
    offset: int
    key: str
    size: int
    sha256: str
    raw: str  # base64 of the first MAX_PAYLOAD_BYTES

    @property
    def location(self) -> str:
        """The address of the message, `topic/partition@offset`."""
        return f"{self.topic}/{self.partition}@{self.offset}"

    @property
    def value(self) -> bytes:
        """The bytes of the message, truncated to MAX_PAYLOAD_BYTES."""
        return b64decode(self.raw)

    @property
    def is_future_dated(self) -> bool:
        """Whether the message is valid except that its client time is too far in the future."""
        with suppress(EventError):
            return bool(clock_skew_reason(decode(self.value, allow_future=True)))
        return False

    @property
    def replay_key(self) -> bytes:
        """A 16-byte key of this message. It includes the content, because a recreated log reuses its offsets."""
        return _replay_key(self.location, self.sha256)


class ReplayNote(msgspec.Struct, frozen=True):
    """A note that the message of a dead letter was published again."""

    replayed: str  # location of the dead letter
    sha256: str  # of the message
    at: Annotated[float, Meta(ge=0, le=LATEST)]  # unix seconds


def _replay_key(location: str, sha256: str) -> bytes:
    return hashlib.blake2b(f"{location} {sha256}".encode(), digest_size=16).digest()


def dead_topic(topic: str) -> str:
    """Return the name of the dead-letter topic of a topic."""
    return f"{topic}.dead"


def to_dead_letter(message: Message, cause: str) -> DeadLetter:
    """Return the dead letter for a message."""
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


def as_record(dead_letter: DeadLetter) -> Record:
    """Encode a dead letter as a stream record, keyed by the viewer whom the message names."""
    return Record(viewer_of_dead_letter(dead_letter), msgspec.json.encode(dead_letter))


def viewer_of_dead_letter(dead_letter: DeadLetter) -> str:
    """Return the viewer named in the message, however broken it is; its key if it names none."""
    return viewer_of(dead_letter.value) or dead_letter.key


def delete_dead_letters(stream: Stream, retention: Retention, topic: str, viewer_id: str, groups: Sequence[str]) -> int:
    """Delete the dead letters of a viewer under any key, and the messages behind them that name the viewer but have
    another key. Return how many of those messages remain because a consumer group still needs them.

    retention  the retention port of `stream`

    Raises Unavailable.
    """
    dead_letters = [letter for letter in read_dead_letters(stream, topic) if _is_about(letter, viewer_id)]

    def of_viewer(value: bytes) -> bool:
        return _is_about(_decode_dead_letter(Message(dead_topic(topic), 0, 0, "", value)), viewer_id)

    retention.delete_key(dead_topic(topic), viewer_id)
    message_keys = {letter.key for letter in dead_letters} - {viewer_id}
    for key in sorted(message_keys | {viewer_of_dead_letter(letter) for letter in dead_letters} - {viewer_id}):
        retention.delete_key(dead_topic(topic), key, value_filter=of_viewer)
    return sum(
        retention.delete_key(topic, key, groups, lambda value: viewer_of(value) == viewer_id)
        for key in sorted(message_keys)
    )


def _is_about(dead_letter: DeadLetter, viewer_id: str) -> bool:
    return viewer_id in (dead_letter.key, viewer_of_dead_letter(dead_letter))


def read_dead_letters(stream: Stream, topic: str, ends: Mapping[int, int] | None = None) -> Iterator[DeadLetter]:
    """Yield the dead letters of a topic, each message once, holding one page in memory at a time.

    ends  partition -> offset at which to stop (`dead_letter_ends`); None to read all dead letters, including those
          written during the iteration

    Raises Unavailable.
    """
    dead, yielded = dead_topic(topic), set[bytes]()  # 16 bytes for each message
    for partition in range(stream.partitions(dead)):
        for page in _pages(stream, dead, partition, 0):
            for message in page:
                if ends is not None and message.offset >= ends.get(partition, 0):
                    break
                if decode_replay_note(message.value) is not None:
                    continue
                dead_letter = _decode_dead_letter(message)
                if (replay_key := dead_letter.replay_key) not in yielded:
                    yielded.add(replay_key)
                    yield dead_letter


def _decode_dead_letter(message: Message) -> DeadLetter:
    try:
        if message.damaged:
            raise ValueError("the stored message is damaged: its checksum does not match")
        dead_letter = msgspec.json.decode(message.value, type=DeadLetter)
        b64decode(dead_letter.raw, validate=True)
    except ValueError as error:  # damaged, or written by another application
        return to_dead_letter(message, f"not a dead letter: {error}")
    return dead_letter


def replayed_at(stream: Stream, topic: str) -> dict[bytes, float]:
    """Return when messages were last replayed: `DeadLetter.replay_key` -> unix seconds. Raises Unavailable."""
    dead, times = dead_topic(topic), dict[bytes, float]()
    for partition in range(stream.partitions(dead)):
        for page in _pages(stream, dead, partition, 0):
            for note in (decode_replay_note(message.value) for message in page):
                if note is not None:
                    replay_key = _replay_key(note.replayed, note.sha256)
                    times[replay_key] = max(note.at, times.get(replay_key, note.at))
    return times


def decode_replay_note(value: bytes) -> ReplayNote | None:
    """Decode a replay note; return None for dead letters and messages of other applications."""
    if value.startswith(_NOTE_PREFIX):
        with suppress(ValueError):
            return msgspec.json.decode(value, type=ReplayNote)
    return None


def dead_letter_ends(stream: Stream, topic: str) -> dict[int, int]:
    """Return the current log end offsets of the dead-letter topic by partition. Raises Unavailable."""
    dead, ends = dead_topic(topic), dict[int, int]()
    for partition in range(stream.partitions(dead)):
        for page in _pages(stream, dead, partition, 0):
            ends[partition] = page[-1].offset + 1
    return ends


def _pages(stream: Stream, topic: str, partition: int, offset: int) -> Iterator[list[Message]]:
    while page := stream.read(topic, partition, offset, _PAGE_SIZE):
        yield page
        if len(page) < _PAGE_SIZE:  # the last page: reading on would wait for the broker to time out
            return
        offset = page[-1].offset + 1


class DeadLetterCounter:
    """An incremental count of the dead letters of a topic. A dead letter that was written twice counts twice.

    Between recounts it notices only deletions at the start of a partition (retention). A full recount every
    RECOUNT_EVERY_S also notices deletions in the middle (erasures).
    """

    def __init__(self, stream: Stream, topic: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._dead, self._clock = stream, dead_topic(topic), clock
        self._recount_at = float("-inf")
        self._offsets: dict[int, list[int]] = {}  # offsets by partition
        self._next: dict[int, int] = {}

    def refresh(self) -> int:
        """Read the new dead letters and return the current count. Raises Unavailable."""
        if self._clock() >= self._recount_at:
            self._offsets, self._next, self._recount_at = {}, {}, self._clock() + RECOUNT_EVERY_S
        for partition in range(self._stream.partitions(self._dead)):
            offsets = self._offsets.setdefault(partition, [])
            for page in _pages(self._stream, self._dead, partition, self._next.get(partition, 0)):
                offsets += [message.offset for message in page if decode_replay_note(message.value) is None]
                self._next[partition] = page[-1].offset + 1
            if offsets:
                del offsets[: bisect_left(offsets, self._stream.oldest(self._dead, partition))]
        return sum(map(len, self._offsets.values()))


def replay(
    stream: Stream, dead_letter: DeadLetter, without_client_time: bool = False, clock: Callable[[], float] = time.time
) -> None:
    """Publish the message again under its viewer's key, and write a replay note dated `clock()` (unix seconds).

    without_client_time  drop the client's time, so that an event dated in the future is accepted at the time when the
                         server received it

    A message that is replayed twice counts once while the viewer's state still has the event's id. Raises EventError if
    the message is still unreadable. Raises Unavailable; the message may then be published without a note.
    """
    value = _payload_of(stream, dead_letter)
    if without_client_time:
        value = encode(replace(decode(value, allow_future=True), client_at=None))
    stream.publish(dead_letter.topic, [Record(decode(value).viewer_id, value)])
    note = ReplayNote(dead_letter.location, dead_letter.sha256, clock())
    stream.publish(
        dead_topic(dead_letter.topic), [Record(viewer_of_dead_letter(dead_letter), msgspec.json.encode(note))]
    )


def _payload_of(stream: Stream, dead_letter: DeadLetter) -> bytes:
    """Return the complete message, from its log if the dead letter is truncated. Raises EventError if it is lost."""
    value = dead_letter.value
    if dead_letter.size > len(value):
        messages = stream.read(dead_letter.topic, dead_letter.partition, dead_letter.offset, 1)
        value = messages[0].value if messages else b""
    if hashlib.sha256(value).hexdigest() != dead_letter.sha256:
        raise EventError(
            f"the dead letter has only {len(dead_letter.value):,} of {dead_letter.size:,} bytes, "
            "and the message is no longer in the log"
        )
    return value
