"""However many dead letters there are, they are read a page at a time, and a replay ends."""

from __future__ import annotations

from features.events.dead_letters import (
    RECOUNT_EVERY_S,
    DeadLetterCounter,
    as_record,
    dead_letter_ends,
    dead_topic,
    delete_dead_letters,
    read_dead_letters,
    replay,
    replayed_at,
    to_dead_letter,
)
from features.events.decode import ViewerEvent, encode
from features.events.stream.memory import MemoryStream
from features.events.stream.port import Message
from recsys.domain.viewer import LANDMARK

TOPIC = "t"


class CountingStream(MemoryStream):
    """A stream that counts what was read of it."""

    n_read = 0

    def read(self, topic: str, partition: int, offset: int, limit: int) -> list[Message]:
        page = super().read(topic, partition, offset, limit)
        self.n_read += len(page)
        return page


def test_dead_letters_are_read_a_page_at_a_time_and_replayed_as_far_as_there_were_any() -> None:
    stream = CountingStream(partitions=1)
    letters = [to_dead_letter(Message(TOPIC, 0, n, "v", b"rubbish"), "why") for n in range(350)]
    stream.publish(dead_topic(TOPIC), [as_record(one) for one in [*letters, *letters[100:]]])
    reading = read_dead_letters(stream, TOPIC)
    assert next(reading).offset == 0
    assert stream.n_read <= 100
    assert [one.offset for one in reading] == list(range(1, 350))
    assert DeadLetterCounter(stream, TOPIC).refresh() == 600
    ends, replayed = dead_letter_ends(stream, TOPIC), 0
    for one in read_dead_letters(stream, TOPIC, ends):
        stream.publish(
            dead_topic(TOPIC), [as_record(to_dead_letter(Message(TOPIC, 0, 1000 + one.offset, "v", b"?"), "new"))]
        )
        replayed += 1
    assert replayed == 350


def test_letters_that_left_are_not_counted_wherever_they_stood() -> None:
    """The oldest at the next look, one in the middle (its viewer was erased) at the next count."""
    now = [0.0]
    stream = MemoryStream(partitions=1, clock=lambda: now[0])
    count = DeadLetterCounter(stream, TOPIC, lambda: now[0])
    for n in range(5):
        stream.publish(dead_topic(TOPIC), [as_record(to_dead_letter(Message(TOPIC, 0, n, f"v{n}", b"rubbish"), "why"))])
        assert count.refresh() == n + 1
        now[0] += 1.0
    stream.delete_key(dead_topic(TOPIC), "v2")
    assert DeadLetterCounter(stream, TOPIC).refresh() == 4
    assert stream.apply_retention(dead_topic(TOPIC), 1.0) == 1
    assert count.refresh() == 4
    now[0] = RECOUNT_EVERY_S
    assert count.refresh() == 3


def test_the_note_of_a_replay_leaves_with_its_viewer() -> None:
    stream = MemoryStream(partitions=2)
    for viewer in ("v", "w"):
        event = encode(ViewerEvent(id="e", kind="play", viewer_id=viewer, at=LANDMARK, item_id="a"))
        one = to_dead_letter(Message(TOPIC, 0, 0, "device", event), "under another's key")
        stream.publish(dead_topic(TOPIC), [as_record(one)])
        replay(stream, one)
    assert len(replayed_at(stream, TOPIC)) == 2
    delete_dead_letters(stream, stream.retention, TOPIC, "v", [])
    (left,) = read_dead_letters(stream, TOPIC)
    assert list(replayed_at(stream, TOPIC)) == [left.replay_key]
