"""Reads a topic without the engine: directly from the SQLite file or from Kafka, outside any consumer group."""

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
    """A reader of a topic, in offset order per partition. Each call returns the messages since the last call."""

    def __init__(self, env: Environment, topic: str = "") -> None:
        self._env, self._topic = env, topic or env.topic
        self._next_offset = dict.fromkeys(range(PARTITIONS), 0)
        self._consumer: Any = None
        self.count = 0

    def read(self, total: int) -> list[Message]:
        """Return new messages, once the topic has `total` messages. Raises RuntimeError after READ_TIMEOUT_S."""
        messages: list[Message] = []
        deadline = time.monotonic() + READ_TIMEOUT_S
        while self.count < total:
            messages += self._poll()
            if self.count < total and time.monotonic() > deadline:
                raise RuntimeError(f"the topic has {self.count:,} messages, but {total:,} were sent")
        return messages

    def read_available(self) -> list[Message]:
        """Return new messages until a poll returns none, for topics of unknown length."""
        messages: list[Message] = []
        while batch := self._poll():
            messages += batch
        return messages

    def close(self) -> None:
        """Disconnect."""
        if self._consumer is not None:
            self._consumer.close()

    def _poll(self) -> list[Message]:
        messages = self._embedded() if self._env.kind == "embedded" else self._kafka()
        for message in messages:
            if message.offset != self._next_offset[message.partition]:
                raise RuntimeError(f"offset {message.offset}, expected {self._next_offset[message.partition]}")
            self._next_offset[message.partition] += 1
        self.count += len(messages)
        return messages

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
            partitions = [TopicPartition(self._topic, partition) for partition in self._next_offset]
            self._consumer.assign(partitions)
            for topic_partition in partitions:
                self._consumer.seek(topic_partition, self._next_offset[topic_partition.partition])
        polled = self._consumer.poll(timeout_ms=300, max_records=5000)
        return [
            Message(
                self._topic, partitions.partition, r.offset, (r.key or b"").decode(errors="replace"), r.value or b""
            )
            for partitions, records in polled.items()
            for r in records
        ]
