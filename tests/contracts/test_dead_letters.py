"""The contract of `mainstay dlq` on every stream: a message is replayed once, and again only if it is named."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from features.cli import main
from features.events.dead_letters import (
    DeadLetter,
    DeadLetterCounter,
    as_record,
    dead_letter_ends,
    dead_topic,
    read_dead_letters,
    replay,
    replayed_at,
    to_dead_letter,
)
from features.events.decode import encode
from features.events.schema import ViewerEvent
from features.events.stream.connect import open_stream
from features.events.stream.port import Message, Record, Stream
from recsys.domain.decay import LANDMARK
from recsys.domain.errors import Unavailable
from tests.contracts.streams import ADAPTERS

PARTITIONS = 1  # reading a broker's partition to its end takes an idle timeout
Tool = Callable[..., tuple[int, list[str]]]


@pytest.fixture(params=ADAPTERS)
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "kafka":
        monkeypatch.setattr(
            "features.events.stream.kafka.READ_IDLE_S", 0.2
        )  # it is on this machine, and has all in memory
        return str(request.getfixturevalue("kafka_url"))
    return {"memory": "memory://", "sqlite": f"sqlite:///{tmp_path}/stream.db"}[request.param]


@pytest.fixture
def stream(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stream]:
    """The stream that the command opens as well; a memory stream is shared with it."""
    with closing(open_stream(url, partitions=PARTITIONS)) as opened:
        if url == "memory://":
            monkeypatch.setattr("features.commands.dlq.open_stream", lambda url, partitions: opened)
        yield opened


@pytest.fixture
def dlq(url: str, unique: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Tool:
    """A function that runs the command and returns its exit code and its sorted output lines."""

    def run(*args: str) -> tuple[int, list[str]]:
        flags = ["--home", str(tmp_path), "--stream", url, "--topic", unique, "--partitions", str(PARTITIONS)]
        code = main(["dlq", *args, *flags])
        return code, sorted(capsys.readouterr().out.splitlines())

    return run


def play(number: int) -> bytes:
    return encode(ViewerEvent(id=f"e{number}", kind="play", viewer_id=f"v{number}", at=LANDMARK, item_id="a"))


def write_dead_letters(stream: Stream, topic: str, *values: bytes, first: int = 0) -> list[DeadLetter]:
    """Write the dead letters of these messages, each twice as after a crash."""
    dead_letters = [
        to_dead_letter(Message(topic, 0, first + n, f"v{n}", value), "reason") for n, value in enumerate(values)
    ]
    stream.publish(dead_topic(topic), [as_record(letter) for letter in dead_letters * 2])
    return dead_letters


def sent(stream: Stream, topic: str) -> list[bytes]:
    return sorted(message.value for p in range(stream.partitions(topic)) for message in stream.read(topic, p, 0, 1000))


def test_replay_sends_each_message_once_unless_it_is_named(stream: Stream, unique: str, dlq: Tool) -> None:
    readable = [play(0), play(1)]
    first, second, rubbish = write_dead_letters(stream, unique, *readable, b"rubbish")
    assert dlq("list") == (
        0,
        sorted(f"{letter.location}\t{letter.size} bytes\treason" for letter in (first, second, rubbish)),
    )

    code, lines = dlq("replay")
    assert (code, len(lines)) == (1, 3)
    assert f"{first.location}\treplayed" in lines
    assert sent(stream, unique) == readable
    code, lines = dlq("replay")
    assert code == 1, "unreadable messages are retried each time"
    assert any("2 dead letters were replayed before; name a LOCATION to replay it again" in line for line in lines)
    assert sent(stream, unique) == readable, "a message is replayed twice only if it is named"

    code, lines = dlq("list")
    assert len(lines) == 3
    when = r"\treplayed 20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ$"
    assert [bool(re.search(when, line)) for line in lines] == [True, True, False]
    assert any(line.startswith("replayed  20") for line in dlq("show", second.location)[1])
    assert not any(line.startswith("replayed ") for line in dlq("show", rubbish.location)[1])

    assert dlq("replay", second.location) == (0, [f"{second.location}\treplayed"])
    assert sent(stream, unique) == sorted([*readable, readable[1]])
    (third,) = write_dead_letters(stream, unique, play(2), first=9)
    assert f"{third.location}\treplayed" in dlq("replay")[1]
    assert sent(stream, unique) == sorted([*readable, readable[1], play(2)])
    assert DeadLetterCounter(stream, unique).refresh() == 2 * 4, "replay notes are not counted"
    assert sorted(letter.location for letter in read_dead_letters(stream, unique)) == sorted(
        letter.location for letter in (first, second, rubbish, third)
    )


def test_a_reused_offset_is_a_different_dead_letter(stream: Stream, unique: str, dlq: Tool) -> None:
    """A wiped broker assigns its offsets again."""
    write_dead_letters(stream, unique, play(0))
    dlq("replay")
    write_dead_letters(stream, unique, play(1))
    assert dlq("replay")[0] == 0
    assert sent(stream, unique) == [play(0), play(1)]


def test_a_replay_without_its_note_is_repeated(stream: Stream, unique: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a crash between the message and its note nothing is lost, and the event's id makes it count once."""
    (dead_letter,) = write_dead_letters(stream, unique, play(0))
    publish = stream.publish

    def failing_publish(topic: str, records: list[Record]) -> object:
        if topic != unique:
            raise Unavailable("cable cut")
        return publish(topic, records)

    with monkeypatch.context() as patched:
        patched.setattr(stream, "publish", failing_publish)
        with pytest.raises(Unavailable, match="cable"):
            replay(stream, dead_letter)
    assert dead_letter.replay_key not in replayed_at(stream, unique)
    replay(stream, dead_letter, clock=lambda: 7.0)
    assert replayed_at(stream, unique) == {dead_letter.replay_key: 7.0}
    assert sent(stream, unique) == [play(0)] * 2


def test_messages_of_other_applications_in_the_dead_letter_topic_are_not_replayed(
    stream: Stream, unique: str, dlq: Tool
) -> None:
    stream.publish(dead_topic(unique), [Record("v0", play(0))])
    for _ in range(2):
        code, (line,) = dlq("replay")
        assert (code, line) == (
            1,
            f"{dead_topic(unique)}/0@0\tnot a message of {unique}: its producer must send it again",
        )
    assert sent(stream, unique) == []
    assert len(sent(stream, dead_topic(unique))) == 1


def test_an_invalid_replay_note_is_listed_as_a_dead_letter(stream: Stream, unique: str) -> None:
    stream.publish(dead_topic(unique), [Record("v", b'{"replayed":7}')])
    assert [dead_letter.cause.partition(":")[0] for dead_letter in read_dead_letters(stream, unique)] == [
        "not a dead letter"
    ]
    assert replayed_at(stream, unique) == {}
    assert len(dead_letter_ends(stream, unique)) == 1


def test_replay_of_a_future_dated_event_explains_the_option(stream: Stream, unique: str, dlq: Tool) -> None:
    event = ViewerEvent(id="e", kind="play", viewer_id="v0", at=LANDMARK, item_id="a", client_at=LANDMARK + 3600.0)
    (dead_letter,) = write_dead_letters(stream, unique, encode(event))
    code, (line,) = dlq("replay")
    assert code == 1
    assert line.startswith(f"{dead_letter.location}\tstill unreadable: the event is dated in the future; time: ")
    assert line.endswith("--without-client-time accepts it at its arrival time")
    assert dlq("replay", "--without-client-time") == (0, [f"{dead_letter.location}\treplayed"])
    assert sent(stream, unique) == [encode(msgspec.structs.replace(event, client_at=None))]
