"""The breaker of the page path: nobody waits for a server that does not answer, and soon after it is well all is."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.state.online.circuit_breaker import CircuitBreaker
from features.state.online.guarded import BreakerStore, probe_key
from features.state.online.memory import MemoryStore
from features.state.online.redis import RedisStore
from recsys.domain.errors import Unavailable

STEPS = st.lists(st.tuples(st.sampled_from(["answer", "probe"]), st.booleans(), st.floats(0, 0.4)), max_size=60)


@given(STEPS, st.integers(1, 4), st.integers(4, 8))
def test_it_opens_and_closes_as_its_story_says(
    steps: Sequence[tuple[str, bool, float]], trips: int, window: int
) -> None:
    """Against the story told in plain lists: answers since it last closed, and the moment it last rested from."""
    circuit, now = CircuitBreaker(trips, window, open_s=0.5), 0.0
    answers: list[bool] = []
    resting: float | None = None
    for what, well, pause_s in steps:
        now += pause_s
        if what == "answer":
            circuit = circuit.record_result(well, now)
            if resting is None:
                answers.append(well)
                if answers[-window:].count(False) >= trips:
                    resting, answers = now, []
        else:
            due = resting is not None and now >= resting + 0.5
            assert circuit.probe_due(now) == due
            if due:
                circuit = circuit.begin_probe()
                assert not circuit.probe_due(now + 100)  # one at a time
                circuit = circuit.record_probe(well, now)
                resting = None if well else now
        assert circuit.closed == (resting is None)


@given(STEPS)
def test_from_any_state_a_well_server_is_asked_again_after_one_rest(steps: Sequence[tuple[str, bool, float]]) -> None:
    circuit, now = CircuitBreaker(), 0.0
    for what, well, pause_s in steps:
        now += pause_s
        if what == "answer":
            circuit = circuit.record_result(well, now)
        elif circuit.probe_due(now):
            circuit = circuit.begin_probe().record_probe(well, now)
    now += circuit.open_s
    if circuit.probe_due(now):
        circuit = circuit.begin_probe().record_probe(True, now)
    assert circuit.closed


class Server(MemoryStore):
    """A store whose answers fail, or take their time by a clock of its own, as told."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.takes_s, self.now, self.asked = False, 0.0, 0.0, list[str]()

    def get(self, keys: Sequence[str]) -> list[bytes | None]:
        self.asked += keys
        self.now += self.takes_s
        if self.down:
            raise Unavailable("no answer")
        return super().get(keys)


@pytest.mark.parametrize("fault", ["down", "slow"])
def test_no_page_asks_an_ill_server_and_all_do_when_it_is_well(fault: str) -> None:
    server = Server()
    server.put({"viewer:{v}": b"state"})
    with closing(BreakerStore(server, CircuitBreaker(open_s=0.02), slow_s=0.1, clock=lambda: server.now)) as store:
        assert store.get(["viewer:{v}"]) == [b"state"]
        server.down, server.takes_s = fault == "down", 0.3 if fault == "slow" else 0.0
        for _ in range(3):
            try:
                assert store.get(["viewer:{v}"]) == [b"state"]
            except Unavailable:
                assert fault == "down"
        server.asked.clear()
        for _ in range(50):
            with pytest.raises(Unavailable, match="circuit open"):
                store.get(["viewer:{v}"])
            for call in (lambda: store.put({"a": b""}), lambda: store.delete(["a"]), lambda: store.scan("a")):
                with pytest.raises(Unavailable):
                    call()
        assert "viewer:{v}" not in server.asked
        server.now += 1.0
        while probe_key("viewer:{v}") not in server.asked:  # its own thread asks, and is not content
            time.sleep(0.005)
        assert store.fault
        server.down, server.takes_s = False, 0.0
        while store.fault:
            server.now += 0.1
            time.sleep(0.005)
        assert store.get(["viewer:{v}"]) == [b"state"]


def test_a_single_bad_answer_is_forgiven() -> None:
    server = Server()
    with closing(BreakerStore(server, clock=lambda: server.now)) as store:
        for n in range(60):
            server.down = n % 6 == 0
            try:
                store.get(["viewer:{v}"])
            except Unavailable:
                assert server.down
        assert store.fault is None
        assert len(server.asked) == 60


