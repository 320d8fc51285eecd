"""Targets on a page: price bonuses, frequency caps on all screens, last resorts and delivery."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta
from typing import Literal

import numpy as np
import pytest

from features.columns import columns
from recsys.distribution.layouts import screen_layout
from recsys.domain.item_statistics import ItemStats
from recsys.domain.placement import Placement, Screen, Surface
from recsys.domain.query import Query
from recsys.domain.trace import DropReason
from recsys.domain.types import F64, I32
from recsys.domain.viewer import ViewerState
from recsys.guidance.compilation.compile import CompiledPolicy, compile_policy
from recsys.guidance.policy.controls import FrequencyCap
from recsys.guidance.policy.policy import parse_policy
from recsys.pacing.on_page import ActivePrices, deliveries, impressions_left, target_key, target_prices, targets
from recsys.page import Page
from recsys.pipeline import Engine
from recsys.snapshot import ServingSnapshot
from tests.recsys.conftest import NOW

BY = (NOW + timedelta(days=1)).isoformat()
SINCE = (NOW - timedelta(days=1)).isoformat()
POLICY = f"""
outlet: cn.zj
controls:
  - {{id: public, action: quota, where: {{label: public-service}}, at_least: 0.3, prefixes: every, enforcement: legal}}
  - {{id: few, action: exposure_target, where: {{item: [i55, i56]}}, impressions: 500, from: {SINCE}, until: {BY},
      commitment: guaranteed, last_resort: 0.1}}
  - {{id: music, action: exposure_target, where: {{label: music}}, share: 0.2, from: {SINCE}, until: {BY},
      frequency_cap: {{impressions: 2, per: day}}}}
  - {{id: less-news, action: exposure_target, where: {{label: news}}, share: 0.1, bound: at_most, from: {SINCE},
      until: {BY}}}
  - {{id: tomorrow, action: exposure_target, where: {{label: film}}, share: 0.9, from: {BY},
      until: 2027-01-01T00:00:00Z}}
  - {{id: tv-only, action: exposure_target, where: {{label: film}}, share: 0.9, from: {SINCE}, until: {BY},
      on: {{screens: [tv]}}}}
