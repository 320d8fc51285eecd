"""What exposure targets do to a page is named on it: the items that they move, and what they cost."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys.distribution.layouts import screen_layout
from recsys.domain.item_statistics import ItemStats
from recsys.domain.placement import Placement, Screen, Surface
from recsys.domain.query import Query
from recsys.domain.types import ACTIONS
from recsys.guidance.compilation.compile import compile_policy
from recsys.guidance.policy.policy import parse_policy
from recsys.guidance.receipt.receipt import Move
from recsys.guidance.receipt.verify import verify
from recsys.pacing.on_page import ActivePrices, targets
from recsys.page import Page
from recsys.page_solver import PageSolver
from recsys.pipeline import Engine
from recsys.snapshot import ServingSnapshot
from tests.conftest import scaled
from tests.recsys.conftest import NOW, TOPICS

QUOTA = {"id": "public", "action": "quota", "where": {"label": "public-service"}, "at_least": 0.3}
BY = (NOW + timedelta(days=1)).isoformat()


def query(slots: int, screen: Screen = Screen.MOBILE, surface: Surface = Surface.HOME) -> Query:
    return Query("r", "v", Placement("cn.zj", screen, surface), "cn.zj.hz", NOW.timestamp(), slots)


def target(label: str, **fields: object) -> dict[str, object]:
    where = {"label": label}
    return {"id": label, "action": "exposure_target", "where": where, "impressions": 500, "until": BY, **fields}


def with_policy(
    world: ServingSnapshot, controls: list[dict[str, object]], weights: dict[str, float]
) -> ServingSnapshot:
    document = {"outlet": "cn.zj", "weights": weights, "controls": controls}
    return replace(world, policy=compile_policy([parse_policy(json.dumps(document))], world.catalog))


def priced(world: ServingSnapshot, prices: dict[str, float]) -> ServingSnapshot:
    return replace(world, prices=ActivePrices({f"cn.zj/{label}": price for label, price in prices.items()}))


@pytest.fixture
def solve(monkeypatch: pytest.MonkeyPatch, engine: Engine) -> Callable[[Query, ServingSnapshot], tuple[Page, Any]]:
    """`solve(query, world)`: return the page, and the arguments with which `verify` checks its receipt."""
    solved: list[Any] = []
    write = PageSolver.page

    def recording(self: Any, context: Any, policy: Any, result: Any, level: Any) -> Page:
        solved.append((context, policy, result))
        return write(self, context, policy, result, level)

    monkeypatch.setattr(PageSolver, "page", recording)

    def run(request: Query, world: ServingSnapshot) -> tuple[Page, Any]:
        page = engine.run(request, None, world)
        context, policy, result = solved[-1]
        parts = (policy, result.constraints, result.batch, result.attention, context.catalog)
        return page, lambda receipt: verify(
            receipt, result.solution.chosen, *parts, targets=result.targets, exact=False
        )

    return run


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=scaled(1_000, minimum=25))
@given(
    labels=st.lists(st.sampled_from(TOPICS), min_size=1, max_size=3, unique=True),
    prices=st.lists(st.floats(0.01, 2.0), min_size=3, max_size=3),
    bound=st.sampled_from(["at_least", "at_most"]),
    slots=st.integers(1, 14),
    with_controls=st.booleans(),
)
def test_every_effect_of_a_target_is_named_with_its_cost(
    world: ServingSnapshot,
    solve: Any,
    labels: list[str],
    prices: list[float],
    bound: str,
    slots: int,
    with_controls: bool,
) -> None:
    """If nothing else guides the page, every move names a target; a single target costs what the page gives up."""
    controls = [target(label, bound=bound) for label in labels] + ([QUOTA] if with_controls else [])
    steered = priced(
        with_policy(world, controls, {"public_value": 0.3} if with_controls else {}),
        dict(zip(labels, prices, strict=False)),
    )
    page, check = solve(query(slots), steered)
    receipt = page.receipt
    assert check(receipt) == ()
    named = {control_id for move in receipt.moved for control_id in move.control_ids}
    lines = {line.id: line for line in receipt.targets}
    assert named - {"public"} <= lines.keys() <= set(labels)
    assert {control_id for slot in page.items for control_id in slot.control_ids} <= {"public", *labels}
    if with_controls:
        return
    assert all(move.cause == "targets" and move.control_ids for move in receipt.moved)
    raised = {move.item_id for move in receipt.moved if bound == "at_least" and up(move)}
    member = {item_id for item_id in raised if set(labels) & set(item_labels(world, item_id))}
    assert member <= {slot.item_id for slot in page.items if set(slot.control_ids) & set(labels)}
    if len(labels) == 1 and receipt.targets:
        assert receipt.targets[0].cost == pytest.approx(receipt.utility_without - receipt.utility, abs=1e-9)
        assert receipt.targets[0].delivered == pytest.approx(page.delivered[f"cn.zj/{labels[0]}"].delivered)


def up(move: Move) -> bool:
    return move.slot is not None and (move.slot_without is None or move.slot < move.slot_without)


def item_labels(world: ServingSnapshot, item_id: str) -> tuple[str, ...]:
    return tuple(world.catalog.items[world.catalog.row_of[item_id]].labels)


def test_a_receipt_that_conceals_a_target_is_rejected(world: ServingSnapshot, solve: Any) -> None:
    page, check = solve(query(8), priced(with_policy(world, [target("nature")], {}), {"nature": 0.5}))
    receipt = page.receipt
    assert receipt.moved
    concealed = tuple(move.model_copy(update={"cause": "weights", "control_ids": ()}) for move in receipt.moved)
    for forgery in ({"moved": concealed}, {"targets": ()}):
        assert check(receipt.model_copy(update=forgery))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=scaled(1_000, minimum=20))
@given(
    label=st.sampled_from(TOPICS),
    slots=st.integers(1, 14),
    screen=st.sampled_from([Screen.TV, Screen.MOBILE]),
    small=st.booleans(),
)
def test_a_target_without_max_price_takes_at_most_half_of_a_page(
    world: ServingSnapshot, solve: Any, label: str, slots: int, screen: Screen, small: bool
) -> None:
    """Its highest price follows from the utilities of the page itself, whatever their size, also on a single slot."""
    if small:  # items are worth a twentieth of a play, those of the target nothing
        plays = np.where(world.catalog.label_subtree(label), 0.0, 100.0).astype(np.float32)
        plays[world.catalog.row_of["i8"]] = 1_000.0  # not published
        count = np.repeat(plays[:, None], len(ACTIONS), axis=1)
        world = ServingSnapshot.of(world.catalog, ItemStats(count, plays, {"cn.zj": plays}), None, world.policy)
    steered = with_policy(world, [target(label)], {})
    [(_, _, control)] = targets(steered.policy, query(slots, screen), ActivePrices())
    page, _ = solve(query(slots, screen), priced(steered, {label: control.price_limit}))
    free, _ = solve(replace(query(slots, screen), guided=False), steered)
    attention = screen_layout(screen).attention(slots)
    value = sum(a * abs(slot.utility) for a, slot in zip(attention, free.items, strict=False))
    assert page.receipt.utility_without - page.receipt.utility <= 0.5 * value + 1e-9


def test_notifications_are_excluded_unless_named(world: ServingSnapshot) -> None:
    everywhere, named = target("music"), target("news", on={"surfaces": ["push", "home"]})
    policy = with_policy(world, [everywhere, named], {}).policy
    for surface, expected in ((Surface.HOME, {"music", "news"}), (Surface.PUSH, {"news"})):
        keys = {control.id for _, _, control in targets(policy, query(1, surface=surface), ActivePrices())}
        assert keys == expected


def test_prices_are_relative_only_without_max_price(world: ServingSnapshot, solve: Any) -> None:
    price = {}
    for max_price in (None, 1.0):
        fields = {} if max_price is None else {"max_price": max_price}
        page, _ = solve(query(6), priced(with_policy(world, [target("film", **fields)], {}), {"film": 0.04}))
        [line] = page.receipt.targets
        price[max_price] = line.price
    free, _ = solve(replace(query(6), guided=False), world)
    attention = screen_layout(Screen.MOBILE).attention(6)
    utility = np.array([abs(slot.utility) for slot in free.items])
    assert price[1.0] == 0.04
    assert price[None] == pytest.approx(0.04 * float(attention @ utility) / float(attention.sum()))