def test_a_refused_write_opens_nothing() -> None:
    class Full(MemoryStore):
        def put(self, entries: object, ttl_s: float | None = None) -> None:
            raise Unavailable("OOM command not allowed")

    with closing(BreakerStore(Full())) as store:
        for _ in range(20):
            with pytest.raises(Unavailable, match="OOM"):
                store.put({"a": b""})
        assert store.get(["a"]) == [None]


def test_a_probe_that_breaks_is_a_probe_that_failed() -> None:
    class Odd(Server):
        def get(self, keys: Sequence[str]) -> list[bytes | None]:
            if keys == [probe_key("viewer:{a}")] and self.down:
                raise ZeroDivisionError("a bug in an adapter")
            return super().get(keys)

    server = Odd()
    with closing(BreakerStore(server, CircuitBreaker(failure_threshold=1, open_s=0.01), clock=time.monotonic)) as store:
        server.down = True
        with pytest.raises(Unavailable):
            store.get(["viewer:{a}"])
        time.sleep(0.1)
        assert "bug in an adapter" in (store.fault or "")
        server.down = False
        while store.fault:
            time.sleep(0.005)
        assert store.get(["viewer:{a}"]) == [None]


class Cluster(Server):
    """Two nodes by the first letter of a key's tag, of which some are down; it notes which keys were asked together."""

    def __init__(self) -> None:
        super().__init__()
        self.gone: set[str] = set()
        self.together: list[list[str]] = []

    def node_of(self, key: str) -> str:
        return f"node-{key.partition('{')[2][:1]}"

    def get(self, keys: Sequence[str]) -> list[bytes | None]:
        self.together.append(list(keys))
        if self.gone & {self.node_of(key) for key in keys}:
            raise Unavailable("connection refused")
        return super().get(keys)


def test_a_node_that_falls_costs_only_its_own_viewers_and_is_asked_by_itself() -> None:
    cluster = Cluster()
    cluster.put({"viewer:{a1}": b"a", "viewer:{b1}": b"b"})
    with closing(BreakerStore(cluster, CircuitBreaker(open_s=0.02), clock=time.monotonic)) as store:
        assert store.get(["viewer:{b1}", "viewer:{a1}", "viewer:{b2}"]) == [b"b", b"a", None]
        assert cluster.together == [["viewer:{b1}", "viewer:{b2}"], ["viewer:{a1}"]]
        cluster.gone = {"node-b"}
        for n in range(30):
            assert store.get([f"viewer:{{a{n}}}"]) == [b"a" if n == 1 else None]
            with pytest.raises(Unavailable, match="connection refused" if n < 3 else "circuit open"):
                store.get([f"viewer:{{b{n}}}"])
        for call in (
            lambda: store.get(["viewer:{a1}", "viewer:{b1}"]),
            lambda: store.put({"viewer:{b1}": b""}),
            lambda: store.compare_and_set({"viewer:{b1}": (None, b"")}),
            lambda: store.delete(["viewer:{b1}"]),
            lambda: store.scan("viewer:"),
        ):
            with pytest.raises(Unavailable, match="circuit open"):
                call()
        store.put({"viewer:{a1}": b"anew"})
        assert store.fault == "node-b: connection refused"
        while ["probe:{b2}"] not in cluster.together:  # the key that opened it was of viewer b2: the same node
            time.sleep(0.005)
        assert store.fault
        cluster.gone.clear()
        while store.fault:
            time.sleep(0.005)
        assert store.get(["viewer:{b1}", "viewer:{a1}"]) == [b"b", b"anew"]


def test_many_threads_start_one_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server()
    server.down = True
    store = BreakerStore(server, CircuitBreaker(failure_threshold=3, open_s=0.05), clock=time.monotonic)

    def page() -> None:
        for _ in range(20):
            try:
                store.get(["viewer:{v}"])
            except Unavailable:
                continue

    threads = [threading.Thread(target=page) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    probes = [thread for thread in threading.enumerate() if thread.name == "online-probe"]
    store.close()
    assert len(probes) == 1
    assert server.asked.count("viewer:{v}") <= 3 + 8  # those that were under way when it opened
    probes[0].join(5)
    assert not probes[0].is_alive()


def test_a_cluster_that_is_not_there_is_unavailable_to_all_who_ask_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and never answers
        for port in (1, silent.getsockname()[1]):
            store = RedisStore(f"redis://127.0.0.1:{port}", timeout_s=0.05, cluster=True)
            with ThreadPoolExecutor(8) as asking:
                answers = [asking.submit(store.get, ["viewer:v"]) for _ in range(8)]
            assert {type(answer.exception()) for answer in answers} == {Unavailable}