"""
QUERY = Query("r", "v", Placement("cn.zj", Screen.MOBILE, Surface.HOME), "cn.zj.hz", NOW.timestamp(), slots=12, seed=1)
SMALL, MUSIC, NEWS = "cn.zj/few", "cn.zj/music", "cn.zj/less-news"


@pytest.fixture
def world(catalog, stats: ItemStats, model) -> ServingSnapshot:
    return ServingSnapshot.of(catalog, stats, model, compile_policy([parse_policy(POLICY)], catalog))


def page(world: ServingSnapshot, prices: ActivePrices, viewer: ViewerState | None = None, query: Query = QUERY) -> Page:
    return Engine(columns).run(query, viewer, replace(world, prices=prices))


def price_bonus(policy: CompiledPolicy, rows: I32, query: Query, prices: ActivePrices) -> F64:
    """Return [N] the sum of the prices on a page whose items have a utility of 1."""
    return sum((price.bonus for price in target_prices(policy, rows, query, prices, 1.0)), np.zeros(len(rows)))


def ids(page: Page) -> set[str]:
    return {slot.item_id for slot in page.items}


def members(policy: CompiledPolicy, label: str) -> set[str]:
    return {policy.catalog.ids[row] for row in np.flatnonzero(policy.catalog.label_subtree(label))}


def test_prices_of_several_targets_are_summed_and_caps_subtract(world: ServingSnapshot) -> None:
    rows = np.arange(60, dtype=np.int32)
    policy = world.policy
    bonus = price_bonus(policy, rows, QUERY, ActivePrices({SMALL: 0.2, MUSIC: 0.1, NEWS: 0.05, "cn.zj/tomorrow": 1.0}))
    music, news = policy.catalog.label_subtree("music"), policy.catalog.label_subtree("news")
    small = np.isin(rows, policy.catalog.rows(["i55", "i56"]))
    assert bonus.tolist() == pytest.approx((0.2 * small + 0.1 * music - 0.05 * news).tolist())
    assert not price_bonus(policy, rows, replace(QUERY, guided=False), ActivePrices({SMALL: 0.2})).any()
    assert not price_bonus(policy, rows, QUERY, ActivePrices({SMALL: 0.2}, stopped=frozenset({SMALL}))).any()


def test_price_brings_items_that_retrieval_would_miss(world: ServingSnapshot) -> None:
    assert not {"i55", "i56"} & ids(page(world, ActivePrices()))
    assert {"i55", "i56"} <= ids(page(world, ActivePrices({SMALL: 5.0})))


def test_prices_never_violate_hard_controls(world: ServingSnapshot) -> None:
    served = page(world, ActivePrices({NEWS: 9.0, MUSIC: 9.0, SMALL: 9.0}))
    assert served.receipt.legal_met
    assert all(line.status in ("met", "active") for line in served.receipt.controls if line.id == "public")


def test_last_resort_is_a_minimum_on_the_page(world: ServingSnapshot) -> None:
    served = page(world, ActivePrices(last_resorts=frozenset({SMALL})))
    assert {"i55", "i56"} <= ids(served)  # a tenth of twelve, rounded up
    (line,) = (line for line in served.receipt.controls if line.id == "few")
    assert (line.required.at_least, line.achieved) == (2, 2)


@pytest.mark.parametrize(("times", "remaining"), [((), 2), ((1.0,), 2), ((-100.0,), 1), ((-100.0, -50.0), 0)])
def test_frequency_cap_counts_impressions_within_its_period(
    world: ServingSnapshot, times: tuple[float, ...], remaining: int
) -> None:
    """`times` are seconds relative to now; 1.0 stands for an impression more than a day ago."""
    shown = tuple(NOW.timestamp() + at if at < 0 else NOW.timestamp() - 86_401.0 for at in times)
    viewer = ViewerState("v", target_impressions={MUSIC: shown})
    served = page(world, ActivePrices({MUSIC: 5.0}), viewer)
    assert len(ids(served) & members(world.policy, "music")) == remaining
    assert served.delivered[MUSIC].impressions == remaining
    (stage,) = (stage for stage in served.trace if stage.name == "eligibility")
    assert (stage.dropped.get(DropReason.FREQUENCY_CAPPED, 0) > 0) is (remaining == 0)
    second = replace(QUERY, shown=tuple(slot.item_id for slot in served.items))
    assert (
        not ids(page(world, ActivePrices({MUSIC: 5.0}), viewer, second)) & members(world.policy, "music")
        or remaining < 2
    )


@pytest.mark.parametrize("per", ["hour", "day"])
@pytest.mark.parametrize("seed", range(5))
def test_frequency_cap_counts_every_impression_exactly_once(
    world: ServingSnapshot, per: Literal["hour", "day"], seed: int
) -> None:
    """The oracle has all impression times. Those of other screens and the older ones of the session have arrived."""
    chance, now = random.Random(seed), QUERY.now
    music = sorted(members(world.policy, "music"))
    (target,) = (target for _, key, target in targets(world.policy, QUERY, ActivePrices()) if key == MUSIC)
    target = target.model_copy(update={"frequency_cap": FrequencyCap(impressions=20, per=per)})
    for _ in range(40):
        ids_ = chance.sample(music, 8)
        session = {item_id: now - chance.choice([4.0, 1800.0, 2 * 3600.0, 5 * 3600.0]) for item_id in ids_[:4]}
        other_screens = {item_id: now - chance.choice([100.0, 3 * 3600.0, 30 * 3600.0]) for item_id in ids_[4:]}
        arrived = other_screens | {item_id: at for item_id, at in session.items() if at < now - 60.0}
        viewer = ViewerState(
            "v",
            shown={item_id: (1, (at,)) for item_id, at in arrived.items()},
            target_impressions={MUSIC: tuple(sorted(arrived.values()))},
        )
        query = replace(QUERY, shown=tuple(sorted(session, key=lambda item_id: session[item_id])))
        expected = sum(at > now - target.frequency_cap.period_s for at in (session | other_screens).values())
        assert impressions_left(world.policy, MUSIC, target, query, viewer) == 20 - expected
        assert impressions_left(world.policy, MUSIC, target, query, None) == 20 - len(session)


def test_page_credits_exactly_the_targets_in_force(world: ServingSnapshot) -> None:
    served = page(world, ActivePrices({SMALL: 5.0, MUSIC: 0.2}))
    attention = screen_layout(Screen.MOBILE).attention(12)
    assert set(served.delivered) == {SMALL, MUSIC, NEWS}
    for key, label in ((MUSIC, "music"), (NEWS, "news")):
        is_member = [slot.item_id in members(world.policy, label) for slot in served.items]
        assert served.delivered[key].delivered == pytest.approx(float(attention @ is_member))
        assert served.delivered[key].available == pytest.approx(float(attention.sum()))
    assert served.delivered[SMALL].impressions == 0  # no frequency cap, so no impressions are counted
    rows = np.array([slot.row for slot in served.items], np.int32)
    assert deliveries(world.policy, rows, attention, QUERY, ActivePrices(stopped=frozenset({SMALL}))).keys() == {
        MUSIC,
        NEWS,
    }
    assert page(world, ActivePrices(), query=replace(QUERY, guided=False)).delivered == {}


def test_mandatory_parent_target_is_unchanged_on_child_pages(catalog, stats, model) -> None:
    text = f"""
