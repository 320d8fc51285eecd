"""The stream in Kafka, through kafka-python. Raw bytes in, raw bytes out: nothing of ours runs inside the client.

Four traps, each of which loses data or hangs: a deserializer that raises makes `poll` spin for ever on that message;
auto-commit is on by default; so is starting at the newest message; and `flush` does not raise for failed sends, only
the futures do. A Kafka message keeps its producer's partitioner, so other clients may publish to the same topics.
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
    warnings.simplefilter("ignore", DeprecationWarning)  # on Python 3.11 the client reads its own files the old way
    from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition  # type: ignore[import-untyped]
    from kafka.admin import NewTopic  # type: ignore[import-untyped]
    from kafka.errors import (  # type: ignore[import-untyped]
        KafkaError,
        NoOffsetForPartitionError,
        OffsetOutOfRangeError,
        TopicAlreadyExistsError,
    )
    from kafka.structs import OffsetAndMetadata  # type: ignore[import-untyped]

SEND_WITHIN_S = 10.0
BOOTSTRAP_WITHIN_S = 10.0
TOPIC_WITHIN_S = 10.0
SESSION_S = 6.0  # a dead worker's partitions move after this long; some brokers also let a first member wait for it
NO_ID = str(uuid.UUID(int=0))  # what brokers say that know no ids of topics
READ_IDLE_S = 1.0  # a partition that is silent for this long may have been read to its end
READ_WITHIN_S = 15.0  # and one that is not at its end is waited for


class KafkaStream:
    """Topics of a Kafka cluster. The producer is made when first needed."""

    retention = None  # the broker applies its own

    def __init__(self, servers: str, partitions: int = 4, session_s: float = SESSION_S) -> None:
        """`servers`: `host:port[,host:port]`; `partitions`: of topics created here."""
        self._servers, self._partitions, self._session_s = servers.split(","), partitions, session_s
        self._known: dict[str, int] = {}
        self._ids: dict[str, object] = {}  # of topics, as the broker gave them
        self._lock = threading.Lock()
        self._producer: Any = None

    def publish(self, topic: str, records: Sequence[Record]) -> Mapping[int, int]:
        """Append; acknowledged by all in-sync replicas on return. Raises Unavailable; some records may be in then."""
        if not records:
            return {}
        self.partitions(topic)
        with _faults(self._servers):
            producer = self._connected()
            sent = [producer.send(topic, record.value, record.key.encode()) for record in records]
            producer.flush(timeout=SEND_WITHIN_S)
            done = [future.get(timeout=SEND_WITHIN_S) for future in sent]
        return {one.partition: one.offset for one in done}  # the last of each partition stays

    def consumer(self, topic: str, group: str) -> KafkaMember:
        """Join a group; the broker shares the partitions among its members."""
        self.partitions(topic)
        with _faults(self._servers):
            return KafkaMember(
                KafkaConsumer(
                    topic,
                    bootstrap_servers=self._servers,
                    bootstrap_timeout_ms=int(BOOTSTRAP_WITHIN_S * 1000),
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
        """Messages of one partition from an offset on; ends when the partition is silent for a second and has nothing
        more by the broker's word, which some keep too low and none too high. Raises Unavailable when it goes on by the
        broker's word and nothing comes."""
        self.partitions(topic)
        place = TopicPartition(topic, partition)
        with _faults(self._servers), closing(self._reader()) as reader:
            reader.assign([place])
            reader.seek(place, max(offset, _first(reader, place)))  # what the broker has let go of is not waited for
            batch: list[Message] = []
            end, heard = int(reader.end_offsets([place])[place]), time.monotonic()
            while len(batch) < limit:
                try:
                    polled = _poll(reader, limit - len(batch), READ_IDLE_S)
                except (OffsetOutOfRangeError, NoOffsetForPartitionError):
                    break  # beyond the end
                if polled:
                    batch, heard = batch + polled, time.monotonic()
                elif (at := int(reader.position(place))) >= end:
                    break
                elif time.monotonic() - heard > READ_WITHIN_S:
                    raise Unavailable(f"kafka: {topic}/{partition} goes on to {end}, and nothing comes from {at} on")
            return batch

    def partitions(self, topic: str) -> int:
        """How many partitions the topic has; it is created when missing. Raises Unavailable."""
        with self._lock:
            if topic not in self._known:
                with _faults(self._servers):
                    self._known[topic] = self._create_topic(topic)
            return self._known[topic]

    def identity(self, topic: str) -> str:
        """The id that the broker gave the topic."""
        with _faults(self._servers), closing(self._admin()) as admin:
            if topic in admin.list_topics():
                said = _single(admin.describe_topics([topic])).get("topic_id")
                return "" if said is None or str(said) == NO_ID else str(said)
            self._create_topic(topic)
        return self.identity(topic)

    def identity_mismatch(self, topic: str, newest: Mapping[int, int]) -> str | None:
        """Why this cannot be the log that gave out these offsets: the topic is gone, or is another of the same name.

        Its ends are not compared: some brokers tell them wrongly. A new topic under the old name has another id.
        """
        with _faults(self._servers), closing(self._admin()) as admin:
            if topic in admin.list_topics():  # describing a topic that is missing may create it
                topic_id = _single(admin.describe_topics([topic])).get("topic_id")
            else:
                topic_id = None
        with self._lock:
            before = self._ids.get(topic)
            if topic_id is not None:
                self._ids[topic] = topic_id
            if topic_id is None and newest:
                self._known.pop(topic, None)  # the next publish creates it, with as many partitions as we want
                return f"topic {topic} is gone"
            if before not in (None, topic_id) and topic_id is not None:
                self._known.pop(topic, None)
                return f"topic {topic} was made anew (its id is {topic_id}, no longer {before})"
        return None

    def committed(self, topic: str, group: str) -> Mapping[int, int]:
        """Up to and including which offset a group is done."""
        with _faults(self._servers), closing(self._admin()) as admin:
            said = admin.list_group_offsets(group).get(group, {})
        return {place.partition: at.offset - 1 for place, at in said.items() if place.topic == topic and at.offset > 0}

    def oldest(self, topic: str, partition: int) -> int:
        """Offset of the oldest message that the broker still has."""
        self.partitions(topic)
        with _faults(self._servers), closing(self._reader()) as reader:
            return _first(reader, TopicPartition(topic, partition))

    def close(self) -> None:
        """Send what is left and disconnect; idempotent."""
        with self._lock:
            producer, self._producer = self._producer, None
        if producer is not None:
            producer.close(timeout=SEND_WITHIN_S)

    def _create_topic(self, topic: str) -> int:
        with closing(self._admin()) as admin:
            if topic not in admin.list_topics():
                with suppress(TopicAlreadyExistsError):  # another process was faster
                    admin.create_topics([NewTopic(topic, num_partitions=self._partitions, replication_factor=-1)])
            give_up = time.monotonic() + TOPIC_WITHIN_S
            while True:  # a new topic is not known to every broker at once
                described = _single(admin.describe_topics([topic]))
                if not described["error_code"] and described["partitions"]:
                    self._ids[topic] = described.get("topic_id")
                    return len(described["partitions"])
                if time.monotonic() > give_up:
                    raise Unavailable(f"topic {topic} did not appear within {TOPIC_WITHIN_S:.0f} s")
                time.sleep(0.1)

    def _admin(self) -> Any:
        return KafkaAdminClient(bootstrap_servers=self._servers, bootstrap_timeout_ms=int(BOOTSTRAP_WITHIN_S * 1000))

    def _connected(self) -> Any:
        with self._lock:
            if self._producer is None:
                self._producer = KafkaProducer(
                    bootstrap_servers=self._servers,
                    bootstrap_timeout_ms=int(BOOTSTRAP_WITHIN_S * 1000),
                    acks="all",
                    delivery_timeout_ms=int(SEND_WITHIN_S * 1000),
                    request_timeout_ms=int(SEND_WITHIN_S * 500),
                    max_block_ms=int(SEND_WITHIN_S * 1000),
                    batch_size=1 << 18,
                    enable_idempotence=False,  # a producer would not survive a broker that forgot it
                    max_in_flight_requests_per_connection=1,  # so that a batch sent again does not overtake another
                )
            return self._producer

    def _reader(self) -> Any:
        return KafkaConsumer(
            bootstrap_servers=self._servers,
            bootstrap_timeout_ms=int(BOOTSTRAP_WITHIN_S * 1000),
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
        )


