"""A member of a consumer group that is stopped loses its claim; a member that is alive keeps it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from features.events.stream.port import Consumer, Message, Record
from features.events.stream.sqlite import SqliteStream
from recsys.domain.errors import Unavailable

SESSION_S = 0.5
MEMBER = f"""
import sys
from features.events.stream.sqlite import SqliteStream
from recsys.domain.errors import Unavailable
member = SqliteStream(sys.argv[1], 1, session_s={SESSION_S}).consumer("t", "g")
print(len(member.poll(10, 5.0)), flush=True)
sys.stdin.readline()
for attempt in (lambda: member.commit({{0: 1}}), lambda: member.poll(10, 0.0)):
    try:
        print(attempt(), flush=True)
    except Unavailable as error:
        print("refused", flush=True)
"""


@pytest.fixture
def stream(tmp_path: Path) -> SqliteStream:
    opened = SqliteStream(str(tmp_path / "stream.db"), 1, session_s=SESSION_S)
    opened.publish("t", [Record("v", b"1"), Record("v", b"2")])
    return opened


def poll_for(member: Consumer, seconds: float) -> list[Message]:
    deadline = time.monotonic() + seconds
    while not (messages := member.poll(10, 0.05)) and time.monotonic() < deadline:
        pass
    return messages


def test_a_stopped_member_loses_its_claim_and_cannot_commit(stream: SqliteStream, tmp_path: Path) -> None:
    command = [sys.executable, "-c", MEMBER, str(tmp_path / "stream.db")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdin is not None
        assert first.stdout.readline() == "2\n"
        first.send_signal(signal.SIGSTOP)
        second = stream.consumer("t", "g")
        messages = poll_for(second, 30.0)
        first.send_signal(signal.SIGCONT)
        assert [message.value for message in messages] == [b"1", b"2"]
        second.commit({0: 0})
        first.stdin.write("go on\n")
        first.stdin.flush()
        assert first.stdout.read().split() == ["refused", "refused"]
    assert stream.committed("t", "g") == {0: 0}
    second.commit({0: 1})
    second.close()
    stream.close()


def test_a_member_that_is_busy_for_longer_than_the_session_keeps_its_claim(stream: SqliteStream) -> None:
    busy, waiting = stream.consumer("t", "g"), stream.consumer("t", "g")
    assert len(busy.poll(10, 1.0)) == 2
    assert poll_for(waiting, 3 * SESSION_S) == []
    busy.commit({0: 1})
    busy.close()
    assert waiting.poll(10, 0.0) == []
    stream.publish("t", [Record("v", b"3")])
    assert [message.value for message in poll_for(waiting, 5.0)] == [b"3"]
    waiting.close()
    stream.close()


def test_a_member_that_lost_its_claim_can_join_again(stream: SqliteStream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("features.events.stream.sqlite_claim.GroupClaim._touch", lambda claim: None)
    first, second = stream.consumer("t", "g"), stream.consumer("t", "g")
    assert len(first.poll(10, 1.0)) == 2
    assert len(poll_for(second, 30.0)) == 2
    with pytest.raises(Unavailable, match="taken over"):
        first.commit({0: 1})
    first.close()
    second.close()
    rejoined = stream.consumer("t", "g")
    assert len(poll_for(rejoined, 5.0)) == 2
    rejoined.close()
    stream.close()
