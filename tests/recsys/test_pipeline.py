"""Whole pages: conserved candidates, eligibility, the policy at every fallback level, and determinism."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.columns import FEATURES, columns
from recsys.candidates import sources
from recsys.distribution.layouts import screen_layout
from recsys.domain.catalog import Catalog
from recsys.domain.item_statistics import ItemStats
from recsys.domain.placement import Placement, Screen, Surface
from recsys.domain.query import Query
from recsys.domain.trace import DropReason, FallbackLevel, unbalanced_stages
from recsys.domain.types import ACTIONS
from recsys.domain.viewer import Position, Recent, ViewerState
from recsys.guidance.compilation.compile import CompiledPolicy, compile_policy
from recsys.guidance.policy.policy import parse_policy
from recsys.guidance.solver.page_constraints import PageConstraints
from recsys.models.bundle import pack, unpack
from recsys.models.served_model import ServedModel
from recsys.page import Page
from recsys.pipeline import UNGUIDED_ERROR, Engine
from recsys.snapshot import ServingSnapshot
from tests.recsys.conftest import assert_no_stage_failed

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp()
KINDS = ["play", "complete", "like", "dislike", "hide"]


def query(slots: int = 10, screen: Screen = Screen.MOBILE, **fields: object) -> Query:
    defaults = {"request_id": "r", "viewer_id": "v", "region": "cn.zj.hz", "now": NOW, "slots": slots}
    return Query(placement=Placement("cn.zj", screen, Surface.HOME), **{**defaults, **fields})  # type: ignore[arg-type]


histories = st.none() | st.lists(st.tuples(st.integers(0, 59), st.sampled_from(KINDS)), max_size=15).map(
    lambda actions: viewer(*actions)
)


def viewer(*actions: tuple[int, str]) -> ViewerState:
    recent = tuple(Recent(f"i{n}", kind, NOW - 1000 + at) for at, (n, kind) in enumerate(actions))
    hidden = {f"i{n}": NOW for n, kind in actions if kind == "hide"}
    finished = {f"i{n}": NOW for n, kind in actions if kind in ("complete", "like", "dislike")}
    return ViewerState("v", recent, finished_at=finished, hidden=hidden)


def assert_probabilities(page: Page) -> None:
    """Check that each slot has a probability of every action, in [0, 1], and that p(complete) <= p(play)."""
    for slot in page.items:
        assert set(slot.p) == set(ACTIONS)
        assert all(0.0 <= p <= 1.0 for p in slot.p.values())
        assert slot.p["complete"] <= slot.p["play"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(history=histories, slots=st.integers(1, 12), screen=st.sampled_from(list(Screen)), guided=st.booleans())
def test_every_page_meets_its_invariants(
    bench: Any, history: ViewerState | None, slots: int, screen: Screen, guided: bool
) -> None:
    engine, world = bench.engine, bench.world
    request = query(slots, screen, guided=guided)
    page = engine.run(request, history, world)
    assert unbalanced_stages(page.trace) == {}
    assert_no_stage_failed(page)
    ids = [slot.item_id for slot in page.items]
    assert len(set(ids)) == len(ids) <= slots
    assert [slot.slot for slot in page.items] == list(range(1, len(ids) + 1))
    items = [world.catalog.items[slot.row] for slot in page.items]
    assert all(item.status == "published" and item.age_rating < 18 for item in items)
    assert all(slot.reasons and slot.sources for slot in page.items)
    assert_probabilities(page)
    attention = screen_layout(screen).attention(slots)
    plays = sum(attention[k] * slot.p["play"] for k, slot in enumerate(page.items))
    assert page.receipt.expected_plays == pytest.approx(plays)
    assert guided or page.receipt.expected_plays_without == pytest.approx(plays)
    assert engine.run(request, history, world).items == page.items
    if history:
        finished = {action.item_id for action in history.recent if action.kind != "play"}
        assert not finished & set(ids)
    if guided:
        labels = Counter(label for item in items for label in item.labels)
        assert labels["commercial"] == 0
        relaxed = {line.id: line.slack for line in page.receipt.controls if line.slack}
        assert labels["public-service"] >= np.ceil(0.3 * len(ids) - 1e-9) - relaxed.get("public", 0)
        assert max((Counter(item.topic for item in items)).values(), default=0) <= 4 + relaxed.get("one-topic", 0)
    else:
        assert page.policy_version == "none"
        assert page.receipt.controls == ()


def test_a_personal_page_has_items_near_to_the_history(engine: Engine, world: ServingSnapshot) -> None:
    page = engine.run(query(24, guided=False), viewer((1, "like"), (6, "like")), world)
    assert_no_stage_failed(page)
    assert page.fallback_level is FallbackLevel.PERSONAL
    near = [slot for slot in page.items if slot.reasons[0] in ("similar_to:i1", "similar_to:i6")]
    assert near
    assert {world.catalog.topics.names[world.catalog.topic[slot.row]] for slot in near} == {"film"}


def test_the_action_weights_of_the_served_model_decide_the_order(engine: Engine, world: ServingSnapshot) -> None:
    assert world.model is not None
    history, request = viewer((1, "like")), query(12, guided=False)
    pages = {}
    for like, dislike in ((2.0, -3.0), (50.0, 0.0), (0.0, -50.0)):
        weights = {"play": 1.0, "complete": 0.5, "like": like, "dislike": dislike}
        bundle = replace(world.model.bundle, action_weights=weights)
        model = ServedModel.load(unpack(pack(bundle)), FEATURES)
        page = engine.run(request, history, replace(world, model=model))
        assert [stage.error for stage in page.trace if stage.error] == []
        for slot in page.items:
            assert slot.utility == pytest.approx(sum(weights[name] * slot.p[name] for name in ACTIONS))
        utilities = [slot.utility for slot in page.items]
        assert utilities == sorted(utilities, reverse=True)
        pages[like, dislike] = [slot.item_id for slot in page.items]
    assert len({tuple(ids) for ids in pages.values()}) == 3, "each set of weights gives another order"


def test_no_item_is_explained_by_itself(engine: Engine, world: ServingSnapshot) -> None:
    history = viewer(*((n, "play") for n in range(60)))
    page = engine.run(query(12, guided=False), history, world)
    assert_no_stage_failed(page)
    assert all(slot.reasons[0].startswith("similar_to:") for slot in page.items)
    assert all(slot.reasons[0] != f"similar_to:{slot.item_id}" for slot in page.items)


def test_opposite_histories_give_one_page_when_personalisation_is_off(engine: Engine, world: ServingSnapshot) -> None:
    off = query(personalised=False)
    a = engine.run(off, viewer((1, "like"), (2, "hide")), world)
    b = engine.run(off, viewer((2, "like"), (1, "dislike")), world)
    anonymous = engine.run(off, None, world)
    for page in (a, b, anonymous):
        assert_no_stage_failed(page)
    assert a.items == b.items == anonymous.items
    assert a.fallback_level is not FallbackLevel.PERSONAL


def test_the_policy_holds_at_every_fallback_level(
    engine: Engine, world: ServingSnapshot, catalog: Catalog, stats: ItemStats
) -> None:
    without_regions, empty = replace(stats, by_region={}), ItemStats.empty(len(catalog))
    levels = {
        FallbackLevel.PERSONAL: (world, viewer((1, "like"))),
        FallbackLevel.SEGMENT: (world, None),
        FallbackLevel.POPULAR: (ServingSnapshot.of(catalog, without_regions, None, world.policy), None),
        FallbackLevel.EDITORIAL: (ServingSnapshot.of(catalog, empty, None, world.policy), None),
    }
    for level, (w, v) in levels.items():
        page = engine.run(query(), v, w)
        assert_no_stage_failed(page)
        assert page.fallback_level is level
        assert_probabilities(page)
        public = [slot for slot in page.items if "public-service" in catalog.items[slot.row].labels]
        assert len(page.items) == 10
        assert len(public) >= 3
        assert "public" in {control for slot in public for control in slot.control_ids}


def test_the_next_page_of_a_session_repeats_nothing_and_continues_the_quotas(
    engine: Engine, world: ServingSnapshot
) -> None:
    first = engine.run(query(5), None, world)
    shown = tuple(slot.item_id for slot in first.items)
    second = engine.run(query(5, shown=shown), None, world)
    assert_no_stage_failed(first)
    assert_no_stage_failed(second)
    assert not set(shown) & {slot.item_id for slot in second.items}
    assert dict(next(s for s in second.trace if s.name == "eligibility").dropped)[DropReason.SEEN] > 0
    both = [world.catalog.items[slot.row] for slot in (*first.items, *second.items)]
    assert sum("public-service" in item.labels for item in both) >= 3


def test_a_failing_source_is_recorded_in_the_trace(
    engine: Engine, world: ServingSnapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(context: sources.RequestContext) -> np.ndarray:
        raise RuntimeError("no index")

    monkeypatch.setitem(sources.SOURCES, "popular", failing)
    page = engine.run(query(), None, world)
    assert {stage.name: stage.error for stage in page.trace if stage.error} == {"popular": "RuntimeError: no index"}
    assert len(page.items) == 10


def test_without_its_ranker_the_page_comes_from_a_fallback(world: ServingSnapshot) -> None:
    def broken(*_: object) -> np.ndarray:
        raise ValueError("no such column")

    page = Engine(broken).run(query(), viewer((1, "like")), world)
    assert {stage.name: stage.error for stage in page.trace if stage.error} == {"rank": "ValueError: no such column"}
    assert len(page.items) == 10
    assert page.receipt.controls


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(
    popularity=st.lists(st.sampled_from([0.0, 1e-30, 3.0, 1e30]), min_size=60, max_size=60),
    regional=st.booleans(),
    guided=st.booleans(),
)
def test_probabilities_without_a_ranker_are_valid(
    bench: Any, popularity: list[float], regional: bool, guided: bool
) -> None:
    """This holds for very large and very small counts, with and without a model."""
    world, plays = bench.world, np.array(popularity, np.float32)
    count = np.zeros((60, len(ACTIONS)), np.float32)
    stats = ItemStats(count, count[:, 0], {"cn.zj": plays} if regional else {})
    bundle = replace(world.model.bundle, popularity=plays)

    def broken(*_: object) -> np.ndarray:
        raise ValueError("no such column")

    for model in (None, replace(world.model, bundle=bundle)):
        snapshot = ServingSnapshot.of(world.catalog, stats, model, world.policy)
        page = Engine(broken).run(query(12, guided=guided), None, snapshot)
        assert_probabilities(page)
        assert all(slot.utility == slot.p["play"] for slot in page.items)


def test_a_ranker_that_returns_nan_is_replaced_by_a_fallback(world: ServingSnapshot) -> None:
    engine = Engine(lambda row, *_: np.full((len(row), len(FEATURES)), np.nan, np.float32))
    page = engine.run(query(), viewer((1, "like")), world)
    [error] = [stage.error for stage in page.trace if stage.error]
    assert error == "FloatingPointError: an estimated probability is not a number"
    assert len(page.items) == 10
    assert page.fallback_level is FallbackLevel.PERSONAL
    assert_probabilities(page)


def test_supply_for_quotas_is_kept_when_candidates_are_truncated(world: ServingSnapshot) -> None:
    engine = Engine(lambda row, *_: np.zeros((len(row), len(FEATURES)), np.float32), candidates=10)
    page = engine.run(query(10), None, world)
    assert_no_stage_failed(page)
    assert {line.id for line in page.receipt.controls if line.slack} <= {"one-topic"}
    surplus = next(stage for stage in page.trace if stage.name == "surplus")
    assert surplus.candidates_out == 10
    assert surplus.dropped[DropReason.SURPLUS] > 0


def test_if_no_page_meets_the_legal_controls_the_editorial_page_is_served(world: ServingSnapshot) -> None:
    engine = Engine(columns)  # ranks every candidate, so that histories differ only in the items that they exclude
    law = """
