"""Dead letters are read in pages, counted incrementally, and erased with their replay notes."""

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
from features.events.decode import encode
from features.events.schema import ViewerEvent
from features.events.stream.memory import MemoryStream
from features.events.stream.port import Message
from recsys.domain.decay import LANDMARK

TOPIC = "t"


class CountingStream(MemoryStream):
    """A stream that counts the messages read from it."""

    n_read = 0

    def read(self, topic: str, partition: int, offset: int, limit: int) -> list[Message]:
        page = super().read(topic, partition, offset, limit)
        self.n_read += len(page)
        return page


def test_dead_letters_are_read_in_pages_and_a_replay_stops_at_the_initial_end() -> None:
    stream = CountingStream(partitions=1)
    dead_letters = [to_dead_letter(Message(TOPIC, 0, n, "v", b"rubbish"), "reason") for n in range(350)]
    stream.publish(dead_topic(TOPIC), [as_record(dead_letter) for dead_letter in [*dead_letters, *dead_letters[100:]]])
    reading = read_dead_letters(stream, TOPIC)
    assert next(reading).offset == 0
    assert stream.n_read <= 100
    assert [dead_letter.offset for dead_letter in reading] == list(range(1, 350))
    assert DeadLetterCounter(stream, TOPIC).refresh() == 600
    ends, replayed = dead_letter_ends(stream, TOPIC), 0
    for dead_letter in read_dead_letters(stream, TOPIC, ends):
        stream.publish(
            dead_topic(TOPIC),
            [as_record(to_dead_letter(Message(TOPIC, 0, 1000 + dead_letter.offset, "v", b"?"), "new"))],
        )
        replayed += 1
    assert replayed == 350


def test_deleted_dead_letters_are_not_counted() -> None:
    """A refresh notices deletions at the start, and a recount also those in the middle (erasures)."""
    now = [0.0]
    stream = MemoryStream(partitions=1, clock=lambda: now[0])
    count = DeadLetterCounter(stream, TOPIC, lambda: now[0])
    for n in range(5):
        stream.publish(
            dead_topic(TOPIC), [as_record(to_dead_letter(Message(TOPIC, 0, n, f"v{n}", b"rubbish"), "reason"))]
        )
        assert count.refresh() == n + 1
        now[0] += 1.0
    stream.delete_key(dead_topic(TOPIC), "v2")
    assert DeadLetterCounter(stream, TOPIC).refresh() == 4
    assert stream.apply_retention(dead_topic(TOPIC), 1.0) == 1
    assert count.refresh() == 4
    now[0] = RECOUNT_EVERY_S
    assert count.refresh() == 3


def test_replay_notes_are_erased_with_their_viewer() -> None:
    stream = MemoryStream(partitions=2)
    for viewer in ("v", "w"):
        event = encode(ViewerEvent(id="e", kind="play", viewer_id=viewer, at=LANDMARK, item_id="a"))
        dead_letter = to_dead_letter(Message(TOPIC, 0, 0, "device", event), "wrong key")
        stream.publish(dead_topic(TOPIC), [as_record(dead_letter)])
        replay(stream, dead_letter)
    assert len(replayed_at(stream, TOPIC)) == 2
    delete_dead_letters(stream, stream.retention, TOPIC, "v", [])
    (remaining,) = read_dead_letters(stream, TOPIC)
    assert list(replayed_at(stream, TOPIC)) == [remaining.replay_key]
