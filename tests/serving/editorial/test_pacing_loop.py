"""The control loop: several processes on one store are as one, a restart changes nothing, on every adapter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from features.state.codec import StateError, decode_state, encode_state
from features.state.exposure_counts import DeliveryCount, TrafficDay, count_key, traffic_key
from features.state.online.connect import open_online
from features.state.online.port import OnlineStore
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
    if url is None:  # a key space of its own: other tests' traffic would be forecast
        url = f"{request.getfixturevalue('redis_url')}?prefix={request.getfixturevalue('unique')}"
    with closing(open_online(url, timeout_s=5.0)) as opened:
        yield opened


class Process:
    """A serving process: its own holders and loop, on a shared store and clock."""

    def __init__(self, store: OnlineStore, name: str, clock: list[float], more: str = "") -> None:
        by = datetime.fromtimestamp(START + 86_400, UTC).isoformat()
        since = datetime.fromtimestamp(START, UTC).isoformat()
        policy = parse_policy(
            f"outlet: cn\ncontrols: [{{id: {name}, action: exposure_target, where: {{item: i1}}, impressions: 1000, "
            f"from: {since}, until: {by}{more}}}]"
        )
        item = Item.model_validate({"id": "i1", "title": {"en": "x"}, "outlet": "cn", "published_at": since})
        catalog = Catalog.of([item])
        world = SimpleNamespace(policy=compile_policy([policy], catalog))
        self.current = SimpleNamespace(
            serving_snapshots={"cn": world}, target_overrides={}, catalog=catalog, revision=1
        )
        self.newest = 1
        self.prices = ActivePrices()
        self.key, self.policy = f"cn/{name}", policy
        self.loop = PacingLoop(
            self,  # type: ignore[arg-type]
            store,
            lambda: SOURCES,
            lambda: clock[0],
            Metrics(),
            lambda: self.newest,
        )

    def set_prices(self, prices: ActivePrices) -> None:
        self.prices = prices

    @property
    def price(self) -> float:
        return self.prices.price.get(self.key, 0.0)


def count(store: OnlineStore, key: str, won: float, served: float, upto: float) -> None:
    """Two partitions say half each."""
    halves = {
        count_key(key, source): encode_state(DeliveryCount(key, won / 2, served / 2, 1, 0, upto, 1))
        for source in SOURCES
    }
    store.put(halves)


def stored(store: OnlineStore, key: str) -> PacingState:
    (raw,) = store.get([pacing_key(key)])
    assert raw is not None
    return decode_state(raw, msgspec.msgpack.Decoder(PacingState))


def served(store: OnlineStore, processes: list[Process], clock: list[float], first: int, last: int) -> list[float]:
    """Minutes of a day on which one process after the other updates; the price after each minute."""
    key, prices = processes[0].key, []
    for minute in range(first, last):
        clock[0] = START + 60.0 * minute
        count(store, key, 0.4 * minute, 10.0 * minute, clock[0])
        for process in processes:
            process.loop.step()
        prices.append(processes[-1].price)
    return prices


def test_several_processes_are_as_one_and_a_restart_is_not_noticed(store: OnlineStore, unique: str) -> None:
    clock = [START]
    alone = served(store, [Process(store, f"{unique}a", clock)], clock, 1, 200)
    name = f"{unique}b"
    three = [Process(store, name, clock) for _ in range(3)]
    together = served(store, three, clock, 1, 100)
    assert {process.price for process in three} == {three[0].price}
    born_again = [Process(store, name, clock) for _ in range(2)]
    after = served(store, born_again, clock, 100, 200)
    assert [*together, *after] == pytest.approx(alone)
    assert alone[-1] > 0.1


def test_an_order_is_planned_once_however_late_some_process_hears_of_it(store: OnlineStore, unique: str) -> None:
    clock = [START]
    early, late = Process(store, unique, clock), Process(store, unique, clock)
    served(store, [early, late], clock, 1, 100)
    early.current.target_overrides = {early.key: TargetOverride(amount=2000.0)}
    early.current.revision = early.newest = late.newest = 2
    served(store, [early], clock, 100, 101)
    planned = stored(store, early.key)
    assert (planned.amount, planned.revision) == (2000.0, 2)
    served(store, [late, early, late], clock, 101, 110)
    assert stored(store, early.key).base == planned.base, "whoever has not heard of the order plans nothing over again"
    late.current.target_overrides, late.current.revision = early.current.target_overrides, 2
    served(store, [late], clock, 110, 111)
    assert (stored(store, early.key).base, late.price) == (planned.base, pytest.approx(early.price, abs=0.2))


def test_a_process_that_does_not_reach_the_control_plane_leaves_targets_to_the_others(unique: str) -> None:
    store, clock = open_online("memory://"), [START]
    early, cut_off = Process(store, unique, clock), Process(store, unique, clock)
    early.current.revision = 2
    served(store, [early], clock, 1, 100)

    def away() -> int:
        raise Unavailable("away")

    cut_off.loop.newest = away
    before = stored(store, early.key)
    served(store, [cut_off], clock, 100, 101)
    assert stored(store, early.key) == before
    assert cut_off.price > 0, "its pages go by a price all the same"


def test_a_control_plane_that_went_back_to_a_copy_is_followed(unique: str) -> None:
    store, clock = open_online("memory://"), [START]
    before = Process(store, unique, clock)
    before.current.revision = before.newest = 9
    served(store, [before], clock, 1, 100)
    after = Process(store, unique, clock)
    served(store, [after], clock, 100, 101)
    assert stored(store, after.key).revision == 1


def test_whoever_slept_between_reading_and_writing_overwrites_nothing(store: OnlineStore, unique: str) -> None:
    clock = [START]
    slow, quick = Process(store, unique, clock), Process(store, unique, clock)
    served(store, [slow, quick], clock, 1, 100)
    swap = store.compare_and_set

    def slept(entries: Any, ttl_s: float | None = None) -> list[str]:
        store.compare_and_set = swap  # type: ignore[method-assign]
        served(store, [quick], clock, 150, 160)
        return swap(entries, ttl_s)

    store.compare_and_set = slept  # type: ignore[method-assign]
    served(store, [slow], clock, 100, 101)
    newest = stored(store, slow.key)
    assert newest.controller.moved_at == START + 60.0 * 159
    slow.loop.step()
    assert slow.price == quick.price


def test_gauges_of_a_target_end_with_it(unique: str) -> None:
    store, clock = open_online("memory://"), [START]
    process = Process(store, unique, clock)
    served(store, [process], clock, 1, 10)
    gauge = f'mainstay_target_price{{target="{process.key}"}}'
    assert gauge in process.loop.metrics.text().decode()
    process.current.serving_snapshots = {}
    process.loop.step()
    assert gauge not in process.loop.metrics.text().decode()


def test_a_store_that_goes_away_freezes_prices_and_then_lets_them_move_slowly(unique: str) -> None:
    store, clock = open_online("memory://"), [START]
    process = Process(store, unique, clock)
    served(store, [process], clock, 1, 200)
    frozen, gains = process.price, Gains()

    def away(*_: Any, **__: Any) -> Any:
        raise Unavailable("away")

    store.get = away  # type: ignore[method-assign]
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


def test_a_forecast_that_cannot_be_read_stops_nothing_and_is_not_asked_for_every_second(unique: str) -> None:
    store, clock, asked = open_online("memory://"), [START], [0]
    process = Process(store, unique, clock)

    def away(*_: Any, **__: Any) -> Any:
        asked[0] += 1
        raise Unavailable("away")

    store.scan = away  # type: ignore[method-assign]
    for second in range(1, 100):
        clock[0] = START + 6_000.0 + second
        count(store, process.key, 0.0, 1000.0 + second, clock[0])
        with pytest.raises(Unavailable, match="forecasts are stale"):
            process.loop.step()
    assert process.price > 0
    assert asked[0] == 2
    assert store.get([pacing_key(process.key)])[0] is not None


@pytest.mark.parametrize("kind", ["state", "count"])
def test_one_value_that_cannot_be_decoded_stops_no_other_target(unique: str, kind: str) -> None:
    store, clock = open_online("memory://"), [START]
    good, bad = Process(store, f"{unique}a", clock), Process(store, f"{unique}b", clock)
    good.current.serving_snapshots["other"] = bad.current.serving_snapshots["cn"]
    broken = pacing_key(bad.key) if kind == "state" else count_key(bad.key, SOURCES[0])
    store.put({broken: b"no state"})
    for minute in range(1, 100):
        clock[0] = START + 60.0 * minute
        count(store, good.key, 0.0, 10.0 * minute, clock[0])
        with pytest.raises(StateError, match=bad.key):
            good.loop.step()
    assert good.price > 0
    assert store.get([broken]) == [b"no state"]


def test_a_stop_reaches_every_page_with_the_next_step(unique: str) -> None:
    store, clock = open_online("memory://"), [START]
    process = Process(store, unique, clock)
    served(store, [process], clock, 1, 100)
    process.current.target_overrides = {process.key: TargetOverride(stopped=True)}
    process.loop.step()
    assert (process.price, process.prices.stopped) == (0.0, frozenset({process.key}))


def test_the_forecast_counts_the_pages_a_target_is_in_force_on(unique: str) -> None:
    store, clock = open_online("memory://"), [START + 86_400.0]
    hours = tuple(float(hour) for hour in range(24))
    for placement, region in (("cn-tv-home", "cn.zj"), ("cn-mobile-home", "cn.zj"), ("cn.zj-tv-home", "cn.js")):
        day = TrafficDay(placement, region, DAY, hours, (1,) * 24, 0)
        store.put({traffic_key(placement, region, DAY, "t/0"): encode_state(day)})
    counted = attention_by_hour(store)
    wanted = {"": 3, ", on: {screens: [tv]}": 2, ", on: {regions: [cn.zj]}": 2, ", on: {outlets: [cn.zj]}": 1}
    for more, pages in wanted.items():
        process = Process(store, unique, clock, more)
        (origin,) = target_controls(process.current).values()  # type: ignore[arg-type]
        forecast = scope_forecast(origin, counted, clock[0])
        assert forecast is not None
        seven = START + 86_400 + 7 * 3600
        assert forecast.mass(seven, seven + 3600) == pytest.approx(7.0 * pages)


def test_a_policy_that_asks_too_much_is_told_so(unique: str) -> None:
    store, clock = open_online("memory://"), [START + 3600.0]
    process = Process(store, unique, clock)
    day = TrafficDay("cn-tv-home", "cn", DAY - 1, (100.0,) * 24, (9,) * 24, 0)
    store.put({traffic_key("cn-tv-home", "cn", DAY - 1, "t/0"): encode_state(day)})
    (finding,) = process.loop.forecast_findings(process.policy)
    assert finding.where == "controls[0].impressions"
    assert "cannot be reached" in finding.message
    assert "1 item on top of every page" in finding.message


def test_a_target_that_a_child_says_too_is_pursued_for_each_of_both_and_under_its_own_name() -> None:
    by = datetime.fromtimestamp(START + 86_400, UTC).isoformat()
    said = (
        "outlet: OUTLET\ncontrols: [{id: hh, action: exposure_target, where: {item: i1}, impressions: AMOUNT, "
        f"until: {by}, enforcement: mandatory}}]"
    )
    high = parse_policy(said.replace("OUTLET", "cn").replace("AMOUNT", "1000"))
    low = parse_policy(said.replace("OUTLET", "cn.zj").replace("AMOUNT", "2000"))
    item = Item.model_validate({"id": "i1", "title": {"en": "x"}, "outlet": "cn", "published_at": by})
    catalog = Catalog.of([item])
    worlds = {
        outlet: SimpleNamespace(policy=compile_policy(line, catalog))
        for outlet, line in (("cn", [high]), ("cn.zj", [high, low]))
    }
    for order in (["cn", "cn.zj"], ["cn.zj", "cn"]):
        snapshot = SimpleNamespace(serving_snapshots={outlet: worlds[outlet] for outlet in order})
        found = {key: (o.outlet, o.control) for key, o in target_controls(snapshot).items()}  # type: ignore[arg-type]
        assert found == {"cn/hh": ("cn", high.controls[0]), "cn.zj/hh": ("cn.zj", low.controls[0])}
