"""The commands of `mainstay dlq`. Each prints to stdout and returns an exit code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from features.commands.output import fail, rfc3339
from features.events.dead_letters import DeadLetter, dead_letter_ends, read_dead_letters, replay, replayed_at
from features.events.stream.port import Stream
from recsys.domain.errors import EventError


def list_dead_letters(stream: Stream, topic: str, location: str | None) -> int:
    """Print one line for each dead letter, or for the one at `location`. Raises Unavailable."""
    replays, count = replayed_at(stream, topic), 0
    for dead_letter in _select(stream, topic, location):
        count += 1
        sent_at = replays.get(dead_letter.replay_key)
        note = "" if sent_at is None else f"\treplayed {rfc3339(sent_at)}"
        print(f"{dead_letter.location}\t{dead_letter.size} bytes\t{dead_letter.cause}{note}")
    return _missing(location) if location and not count else 0


def show_dead_letters(stream: Stream, topic: str, location: str | None) -> int:
    """Print cause and contents of each dead letter, or of the one at `location`. Raises Unavailable."""
    replays, count = replayed_at(stream, topic), 0
    for dead_letter in _select(stream, topic, location):
        count += 1
        for name in ("location", "key", "size", "sha256", "cause"):
            print(f"{name:9} {getattr(dead_letter, name)}")
        if (sent_at := replays.get(dead_letter.replay_key)) is not None:
            print(f"{'replayed':9} {rfc3339(sent_at)}")
        print(dead_letter.value.decode(errors="backslashreplace"), end="\n\n")
    return _missing(location) if location and not count else 0


def replay_dead_letters(stream: Stream, topic: str, location: str | None, without_client_time: bool) -> int:
    """Publish again each dead letter that is readable now and was not replayed before, or the one at `location`.

    Return 1 when a dead letter is still unreadable or belongs to another topic. Raises Unavailable.
    """
    ends = dead_letter_ends(stream, topic)  # dead letters that the replay itself causes are left for the next one
    replays = replayed_at(stream, topic)
    count = failures = skipped = 0
    for dead_letter in _select(stream, topic, location, ends):
        count += 1
        if location is None and dead_letter.replay_key in replays:
            skipped += 1
        elif dead_letter.topic != topic:
            failures += 1
            print(f"{dead_letter.location}\tnot a message of {topic}: its producer must send it again")
        else:
            try:
                replay(stream, dead_letter, without_client_time)
                print(f"{dead_letter.location}\treplayed")
            except EventError as error:
                failures += 1
                print(f"{dead_letter.location}\tstill unreadable: {error}{_advice(dead_letter, without_client_time)}")
    if skipped:
        print(f"{skipped:,} dead letter{'s were' if skipped > 1 else ' was'} replayed before; "
              "name a LOCATION to replay it again")  # fmt: skip
    if location and not count:
        return _missing(location)
    return 1 if failures else 0


def _select(
    stream: Stream, topic: str, location: str | None, ends: Mapping[int, int] | None = None
) -> Iterator[DeadLetter]:
    dead_letters = read_dead_letters(stream, topic, ends)
    return (dead_letter for dead_letter in dead_letters if location in (None, dead_letter.location))


def _missing(location: str) -> int:
    return fail("dlq", f"no dead letter {location}; a LOCATION is TOPIC/PARTITION@OFFSET, see `mainstay dlq list`")


def _advice(dead_letter: DeadLetter, without_client_time: bool) -> str:
    if without_client_time or not dead_letter.is_future_dated:
        return ""
    return "; --without-client-time accepts it at its arrival time"
