"""Targets on a page: prices add up, frequency caps hold on all screens, the last resort is a floor, credit is exact."""

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
from recsys.domain.viewer import ViewerState
from recsys.guidance.compilation.compile import CompiledPolicy, compile_policy
from recsys.guidance.policy.controls import FrequencyCap
from recsys.guidance.policy.policy import parse_policy
from recsys.pacing.on_page import ActivePrices, deliveries, impressions_left, price_bonus, target_key, targets
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
FEW, MUSIC, NEWS = "cn.zj/few", "cn.zj/music", "cn.zj/less-news"


@pytest.fixture
def steered(catalog, stats: ItemStats, model) -> ServingSnapshot:
    return ServingSnapshot.of(catalog, stats, model, compile_policy([parse_policy(POLICY)], catalog))


def page(world: ServingSnapshot, says: ActivePrices, viewer: ViewerState | None = None, query: Query = QUERY) -> Page:
    return Engine(columns).run(query, viewer, replace(world, prices=says))


def ids(page: Page) -> set[str]:
    return {slot.item_id for slot in page.items}


def members(policy: CompiledPolicy, label: str) -> set[str]:
    return {policy.catalog.ids[row] for row in np.flatnonzero(policy.catalog.label_subtree(label))}


def test_prices_of_several_targets_on_one_item_add_up_and_caps_push_down(steered: ServingSnapshot) -> None:
    rows = np.arange(60, dtype=np.int32)
    policy = steered.policy
    bonus = price_bonus(policy, rows, QUERY, ActivePrices({FEW: 0.2, MUSIC: 0.1, NEWS: 0.05, "cn.zj/tomorrow": 1.0}))
    music, news = policy.catalog.label_subtree("music"), policy.catalog.label_subtree("news")
    few = np.isin(rows, policy.catalog.rows(["i55", "i56"]))
    assert bonus.tolist() == pytest.approx((0.2 * few + 0.1 * music - 0.05 * news).tolist())
    assert not price_bonus(policy, rows, replace(QUERY, guided=False), ActivePrices({FEW: 0.2})).any()
    assert not price_bonus(policy, rows, QUERY, ActivePrices({FEW: 0.2}, stopped=frozenset({FEW}))).any()


def test_a_price_brings_an_item_that_retrieval_would_not(steered: ServingSnapshot) -> None:
    assert not {"i55", "i56"} & ids(page(steered, ActivePrices()))
    assert {"i55", "i56"} <= ids(page(steered, ActivePrices({FEW: 5.0})))


def test_no_price_breaks_a_hard_control(steered: ServingSnapshot) -> None:
    made = page(steered, ActivePrices({NEWS: 9.0, MUSIC: 9.0, FEW: 9.0}))
    assert made.receipt.legal_met
    assert all(line.status in ("met", "active") for line in made.receipt.controls if line.id == "public")


def test_a_last_resort_is_a_floor_of_the_page(steered: ServingSnapshot) -> None:
    made = page(steered, ActivePrices(last_resorts=frozenset({FEW})))
    assert {"i55", "i56"} <= ids(made)  # a tenth of twelve, rounded up
    (line,) = (line for line in made.receipt.controls if line.id == "few")
    assert (line.required.at_least, line.achieved) == (2, 2)


@pytest.mark.parametrize(("times", "most"), [((), 2), ((1.0,), 2), ((-100.0,), 1), ((-100.0, -50.0), 0)])
def test_a_frequency_cap_counts_what_was_shown_within_its_period(
    steered: ServingSnapshot, times: tuple[float, ...], most: int
) -> None:
    """`times` before now; 1.0 stands for one that is older than a day."""
    shown = tuple(NOW.timestamp() + at if at < 0 else NOW.timestamp() - 86_401.0 for at in times)
    viewer = ViewerState("v", target_impressions={MUSIC: shown})
    made = page(steered, ActivePrices({MUSIC: 5.0}), viewer)
    assert len(ids(made) & members(steered.policy, "music")) == most
    assert made.delivered[MUSIC].impressions == most
    (stage,) = (stage for stage in made.trace if stage.name == "eligibility")
    assert (stage.dropped.get(DropReason.FREQUENCY_CAPPED, 0) > 0) is (most == 0)
    second = replace(QUERY, shown=tuple(slot.item_id for slot in made.items))
    assert (
        not ids(page(steered, ActivePrices({MUSIC: 5.0}), viewer, second)) & members(steered.policy, "music")
        or most < 2
    )


