"""The maintenance commands of `mainstay` on an embedded home: output and exit codes."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from features.cli import EXIT_READER_GONE, main
from features.events.dead_letters import DeadLetterCounter, dead_topic
from features.events.decode import encode
from features.events.stream.port import Record
from features.events.stream.sqlite import SqliteStream
from features.history.erasures import FILE_NAME
from features.settings import Settings
from features.state.codec import decode_item, encode_item, viewer_key
from features.state.keys import ITEMS
from features.state.online.sqlite import SqliteStore
from features.worker.maintenance import EXIT_INCONCLUSIVE
from features.worker.retention import apply_retention
from recsys.domain.decay import DAY_S
from tests.features.worker.runs import dump, happened, published


@pytest.fixture(scope="module", autouse=True)
def _no_fsync() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda handle: None)
        yield


@pytest.fixture
def home(tmp_path: Path) -> str:
    stream = SqliteStream(f"{tmp_path}/stream.db", 2)
    published(stream, happened(random.Random(9), 100), "viewer-events")
    stream.close()
    assert main(["worker", "--home", str(tmp_path), "--until-idle", "0", "--viewer-ttl-days", "100000"]) == 0
    return str(tmp_path)


def test_commands_verify_export_rebuild_and_erase(home: str, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*command: str) -> tuple[int, str]:
        capsys.readouterr()
        code = main([*command, "--home", home, "--viewer-ttl-days", "100000"])
        return code, capsys.readouterr().out

    assert run("verify")[0] == 0
    assert run("compact") == (0, "2 files became 2\n")  # two partitions, two days
    code, lines = run("viewers", "export", "viewer-1")
    assert code == 0
    assert {json.loads(line)["event"]["subject"] for line in lines.splitlines()[1:]} == {"viewer-1"}
    assert run("rebuild")[1].startswith("rebuilt from 100 events of the log in ")
    assert run("verify") == (0, "0 differences against 100 events of the log\n")
    code, out = run("viewers", "erase", "viewer-1")
    assert code == 0
    assert out == f"erased the state and {len(lines.splitlines()) - 1} events; rewrote 2 files of the event log\n"
    assert run("viewers", "export", "viewer-1") == (0, '{"state":null}\n')
    assert run("rebuild", "--from", "stream")[0] == 0
    assert run("verify")[0] == 0
    with closing(SqliteStore(f"{home}/online.db")) as online:
        assert viewer_key("viewer-1") not in dump(online)
        online.put({viewer_key("viewer-2"): b"?"})
    code, out = run("verify")
    assert code == 1
    assert out.startswith("viewer:{viewer-2}\tthe state has only 1 bytes")
    Path(home, "events", FILE_NAME).unlink()  # the log has lost its list of erasures, the store has it
    assert run("rebuild", "--from", "stream")[0] == 0
    assert run("viewers", "export", "viewer-1") == (0, '{"state":null}\n')


def test_an_erasure_makes_verify_inconclusive_only_until_the_next_rebuild(
    home: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*command: str) -> tuple[int, str]:
        capsys.readouterr()
        return main([*command, "--home", home, "--viewer-ttl-days", "100000"]), capsys.readouterr().out

    def corrupt_an_item() -> None:
        with closing(SqliteStore(f"{home}/online.db")) as online:
            key, raw = next(iter(sorted(online.scan(ITEMS))))
            online.put({key: encode_item(msgspec.structs.replace(decode_item(raw), visits=1e9))})

    corrupt_an_item()
    code, out = run("verify")
    assert code == 1, "no viewer was erased"
    assert "inconclusive" not in out
    assert run("viewers", "erase", "nobody-here")[0] == 0
    assert run("verify")[0] == 1, "an unknown viewer contributed nothing"
    assert run("rebuild")[0] == 0
    assert run("viewers", "erase", "viewer-1")[0] == 0
    assert run("viewers", "erase", "nobody-here")[0] == 0
    assert run("viewers", "erase", "viewer-1")[0] == 0, "a second erasure finds nothing"
    code, out = run("verify")
    assert code == EXIT_INCONCLUSIVE, out
    assert "inconclusive: they may stem from 1 viewers erased since the last rebuild" in out
    assert run("rebuild")[0] == 0
    assert run("verify")[0] == 0
    corrupt_an_item()
    assert run("verify")[0] == 1, "an erasure before the rebuild explains nothing"


@pytest.mark.parametrize("command", [["viewers", "export", "viewer-1"], ["verify"]])
def test_a_command_ends_silently_when_its_reader_closes_the_pipe(home: str, command: list[str]) -> None:
    arguments = [sys.executable, "-m", "features.cli", *command, "--home", home]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == EXIT_READER_GONE


def test_the_stream_deletes_old_messages_and_those_of_erased_viewers(
    home: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*command: str) -> tuple[int, str]:
        capsys.readouterr()
        return main([*command, "--home", home, "--viewer-ttl-days", "100000"]), capsys.readouterr().out

    topic = "viewer-events"
    with closing(SqliteStream(f"{home}/stream.db", 2)) as stream:
        stream.publish(topic, [Record("viewer-1", b"poison"), Record("viewer-2", b"poison")])
        assert main(["worker", "--home", home, "--until-idle", "0", "--viewer-ttl-days", "100000"]) == 0
        stream.publish(topic, [Record("viewer-1", encode(happened(random.Random(1), 1)[0]))])  # not folded yet
        assert DeadLetterCounter(stream, topic).refresh() == 2
        code, out = run("viewers", "erase", "viewer-1")
        assert code == 0
        assert (
            "1 messages of the viewer stay in the stream until these consumer groups have read them: features (1 m"
            in out
        )
        for name, n_left in ((topic, 1), (dead_topic(topic), 0)):
            messages = [m for p in range(2) for m in stream.read(name, p, 0, 1000) if m.key == "viewer-1"]
            assert len(messages) == n_left
        assert main(["worker", "--home", home, "--until-idle", "0", "--viewer-ttl-days", "100000"]) == 0
        assert run("viewers", "erase", "viewer-1")[1].count("\n") == 1
        apply_retention(stream, Settings(home=home, stream_days=1), time.time() + 3 * DAY_S)
        assert [stream.read(name, p, 0, 1000) for p in range(2) for name in (topic, dead_topic(topic))] == [[]] * 4
        assert DeadLetterCounter(stream, topic).refresh() == 0
    code, out = run("verify")
    assert code == EXIT_INCONCLUSIVE, out
    code, out = run("rebuild", "--from", "stream")
    assert code == 0
    assert f"{topic}/0 begins at " in out
    assert "rebuild --from log" in out
    assert run("rebuild")[0] == 0
    assert run("verify")[0] == 0
