"""The stream adapter for Kafka, based on kafka-python. It passes raw bytes and sets no serializers.

The adapter avoids four traps of the client that lose data or hang: `poll` retries a message forever if a deserializer
raises; auto-commit is on by default; consumers start at the newest message by default; and `flush` does not raise if a
send fails, only its future does. Producers choose the partitions, so other clients may publish to the same topics.
"""

from __future__ import annotations

import threading
import time
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from typing import Any

from features.events.stream.port import Message, Record
from recsys.domain.errors import Unavailable

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # the client uses a deprecated API on Python 3.11
    from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition  # type: ignore[import-untyped]
    from kafka.admin import NewTopic  # type: ignore[import-untyped]
    from kafka.errors import (  # type: ignore[import-untyped]
        KafkaError,
        NoOffsetForPartitionError,
        OffsetOutOfRangeError,
        TopicAlreadyExistsError,
    )
    from kafka.structs import OffsetAndMetadata  # type: ignore[import-untyped]

SEND_TIMEOUT_S = 10.0
BOOTSTRAP_TIMEOUT_S = 10.0
TOPIC_TIMEOUT_S = 10.0
SESSION_S = 6.0  # until a dead worker's partitions are reassigned; with some brokers the first member also waits for it
NIL_TOPIC_ID = str(uuid.UUID(int=0))  # returned by brokers without topic ids
READ_IDLE_S = 1.0  # after this time without messages, a read checks whether it is at the log end offset
READ_TIMEOUT_S = 15.0  # how long a read waits for messages before the log end offset


