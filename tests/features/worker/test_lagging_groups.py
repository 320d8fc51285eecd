"""Consumer groups that hold back messages are reported by name and can be deleted."""

from __future__ import annotations

import logging
from contextlib import closing
from pathlib import Path

import pytest

from features.cli import main
from features.events.stream.kafka import KafkaStream
from features.events.stream.port import Record
from features.events.stream.sqlite import SqliteStream
from features.settings import Settings
from features.worker.lagging_groups import LOG_EVERY_S, LagReporter
from features.worker.retention import apply_retention
from recsys.domain.decay import DAY_S


def commit_offset(stream: SqliteStream, topic: str, group: str, count: int) -> None:
    """Let a group read and commit `count` messages of the only partition, then leave."""
    with closing(stream.consumer(topic, group)) as member:
        member.commit({0: member.poll(count, 0)[-1].offset})


def test_lagging_groups_are_logged_once_an_hour_until_they_are_deleted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    settings, now, clock = Settings(home=str(tmp_path), partitions=1), [0.0], [0.0]
    topic, flags = settings.topic, ["--home", str(tmp_path), "--partitions", "1"]
    with closing(SqliteStream(f"{tmp_path}/stream.db", 1, lambda: now[0])) as stream:
        stream.publish(topic, [Record("v", b"?") for _ in range(5)])
        commit_offset(stream, topic, "old", 1)
        commit_offset(stream, topic, settings.group, 5)
        reporter = LagReporter(stream.retention, settings, lambda: clock[0])
        reporter.report(now[0])
        assert not caplog.records, "no message is past the retention period yet"
        now[0] = 40 * DAY_S
        with caplog.at_level(logging.WARNING):
            for clock[0] in (1.0, 2.0, LOG_EVERY_S, LOG_EVERY_S + 1.0):
                apply_retention(stream, settings, now[0])
                reporter.report(now[0])
        assert [record.getMessage() for record in caplog.records] == [
            f"retention of {topic} is held back: messages older than 30 days wait for consumer groups old (4 messages, "
            "the oldest 40 days old). To delete a group that will not return: mainstay consumer-groups delete NAME"
        ] * 2
        assert main(["consumer-groups", "list", *flags]) == 0
        assert capsys.readouterr().out.startswith(f"{topic}\told\t4 unread\tthe oldest ")
        assert main(["viewers", "erase", "v", *flags]) == 0
        output = capsys.readouterr().out
        assert (
            "4 messages of the viewer stay in the stream until these consumer groups have read them: old (4 messages"
            in output
        )
        assert main(["consumer-groups", "delete", settings.group, *flags]) == 1
        assert "the group of the workers" in capsys.readouterr().err
        assert main(["consumer-groups", "delete", "odl", *flags]) == 1
        assert main(["consumer-groups", "delete", "old", *flags]) == 0
        capsys.readouterr()
        assert main(["consumer-groups", "list", *flags]) == 0
        assert capsys.readouterr().out == ""
        apply_retention(stream, settings, now[0])
        assert stream.read(topic, 0, 0, 10) == []


def test_a_broker_manages_its_consumer_groups_itself(
    tmp_path: Path, kafka_url: str, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    for arguments in (["list"], ["delete", "old"]):
        assert main(["consumer-groups", *arguments, "--home", str(tmp_path), "--stream", kafka_url]) == 1
        assert "use the broker's own tools" in capsys.readouterr().err
    stream = KafkaStream(kafka_url.removeprefix("kafka://"))
    LagReporter(stream.retention, Settings()).report(40 * DAY_S)
    apply_retention(stream, Settings(), 40 * DAY_S)  # a stream without retention: no connection is made
    assert not [record for record in caplog.records if record.name.startswith("features")]
