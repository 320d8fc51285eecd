"""The pacing loop on every store adapter: several processes act like one, and a restart changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from features.state.codec import VERSION, StateError, decode_state, encode_state, frame
from features.state.exposure_counts import DeliveryCount, TrafficDay, count_key, traffic_key
from features.state.online.connect import open_online
from features.state.online.port import OnlineStore
from features.state.quarantine import quarantined
from recsys.domain.catalog import Catalog
from recsys.domain.errors import Unavailable
from recsys.domain.item import Item
from recsys.guidance.compilation.compile import compile_policy
from recsys.guidance.policy.policy import parse_policy
from recsys.pacing.controller import Gains
from recsys.pacing.on_page import ActivePrices
from recsys.pacing.tracker import PacingState, TargetOverride
from serving.editorial.pacing_loop import PacingLoop, attention_by_hour, pacing_key, scope_forecast, target_controls
from serving.prometheus import Metrics

DAY = 20_000  # days since 1970
START = DAY * 86_400.0
SOURCES = ("t/0", "t/1")


@pytest.fixture(params=["memory", "sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[OnlineStore]:
    url = {"memory": "memory://", "sqlite": f"sqlite:///{tmp_path}/online.db"}.get(request.param)
    if url is None:  # own key prefix: otherwise the forecast would include traffic of other tests
        url = f"{request.getfixturevalue('redis_url')}?prefix={request.getfixturevalue('unique')}"
    with closing(open_online(url, timeout_s=5.0)) as opened:
        yield opened


class Process:
    """A serving process: its own snapshot and loop on a shared store and clock."""

    def __init__(self, store: OnlineStore, name: str, clock: list[float], conditions: str = "") -> None:
        by = datetime.fromtimestamp(START + 86_400, UTC).isoformat()
        since = datetime.fromtimestamp(START, UTC).isoformat()
        policy = parse_policy(
            f"outlet: cn\ncontrols: [{{id: {name}, action: exposure_target, where: {{item: i1}}, impressions: 1000, "
            f"from: {since}, until: {by}{conditions}}}]"
        )
        item = Item.model_validate({"id": "i1", "title": {"en": "x"}, "outlet": "cn", "published_at": since})
        catalog = Catalog.of([item])
        serving_snapshot = SimpleNamespace(policy=compile_policy([policy], catalog))
        self.current = SimpleNamespace(
            serving_snapshots={"cn": serving_snapshot}, target_overrides={}, catalog=catalog, revision=1
        )
        self.newest_revision = 1
        self.prices = ActivePrices()
        self.key, self.policy = f"cn/{name}", policy
        self.loop = PacingLoop(
            self,  # type: ignore[arg-type]
            store,
            lambda: SOURCES,
            lambda: clock[0],
            Metrics(),
            lambda: self.newest_revision,
        )

    def set_prices(self, prices: ActivePrices) -> None:
        self.prices = prices

    @property
    def price(self) -> float:
        return self.prices.price.get(self.key, 0.0)


def put_counts(store: OnlineStore, key: str, delivered: float, available: float, until: float) -> None:
    """Store the counts of a target, half of them for each of two partitions."""
    halves = {
        count_key(key, source): encode_state(DeliveryCount(key, delivered / 2, available / 2, 1, 0, until, 1))
        for source in SOURCES
    }
    store.put(halves)


def stored_state(store: OnlineStore, key: str) -> PacingState:
    (raw,) = store.get([pacing_key(key)])
    assert raw is not None
    return decode_state(raw, msgspec.msgpack.Decoder(PacingState))


def run_minutes(store: OnlineStore, processes: list[Process], clock: list[float], first: int, last: int) -> list[float]:
    """Step the processes one after the other each minute from `first` to `last`; return the price after each."""
    key, prices = processes[0].key, []
    for minute in range(first, last):
        clock[0] = START + 60.0 * minute
        put_counts(store, key, 0.4 * minute, 10.0 * minute, clock[0])
        for process in processes:
            process.loop.step()
        prices.append(processes[-1].price)
    return prices


def test_several_processes_act_like_one_and_a_restart_changes_nothing(store: OnlineStore, unique: str) -> None:
    clock = [START]
    expected = run_minutes(store, [Process(store, f"{unique}a", clock)], clock, 1, 200)
    name = f"{unique}b"
    three = [Process(store, name, clock) for _ in range(3)]
    together = run_minutes(store, three, clock, 1, 100)
    assert {process.price for process in three} == {three[0].price}
    restarted = [Process(store, name, clock) for _ in range(2)]
    after = run_minutes(store, restarted, clock, 100, 200)
    assert [*together, *after] == pytest.approx(expected)
    assert expected[-1] > 0.1


def test_override_is_planned_once_although_a_process_reads_it_late(store: OnlineStore, unique: str) -> None:
    clock = [START]
    ahead, behind = Process(store, unique, clock), Process(store, unique, clock)
    run_minutes(store, [ahead, behind], clock, 1, 100)
    ahead.current.target_overrides = {ahead.key: TargetOverride(amount=2000.0)}
    ahead.current.revision = ahead.newest_revision = behind.newest_revision = 2
    run_minutes(store, [ahead], clock, 100, 101)
    planned = stored_state(store, ahead.key)
    assert (planned.amount, planned.revision) == (2000.0, 2)
    run_minutes(store, [behind, ahead, behind], clock, 101, 110)
    assert stored_state(store, ahead.key).base == planned.base, "a process with an older revision must not plan again"
    behind.current.target_overrides, behind.current.revision = ahead.current.target_overrides, 2
    run_minutes(store, [behind], clock, 110, 111)
    assert (stored_state(store, ahead.key).base, behind.price) == (planned.base, pytest.approx(ahead.price, abs=0.2))


def test_process_without_control_plane_does_not_overwrite_newer_states(unique: str) -> None:
    store, clock = open_online("memory://"), [START]
    ahead, cut_off = Process(store, unique, clock), Process(store, unique, clock)
    ahead.current.revision = 2
    run_minutes(store, [ahead], clock, 1, 100)

    def unavailable() -> int:
        raise Unavailable("unavailable")

    cut_off.loop.newest_revision = unavailable
    before = stored_state(store, ahead.key)
    run_minutes(store, [cut_off], clock, 100, 101)
    assert stored_state(store, ahead.key) == before
    assert cut_off.price > 0, "its pages still use a price"


def test_states_follow_a_control_plane_restored_from_a_backup(unique: str) -> None:
    store, clock = open_online("memory://"), [START]
    before = Process(store, unique, clock)
    before.current.revision = before.newest_revision = 9
    run_minutes(store, [before], clock, 1, 100)
    after = Process(store, unique, clock)
    run_minutes(store, [after], clock, 100, 101)
    assert stored_state(store, after.key).revision == 1


def test_process_suspended_between_read_and_write_overwrites_nothing(store: OnlineStore, unique: str) -> None:
    clock = [START]
    slow, fast = Process(store, unique, clock), Process(store, unique, clock)
    run_minutes(store, [slow, fast], clock, 1, 100)
    compare_and_set = store.compare_and_set

    def suspended(entries: Any, ttl_s: float | None = None) -> list[str]:
        store.compare_and_set = compare_and_set  # type: ignore[method-assign]
        run_minutes(store, [fast], clock, 150, 160)
        return compare_and_set(entries, ttl_s)

    store.compare_and_set = suspended  # type: ignore[method-assign]
    run_minutes(store, [slow], clock, 100, 101)
    newest = stored_state(store, slow.key)
    assert newest.controller.moved_at == START + 60.0 * 159
    slow.loop.step()
    assert slow.price == fast.price


def test_gauges_of_an_ended_target_are_removed(unique: str) -> None:
    store, clock = open_online("memory://"), [START]
    process = Process(store, unique, clock)
    run_minutes(store, [process], clock, 1, 10)
    gauge = f'mainstay_target_price{{target="{process.key}"}}'
    assert gauge in process.loop.metrics.text().decode()
    process.current.serving_snapshots = {}
    process.loop.step()
    assert gauge not in process.loop.metrics.text().decode()


def test_prices_freeze_and_then_move_slowly_while_the_store_is_down(unique: str) -> None:
    store, clock = open_online("memory://"), [START]
    process = Process(store, unique, clock)
    run_minutes(store, [process], clock, 1, 200)
    frozen, gains = process.price, Gains()

    def unavailable(*_: Any, **__: Any) -> Any:
        raise Unavailable("unavailable")

    store.get = unavailable  # type: ignore[method-assign]
    prices = []
    for _ in range(300):
        clock[0] += 60.0
        with pytest.raises(Unavailable):
            process.loop.step()
        prices.append(process.price)
    assert set(prices[: int(gains.grace_s / 60) - 1]) == {frozen}
    assert max(abs(a - b) for a, b in zip(prices[1:], prices, strict=False)) < 0.02
    assert min(prices) > 0
    assert process.loop.stale_targets()


def test_unreadable_forecast_stops_no_target_and_is_not_read_every_second(unique: str) -> None:
    store, clock, scans = open_online("memory://"), [START], [0]
    process = Process(store, unique, clock)

    def unavailable(*_: Any, **__: Any) -> Any:
        scans[0] += 1
        raise Unavailable("unavailable")

    store.scan = unavailable  # type: ignore[method-assign]
    for second in range(1, 100):
        clock[0] = START + 6_000.0 + second
        put_counts(store, process.key, 0.0, 1000.0 + second, clock[0])
        with pytest.raises(Unavailable, match="forecasts are stale"):
            process.loop.step()
    assert process.price > 0
    assert scans[0] == 2
    assert store.get([pacing_key(process.key)])[0] is not None


@pytest.mark.parametrize("kind", ["state", "count"])
def test_value_that_cannot_be_decoded_stops_no_other_target(unique: str, kind: str) -> None:
    store, clock = open_online("memory://"), [START]
    good, bad = Process(store, f"{unique}a", clock), Process(store, f"{unique}b", clock)
    good.current.serving_snapshots["other"] = bad.current.serving_snapshots["cn"]
    corrupt_key = pacing_key(bad.key) if kind == "state" else count_key(bad.key, SOURCES[0])
    corrupt = frame(b"corrupt", VERSION + 1) if kind == "state" else b"corrupt"  # a damaged state is replaced at once
    store.put({corrupt_key: corrupt})
    for minute in range(1, 100):
        clock[0] = START + 60.0 * minute
        put_counts(store, good.key, 0.0, 10.0 * minute, clock[0])
        with pytest.raises(StateError, match=bad.key):
            good.loop.step()
    assert good.price > 0
    assert store.get([corrupt_key]) == [corrupt]


def test_a_damaged_state_is_quarantined_and_replaced_in_the_next_step(store: OnlineStore, unique: str) -> None:
    """A process that tracks the target writes its own state again; a new process begins from the counts."""
    clock = [START]
    process, newcomer = Process(store, unique, clock), Process(store, unique, clock)
    run_minutes(store, [process], clock, 1, 100)
    (intact,) = store.get([pacing_key(process.key)])
    assert intact is not None
    for number, loop in enumerate((process.loop, newcomer.loop), 1):
        damaged = bytes([*intact[:9], intact[9] ^ number, *intact[10:]])
        store.put({pacing_key(process.key): damaged})
        loop.step()
        if loop is process.loop:
            assert stored_state(store, process.key) == decode_state(intact, msgspec.msgpack.Decoder(PacingState))
        assert damaged in {entry.raw for entry in quarantined(store, pacing_key(process.key))}
        assert loop.running[process.key].state == stored_state(store, process.key)


def test_stop_is_in_force_after_the_next_step(unique: str) -> None:
    store, clock = open_online("memory://"), [START]
    process = Process(store, unique, clock)
    run_minutes(store, [process], clock, 1, 100)
    process.current.target_overrides = {process.key: TargetOverride(stopped=True)}
    process.loop.step()
    assert (process.price, process.prices.stopped) == (0.0, frozenset({process.key}))


def test_forecast_counts_the_pages_on_which_a_target_is_in_force(unique: str) -> None:
    store, clock = open_online("memory://"), [START + 86_400.0]
    hours = tuple(float(hour) for hour in range(24))
    for placement, region in (("cn-tv-home", "cn.zj"), ("cn-mobile-home", "cn.zj"), ("cn.zj-tv-home", "cn.js")):
        day = TrafficDay(placement, region, DAY, hours, (1,) * 24, 0)
        store.put({traffic_key(placement, region, DAY, "t/0"): encode_state(day)})
    attention = attention_by_hour(store)
    expected = {"": 3, ", on: {screens: [tv]}": 2, ", on: {regions: [cn.zj]}": 2, ", on: {outlets: [cn.zj]}": 1}
    for conditions, pages in expected.items():
        process = Process(store, unique, clock, conditions)
        (origin,) = target_controls(process.current).values()  # type: ignore[arg-type]
        forecast = scope_forecast(origin, attention, clock[0])
        assert forecast is not None
        seven_o_clock = START + 86_400 + 7 * 3600
        assert forecast.mass(seven_o_clock, seven_o_clock + 3600) == pytest.approx(7.0 * pages)


def test_target_beyond_the_forecast_gets_a_finding(unique: str) -> None:
    store, clock = open_online("memory://"), [START + 3600.0]
    process = Process(store, unique, clock)
    day = TrafficDay("cn-tv-home", "cn", DAY - 1, (100.0,) * 24, (9,) * 24, 0)
    store.put({traffic_key("cn-tv-home", "cn", DAY - 1, "t/0"): encode_state(day)})
    (finding,) = process.loop.forecast_findings(process.policy)
    assert finding.where == "controls[0].impressions"
    assert "cannot be reached" in finding.message
    assert "1 item at the top of every page" in finding.message


def test_target_with_the_same_id_in_parent_and_child_is_paced_for_each() -> None:
    by = datetime.fromtimestamp(START + 86_400, UTC).isoformat()
    template = (
        "outlet: OUTLET\ncontrols: [{id: hh, action: exposure_target, where: {item: i1}, impressions: AMOUNT, "
        f"until: {by}, enforcement: mandatory}}]"
    )
    parent = parse_policy(template.replace("OUTLET", "cn").replace("AMOUNT", "1000"))
    child = parse_policy(template.replace("OUTLET", "cn.zj").replace("AMOUNT", "2000"))
    item = Item.model_validate({"id": "i1", "title": {"en": "x"}, "outlet": "cn", "published_at": by})
    catalog = Catalog.of([item])
    serving_snapshots = {
        outlet: SimpleNamespace(policy=compile_policy(chain, catalog))
        for outlet, chain in (("cn", [parent]), ("cn.zj", [parent, child]))
    }
    for order in (["cn", "cn.zj"], ["cn.zj", "cn"]):
        snapshot = SimpleNamespace(serving_snapshots={outlet: serving_snapshots[outlet] for outlet in order})
        targets = {key: (origin.outlet, origin.control) for key, origin in target_controls(snapshot).items()}  # type: ignore[arg-type]
        assert targets == {"cn/hh": ("cn", parent.controls[0]), "cn.zj/hh": ("cn.zj", child.controls[0])}