class KafkaStream:
    """The topics of a Kafka cluster. The producer is created on the first publish."""

    retention = None  # the broker applies its own retention

    def __init__(self, servers: str, partitions: int = 4, session_s: float = SESSION_S) -> None:
        """`servers`: `host:port[,host:port]`; `partitions`: of topics that this stream creates."""
        self._servers, self._partitions, self._session_s = servers.split(","), partitions, session_s
        self._partition_counts: dict[str, int] = {}
        self._topic_ids: dict[str, object] = {}  # topic -> id assigned by the broker
        self._lock = threading.Lock()
        self._producer: Any = None

    def publish(self, topic: str, records: Sequence[Record]) -> Mapping[int, int]:
        """Append records; all in-sync replicas have acknowledged them on return.

        Raises Unavailable; some of the records may be written then.
        """
        if not records:
            return {}
        self.partitions(topic)
        with _map_kafka_errors(self._servers):
            producer = self._get_producer()
            futures = [producer.send(topic, record.value, record.key.encode()) for record in records]
            producer.flush(timeout=SEND_TIMEOUT_S)
            acknowledged = [future.get(timeout=SEND_TIMEOUT_S) for future in futures]
        return {
            metadata.partition: metadata.offset for metadata in acknowledged
        }  # the last record of each partition wins

    def consumer(self, topic: str, group: str) -> KafkaGroupMember:
        """Join a consumer group; the broker assigns the partitions to its members."""
        self.partitions(topic)
        with _map_kafka_errors(self._servers):
            return KafkaGroupMember(
                KafkaConsumer(
                    topic,
                    bootstrap_servers=self._servers,
                    bootstrap_timeout_ms=int(BOOTSTRAP_TIMEOUT_S * 1000),
                    group_id=group,
                    enable_auto_commit=False,
                    auto_offset_reset="earliest",
                    session_timeout_ms=int(self._session_s * 1000),
                    heartbeat_interval_ms=int(self._session_s * 1000 / 3),
                ),
                topic,
                self._servers,
            )

    def read(self, topic: str, partition: int, offset: int, limit: int) -> list[Message]:
        """Read messages of one partition from an offset on.

        The read ends when no message arrives for READ_IDLE_S and the position is at the log end offset, which some
        brokers report too low but none too high. Raises Unavailable if messages before the log end offset do not
        arrive.
        """
        self.partitions(topic)
        topic_partition = TopicPartition(topic, partition)
        with _map_kafka_errors(self._servers), closing(self._reader()) as reader:
            reader.assign([topic_partition])
            reader.seek(
                topic_partition, max(offset, _beginning_offset(reader, topic_partition))
            )  # do not wait for deleted messages
            batch: list[Message] = []
            end, last_record_at = int(reader.end_offsets([topic_partition])[topic_partition]), time.monotonic()
            while len(batch) < limit:
                try:
                    messages = _poll(reader, limit - len(batch), READ_IDLE_S)
                except (OffsetOutOfRangeError, NoOffsetForPartitionError):
                    break  # beyond the log end offset
                if messages:
                    batch, last_record_at = batch + messages, time.monotonic()
                elif (position := int(reader.position(topic_partition))) >= end:
                    break
                elif time.monotonic() - last_record_at > READ_TIMEOUT_S:
                    raise Unavailable(
                        f"kafka: {topic}/{partition}: no message arrived at offset {position} "
                        f"within {READ_TIMEOUT_S:.0f} s, but the log end offset is {end}"
                    )
            return batch

    def partitions(self, topic: str) -> int:
        """Return the number of partitions of a topic, creating it if it is missing. Raises Unavailable."""
        with self._lock:
            if topic not in self._partition_counts:
                with _map_kafka_errors(self._servers):
                    self._partition_counts[topic] = self._create_topic(topic)
            return self._partition_counts[topic]

    def identity(self, topic: str) -> str:
        """Return the topic id that the broker assigned; empty if the broker has no topic ids."""
        with _map_kafka_errors(self._servers), closing(self._admin()) as admin:
            if topic in admin.list_topics():
                topic_id = _only_topic(admin.describe_topics([topic])).get("topic_id")
                return "" if topic_id is None or str(topic_id) == NIL_TOPIC_ID else str(topic_id)
            self._create_topic(topic)
        return self.identity(topic)

    def identity_mismatch(self, topic: str, newest: Mapping[int, int]) -> str | None:
        """Return why this cannot be the log that assigned these offsets: the topic was deleted or recreated.

        The topic id is compared, not the log end offsets, which some brokers report wrongly.
        """
        with _map_kafka_errors(self._servers), closing(self._admin()) as admin:
            if topic in admin.list_topics():  # describing a missing topic may create it
                topic_id = _only_topic(admin.describe_topics([topic])).get("topic_id")
            else:
                topic_id = None
        with self._lock:
            previous_id = self._topic_ids.get(topic)
            if topic_id is not None:
                self._topic_ids[topic] = topic_id
            if topic_id is None and newest:
                self._partition_counts.pop(topic, None)  # the next publish recreates it with the configured partitions
                return f"topic {topic} no longer exists"
            if previous_id not in (None, topic_id) and topic_id is not None:
                self._partition_counts.pop(topic, None)
                return f"topic {topic} was recreated (its id changed from {previous_id} to {topic_id})"
        return None

    def committed(self, topic: str, group: str) -> Mapping[int, int]:
        """Return the last committed offset of a group, by partition."""
        with _map_kafka_errors(self._servers), closing(self._admin()) as admin:
            offsets = admin.list_group_offsets(group).get(group, {})
        return {
            topic_partition.partition: committed.offset - 1
            for topic_partition, committed in offsets.items()
            if topic_partition.topic == topic and committed.offset > 0
        }

    def oldest(self, topic: str, partition: int) -> int:
        """Return the offset of the oldest message that the broker still has."""
        self.partitions(topic)
        with _map_kafka_errors(self._servers), closing(self._reader()) as reader:
            return _beginning_offset(reader, TopicPartition(topic, partition))

    def close(self) -> None:
        """Flush the producer and disconnect; idempotent."""
        with self._lock:
            producer, self._producer = self._producer, None
        if producer is not None:
            producer.close(timeout=SEND_TIMEOUT_S)

    def _create_topic(self, topic: str) -> int:
        with closing(self._admin()) as admin:
            if topic not in admin.list_topics():
                with suppress(TopicAlreadyExistsError):  # another process created it first
                    admin.create_topics([NewTopic(topic, num_partitions=self._partitions, replication_factor=-1)])
            deadline = time.monotonic() + TOPIC_TIMEOUT_S
            while True:  # a new topic does not reach every broker at once
                described = _only_topic(admin.describe_topics([topic]))
                if not described["error_code"] and described["partitions"]:
                    self._topic_ids[topic] = described.get("topic_id")
                    return len(described["partitions"])
                if time.monotonic() > deadline:
                    raise Unavailable(f"kafka: topic {topic} was not ready {TOPIC_TIMEOUT_S:.0f} s after its creation")
                time.sleep(0.1)

    def _admin(self) -> Any:
        return KafkaAdminClient(bootstrap_servers=self._servers, bootstrap_timeout_ms=int(BOOTSTRAP_TIMEOUT_S * 1000))

    def _get_producer(self) -> Any:
        with self._lock:
            if self._producer is None:
                self._producer = KafkaProducer(
                    bootstrap_servers=self._servers,
                    bootstrap_timeout_ms=int(BOOTSTRAP_TIMEOUT_S * 1000),
                    acks="all",
                    delivery_timeout_ms=int(SEND_TIMEOUT_S * 1000),
                    request_timeout_ms=int(SEND_TIMEOUT_S * 500),
                    max_block_ms=int(SEND_TIMEOUT_S * 1000),
                    batch_size=1 << 18,
                    enable_idempotence=False,  # an idempotent producer fails if the broker loses its state
                    max_in_flight_requests_per_connection=1,  # so that retries keep the order of batches
                )
            return self._producer

    def _reader(self) -> Any:
        return KafkaConsumer(
            bootstrap_servers=self._servers,
            bootstrap_timeout_ms=int(BOOTSTRAP_TIMEOUT_S * 1000),
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
        )


