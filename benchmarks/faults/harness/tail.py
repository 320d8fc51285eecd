"""The accepted messages, read past the engine: straight from the SQLite file or from Kafka, without any group."""

from __future__ import annotations

import sqlite3
import time
import warnings
from contextlib import closing
from typing import Any

from benchmarks.faults.harness.environment import PARTITIONS, Environment
from features.events.stream.port import Message

READ_TIMEOUT_S = 60.0


class Tail:
    """All messages of a topic, in log order per partition; each call returns those that came since the last."""

    def __init__(self, env: Environment, topic: str = "") -> None:
        self._env, self._topic = env, topic or env.topic
        self._next_offset = dict.fromkeys(range(PARTITIONS), 0)
        self._consumer: Any = None
        self.count = 0

    def read(self, total: int) -> list[Message]:
        """What is new; waits until `total` messages are in the log in all. Raises RuntimeError if they never are."""
        found: list[Message] = []
        give_up = time.monotonic() + READ_TIMEOUT_S
        while self.count < total:
            found += self._poll()
            if self.count < total and time.monotonic() > give_up:
                raise RuntimeError(f"the log holds {self.count:,} messages, {total:,} were sent")
        return found

    def read_available(self) -> list[Message]:
        """What is new, until nothing comes any more; for topics of which nobody knows how much they hold."""
        found: list[Message] = []
        while more := self._poll():
            found += more
        return found

    def close(self) -> None:
        """Disconnect."""
        if self._consumer is not None:
            self._consumer.close()

    def _poll(self) -> list[Message]:
        more = self._embedded() if self._env.kind == "embedded" else self._kafka()
        for message in more:
            if message.offset != self._next_offset[message.partition]:
                raise RuntimeError(f"offset {message.offset} where {self._next_offset[message.partition]} was due")
            self._next_offset[message.partition] += 1
        self.count += len(more)
        return more

    def _embedded(self) -> list[Message]:
        sql = 'SELECT "offset", key, value FROM message WHERE topic = ? AND partition = ? AND "offset" >= ? ORDER BY 1'
        with closing(sqlite3.connect(self._env.stream_url.removeprefix("sqlite:///"))) as db:
            return [
                Message(self._topic, partition, offset, key, value)
                for partition, start in self._next_offset.items()
                for offset, key, value in db.execute(sql, (self._topic, partition, start))
            ]

    def _kafka(self) -> list[Message]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            from kafka import KafkaConsumer, TopicPartition
        if self._consumer is None:
            servers = self._env.servers
            self._consumer = KafkaConsumer(bootstrap_servers=servers, group_id=None, enable_auto_commit=False)
            at = [TopicPartition(self._topic, partition) for partition in self._next_offset]
            self._consumer.assign(at)
            for one in at:
                self._consumer.seek(one, self._next_offset[one.partition])
        polled = self._consumer.poll(timeout_ms=300, max_records=5000)
        return [
            Message(self._topic, at.partition, r.offset, (r.key or b"").decode(errors="replace"), r.value or b"")
            for at, records in polled.items()
            for r in records
        ]
