"""A place with its log, its oracle and its ledger: send, wait, compare."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.faults.oracle import Ledger, Oracle, Verdict, compare, logged_events
from benchmarks.faults.place import Place, held
from benchmarks.faults.tail import Tail
from benchmarks.faults.traffic import publish
from features.events.dead_letters import dead_topic, decode_replay_note
from features.events.stream.port import Message, Record

LOOK_EVERY_S = 0.1


class Scene:
    """Everything that is sent here is accepted: `publish` raises otherwise."""

    def __init__(self, place: Place) -> None:
        self.place, self.oracle, self.ledger = place, Oracle(), Ledger()
        self.sent = 0
        self._stream = place.stream()
        self._producer: Any = None
        for topic in (place.topic, dead_topic(place.topic)):
            self._stream.partitions(topic)
        self._tail, self._letters = Tail(place), Tail(place, dead_topic(place.topic))
        self._buried: list[Message] = []
        self._files: dict[Path, set[tuple[str, str]]] = {}

    def send(self, records: Sequence[Record]) -> None:
        """Publish; raises Unavailable when the log did not take all of them."""
        publish(self._stream, self.place.topic, records)
        self.sent += len(records)

    def send_raw(self, records: Sequence[Record]) -> None:
        """The same past the engine, by a producer that also sends what is too large for it."""
        if self.place.kind == "embedded":
            self.send(records)
            return
        if self._producer is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                from kafka import KafkaProducer
            servers = self.place.servers
            self._producer = KafkaProducer(bootstrap_servers=servers, acks="all", max_request_size=8 << 20)
        sent = [self._producer.send(self.place.topic, one.value, one.key.encode()) for one in records]
        for one in sent:
            one.get(timeout=30)
        self.sent += len(records)

    def letters(self) -> list[dict[str, Any]]:
        """The dead letters so far, each place once."""
        self._bury()
        said = [json.loads(message.value) for message in self._buried]
        return list({(one["partition"], one["offset"]): one for one in said}.values())

    def hear(self) -> set[tuple[str, str]]:
        """Take in whatever others have sent; returns (viewer, id) of all events in the log."""
        new = self._tail.rest()
        self.oracle.take(new)
        self.ledger.take(new, self.oracle.dead)
        self.sent = self._tail.count
        return self.ledger.ids

    def expected(self) -> Mapping[str, bytes]:
        """What the store must hold once everything sent so far is folded."""
        if self._tail.count < self.sent:
            new = self._tail.read(self.sent)
            self.oracle.take(new)
            self.ledger.take(new, self.oracle.dead)
        return self.oracle.take(())

    def judged(self, within_s: float = 60.0) -> Verdict:
        """The verdict as soon as it is good, or as it stands at the end of the time."""
        give_up, expected = time.monotonic() + within_s, self.expected()
        with closing(self.place.online()) as store:
            while held(store) != expected and time.monotonic() < give_up:
                time.sleep(LOOK_EVERY_S)
        while not (verdict := self.verdict()).ok and time.monotonic() < give_up:
            time.sleep(LOOK_EVERY_S)
        return verdict

    def verdict(self) -> Verdict:
        """Stores, event log and dead letters against the oracle, as they are now."""
        expected = self.expected()
        if self.oracle.dead:
            self._bury()
        return compare(
            expected,
            self.place.dump(),
            oracle=self.oracle,
            ledger=self.ledger,
            event_log=self.place.event_log,
            known=self._files,
            letters=self._buried,
        )

    def logged(self) -> set[tuple[str, str]]:
        """(viewer, id) of all events in the offline log."""
        return logged_events(self.place.event_log, self._files)[0]

    def _bury(self) -> None:
        """Take in the letters that have come; notes of their replay are none."""
        self._buried += [message for message in self._letters.rest() if decode_replay_note(message.value) is None]

    def close(self) -> None:
        """Disconnect."""
        if self._producer is not None:
            self._producer.close()
        self._tail.close()
        self._letters.close()
        self._stream.close()