class KafkaGroupMember:
    """A member of a Kafka consumer group; not shared between threads."""

    def __init__(self, consumer: Any, topic: str, servers: list[str]) -> None:
        self._consumer, self._topic, self._servers = consumer, topic, servers
        self._closed = False

    def poll(self, limit: int, timeout_s: float) -> list[Message]:
        """Return at most `limit` messages, in offset order per partition. Raises Unavailable."""
        with _map_kafka_errors(self._servers):
            return _poll(self._consumer, limit, timeout_s)

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Commit these offsets (inclusive).

        Raises Unavailable if the broker does not answer, or if the partitions were reassigned to another member, which
        then receives the messages again.
        """
        metadata = {TopicPartition(self._topic, p): OffsetAndMetadata(o + 1, "", -1) for p, o in offsets.items()}
        with _map_kafka_errors(self._servers):
            self._consumer.commit(metadata)

    def close(self) -> None:
        """Leave the group; idempotent."""
        if not self._closed:
            self._closed = True
            with suppress(KafkaError, OSError):  # otherwise the session times out after SESSION_S
                self._consumer.close(autocommit=False)


def _beginning_offset(reader: Any, topic_partition: TopicPartition) -> int:
    return int(reader.beginning_offsets([topic_partition])[topic_partition])


def _only_topic(descriptions: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the description of the requested topic."""
    return descriptions[0] if descriptions else {"error_code": -1, "partitions": []}


def _poll(consumer: Any, limit: int, timeout_s: float) -> list[Message]:
    polled = consumer.poll(timeout_ms=int(timeout_s * 1000), max_records=limit)
    return [
        Message(
            topic_partition.topic,
            topic_partition.partition,
            record.offset,
            (record.key or b"").decode(errors="replace"),
            record.value or b"",
        )
        for topic_partition, records in polled.items()
        for record in records
    ]


@contextmanager
def _map_kafka_errors(servers: list[str]) -> Iterator[None]:
    """Convert errors of the client to Unavailable."""
    try:
        yield
    except (KafkaError, OSError) as error:
        raise Unavailable(f"kafka {','.join(servers)}: {type(error).__name__}: {error}") from error
