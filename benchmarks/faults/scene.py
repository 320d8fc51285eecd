"""A place with its log, its oracle and its ledger: send, wait, compare."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from benchmarks.faults.oracle import Ledger, Oracle, Verdict, compare
from benchmarks.faults.place import Place
from benchmarks.faults.tail import Tail
from benchmarks.faults.traffic import publish
from features.stream import Record
from features.worker.dead import dead_topic

LOOK_EVERY_S = 0.1


class Scene:
    """Everything that is sent here is accepted: `publish` raises otherwise."""

    def __init__(self, place: Place) -> None:
        self.place, self.oracle, self.ledger = place, Oracle(), Ledger()
        self.sent = 0
        self._stream = place.stream()
        self._stream.partitions(place.topic)
        self._tail, self._letters = Tail(place), Tail(place, dead_topic(place.topic))
        self._buried: list = []
        self._files: dict[Path, set[tuple[str, str]]] = {}

    def send(self, records: Sequence[Record]) -> None:
        """Publish; raises Unavailable when the log did not take all of them."""
        publish(self._stream, self.place.topic, records)
        self.sent += len(records)

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
            while dict(store.scan("")) != expected and time.monotonic() < give_up:
                time.sleep(LOOK_EVERY_S)
        while not (verdict := self.verdict()).ok and time.monotonic() < give_up:
            time.sleep(LOOK_EVERY_S)
        return verdict

    def verdict(self) -> Verdict:
        """Stores, event log and dead letters against the oracle, as they are now."""
        expected = self.expected()
        if self.oracle.dead:
            self._buried += self._letters.rest()
        return compare(
            expected,
            self.place.dump(),
            oracle=self.oracle,
            ledger=self.ledger,
            event_log=self.place.event_log,
            known=self._files,
            letters=self._buried,
        )

    def close(self) -> None:
        """Disconnect."""
        self._tail.close()
        self._letters.close()
        self._stream.close()
