"""The contract of the online store, run against every adapter."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.servers import free_port
from features.state.keys import ITEMS
from features.state.online.connect import open_online
from features.state.online.guarded import probe_key
from features.state.online.port import OnlineStore, Sharded
from features.state.online.redis import RedisStore
from features.state.online.sqlite import SWEEP_EVERY_S, SqliteStore
from recsys.domain.errors import InvalidInput, Unavailable

ADAPTERS = ["memory", "sqlite", "redis", "redis-with-prefix", "redis-indexed", "redis-cluster"]


@pytest.fixture(scope="module")
def cluster_url(start_valkey: Callable[..., str]) -> str:
    """A cluster of two nodes with half of the slots each, which rejects commands on keys of different slots."""
    buses = [str(free_port()) for _ in range(2)]
    addresses = [start_valkey("--cluster-enabled", "yes", "--cluster-port", bus) for bus in buses]
    nodes = [redis.Redis.from_url(address) for address in addresses]
    for node, (first, last) in zip(nodes, [(0, 8191), (8192, 16383)], strict=True):
        node.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
    port = nodes[1].connection_pool.connection_kwargs["port"]
    nodes[0].execute_command("CLUSTER", "MEET", "127.0.0.1", port, buses[1])
    deadline = time.monotonic() + 30
    for node in nodes:
        while b"cluster_state:ok" not in node.execute_command("CLUSTER", "INFO"):
            assert time.monotonic() < deadline, node.execute_command("CLUSTER", "INFO")
            time.sleep(0.05)
        node.close()
    return f"{addresses[0]}?cluster=1"


@pytest.fixture
def unique(request: pytest.FixtureRequest, unique: str) -> str:
    """A unique key prefix; for the adapter `redis-indexed`, one whose scans use the index."""
    adapter = getattr(request.node, "callspec", None)
    return f"{ITEMS}{unique}" if adapter and adapter.params.get("url") == "redis-indexed" else unique


@pytest.fixture(params=ADAPTERS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "redis-cluster":
        return f"{request.getfixturevalue('cluster_url')}&prefix=t{request.getfixturevalue('unique')}"
    if request.param.startswith("redis"):
        server = str(request.getfixturevalue("redis_url"))
        return f"{server}?prefix=t[*]{request.getfixturevalue('unique')}" if request.param != "redis" else server
    return {"memory": "memory://", "sqlite": f"sqlite:///{tmp_path}/new/online.db"}[request.param]


@pytest.fixture
def store(url: str) -> Iterator[OnlineStore]:
    opened = open_online(url, timeout_s=5.0)
    yield opened
    opened.close()


def test_a_cluster_routes_a_probe_to_the_node_of_its_key(cluster_url: str) -> None:
    with closing(RedisStore(cluster_url.partition("?")[0], 5.0, "t:", cluster=True)) as store:
        assert isinstance(store, Sharded)
        assert store.node_of("viewer:{v}") == "", "no key was requested yet"
        store.get(["viewer:{v}"])
        keys = [f"viewer:{{{n}}}" for n in range(100)]
        nodes = {store.node_of(key) for key in keys}
        assert len(nodes) == 2
        assert all(
            store.node_of(key) == store.node_of(probe_key(key)) for key in [*keys, "viewer:{a}b}", "viewer:{}x}", "x"]
        )
        node = redis.Redis.from_url(f"redis://{min(nodes)}")
        with closing(node):
            for key in keys:
                slot = node.execute_command("CLUSTER", "KEYSLOT", f"t:{key}")
                (slots,) = [s for s in node.execute_command("CLUSTER", "SLOTS") if s[0] <= slot <= s[1]]
                assert store.node_of(key) == f"{slots[2][0].decode()}:{slots[2][1]}"


def test_get_returns_values_in_the_order_of_the_keys(store: OnlineStore, unique: str) -> None:
    entries = {f"{unique}:{i}": f"value {i}".encode() for i in range(1300)}
    store.put(entries)
    keys = [f"{unique}:{i}" for i in (7, 1299, 4, 7)] + [f"{unique}:none"]
    assert store.get(keys) == [b"value 7", b"value 1299", b"value 4", b"value 7", None]
    assert store.get(list(reversed(entries))) == list(reversed(entries.values()))
    assert store.get([]) == []


def test_the_last_put_wins_and_deleted_keys_are_missing(store: OnlineStore, unique: str) -> None:
    a, b = f"{unique}:a", f"{unique}:b"
    store.put({a: b"1", b: b"\x00\xff"})
    store.put({a: b""})
    assert store.get([a, b]) == [b"", b"\x00\xff"]
    store.delete([a, f"{unique}:never"])
    assert store.get([a, b]) == [None, b"\x00\xff"]
    store.put({})
    store.delete([])


def test_compare_and_set_writes_only_if_the_value_is_unchanged(store: OnlineStore, unique: str) -> None:
    a, b, c, d = (f"{unique}:{name}" for name in "abcd")
    assert store.compare_and_set({a: (None, b"1"), b: (None, b"")}) == []
    assert store.compare_and_set({c: (b"x", b"2"), b: (None, b"2"), a: (b"1", b"2"), d: (None, b"2")}) == [c, b]
    assert store.get([a, b, c, d]) == [b"2", b"", None, b"2"]
    assert store.compare_and_set({b: (b"", b"3"), a: (b"1", b"3")}) == [a]
    assert store.get([a, b]) == [b"2", b"3"]
    store.delete([a])
    assert store.compare_and_set({a: (b"2", b"stale")}) == [a]
    assert store.compare_and_set({}) == []
    assert store.compare_and_set({f"{unique}:{n}": (None, b"n") for n in range(1300)}) == []
    assert store.compare_and_set({f"{unique}:{n}": (b"n", b"m") for n in range(1300)}, ttl_s=1000) == []


def test_compare_and_set_resets_the_ttl_and_treats_expired_keys_as_missing(store: OnlineStore, unique: str) -> None:
    short, permanent = f"{unique}:short", f"{unique}:kept"
    store.compare_and_set({short: (None, b"s"), permanent: (None, b"k")}, ttl_s=0.25)
    assert store.compare_and_set({permanent: (b"k", b"permanent")}) == []
    time.sleep(0.35)
    assert store.get([short, permanent]) == [None, b"permanent"]
    assert store.compare_and_set({short: (b"s", b"late")}) == [short]
    assert store.compare_and_set({short: (None, b"new")}) == []


def test_concurrent_compare_and_set_loses_no_update(url: str, unique: str) -> None:
    """Four writers increment a counter in one key with compare-and-set."""

    def add() -> None:
        with closing(open_online(shared, timeout_s=5.0)) as opened:
            store = opened if shared != "memory://" else shared_store
            for _ in range(50):
                while True:
                    previous = store.get([unique])[0]
                    if not store.compare_and_set({unique: (previous, str(int(previous or 0) + 1).encode())}):
                        break

    shared, shared_store = url, open_online("memory://")
    adders = [threading.Thread(target=add) for _ in range(4)]
    for adder in adders:
        adder.start()
    for adder in adders:
        adder.join()
    with closing(open_online(url, timeout_s=5.0)) as store:
        assert (shared_store if url == "memory://" else store).get([unique]) == [b"200"]


def test_expired_keys_are_missing_in_gets_and_scans(store: OnlineStore, unique: str) -> None:
    short, long, rewritten = (f"{unique}:{name}" for name in ("short", "long", "again"))
    began = time.monotonic()
    store.put({short: b"s", rewritten: b"s"}, ttl_s=0.25)
    store.put({long: b"l"}, ttl_s=1000)
    values = store.get([short])
    assert values == [b"s"] or time.monotonic() - began > 0.25  # on a busy machine it may have expired already
    store.put({rewritten: b"kept"})  # a put without ttl never expires
    time.sleep(0.35)
    assert store.get([short, long, rewritten]) == [None, b"l", b"kept"]
    assert dict(store.scan(unique)) == {long: b"l", rewritten: b"kept"}


def test_a_put_resets_the_ttl(store: OnlineStore, unique: str) -> None:
    renewed, shortened, deleted = (f"{unique}:{name}" for name in ("renewed", "shortened", "gone"))
    store.put({renewed: b"1"}, ttl_s=0.4)
    store.put({shortened: b"1"})
    store.put({shortened: b"2"}, ttl_s=0.4)
    time.sleep(0.25)
    store.put({renewed: b"2"}, ttl_s=1000)
    store.put({deleted: b"1"}, ttl_s=1000)
    store.delete([deleted])
    time.sleep(0.25)
    assert store.get([renewed, shortened, deleted]) == [b"2", None, None]
    assert dict(store.scan(unique)) == {renewed: b"2"}


def test_expired_rows_are_deleted_from_the_file(tmp_path: Path) -> None:
    now = 1000.0
    with closing(SqliteStore(f"{tmp_path}/online.db", clock=lambda: now)) as store:
        store.put({"viewer:{gone}": b"private"}, ttl_s=50)
        now += SWEEP_EVERY_S + 1
        store.put({"viewer:{new}": b""}, ttl_s=50)
        assert store._db.execute("SELECT key FROM state").fetchall() == [("viewer:{new}",)]


def test_a_scan_yields_each_live_key_of_the_prefix_once(store: OnlineStore, unique: str) -> None:
    expected = {f"{unique}[*]?:{{观众{i}}}": bytes([i % 256]) for i in range(2500)}
    store.put(expected)
    store.put({f"{unique}[x]?:1": b"", f"{unique}": b"", f"{unique}[*]": b"", f"{unique}[*]@": b""})
    listed = list(store.scan(f"{unique}[*]?:"))
    assert len(listed) == len(expected)
    assert dict(listed) == expected
    assert list(store.scan(f"{unique}-none")) == []


def test_a_scan_sees_earlier_writes_and_deletes(store: OnlineStore, unique: str) -> None:
    model: dict[str, bytes] = {}
    for n in range(4):
        entries = {f"{unique}:{n}:{i}": bytes([n]) for i in range(700)}
        store.put(entries, ttl_s=None if n % 2 else 1000)
        deleted = list(entries)[::7]
        store.delete(deleted)
        model.update({key: entries[key] for key in entries.keys() - set(deleted)})
        assert dict(store.scan(unique)) == model


def test_a_scan_can_be_abandoned_during_writes(store: OnlineStore, unique: str) -> None:
    store.put({f"{unique}:{i:04}": b"x" for i in range(1500)})
    for key, _ in store.scan(unique):
        store.put({key: b"y"})
        break
    assert store.get([key]) == [b"y"]


def test_threads_share_a_store(store: OnlineStore, unique: str) -> None:
    failed: list[object] = []

    def work(name: int) -> None:
        for i in range(30):
            key = f"{unique}:{name}:{i}"
            store.put({key: str(i).encode()})
            if store.get([key]) != [str(i).encode()]:
                failed.append(key)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert len(list(store.scan(unique))) == 120


def test_prefixes_isolate_engines_on_one_server(redis_url: str, unique: str) -> None:
    stores = [open_online(f"{redis_url}?prefix={unique}{name}&health_check_interval=9", 5.0) for name in ("a", "b")]
    stores.append(open_online(redis_url, 5.0))
    for n, store in enumerate(stores):
        store.put({f"{unique}:k": bytes([n])})
    assert [store.get([f"{unique}:k"]) for store in stores] == [[b"\0"], [b"\1"], [b"\2"]]
    assert [list(store.scan(f"{unique}:")) for store in stores] == [[(f"{unique}:k", bytes([n]))] for n in range(3)]
    stores[0].delete([f"{unique}:k"])
    assert [store.get([f"{unique}:k"]) for store in stores] == [[None], [b"\1"], [b"\2"]]
    for store in stores:
        store.close()


@pytest.mark.parametrize("url", ["sqlite", "redis"], indirect=True)
def test_puts_of_a_killed_process_are_visible_to_others(store: OnlineStore, url: str, unique: str) -> None:
    program = f"""