class KafkaMember:
    """A member of a Kafka consumer group; not shared between threads."""

    def __init__(self, consumer: Any, topic: str, servers: list[str]) -> None:
        self._consumer, self._topic, self._servers = consumer, topic, servers
        self._closed = False

    def poll(self, limit: int, timeout_s: float) -> list[Message]:
        """At most `limit` messages, per partition in offset order. Raises Unavailable."""
        with _faults(self._servers):
            return _poll(self._consumer, limit, timeout_s)

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Everything up to and including these offsets is done.

        Raises Unavailable when the broker does not answer, or when the group has given the partitions to another
        member meanwhile: that one is delivered these messages again.
        """
        places = {TopicPartition(self._topic, p): OffsetAndMetadata(o + 1, "", -1) for p, o in offsets.items()}
        with _faults(self._servers):
            self._consumer.commit(places)

    def close(self) -> None:
        """Leave the group; idempotent."""
        if not self._closed:
            self._closed = True
            with suppress(KafkaError, OSError):  # whoever cannot say good-bye is missed after SESSION_S
                self._consumer.close(autocommit=False)


def _first(reader: Any, place: TopicPartition) -> int:
    return int(reader.beginning_offsets([place])[place])


def _single(described: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The one topic that was asked for."""
    return described[0] if described else {"error_code": -1, "partitions": []}


def _poll(consumer: Any, limit: int, timeout_s: float) -> list[Message]:
    polled = consumer.poll(timeout_ms=int(timeout_s * 1000), max_records=limit)
    return [
        Message(
            place.topic,
            place.partition,
            record.offset,
            (record.key or b"").decode(errors="replace"),
            record.value or b"",
        )
        for place, records in polled.items()
        for record in records
    ]


@contextmanager
def _faults(servers: list[str]) -> Iterator[None]:
    """Turns the client's errors into Unavailable."""
    try:
        yield
    except (KafkaError, OSError) as error:
        raise Unavailable(f"kafka {','.join(servers)}: {type(error).__name__}: {error}") from error
