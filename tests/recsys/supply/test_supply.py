"""Supply: if the whole catalog admits a page that meets all controls, the pipeline finds such a page."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from features.columns import columns
from recsys.distribution.eligibility import first_match, ineligible
from recsys.domain.catalog import Catalog
from recsys.domain.item import Item
from recsys.domain.item_statistics import ItemStats
from recsys.domain.placement import Placement, Screen, Surface
from recsys.domain.query import Query
from recsys.domain.trace import unbalanced_stages
from recsys.domain.types import ACTIONS, I32
from recsys.guidance.compilation.compile import CompiledPolicy, compile_policy
from recsys.guidance.policy.policy import parse_policy
from recsys.guidance.solver.milp import any_page
from recsys.guidance.solver.page_constraints import Solution
from recsys.guidance.solver.presolve import presolve
from recsys.guidance.solver.solve import DEADLINE_FACTOR, solve
from recsys.page import Page
from recsys.pipeline import EXPANDED_SUPPLY, Engine
from recsys.snapshot import ServingSnapshot
from recsys.supply.stratify import strata, top_per_stratum

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LABELS = ("public", "local", "youth", "sport")
ATTRIBUTES = ("topic", "provider", "series", "region")


def query(slots: int, **fields: Any) -> Query:
    return Query("r", "v", Placement("cn.zj", Screen.MOBILE, Surface.HOME), "cn.zj", NOW.timestamp(), slots, **fields)


def film(name: str, days: float, labels: list[str], topic: str, provider: str, series: str, region: str) -> Item:
    return Item.model_validate(
        {
            "id": name,
            "title": {"en": name},
            "outlet": "cn.zj",
            "labels": labels,
            "topic": topic,
            "provider": provider,
            "series": series,
            "region": region,
            "formats": ["landscape"],
            "status": "published",
            "published_at": NOW - timedelta(days=days),
        }
    )


def skewed(rng: np.random.Generator, values: int) -> int:
    """Return a random value below `values`, mostly the first."""
    return min(int(rng.exponential(values / 6)), values - 1)


def catalog_of(rng: np.random.Generator, items: int = 300) -> tuple[Catalog, ItemStats]:
    """Return a catalog whose new and popular items are similar; the others are old and rarely played."""
    catalog_items, plays = [], np.zeros(items, np.float32)
    for n in range(items):
        common = n < items * 0.7
        values = (2, 2, 3, 2) if common else (7, 25, 40, 5)
        topic, provider, series, region = (skewed(rng, v) for v in values)
        labels = [label for label in LABELS if rng.random() < (0.1 if common else 0.3)] or ["plain"]
        days = n / 10
        catalog_items.append(film(f"i{n}", days, labels, f"t{topic}", f"p{provider}", f"s{series}", f"cn.zj.r{region}"))
        plays[n] = rng.exponential(50) if common else rng.exponential(1)
    count = np.repeat(plays[:, None], len(ACTIONS), axis=1)
    return Catalog.of(catalog_items), ItemStats(count, plays, {})


def controls_of(rng: np.random.Generator, slots: int, attributes: tuple[str, ...] = ATTRIBUTES) -> list[dict[str, Any]]:
    """Return a few minimum quotas, a maximum quota, and caps or spacings of attributes; none is `preferred`."""
    controls: list[dict[str, Any]] = []
    for label in rng.permutation(LABELS)[: rng.integers(1, 4)].tolist():
        quota = {"action": "quota", "where": {"label": label}, "at_least": int(rng.integers(1, slots // 2 + 1))}
        controls.append({**quota, "at_least": 0.3, "prefixes": "every"} if rng.random() < 0.3 else quota)
    if rng.random() < 0.3:
        controls.append({"action": "quota", "where": {"provider": "p0"}, "at_most": int(rng.integers(0, 4))})
    for name in rng.permutation(attributes)[: rng.integers(1, 4)].tolist():
        if rng.random() < 0.6:
            controls.append({"action": "cap", "attribute": name, "at_most": int(rng.integers(1, 5))})
        else:
            controls.append({"action": "spacing", "attribute": name, "at_most": 1, "within": int(rng.integers(2, 6))})
    for n, control in enumerate(controls):
        control |= {"id": f"c{n}", "enforcement": ("legal", "mandatory", "editorial")[rng.integers(3)]}
    return controls


def policy_of(controls: list[dict[str, Any]], catalog: Catalog) -> CompiledPolicy:
    return compile_policy([parse_policy(json.dumps({"outlet": "cn.zj", "controls": controls}))], catalog)


def eligible(snapshot: ServingSnapshot, request: Query) -> I32:
    rows = np.arange(len(snapshot.catalog), dtype=np.int32)
    allowed, _ = first_match(ineligible(snapshot.catalog, rows, request, None))
    return rows[allowed]


def is_feasible(snapshot: ServingSnapshot, policy: CompiledPolicy, request: Query, rows: I32) -> bool:
    """Return whether a page of these catalog rows meets all constraints, by an integer programme."""
    bounds = policy.bounds(request, rows, request.slots, snapshot.catalog.rows(request.shown))
    answer = any_page(presolve(np.zeros(len(rows)), np.ones(request.slots), bounds))
    assert answer.proven
    return answer.page is not None


@pytest.fixture(scope="module")
def cases() -> list[tuple[ServingSnapshot, Query]]:
    """Return snapshots with a query; by chance, about half of them have enough candidates."""
    rng = np.random.default_rng(26)
    pairs = []
    for _ in range(40):
        catalog, stats = catalog_of(rng)
        slots = int(rng.integers(6, 11))
        policy = policy_of(controls_of(rng, slots), catalog)
        shown = tuple(f"i{n}" for n in rng.permutation(300)[: rng.integers(0, 6)]) if rng.random() < 0.3 else ()
        pairs.append((ServingSnapshot.of(catalog, stats, None, policy), query(slots, shown=shown)))
    return pairs


def test_no_control_is_relaxed_if_the_catalog_admits_a_page(cases: list[tuple[ServingSnapshot, Query]]) -> None:
    engine, feasible, expanded, relaxed = Engine(columns, candidates=40), 0, 0, []
    for n, (snapshot, request) in enumerate(cases):
        if not is_feasible(snapshot, snapshot.policy, request, eligible(snapshot, request)):
            continue
        page = engine.run(request, None, snapshot)
        assert unbalanced_stages(page.trace) == {}
        assert not [stage.error for stage in page.trace if stage.error]
        feasible += 1
        expanded += any(stage.name == EXPANDED_SUPPLY for stage in page.trace)
        relaxed += [(n, line.id, line.slack) for line in page.receipt.controls if line.slack]
    assert relaxed == []
    assert feasible >= 15  # enough cases
    assert expanded >= 3  # ... and retrieval alone does not suffice for all of them


def test_the_top_of_each_stratum_represents_the_whole_catalog() -> None:
    """Exact search finds a page among these rows if and only if it finds one in the catalog."""
    rng, answers = np.random.default_rng(3), []
    for _ in range(40):
        catalog, _ = catalog_of(rng)
        slots = int(rng.integers(6, 11))
        policy, request = policy_of(controls_of(rng, slots, ("topic", "region")), catalog), query(slots)
        snapshot = ServingSnapshot.of(catalog, ItemStats.empty(len(catalog)), None, policy)
        rows = eligible(snapshot, request)
        hint = rng.random(len(rows)).astype(np.float32)
        top = top_per_stratum(strata(policy, rows, request), hint, np.zeros(len(rows), np.bool_), slots, len(rows))
        assert len(top) < len(rows)
        answers.append(is_feasible(snapshot, policy, request, rows))
        assert is_feasible(snapshot, policy, request, rows[top]) == answers[-1]
    assert 5 <= sum(answers) <= 35


def stages(page: Page) -> list[str]:
    return [stage.name for stage in page.trace]


def dispersed(at_least: int, providers: int) -> ServingSnapshot:
    """Return films for a quota: a hundred of one provider, and an older one of each of `providers` other providers."""
    films = [film(f"a{n}", n / 10, ["plain"], f"t{n % 5}", f"q{n}", "s", "cn") for n in range(1000)]
    films += [film(f"b{n}", 1 + n / 10, ["public"], f"t{n % 5}", "p", "s", "cn") for n in range(100)]
    films += [film(f"c{n}", 300 + n, ["public"], f"t{n % 5}", f"p{n}", "s", "cn") for n in range(providers)]
    catalog = Catalog.of(films)
    quota = {
        "id": "minimum",
        "action": "quota",
        "where": {"label": "public"},
        "at_least": at_least,
        "enforcement": "legal",
    }
    cap = {"id": "pc", "action": "cap", "attribute": "provider", "at_most": 2, "enforcement": "mandatory"}
    return ServingSnapshot.of(catalog, ItemStats.empty(len(catalog)), None, policy_of([quota, cap], catalog))


def test_supply_for_a_quota_is_spread_over_capped_attributes() -> None:
    page = Engine(columns).run(query(12), None, dispersed(6, providers=30))
    assert [line.slack for line in page.receipt.controls] == [0, 0]
    assert EXPANDED_SUPPLY not in stages(page)  # retrieval sufficed: the page was solved once


def test_if_the_catalog_lacks_items_a_control_is_relaxed_by_the_minimum() -> None:
    """Of ten films that the quota asks for, six have providers of their own, and two more fit the cap."""
    page = Engine(columns).run(query(12), None, dispersed(10, providers=6))
    assert [(line.id, line.slack) for line in page.receipt.controls if line.slack] == [("pc", 2)]


def test_if_the_catalog_lacks_items_candidates_are_ranked_once() -> None:
    """All members of the quota are candidates already, so nothing is ranked again."""
    catalog = Catalog.of(
        film(f"a{n}", n, ["rare"] if n < 2 else ["plain"], "t", f"p{n}", "s", "cn") for n in range(300)
    )
    quota = {"id": "minimum", "action": "quota", "where": {"label": "rare"}, "at_least": 5, "enforcement": "mandatory"}
    cap = {"id": "pc", "action": "cap", "attribute": "provider", "at_most": 2}
    snapshot = ServingSnapshot.of(catalog, ItemStats.empty(300), None, policy_of([quota, cap], catalog))
    page = Engine(columns, candidates=40).run(query(10), None, snapshot)
    assert [line.slack for line in page.receipt.controls] == [3, 0]
    assert stages(page).count(EXPANDED_SUPPLY) == 1
    assert stages(page).count("rank") == 1


def test_too_similar_candidates_are_detected_before_the_solver_runs() -> None:
    """All new or popular items have one provider, so supply is expanded before the first solve."""
    films = [film(f"a{n}", n / 10, ["plain"], "t", "p", "s", "cn") for n in range(200)]
    films += [film(f"b{n}", 100 + n, ["plain"], "t", f"p{n}", "s", "cn") for n in range(100)]
    catalog = Catalog.of(films)
    cap = {"id": "pc", "action": "cap", "attribute": "provider", "at_most": 1, "enforcement": "mandatory"}
    snapshot = ServingSnapshot.of(catalog, ItemStats.empty(300), None, policy_of([cap], catalog))
    page = Engine(columns).run(query(10), None, snapshot)
    assert [line.slack for line in page.receipt.controls] == [0]
    assert stages(page).count(EXPANDED_SUPPLY) == stages(page).count("rank") == 1
    assert stages(page).index(EXPANDED_SUPPLY) < stages(page).index("rank")
    preferred = ServingSnapshot.of(
        catalog, ItemStats.empty(300), None, policy_of([cap | {"enforcement": "preferred"}], catalog)
    )
    assert EXPANDED_SUPPLY not in stages(Engine(columns).run(query(10), None, preferred))
    assert EXPANDED_SUPPLY not in stages(Engine(columns).run(query(10, guided=False), None, snapshot))


def test_supply_is_expanded_once_in_the_remaining_time(
    cases: list[tuple[ServingSnapshot, Query]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second solve gets the time that the first one left, at least a minimum."""
    now, deadlines = 0.0, []

    def clocked(*args: Any, deadline_s: float, **options: Any) -> Solution:
        nonlocal now
        deadlines.append(deadline_s)
        solution = solve(*args, **{**options, "clock": None})
        now += duration_s
        return solution

    monkeypatch.setattr("recsys.page_solver.solve", clocked)
    second = {}
    for duration_s in (0.001, 0.03, 0.2):
        engine = Engine(columns, candidates=40, solve_s=0.010, budget_s=10.0, clock=lambda: now)
        for snapshot, request in cases[:20]:
            deadlines.clear()
            page = engine.run(request, None, snapshot)
            assert stages(page).count(EXPANDED_SUPPLY) <= 1
            if not page.receipt.legal_met or len(deadlines) == 1 or page.trace[-1].error:
                continue
            assert len(deadlines) == 2
            second[duration_s] = deadlines[1]
    assert second == pytest.approx({0.001: 0.0098, 0.03: 0.004, 0.2: 0.010 / DEADLINE_FACTOR})