import os, signal
from features.state.online.connect import open_online
store = open_online({url!r}, timeout_s=5.0)
assert store.get(["{unique}:parent"]) == [b"from the parent"]
store.put({{"{unique}:child": b"from the child"}})
print("done", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    store.put({f"{unique}:parent": b"from the parent"})
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert child.stdout.strip() == "done", child.stderr
    assert store.get([f"{unique}:child"]) == [b"from the child"]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("put"), st.dictionaries(st.sampled_from("abcd"), st.binary(max_size=5), max_size=4)),
            st.tuples(st.just("delete"), st.lists(st.sampled_from("abcd"), max_size=3)),
        ),
        max_size=12,
    )
)
def test_every_store_matches_a_dictionary_model(url: str, steps: list[tuple[str, object]]) -> None:
    with closing(open_online(url, timeout_s=5.0)) as store:
        prefix = f"t{time.monotonic_ns()}:"
        model: dict[str, bytes] = {}
        for step, argument in steps:
            if isinstance(argument, dict):
                store.put({prefix + key: value for key, value in argument.items()})
                model.update(argument)
            elif isinstance(argument, list):
                store.delete([prefix + key for key in argument])
                model = {key: value for key, value in model.items() if key not in argument}
            assert store.get([prefix + key for key in "abcd"]) == [model.get(key) for key in "abcd"], step
        assert dict(store.scan(prefix)) == {prefix + key: value for key, value in model.items()}


