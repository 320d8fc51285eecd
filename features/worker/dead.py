"""Dead letters: messages that cannot be read leave the way, with cause and place, and nothing after them is lost.

A letter is written before the batch is committed, so after a crash it may be written again: it names the place of the
message in its log, and `read_letters` lists each place once.
"""

from __future__ import annotations

import hashlib
from base64 import b64decode, b64encode
from collections.abc import Iterator

import msgspec

from features.events import decode
from features.stream import Message, Record, Stream
from recsys.errors import EventError

KEPT_BYTES = 1 << 19  # so that a letter fits where the message did
_PAGE = 500


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
    def place(self) -> str:
        """`topic/partition@offset`, the letter's name."""
        return f"{self.topic}/{self.partition}@{self.offset}"

    @property
    def value(self) -> bytes:
        """The message's bytes, as far as they were kept."""
        return b64decode(self.raw)


def dead_topic(topic: str) -> str:
    """Where the dead letters of a topic go."""
    return f"{topic}.dead"


def letter(message: Message, cause: str) -> DeadLetter:
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
        raw=b64encode(value[:KEPT_BYTES]).decode(),
    )


def as_record(one: DeadLetter) -> Record:
    """Ready to be published."""
    return Record(one.key, msgspec.json.encode(one))


def read_letters(stream: Stream, topic: str) -> Iterator[DeadLetter]:
    """The dead letters of a topic, each place once. Raises Unavailable."""
    dead, listed = dead_topic(topic), set()
    for partition in range(stream.partitions(dead)):
        offset = 0
        while page := stream.read(dead, partition, offset, _PAGE):
            offset = page[-1].offset + 1
            for message in page:
                found = msgspec.json.decode(message.value, type=DeadLetter)
                if found.place not in listed:
                    listed.add(found.place)
                    yield found


class LetterCount:
    """How many dead letters a topic has, looked at again and again. One written twice, after a crash, counts twice."""

    def __init__(self, stream: Stream, topic: str) -> None:
        self._stream, self._dead = stream, dead_topic(topic)
        self._next: dict[int, int] = {}

    def look(self) -> int:
        """As many as there are now. Raises Unavailable."""
        for partition in range(self._stream.partitions(self._dead)):
            while page := self._stream.read(self._dead, partition, self._next.get(partition, 0), _PAGE):
                self._next[partition] = page[-1].offset + 1
        return sum(self._next.values())


def revive(stream: Stream, one: DeadLetter) -> None:
    """Send the message again under its viewer's key. Raises EventError when it is still unreadable.

    Doing it twice counts once: the event keeps its id.
    """
    if one.size > KEPT_BYTES:
        raise EventError(f"only {KEPT_BYTES:,} of {one.size:,} bytes were kept")
    stream.publish(one.topic, [Record(decode(one.value).viewer_id, one.value)])