outlet: cn.zj
controls: [{id: law, action: quota, where: {label: nowhere}, at_least: 2, enforcement: legal}]
"""
    strict = replace(world, policy=compile_policy([parse_policy(law)], world.catalog))
    page = engine.run(query(), viewer((1, "like")), strict)
    assert page.fallback_level is FallbackLevel.EDITORIAL
    assert not page.receipt.legal_met
    assert "law" in str(page.trace[-1].error)
    second = engine.run(query(), viewer((2, "like")), strict)
    assert [slot.item_id for slot in page.items if slot.item_id not in ("i1", "i2")][:5] == [
        slot.item_id for slot in second.items if slot.item_id not in ("i1", "i2")
    ][:5]


@pytest.mark.parametrize("seed", range(6))
def test_a_legal_block_holds_on_every_page_and_a_mandatory_block_yields_to_a_legal_quota(
    world: ServingSnapshot, seed: int
) -> None:
    """A parent's quota asks for four items of a label, of which a child's block leaves `left`."""
    rng = np.random.default_rng(seed)
    public = [item.id for item in world.catalog.items if "public-service" in item.labels]
    n_left = int(rng.integers(4))
    unblocked = set(rng.choice(public, n_left, replace=False).tolist())
    blocked = set(public) - unblocked
    for quota, block, by in (("mandatory", "legal", 0), ("legal", "legal", 0), ("legal", "mandatory", 4 - n_left)):
        texts = [
            "outlet: cn\ncontrols: [{id: minimum, action: quota, where: {label: public-service}, at_least: 4, "
            f"enforcement: {quota}}}]",
            f"outlet: cn.zj\ncontrols: [{{id: court, action: block, where: {{item: [{', '.join(sorted(blocked))}]}}, "
            f"enforcement: {block}}}]",
        ]
        policy = compile_policy([parse_policy(text) for text in texts], world.catalog)
        page = Engine(columns).run(query(), None, replace(world, policy=policy))
        assert len({slot.item_id for slot in page.items} & blocked) == by
        lines = {line.id: line.slack for line in page.receipt.controls}
        assert lines == {"court": by, "minimum": 0 if by else 4 - n_left}
        assert page.receipt.legal_met == (quota == "mandatory" or by > 0)
        if page.receipt.legal_met:
            assert_no_stage_failed(page)
        else:
            assert page.fallback_level is FallbackLevel.EDITORIAL


def test_a_fault_in_guidance_leads_to_the_editorial_page(
    engine: Engine, world: ServingSnapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With invalid utilities the editorial page keeps the policy; without constraints it has no controls."""

    def broken(policy: CompiledPolicy, query: Query, rows: Any, slots: int, shown: Any) -> PageConstraints:
        if policy.controls:
            raise OverflowError("engine fault")
        return PageConstraints.free(rows, slots)

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "_rank", lambda self, context, batch, level, trace: batch.with_columns(
            p=np.full((len(batch), len(ACTIONS)), np.nan, np.float32), utility=np.full(len(batch), np.nan)
        ))  # fmt: skip
        page = engine.run(query(), viewer(), world)
    assert page.fallback_level is FallbackLevel.EDITORIAL
    assert {line.id for line in page.receipt.controls} == {"public", "one-topic", "no-ads"}
    assert "must be finite" in str(page.trace[-1].error)
    monkeypatch.setattr(CompiledPolicy, "bounds", broken)
    page = engine.run(query(), viewer(), world)
    assert (page.fallback_level, page.policy_version, page.receipt.controls) == (FallbackLevel.EDITORIAL, "none", ())
    assert str(page.trace[-1].error).startswith(UNGUIDED_ERROR)
    assert len(page.items) == 10
    assert not unbalanced_stages(page.trace)


def test_an_unfinished_item_can_be_resumed(engine: Engine, world: ServingSnapshot) -> None:
    history = ViewerState("v", positions={"i30": Position(60, 600, NOW - 50, False), "i31": Position(9, 9, NOW, True)})
    page = engine.run(query(30, guided=False), history, world)
    assert_no_stage_failed(page)
    resume = next(stage for stage in page.trace if stage.name == "resume")
    assert resume.candidates_out == 1
    assert [slot.item_id for slot in page.items if "resume" in slot.reasons] == ["i30"]


def test_an_empty_catalog_gives_an_empty_page(engine: Engine) -> None:
    catalog = Catalog.empty()
    world = ServingSnapshot.of(catalog, ItemStats.empty(0), None, compile_policy([], catalog))
    page = engine.run(query(), None, world)
    assert page.items == ()
    assert page.fallback_level is FallbackLevel.EDITORIAL
