"""The circuit breaker of the page path: calls fail fast while a server is down, and resume soon after it recovers."""

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

STEPS = st.lists(st.tuples(st.sampled_from(["call", "probe"]), st.booleans(), st.floats(0, 0.4)), max_size=60)


@given(STEPS, st.integers(1, 4), st.integers(4, 8))
def test_breaker_follows_its_state_machine(
    steps: Sequence[tuple[str, bool, float]], failure_threshold: int, window: int
) -> None:
    """The model is a list of results since the circuit closed, and the time at which it last opened."""
    circuit, now = CircuitBreaker(failure_threshold, window, open_s=0.5), 0.0
    results: list[bool] = []
    opened_at: float | None = None
    for action, ok, pause_s in steps:
        now += pause_s
        if action == "call":
            circuit = circuit.record_result(ok, now)
            if opened_at is None:
                results.append(ok)
                if results[-window:].count(False) >= failure_threshold:
                    opened_at, results = now, []
        else:
            due = opened_at is not None and now >= opened_at + 0.5
            assert circuit.probe_due(now) == due
            if due:
                circuit = circuit.begin_probe()
                assert not circuit.probe_due(now + 100)  # one at a time
                circuit = circuit.record_probe(ok, now)
                opened_at = None if ok else now
        assert circuit.closed == (opened_at is None)


@given(STEPS)
def test_breaker_closes_after_one_successful_probe(steps: Sequence[tuple[str, bool, float]]) -> None:
    circuit, now = CircuitBreaker(), 0.0
    for action, ok, pause_s in steps:
        now += pause_s
        if action == "call":
            circuit = circuit.record_result(ok, now)
        elif circuit.probe_due(now):
            circuit = circuit.begin_probe().record_probe(ok, now)
    now += circuit.open_s
    if circuit.probe_due(now):
        circuit = circuit.begin_probe().record_probe(True, now)
    assert circuit.closed


class Server(MemoryStore):
    """A store with configurable failures and latency, and a simulated clock."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.latency_s, self.now, self.requested = False, 0.0, 0.0, list[str]()

    def get(self, keys: Sequence[str]) -> list[bytes | None]:
        self.requested += keys
        self.now += self.latency_s
        if self.down:
            raise Unavailable("no answer")
        return super().get(keys)


@pytest.mark.parametrize("fault", ["down", "slow"])
def test_open_circuit_fails_fast_until_the_server_recovers(fault: str) -> None:
    server = Server()
    server.put({"viewer:{v}": b"state"})
    with closing(BreakerStore(server, CircuitBreaker(open_s=0.02), slow_s=0.1, clock=lambda: server.now)) as store:
        assert store.get(["viewer:{v}"]) == [b"state"]
        server.down, server.latency_s = fault == "down", 0.3 if fault == "slow" else 0.0
        for _ in range(3):
            try:
                assert store.get(["viewer:{v}"]) == [b"state"]
            except Unavailable:
                assert fault == "down"
        server.requested.clear()
        for _ in range(50):
            with pytest.raises(Unavailable, match="circuit open"):
                store.get(["viewer:{v}"])
            for call in (lambda: store.put({"a": b""}), lambda: store.delete(["a"]), lambda: store.scan("a")):
                with pytest.raises(Unavailable):
                    call()
        assert "viewer:{v}" not in server.requested
        server.now += 1.0
        while probe_key("viewer:{v}") not in server.requested:  # the background probe runs and fails
            time.sleep(0.005)
        assert store.fault
        server.down, server.latency_s = False, 0.0
        while store.fault:
            server.now += 0.1
            time.sleep(0.005)
        assert store.get(["viewer:{v}"]) == [b"state"]


def test_occasional_failures_do_not_open_the_circuit() -> None:
    server = Server()
    with closing(BreakerStore(server, clock=lambda: server.now)) as store:
        for n in range(60):
            server.down = n % 6 == 0
            try:
                store.get(["viewer:{v}"])
            except Unavailable:
                assert server.down
        assert store.fault is None
        assert len(server.requested) == 60


def test_failed_writes_do_not_open_the_circuit() -> None:
    class Full(MemoryStore):
        def put(self, entries: object, ttl_s: float | None = None) -> None:
            raise Unavailable("OOM command not allowed")

    with closing(BreakerStore(Full())) as store:
        for _ in range(20):
            with pytest.raises(Unavailable, match="OOM"):
                store.put({"a": b""})
        assert store.get(["a"]) == [None]


def test_a_probe_that_raises_counts_as_failed() -> None:
    class BuggyProbe(Server):
        def get(self, keys: Sequence[str]) -> list[bytes | None]:
            if keys == [probe_key("viewer:{a}")] and self.down:
                raise ZeroDivisionError("a bug in an adapter")
            return super().get(keys)

    server = BuggyProbe()
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
    """A cluster of two nodes, by the first letter of a key's tag. It records the keys of each read."""

    def __init__(self) -> None:
        super().__init__()
        self.failed: set[str] = set()
        self.batches: list[list[str]] = []

    def node_of(self, key: str) -> str:
        return f"node-{key.partition('{')[2][:1]}"

    def get(self, keys: Sequence[str]) -> list[bytes | None]:
        self.batches.append(list(keys))
        if self.failed & {self.node_of(key) for key in keys}:
            raise Unavailable("connection refused")
        return super().get(keys)


def test_a_failed_node_affects_only_its_own_keys() -> None:
    cluster = Cluster()
    cluster.put({"viewer:{a1}": b"a", "viewer:{b1}": b"b"})
    with closing(BreakerStore(cluster, CircuitBreaker(open_s=0.02), clock=time.monotonic)) as store:
        assert store.get(["viewer:{b1}", "viewer:{a1}", "viewer:{b2}"]) == [b"b", b"a", None]
        assert cluster.batches == [["viewer:{b1}", "viewer:{b2}"], ["viewer:{a1}"]]
        cluster.failed = {"node-b"}
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
        store.put({"viewer:{a1}": b"new"})
        assert store.fault == "node-b: connection refused"
        while ["probe:{b2}"] not in cluster.batches:  # the read of viewer b2, on the same node, opened the circuit
            time.sleep(0.005)
        assert store.fault
        cluster.failed.clear()
        while store.fault:
            time.sleep(0.005)
        assert store.get(["viewer:{b1}", "viewer:{a1}"]) == [b"b", b"new"]


def test_concurrent_failures_start_one_probe(monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert server.requested.count("viewer:{v}") <= 3 + 8  # calls in progress when the circuit opened
    probes[0].join(5)
    assert not probes[0].is_alive()


def test_concurrent_calls_to_an_unreachable_cluster_raise_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts connections and never answers
        for port in (1, silent.getsockname()[1]):
            store = RedisStore(f"redis://127.0.0.1:{port}", timeout_s=0.05, cluster=True)
            with ThreadPoolExecutor(8) as executor:
                results = [executor.submit(store.get, ["viewer:v"]) for _ in range(8)]
            assert {type(result.exception()) for result in results} == {Unavailable}
