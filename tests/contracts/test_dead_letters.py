"""What `recsys-worker dlq` promises on every stream: a letter is sent again once, and oftener when it is named."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

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
from features.events.decode import ViewerEvent, encode
from features.events.stream.connect import open_stream
from features.events.stream.port import Message, Record, Stream
from features.worker.main import main
from recsys.domain.errors import Unavailable
from recsys.domain.viewer import LANDMARK
from tests.contracts.streams import ADAPTERS

PARTITIONS = 1  # a broker is waited for a second at the end of each
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
    """Also what the command opens: what is in memory is only in this one."""
    with closing(open_stream(url, partitions=PARTITIONS)) as opened:
        if url == "memory://":
            monkeypatch.setattr("features.worker.main.open_stream", lambda url, partitions: opened)
        yield opened


@pytest.fixture
def dlq(url: str, unique: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Tool:
    """The command: its exit code and its lines, sorted."""

    def said(*words: str) -> tuple[int, list[str]]:
        flags = ["--home", str(tmp_path), "--stream", url, "--topic", unique, "--partitions", str(PARTITIONS)]
        code = main([*flags, "dlq", *words])
        return code, sorted(capsys.readouterr().out.splitlines())

    return said


def play(number: int) -> bytes:
    return encode(ViewerEvent(id=f"e{number}", kind="play", viewer_id=f"v{number}", at=LANDMARK, item_id="a"))


def set_aside(stream: Stream, topic: str, *values: bytes, first: int = 0) -> list[DeadLetter]:
    """Dead letters of these messages, each written twice as after a crash."""
    letters = [to_dead_letter(Message(topic, 0, first + n, f"v{n}", value), "why") for n, value in enumerate(values)]
    stream.publish(dead_topic(topic), [as_record(one) for one in letters * 2])
    return letters


def sent(stream: Stream, topic: str) -> list[bytes]:
    return sorted(one.value for p in range(stream.partitions(topic)) for one in stream.read(topic, p, 0, 1000))


def test_a_letter_is_sent_again_once_and_oftener_when_it_is_named(stream: Stream, unique: str, dlq: Tool) -> None:
    readable = [play(0), play(1)]
    first, second, rubbish = set_aside(stream, unique, *readable, b"rubbish")
    assert dlq("list") == (0, sorted(f"{one.location}\t{one.size} bytes\twhy" for one in (first, second, rubbish)))

    code, lines = dlq("replay")
    assert (code, len(lines)) == (1, 3)
    assert f"{first.location}\tsent again" in lines
    assert sent(stream, unique) == readable
    code, lines = dlq("replay")
    assert code == 1, "what could not be read is tried each time"
    assert any("2 letters were sent again before: name one to send it once more" in line for line in lines)
    assert sent(stream, unique) == readable, "nothing goes twice unless somebody says which"

    code, lines = dlq("list")
    assert len(lines) == 3
    when = r"\tsent again 20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ$"
    assert [bool(re.search(when, line)) for line in lines] == [True, True, False]
    assert any(line.startswith("sent      20") for line in dlq("show", second.location)[1])
    assert not any(line.startswith("sent  ") for line in dlq("show", rubbish.location)[1])

    assert dlq("replay", second.location) == (0, [f"{second.location}\tsent again"])
    assert sent(stream, unique) == sorted([*readable, readable[1]])
    (later,) = set_aside(stream, unique, play(2), first=9)
    assert f"{later.location}\tsent again" in dlq("replay")[1]
    assert sent(stream, unique) == sorted([*readable, readable[1], play(2)])
    assert DeadLetterCounter(stream, unique).refresh() == 2 * 4, "notes are no letters"
    assert sorted(one.location for one in read_dead_letters(stream, unique)) == sorted(
        one.location for one in (first, second, rubbish, later)
    )


def test_a_letter_at_the_place_of_another_is_another(stream: Stream, unique: str, dlq: Tool) -> None:
    """A broker that was wiped gives its places out again."""
    set_aside(stream, unique, play(0))
    dlq("replay")
    set_aside(stream, unique, play(1))
    assert dlq("replay")[0] == 0
    assert sent(stream, unique) == [play(0), play(1)]


def test_what_was_sent_and_not_noted_is_sent_again(
    stream: Stream, unique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a crash between the two nothing is missing; the event's id makes it count once."""
    (one,) = set_aside(stream, unique, play(0))
    publish = stream.publish

    def cut(topic: str, records: list[Record]) -> object:
        if topic != unique:
            raise Unavailable("the cable")
        return publish(topic, records)

    with monkeypatch.context() as patched:
        patched.setattr(stream, "publish", cut)
        with pytest.raises(Unavailable, match="cable"):
            replay(stream, one)
    assert one.replay_key not in replayed_at(stream, unique)
    replay(stream, one, clock=lambda: 7.0)
    assert replayed_at(stream, unique) == {one.replay_key: 7.0}
    assert sent(stream, unique) == [play(0)] * 2


def test_what_others_write_beside_the_letters_is_not_sent_anywhere(stream: Stream, unique: str, dlq: Tool) -> None:
    stream.publish(dead_topic(unique), [Record("v0", play(0))])
    for _ in range(2):
        code, (line,) = dlq("replay")
        assert (code, line) == (
            1,
            f"{dead_topic(unique)}/0@0\tno letter of {unique}: whoever wrote it there must send it",
        )
    assert sent(stream, unique) == []
    assert len(sent(stream, dead_topic(unique))) == 1


def test_what_others_write_like_a_note_is_shown(stream: Stream, unique: str) -> None:
    stream.publish(dead_topic(unique), [Record("v", b'{"replayed":7}')])
    assert [one.cause.partition(":")[0] for one in read_dead_letters(stream, unique)] == ["not a dead letter"]
    assert replayed_at(stream, unique) == {}
    assert len(dead_letter_ends(stream, unique)) == 1


def test_who_replays_what_a_fast_clock_wrote_is_told_how_to_take_it(stream: Stream, unique: str, dlq: Tool) -> None:
    early = ViewerEvent(id="e", kind="play", viewer_id="v0", at=LANDMARK, item_id="a", client_at=LANDMARK + 3600.0)
    (one,) = set_aside(stream, unique, encode(early))
    code, (line,) = dlq("replay")
    assert code == 1
    assert line.startswith(f"{one.location}\tstill unreadable: the event is dated in the future; time: ")
    assert line.endswith("--without-client-time takes it at the time when it came")
    assert dlq("replay", "--without-client-time") == (0, [f"{one.location}\tsent again"])
    assert sent(stream, unique) == [encode(msgspec.structs.replace(early, client_at=None))]
