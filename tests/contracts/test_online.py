"""The laws of the online store, run by every adapter."""

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
    """A cluster of two nodes with half of the slots each: it refuses commands on keys of two slots."""
    buses = [str(free_port()) for _ in range(2)]
    addresses = [start_valkey("--cluster-enabled", "yes", "--cluster-port", bus) for bus in buses]
    nodes = [redis.Redis.from_url(address) for address in addresses]
    for node, (first, last) in zip(nodes, [(0, 8191), (8192, 16383)], strict=True):
        node.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
    port = nodes[1].connection_pool.connection_kwargs["port"]
    nodes[0].execute_command("CLUSTER", "MEET", "127.0.0.1", port, buses[1])
    give_up = time.monotonic() + 30
    for node in nodes:
        while b"cluster_state:ok" not in node.execute_command("CLUSTER", "INFO"):
            assert time.monotonic() < give_up, node.execute_command("CLUSTER", "INFO")
            time.sleep(0.05)
        node.close()
    return f"{addresses[0]}?cluster=1"


@pytest.fixture
def unique(request: pytest.FixtureRequest, unique: str) -> str:
    """A name no other test uses; for one adapter it is one whose scans go through the index."""
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


def test_a_cluster_tells_which_node_holds_a_key_and_a_probe_goes_to_the_same(cluster_url: str) -> None:
    with closing(RedisStore(cluster_url.partition("?")[0], 5.0, "t:", cluster=True)) as store:
        assert isinstance(store, Sharded)
        assert store.node_of("viewer:{v}") == "", "not asked yet"
        store.get(["viewer:{v}"])
        keys = [f"viewer:{{{n}}}" for n in range(100)]
        nodes = {store.node_of(key) for key in keys}
        assert len(nodes) == 2
        assert all(
            store.node_of(key) == store.node_of(probe_key(key)) for key in [*keys, "viewer:{a}b}", "viewer:{}x}", "x"]
        )
        one = redis.Redis.from_url(f"redis://{min(nodes)}")
        with closing(one):
            for key in keys:
                slot = one.execute_command("CLUSTER", "KEYSLOT", f"t:{key}")
                (mine,) = [s for s in one.execute_command("CLUSTER", "SLOTS") if s[0] <= slot <= s[1]]
                assert store.node_of(key) == f"{mine[2][0].decode()}:{mine[2][1]}"


def test_a_batch_is_answered_in_the_order_asked(store: OnlineStore, unique: str) -> None:
    entries = {f"{unique}:{i}": f"value {i}".encode() for i in range(1300)}
    store.put(entries)
    asked = [f"{unique}:{i}" for i in (7, 1299, 4, 7)] + [f"{unique}:none"]
    assert store.get(asked) == [b"value 7", b"value 1299", b"value 4", b"value 7", None]
    assert store.get(list(reversed(entries))) == list(reversed(entries.values()))
    assert store.get([]) == []


def test_the_last_put_counts_and_the_deleted_is_gone(store: OnlineStore, unique: str) -> None:
    a, b = f"{unique}:a", f"{unique}:b"
    store.put({a: b"1", b: b"\x00\xff"})
    store.put({a: b""})
    assert store.get([a, b]) == [b"", b"\x00\xff"]
    store.delete([a, f"{unique}:never"])
    assert store.get([a, b]) == [None, b"\x00\xff"]
    store.put({})
    store.delete([])