@pytest.mark.parametrize("per", ["hour", "day"])
@pytest.mark.parametrize("seed", range(5))
def test_a_frequency_cap_counts_every_impression_once_whether_it_has_arrived_or_not(
    steered: ServingSnapshot, per: Literal["hour", "day"], seed: int
) -> None:
    """The oracle knows when each impression was: those of other screens have arrived, of the session the older."""
    chance, now = random.Random(seed), QUERY.now
    music = sorted(members(steered.policy, "music"))
    (target,) = (target for _, key, target in targets(steered.policy, QUERY, ActivePrices()) if key == MUSIC)
    target = target.model_copy(update={"frequency_cap": FrequencyCap(impressions=20, per=per)})
    for _ in range(40):
        ids_ = chance.sample(music, 8)
        here = {one: now - chance.choice([4.0, 1800.0, 2 * 3600.0, 5 * 3600.0]) for one in ids_[:4]}
        there = {one: now - chance.choice([100.0, 3 * 3600.0, 30 * 3600.0]) for one in ids_[4:]}
        arrived = there | {one: at for one, at in here.items() if at < now - 60.0}
        viewer = ViewerState(
            "v",
            shown={one: (1, (at,)) for one, at in arrived.items()},
            target_impressions={MUSIC: tuple(sorted(arrived.values()))},
        )
        query = replace(QUERY, shown=tuple(sorted(here, key=lambda one: here[one])))
        expected = sum(at > now - target.frequency_cap.period_s for at in (here | there).values())
        assert impressions_left(steered.policy, MUSIC, target, query, viewer) == 20 - expected
        assert impressions_left(steered.policy, MUSIC, target, query, None) == 20 - len(here)


def test_a_page_credits_every_target_in_force_and_no_other(steered: ServingSnapshot) -> None:
    made = page(steered, ActivePrices({FEW: 5.0, MUSIC: 0.2}))
    attention = screen_layout(Screen.MOBILE).attention(12)
    assert set(made.delivered) == {FEW, MUSIC, NEWS}
    for key, label in ((MUSIC, "music"), (NEWS, "news")):
        mine = [slot.item_id in members(steered.policy, label) for slot in made.items]
        assert made.delivered[key].delivered == pytest.approx(float(attention @ mine))
        assert made.delivered[key].available == pytest.approx(float(attention.sum()))
    assert made.delivered[FEW].impressions == 0  # no frequency cap: nothing to remember of a viewer
    rows = np.array([slot.row for slot in made.items], np.int32)
    assert deliveries(steered.policy, rows, attention, QUERY, ActivePrices(stopped=frozenset({FEW}))).keys() == {
        MUSIC,
        NEWS,
    }
    assert page(steered, ActivePrices(), query=replace(QUERY, guided=False)).delivered == {}


def test_a_parents_firm_target_keeps_key_amount_credit_and_cap_on_its_childs_pages(catalog, stats, model) -> None:
    said = f"""
outlet: OUTLET
controls:
  - {{id: hh, action: exposure_target, where: {{label: music}}, impressions: AMOUNT, from: {SINCE}, until: {BY},
      enforcement: mandatory, frequency_cap: {{impressions: 2, per: day}}}}
"""
    high = parse_policy(said.replace("OUTLET", "cn").replace("AMOUNT", "500"))
    attention = screen_layout(Screen.MOBILE).attention(12)
    for amount in ("500", "900"):
        low = parse_policy(said.replace("OUTLET", "cn.zj").replace("AMOUNT", amount))
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
        seen = ViewerState(viewer_id="v", target_impressions={"cn/hh": (NOW.timestamp() - 60,) * 2})
        assert ids(page(world, ActivePrices())) & members(policy, "music")
        assert not ids(page(world, ActivePrices(), seen)) & members(policy, "music"), "the parent's cap goes on"
        member = policy.member(policy.controls[0].control.where, "")[rows]
        assert price_bonus(policy, rows, QUERY, ActivePrices({"cn/hh": 0.2})) == pytest.approx(0.2 * member)
    soft = parse_policy(said.replace("OUTLET", "cn").replace("AMOUNT", "500").replace("mandatory", "editorial"))
    assert [target_key(o) for o in compile_policy([soft, low], catalog).controls] == ["cn.zj/hh"]
