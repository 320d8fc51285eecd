"""A env with its log, its oracle and its ledger: send, wait, compare."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.faults.harness.oracle import Ledger, Oracle, Verdict, compare, logged_events
from benchmarks.faults.harness.environment import Environment, live_entries
from benchmarks.faults.harness.tail import Tail
from benchmarks.faults.harness.traffic import publish
from features.events.dead_letters import dead_topic, decode_replay_note
from features.events.stream.port import Message, Record

POLL_INTERVAL_S = 0.1


class Scenario:
    """Everything that is sent here is accepted: `publish` raises otherwise."""

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
        """Publish; raises Unavailable when the log did not take all of them."""
        publish(self._stream, self.env.topic, records)
        self.sent += len(records)

    def send_raw(self, records: Sequence[Record]) -> None:
        """The same past the engine, by a producer that also sends what is too large for it."""
        if self.env.kind == "embedded":
            self.send(records)
            return
        if self._producer is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                from kafka import KafkaProducer
            servers = self.env.servers
            self._producer = KafkaProducer(bootstrap_servers=servers, acks="all", max_request_size=8 << 20)
        sent = [self._producer.send(self.env.topic, one.value, one.key.encode()) for one in records]
        for one in sent:
            one.get(timeout=30)
        self.sent += len(records)

    def dead_letters(self) -> list[dict[str, Any]]:
        """The dead letters so far, each env once."""
        self._read_dead_letters()
        said = [json.loads(message.value) for message in self._dead_letters]
        return list({(one["partition"], one["offset"]): one for one in said}.values())

    def read_new(self) -> set[tuple[str, str]]:
        """Take in whatever others have sent; returns (viewer, id) of all events in the log."""
        new = self._tail.read_available()
        self.oracle.apply(new)
        self.ledger.apply(new, self.oracle.dead)
        self.sent = self._tail.count
        return self.ledger.ids

    def expected(self) -> Mapping[str, bytes]:
        """What the store must hold once everything sent so far is folded."""
        if self._tail.count < self.sent:
            new = self._tail.read(self.sent)
            self.oracle.apply(new)
            self.ledger.apply(new, self.oracle.dead)
        return self.oracle.apply(())

    def wait_for_verdict(self, within_s: float = 60.0) -> Verdict:
        """The verdict as soon as it is good, or as it stands at the end of the time."""
        give_up, expected = time.monotonic() + within_s, self.expected()
        with closing(self.env.online()) as store:
            while live_entries(store) != expected and time.monotonic() < give_up:
                time.sleep(POLL_INTERVAL_S)
        while not (verdict := self.verdict()).ok and time.monotonic() < give_up:
            time.sleep(POLL_INTERVAL_S)
        return verdict

    def verdict(self) -> Verdict:
        """Stores, event log and dead letters against the oracle, as they are now."""
        expected = self.expected()
        if self.oracle.dead:
            self._read_dead_letters()
        return compare(
            expected,
            self.env.dump(),
            oracle=self.oracle,
            ledger=self.ledger,
            event_log=self.env.event_log,
            known=self._files,
            letters=self._dead_letters,
        )

    def logged(self) -> set[tuple[str, str]]:
        """(viewer, id) of all events in the offline log."""
        return logged_events(self.env.event_log, self._files)[0]

    def _read_dead_letters(self) -> None:
        """Take in the letters that have come; notes of their replay are none."""
        self._dead_letters += [message for message in self._dead_letter_tail.read_available() if decode_replay_note(message.value) is None]

    def close(self) -> None:
        """Disconnect."""
        if self._producer is not None:
            self._producer.close()
        self._tail.close()
        self._dead_letter_tail.close()
        self._stream.close()