def test_a_swap_overwrites_only_what_was_read(store: OnlineStore, unique: str) -> None:
    a, b, c, d = (f"{unique}:{name}" for name in "abcd")
    assert store.compare_and_set({a: (None, b"1"), b: (None, b"")}) == []
    assert store.compare_and_set({c: (b"x", b"2"), b: (None, b"2"), a: (b"1", b"2"), d: (None, b"2")}) == [c, b]
    assert store.get([a, b, c, d]) == [b"2", b"", None, b"2"]
    assert store.compare_and_set({b: (b"", b"3"), a: (b"1", b"3")}) == [a]
    assert store.get([a, b]) == [b"2", b"3"]
    store.delete([a])
    assert store.compare_and_set({a: (b"2", b"old history")}) == [a]
    assert store.compare_and_set({}) == []
    assert store.compare_and_set({f"{unique}:{n}": (None, b"n") for n in range(1300)}) == []
    assert store.compare_and_set({f"{unique}:{n}": (b"n", b"m") for n in range(1300)}, ttl_s=1000) == []


def test_a_swap_gives_a_new_life_and_finds_the_expired_missing(store: OnlineStore, unique: str) -> None:
    short, kept = f"{unique}:short", f"{unique}:kept"
    store.compare_and_set({short: (None, b"s"), kept: (None, b"k")}, ttl_s=0.25)
    assert store.compare_and_set({kept: (b"k", b"for ever")}) == []
    time.sleep(0.35)
    assert store.get([short, kept]) == [None, b"for ever"]
    assert store.compare_and_set({short: (b"s", b"late")}) == [short]
    assert store.compare_and_set({short: (None, b"new")}) == []


def test_of_many_who_swap_at_once_nobody_is_lost(url: str, unique: str) -> None:
    """Four writers add up numbers in one key; each has read it before."""

    def add() -> None:
        with closing(open_online(shared, timeout_s=5.0)) as own:
            store = own if shared != "memory://" else together
            for _ in range(50):
                while True:
                    was = store.get([unique])[0]
                    if not store.compare_and_set({unique: (was, str(int(was or 0) + 1).encode())}):
                        break

    shared, together = url, open_online("memory://")
    adders = [threading.Thread(target=add) for _ in range(4)]
    for adder in adders:
        adder.start()
    for adder in adders:
        adder.join()
    with closing(open_online(url, timeout_s=5.0)) as store:
        assert (together if url == "memory://" else store).get([unique]) == [b"200"]


def test_the_expired_is_missing_everywhere(store: OnlineStore, unique: str) -> None:
    short, long, again = (f"{unique}:{name}" for name in ("short", "long", "again"))
    store.put({short: b"s", again: b"s"}, ttl_s=0.25)
    store.put({long: b"l"}, ttl_s=1000)
    assert store.get([short]) == [b"s"]
    store.put({again: b"kept"})  # a put without ttl keeps for ever
    time.sleep(0.35)
    assert store.get([short, long, again]) == [None, b"l", b"kept"]
    assert dict(store.scan(unique)) == {long: b"l", again: b"kept"}


def test_a_put_renews_the_time_to_live(store: OnlineStore, unique: str) -> None:
    renewed, shortened, gone = (f"{unique}:{name}" for name in ("renewed", "shortened", "gone"))
    store.put({renewed: b"1"}, ttl_s=0.4)
    store.put({shortened: b"1"})
    store.put({shortened: b"2"}, ttl_s=0.4)
    time.sleep(0.25)
    store.put({renewed: b"2"}, ttl_s=1000)
    store.put({gone: b"1"}, ttl_s=1000)
    store.delete([gone])
    time.sleep(0.25)
    assert store.get([renewed, shortened, gone]) == [b"2", None, None]
    assert dict(store.scan(unique)) == {renewed: b"2"}


def test_the_expired_leaves_the_file(tmp_path: Path) -> None:
    now = 1000.0
    with closing(SqliteStore(f"{tmp_path}/online.db", clock=lambda: now)) as store:
        store.put({"viewer:{gone}": b"private"}, ttl_s=50)
        now += SWEEP_EVERY_S + 1
        store.put({"viewer:{new}": b""}, ttl_s=50)
        assert store._db.execute("SELECT key FROM state").fetchall() == [("viewer:{new}",)]


