"""An environment with its oracle and ledger: send events, wait for the worker, compare the stores."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.faults.harness.environment import Environment, live_entries
from benchmarks.faults.harness.oracle import Ledger, Oracle, Verdict, compare, logged_events
from benchmarks.faults.harness.tail import Tail
from benchmarks.faults.harness.traffic import publish
from features.events.dead_letters import dead_topic, decode_replay_note
from features.events.stream.port import Message, Record

POLL_INTERVAL_S = 0.1


class Scenario:
    """Sends events to an environment and compares its stores with the oracle. Every event sent is accepted."""

    def __init__(self, env: Environment) -> None:
        self.env, self.oracle, self.ledger = env, Oracle(), Ledger()
        self.sent = 0
        self._stream = env.stream()
        self._producer: Any = None
        for topic in (env.topic, dead_topic(env.topic)):
            self._stream.partitions(topic)
        self._tail, self._dead_letter_tail = Tail(env), Tail(env, dead_topic(env.topic))
        self._dead_letters: list[Message] = []
        self._files: dict[Path, set[tuple[str, str]]] = {}

    def send(self, records: Sequence[Record]) -> None:
        """Publish records. Raises Unavailable if the stream does not accept all of them."""
        publish(self._stream, self.env.topic, records)
        self.sent += len(records)

    def send_raw(self, records: Sequence[Record]) -> None:
        """Publish without the engine's producer, whose size limit would reject large messages."""
        if self.env.kind == "embedded":
            self.send(records)
            return
        if self._producer is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                from kafka import KafkaProducer
            servers = self.env.servers
            self._producer = KafkaProducer(bootstrap_servers=servers, acks="all", max_request_size=8 << 20)
        futures = [self._producer.send(self.env.topic, record.value, record.key.encode()) for record in records]
        for future in futures:
            future.get(timeout=30)
        self.sent += len(records)

    def dead_letters(self) -> list[dict[str, Any]]:
        """Return the dead letters so far, one for each offset."""
        self._read_dead_letters()
        dead_letters = [json.loads(message.value) for message in self._dead_letters]
        return list({(letter["partition"], letter["offset"]): letter for letter in dead_letters}.values())

    def read_new(self) -> set[tuple[str, str]]:
        """Read what other producers have sent; returns (viewer, id) of all events in the stream."""
        new = self._tail.read_available()
        self.oracle.apply(new)
        self.ledger.apply(new, self.oracle.dead)
        self.sent = self._tail.count
        return self.ledger.ids

    def expected(self) -> Mapping[str, bytes]:
        """Return what the store must hold once all messages sent so far are folded."""
        if self._tail.count < self.sent:
            new = self._tail.read(self.sent)
            self.oracle.apply(new)
            self.ledger.apply(new, self.oracle.dead)
        return self.oracle.apply(())

    def wait_for_verdict(self, within_s: float = 60.0) -> Verdict:
        """Return the verdict as soon as it is good, else the last one after `within_s`."""
        deadline, expected = time.monotonic() + within_s, self.expected()
        with closing(self.env.online()) as store:
            while live_entries(store) != expected and time.monotonic() < deadline:
                time.sleep(POLL_INTERVAL_S)
        while not (verdict := self.verdict()).ok and time.monotonic() < deadline:
            time.sleep(POLL_INTERVAL_S)
        return verdict

    def verdict(self) -> Verdict:
        """Compare stores, event log and dead letters with the oracle now."""
        expected = self.expected()
        if self.oracle.dead:
            self._read_dead_letters()
        return compare(
            expected,
            self.env.dump(),
            oracle=self.oracle,
            ledger=self.ledger,
            event_log=self.env.event_log,
            read_files=self._files,
            dead_letters=self._dead_letters,
        )

    def logged(self) -> set[tuple[str, str]]:
        """Return (viewer, id) of all events in the event log."""
        return logged_events(self.env.event_log, self._files)[0]

    def _read_dead_letters(self) -> None:
        """Read new dead letters; replay notes on the same topic are skipped."""
        self._dead_letters += [
            message for message in self._dead_letter_tail.read_available() if decode_replay_note(message.value) is None
        ]

    def close(self) -> None:
        """Disconnect."""
        if self._producer is not None:
            self._producer.close()
        self._tail.close()
        self._dead_letter_tail.close()
        self._stream.close()