def test_an_unresponsive_server_costs_one_timeout() -> None:
    with (
        closing(socket.create_server(("127.0.0.1", 0))) as server,
        closing(open_online(f"redis://:secret@127.0.0.1:{server.getsockname()[1]}/0")) as store,
    ):
        started_at = time.monotonic()
        with pytest.raises(Unavailable, match=r"^redis 127\.0\.0\.1") as caught:  # without the password
            store.get(["viewer:{v}"])
        assert time.monotonic() - started_at < 0.25
        assert "secret" not in str(caught.value)


def test_a_locked_file_costs_one_timeout_and_does_not_block_readers(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/online.db"
    with closing(open_online(url, timeout_s=0.05)) as store, closing(open_online(url)) as second:
        store.put({"a": b"1"})
        database = second._db  # type: ignore[attr-defined]
        database.execute("BEGIN IMMEDIATE")
        started_at = time.monotonic()
        with pytest.raises(Unavailable, match="locked"):
            store.put({"a": b"2"})
        assert time.monotonic() - started_at < 0.5
        assert store.get(["a"]) == [b"1"]
        database.rollback()
        store.put({"a": b"3"})
        assert second.get(["a"]) == [b"3"]


def test_an_unreachable_address_is_unavailable(tmp_path: Path) -> None:
    with closing(open_online("redis://127.0.0.1:1/0")) as store:
        for call in (lambda: store.get(["a"]), lambda: store.put({"a": b""}), lambda: list(store.scan("a"))):
            with pytest.raises(Unavailable):
                call()
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable):
        open_online(f"sqlite:///{tmp_path}/file/online.db")