def test_a_scan_lists_each_live_key_under_the_prefix_once(store: OnlineStore, unique: str) -> None:
    inside = {f"{unique}[*]?:{{观众{i}}}": bytes([i % 256]) for i in range(2500)}
    store.put(inside)
    store.put({f"{unique}[x]?:1": b"", f"{unique}": b"", f"{unique}[*]": b"", f"{unique}[*]@": b""})
    listed = list(store.scan(f"{unique}[*]?:"))
    assert len(listed) == len(inside)
    assert dict(listed) == inside
    assert list(store.scan(f"{unique}-none")) == []


def test_each_scan_sees_what_was_done_before_it(store: OnlineStore, unique: str) -> None:
    model: dict[str, bytes] = {}
    for n in range(4):
        more = {f"{unique}:{n}:{i}": bytes([n]) for i in range(700)}
        store.put(more, ttl_s=None if n % 2 else 1000)
        gone = list(more)[::7]
        store.delete(gone)
        model.update({key: more[key] for key in more.keys() - set(gone)})
        assert dict(store.scan(unique)) == model


def test_a_scan_may_be_left_early_and_beside_writes(store: OnlineStore, unique: str) -> None:
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


def test_engines_with_prefixes_share_a_server_unseen(redis_url: str, unique: str) -> None:
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
def test_another_process_sees_every_put_even_of_the_killed(store: OnlineStore, url: str, unique: str) -> None:
    program = f"""
import os, signal
from features.state.online.connect import open_online
store = open_online({url!r}, timeout_s=5.0)
assert store.get(["{unique}:mine"]) == [b"from here"]
store.put({{"{unique}:theirs": b"from afar"}})
print("done", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    store.put({f"{unique}:mine": b"from here"})
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert child.stdout.strip() == "done", child.stderr
    assert store.get([f"{unique}:theirs"]) == [b"from afar"]


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
def test_every_store_agrees_with_a_dictionary(url: str, steps: list[tuple[str, object]]) -> None:
    with closing(open_online(url, timeout_s=5.0)) as store:
        prefix = f"t{time.monotonic_ns()}:"
        model: dict[str, bytes] = {}
        for what, argument in steps:
            if isinstance(argument, dict):
                store.put({prefix + key: value for key, value in argument.items()})
                model.update(argument)
            elif isinstance(argument, list):
                store.delete([prefix + key for key in argument])
                model = {key: value for key, value in model.items() if key not in argument}
            assert store.get([prefix + key for key in "abcd"]) == [model.get(key) for key in "abcd"], what
        assert dict(store.scan(prefix)) == {prefix + key: value for key, value in model.items()}


def test_a_silent_server_costs_one_time_out() -> None:
    with (
        closing(socket.create_server(("127.0.0.1", 0))) as silent,
        closing(open_online(f"redis://:secret@127.0.0.1:{silent.getsockname()[1]}/0")) as store,
    ):
        began = time.monotonic()
        with pytest.raises(Unavailable, match=r"^redis 127\.0\.0\.1") as caught:  # and not with the password
            store.get(["viewer:{v}"])
        assert time.monotonic() - began < 0.25
        assert "secret" not in str(caught.value)


def test_a_locked_file_costs_one_time_out_and_readers_go_on(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/online.db"
    with closing(open_online(url, timeout_s=0.05)) as store, closing(open_online(url)) as other:
        store.put({"a": b"1"})
        database = other._db  # type: ignore[attr-defined]
        database.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        with pytest.raises(Unavailable, match="locked"):
            store.put({"a": b"2"})
        assert time.monotonic() - began < 0.5
        assert store.get(["a"]) == [b"1"]
        database.rollback()
        store.put({"a": b"3"})
        assert other.get(["a"]) == [b"3"]


def test_an_address_that_nobody_answers_is_unavailable(tmp_path: Path) -> None:
    with closing(open_online("redis://127.0.0.1:1/0")) as store:
        for call in (lambda: store.get(["a"]), lambda: store.put({"a": b""}), lambda: list(store.scan("a"))):
            with pytest.raises(Unavailable):
                call()
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable):
        open_online(f"sqlite:///{tmp_path}/file/online.db")


def test_a_scan_of_items_walks_past_no_viewers(start_valkey: Callable[..., str]) -> None:
    with (
        closing(redis.Redis.from_url(address := start_valkey())) as server,
        closing(open_online(address, 5.0)) as store,
    ):
        items = {f"item:{{{n}}}:t/0": b"i" for n in range(1200)}
        store.put({f"viewer:{{{n}}}": b"v" for n in range(3000)})
        store.put(items)
        assert dict(store.scan("item:")) == items  # the first one walks, and makes the index whole
        server.config_resetstat()
        assert dict(store.scan("item:")) == items
        assert dict(store.scan("item:{7")) == {key: b"i" for key in items if key.startswith("item:{7")}
        walked = server.info("commandstats").get("cmdstat_scan")
        assert walked is None
        server.flushall()  # what the server forgets the index forgets with it
        store.put({"item:{new}:t/0": b"n"})
        assert dict(store.scan("item:")) == {"item:{new}:t/0": b"n"}
        assert list(store.scan("")) == [("item:{new}:t/0", b"n")]  # and the index itself is no key of ours


def test_what_an_older_engine_wrote_is_indexed_and_expires(start_valkey: Callable[..., str]) -> None:
    address = start_valkey()
    with closing(RedisStore(address, 5.0)) as older, closing(open_online(address, 5.0)) as newer:
        older.put({"traffic:{a}:1:t/0": b"1", "traffic:{b}:1:t/0": b"2"})
        older.put({"traffic:{c}:1:t/0": b"3"}, ttl_s=0.3)
        assert {key for key, _ in newer.scan("traffic:")} == {f"traffic:{{{n}}}:1:t/0" for n in "abc"}
        newer.delete(["traffic:{b}:1:t/0"])
        time.sleep(0.4)
        assert list(newer.scan("traffic:")) == [("traffic:{a}:1:t/0", b"1")]


def test_an_index_lets_go_of_what_expired(start_valkey: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    address = start_valkey()
    monkeypatch.setattr("features.state.online.redis.FORGET_S", 0.0)
    with closing(redis.Redis.from_url(address)) as server, closing(open_online(address, 5.0)) as store:
        store.put({"traffic:{a}:1:t/0": b"1", "traffic:{b}:1:t/0": b"2"}, ttl_s=0.2)
        store.put({"traffic:{b}:1:t/0": b"2"}, ttl_s=1000)
        list(store.scan("traffic:"))
        time.sleep(0.3)
        assert list(store.scan("traffic:")) == [("traffic:{b}:1:t/0", b"2")]
        assert server.zrange("index:{traffic:}", 0, -1) == [b"traffic:{b}:1:t/0", b""]


def test_a_server_that_refuses_writes_is_still_read(start_valkey: Callable[..., str]) -> None:
    address = start_valkey()
    with closing(redis.Redis.from_url(address)) as server, closing(RedisStore(address, 5.0)) as older:
        older.put({"item:{a}:t/0": b"1", "viewer:{v}": b"2"})
        server.replicaof("127.0.0.1", 1)  # a replica of nobody: READONLY
        with closing(open_online(address, 5.0)) as store:
            with pytest.raises(Unavailable, match="read only"):
                store.put({"viewer:{v}": b"3"})
            assert store.get(["viewer:{v}"]) == [b"2"]
            assert list(store.scan("item:")) == [("item:{a}:t/0", b"1")]


@pytest.mark.parametrize("url", ["", "sqlite://", "kafka://x", "redis://", "/tmp/x.db"])
def test_an_unknown_address_is_refused_by_name(url: str) -> None:
    with pytest.raises(InvalidInput, match="expected sqlite:///PATH"):
        open_online(url)