outlet: OUTLET
controls:
  - {{id: hh, action: exposure_target, where: {{label: music}}, impressions: AMOUNT, from: {SINCE}, until: {BY},
      enforcement: mandatory, frequency_cap: {{impressions: 2, per: day}}}}
"""
    high = parse_policy(text.replace("OUTLET", "cn").replace("AMOUNT", "500"))
    attention = screen_layout(Screen.MOBILE).attention(12)
    for amount in ("500", "900"):
        low = parse_policy(text.replace("OUTLET", "cn.zj").replace("AMOUNT", amount))
        policy = compile_policy([high, low], catalog)
        amounts = {target_key(o): o.control.impressions for o in policy.controls}
        assert amounts == {"cn/hh": 500, "cn.zj/hh": int(amount)}
        rows = np.arange(12, dtype=np.int32)
        alone = deliveries(compile_policy([high], catalog), rows, attention, QUERY, ActivePrices())
        both = deliveries(policy, rows, attention, QUERY, ActivePrices())
        assert both.keys() == {"cn/hh", "cn.zj/hh"}
        assert both["cn/hh"] == alone["cn/hh"]
        assert both["cn/hh"].impressions > 0
        world = ServingSnapshot.of(catalog, stats, model, policy)
        viewer = ViewerState(viewer_id="v", target_impressions={"cn/hh": (NOW.timestamp() - 60,) * 2})
        assert ids(page(world, ActivePrices())) & members(policy, "music")
        assert not ids(page(world, ActivePrices(), viewer)) & members(policy, "music"), (
            "the cap of the parent still applies"
        )
        member = policy.member(policy.controls[0].control.where, "")[rows]
        assert price_bonus(policy, rows, QUERY, ActivePrices({"cn/hh": 0.2})) == pytest.approx(0.2 * member)
    soft = parse_policy(text.replace("OUTLET", "cn").replace("AMOUNT", "500").replace("mandatory", "editorial"))
    assert [target_key(o) for o in compile_policy([soft, low], catalog).controls] == ["cn.zj/hh"]
