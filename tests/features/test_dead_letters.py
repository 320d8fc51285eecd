"""However many dead letters there are, they are read a page at a time, and a replay ends."""

from __future__ import annotations

from features.dead_letters import (
    COUNT_ANEW_S,
    LetterCount,
    as_record,
    dead_topic,
    forget_letters,
    letter,
    letter_ends,
    read_letters,
    revive,
    sent_again,
)
from features.events import ViewerEvent, encode
from features.stream import Message
from features.stream.memory import MemoryStream
from recsys.state import LANDMARK

TOPIC = "t"


class Paged(MemoryStream):
    """A stream that counts what was read of it."""

    taken = 0

    def read(self, topic: str, partition: int, offset: int, limit: int) -> list[Message]:
        page = super().read(topic, partition, offset, limit)
        self.taken += len(page)
        return page


def test_dead_letters_are_read_a_page_at_a_time_and_replayed_as_far_as_there_were_any() -> None:
    stream = Paged(partitions=1)
    letters = [letter(Message(TOPIC, 0, n, "v", b"rubbish"), "why") for n in range(350)]
    stream.publish(dead_topic(TOPIC), [as_record(one) for one in [*letters, *letters[100:]]])
    reading = read_letters(stream, TOPIC)
    assert next(reading).offset == 0
    assert stream.taken <= 100
    assert [one.offset for one in reading] == list(range(1, 350))
    assert LetterCount(stream, TOPIC).look() == 600
    ends, replayed = letter_ends(stream, TOPIC), 0
    for one in read_letters(stream, TOPIC, ends):
        stream.publish(dead_topic(TOPIC), [as_record(letter(Message(TOPIC, 0, 1000 + one.offset, "v", b"?"), "new"))])
        replayed += 1
    assert replayed == 350


def test_letters_that_left_are_not_counted_wherever_they_stood() -> None:
    """The oldest at the next look, one in the middle (its viewer was erased) at the next count."""
    now = [0.0]
    stream = MemoryStream(partitions=1, clock=lambda: now[0])
    count = LetterCount(stream, TOPIC, lambda: now[0])
    for n in range(5):
        stream.publish(dead_topic(TOPIC), [as_record(letter(Message(TOPIC, 0, n, f"v{n}", b"rubbish"), "why"))])
        assert count.look() == n + 1
        now[0] += 1.0
    stream.forget(dead_topic(TOPIC), "v2")
    assert LetterCount(stream, TOPIC).look() == 4
    assert stream.trim(dead_topic(TOPIC), 1.0) == 1
    assert count.look() == 4
    now[0] = COUNT_ANEW_S
    assert count.look() == 3


def test_the_note_of_a_replay_leaves_with_its_viewer() -> None:
    stream = MemoryStream(partitions=2)
    for viewer in ("v", "w"):
        event = encode(ViewerEvent(id="e", kind="play", viewer_id=viewer, at=LANDMARK, item_id="a"))
        one = letter(Message(TOPIC, 0, 0, "device", event), "under another's key")
        stream.publish(dead_topic(TOPIC), [as_record(one)])
        revive(stream, one)
    assert len(sent_again(stream, TOPIC)) == 2
    forget_letters(stream, stream.retention, TOPIC, "v", [])
    (left,) = read_letters(stream, TOPIC)
    assert list(sent_again(stream, TOPIC)) == [left.mark]