def test_item_scans_use_the_index_instead_of_walking_all_keys(start_valkey: Callable[..., str]) -> None:
    with (
        closing(redis.Redis.from_url(address := start_valkey())) as server,
        closing(open_online(address, 5.0)) as store,
    ):
        items = {f"item:{{{n}}}:t/0": b"i" for n in range(1200)}
        store.put({f"viewer:{{{n}}}": b"v" for n in range(3000)})
        store.put(items)
        assert dict(store.scan("item:")) == items  # the first scan walks all keys and completes the index
        server.config_resetstat()
        assert dict(store.scan("item:")) == items
        assert dict(store.scan("item:{7")) == {key: b"i" for key in items if key.startswith("item:{7")}
        scan_calls = server.info("commandstats").get("cmdstat_scan")
        assert scan_calls is None
        server.flushall()  # clears the index as well
        store.put({"item:{new}:t/0": b"n"})
        assert dict(store.scan("item:")) == {"item:{new}:t/0": b"n"}
        assert list(store.scan("")) == [("item:{new}:t/0", b"n")]  # the index itself is not listed


def test_keys_written_by_older_engines_are_indexed_and_expire(start_valkey: Callable[..., str]) -> None:
    address = start_valkey()
    with closing(RedisStore(address, 5.0)) as older, closing(open_online(address, 5.0)) as newer:
        older.put({"traffic:{a}:1:t/0": b"1", "traffic:{b}:1:t/0": b"2"})
        older.put({"traffic:{c}:1:t/0": b"3"}, ttl_s=0.3)
        assert {key for key, _ in newer.scan("traffic:")} == {f"traffic:{{{n}}}:1:t/0" for n in "abc"}
        newer.delete(["traffic:{b}:1:t/0"])
        time.sleep(0.4)
        assert list(newer.scan("traffic:")) == [("traffic:{a}:1:t/0", b"1")]


def test_expired_keys_leave_the_index(start_valkey: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    address = start_valkey()
    monkeypatch.setattr("features.state.online.redis.INDEX_PRUNE_S", 0.0)
    with closing(redis.Redis.from_url(address)) as server, closing(open_online(address, 5.0)) as store:
        store.put({"traffic:{a}:1:t/0": b"1", "traffic:{b}:1:t/0": b"2"}, ttl_s=0.2)
        store.put({"traffic:{b}:1:t/0": b"2"}, ttl_s=1000)
        list(store.scan("traffic:"))
        time.sleep(0.3)
        assert list(store.scan("traffic:")) == [("traffic:{b}:1:t/0", b"2")]
        assert server.zrange("index:{traffic:}", 0, -1) == [b"traffic:{b}:1:t/0", b""]


def test_a_read_only_server_can_still_be_read(start_valkey: Callable[..., str]) -> None:
    address = start_valkey()
    with closing(redis.Redis.from_url(address)) as server, closing(RedisStore(address, 5.0)) as older:
        older.put({"item:{a}:t/0": b"1", "viewer:{v}": b"2"})
        server.replicaof("127.0.0.1", 1)  # a replica without a primary is read-only
        with closing(open_online(address, 5.0)) as store:
            with pytest.raises(Unavailable, match="read only"):
                store.put({"viewer:{v}": b"3"})
            assert store.get(["viewer:{v}"]) == [b"2"]
            assert list(store.scan("item:")) == [("item:{a}:t/0", b"1")]


@pytest.mark.parametrize("url", ["", "sqlite://", "kafka://x", "redis://", "/tmp/x.db"])
def test_an_unknown_url_is_rejected(url: str) -> None:
    with pytest.raises(InvalidInput, match="expected sqlite:///PATH"):
        open_online(url)
