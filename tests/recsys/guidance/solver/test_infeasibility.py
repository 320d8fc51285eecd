"""Conflict sets of relaxed controls, checked against exhaustive enumeration of pages."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from typing import Any

import numpy as np
import pytest

from recsys.domain.catalog import Catalog
from recsys.guidance.lint.lint import lint
from recsys.guidance.policy.policy import parse_policy
from recsys.guidance.receipt.receipt import write_receipt
from recsys.guidance.receipt.verify import verify
from recsys.guidance.solver.infeasibility import ConflictCache, ConflictSet, explain
from recsys.guidance.solver.page_constraints import PageConstraints
from recsys.guidance.solver.solve import solve

ALLOWLIST = (
    "{id: allowlist, action: block, "
    "where: {not: {any: [{item: [i0, i7, i14, i21, i28, i35]}, {item: [i1, i8, i15, i22]}]}}}"
)
ONE_PROVIDER = "{id: one-provider, action: block, where: {not: {provider: p0}}}"
COMPETING_QUOTAS = """
outlet: cn
controls:
  - {id: sport, action: quota, where: {label: sport}, at_least: 0.5, priority: 9}
  - {id: topics, action: cap, attribute: topic, at_most: 6, priority: 8}
  - {id: culture, action: quota, where: {label: culture}, at_least: 0.4, priority: 7}
  - {id: news, action: quota, where: {label: news}, at_least: 0.3, priority: 6}
  - {id: ads, action: quota, where: {label: commercial}, at_most: 0.5, priority: 5}
"""


def verify_receipt(guided: Any, receipt: Any = None, exact: bool = True) -> tuple[Any, ...]:
    receipt = guided.receipt if receipt is None else receipt
    parts = (guided.policy, guided.bounds, guided.batch, guided.attention, guided.catalog)
    return verify(receipt, guided.solution.chosen, *parts, exact=exact)


@pytest.mark.parametrize(
    ("control", "kind", "missing", "words"),
    [
        (f"{{id: a, action: cap, attribute: topic, at_most: 4}}, {ALLOWLIST}", "supply", 2,
         "at most 4 on the page: 6; 2 values of topic x 4 = 8 of 10 slots: 2 more items of other values needed"),
        (f"{{id: a, action: spacing, attribute: provider, at_most: 1, within: 2}}, {ONE_PROVIDER}", "supply", 0,
         "1 value of provider: too few for at most 1 of one value in any 2 of 12 neighbouring slots"),
        ("{id: a, action: quota, where: {label: sport}, at_least: 0.3, at_most: 0.3}", "itself", 0,
         "at least 4 and at most 3 of 12 slots contradict each other"),
        ("{id: a, action: quota, where: {label: sport}, at_least: 5, prefixes: [3]}", "slots", 0,
         "5 do not fit into the first 3 slots"),
        ("{id: a, action: quota, where: {series: harvest}, at_least: 9}", "supply", 3,
         "3 more would have to be available: only 6 may be shown here now"),
        ("{id: a, action: quota, where: {not: {series: harvest}}, at_most: 2}", "supply", 4,
         "4 more other items would have to be available: only 6 may be shown here now"),
        ("{id: a, action: pin, item: i3, slot: 2, on: {regions: [cn]}}, {id: b, action: block, where: {item: i3}}",
         "supply", 1, "slot 2: the item may not be shown here now"),
    ],
)  # fmt: skip
def test_a_control_infeasible_on_its_own_reports_what_is_missing(
    make: Any, control: str, kind: str, missing: int, words: str
) -> None:
    guided = make(f"outlet: cn\ncontrols: [{control}]")
    [line] = [line for line in guided.receipt.controls if line.action != "block"]
    assert (line.status, line.cause.kind, line.shortfall) == ("infeasible", kind, missing)
    assert (line.cause.violated_alone_by, line.cause.control_ids) == (line.slack, ())
    assert words in str(line.reason)
    assert "more important" not in str(line.reason)
    assert verify_receipt(guided) == ()


def test_lint_reports_a_catalog_with_too_few_topics_for_a_cap() -> None:
    from benchmarks.guidance.receipt_claims import _item  # items of seven topics; five are used

    rng = np.random.default_rng(0)
    items = [item for item in (_item(n, rng) for n in range(200)) if item.topic in {f"t{n}" for n in range(5)}]
    policy = parse_policy("outlet: cn.zj\ncontrols: [{id: one-topic, action: cap, attribute: topic, at_most: 4}]")
    [finding] = lint([policy], Catalog.of(items), 1_772_424_000.0)
    assert "5 values of topic x 4 = 20 of 24 slots" in finding.message


def test_a_conflict_names_exactly_the_controls_in_it(make: Any) -> None:
    guided = make(COMPETING_QUOTAS, slots=12)
    lines = {line.id: line for line in guided.receipt.controls}
    assert lines["news"].status == "relaxed"
    assert lines["news"].cause.control_ids == ("sport", "culture")
    assert "no page that meets the more important 'sport', 'culture' can hold more of these candidates" in str(
        lines["news"].reason
    )
    assert verify_receipt(guided) == ()


@pytest.mark.parametrize("exact", [False, True])
def test_verification_rejects_a_wrong_conflict_set(make: Any, exact: bool) -> None:
    guided = make(COMPETING_QUOTAS, slots=12)
    index = {origin.control.id: c for c, origin in enumerate(guided.policy.controls)}
    news, slack = index["news"], int(guided.solution.relaxed[index["news"]])
    sport, topics, culture = (index[name] for name in ("sport", "topics", "culture"))
    causes = explain(guided.bounds, guided.solution.relaxed, guided.solution.minimal_proven)
    assert causes[news] == ConflictSet(0, (sport, culture), True)
    for wrong_cause in (
        ConflictSet(slack, (), True),
        ConflictSet(0, (sport,), True),
        ConflictSet(0, (sport, topics), True),
        ConflictSet(0, (sport, topics, culture), True),
        ConflictSet(0, (sport, culture, index["ads"]), True),
        ConflictSet(1, (sport, culture), True),
        ConflictSet(),
    ):
        parts = (guided.policy, guided.bounds, guided.solution, guided.batch, guided.attention, guided.catalog)
        receipt = write_receipt(*parts, causes | {news: wrong_cause})
        assert verify_receipt(guided, receipt, exact), wrong_cause
    assert not verify_receipt(guided, write_receipt(*parts, causes), exact)


def feasibility_oracle(
    constraints: PageConstraints,
    slack: Any,
    count_broken: Callable[[PageConstraints, tuple[int, ...]], tuple[int, ...]],
) -> Any:
    """Return an oracle (control, slack, kept controls) -> whether a page exists, by enumeration of all pages."""
    pages = [
        np.array(count_broken(constraints, page)) for page in permutations(range(len(constraints)), constraints.slots)
    ]

    def is_feasible(c: int, slack_c: int, remaining_controls: tuple[int, ...] = ()) -> bool:
        return any(
            violation[c] <= slack_c and all(violation[k] <= slack[k] for k in remaining_controls) for violation in pages
        )

    return is_feasible


def test_conflict_sets_match_enumeration(instance_of: Any, count_broken: Any) -> None:
    """The conflict set is infeasible and irreducible; `violated_alone_by` is the slack without other controls."""
    alone, conflicts = 0, 0
    for seed in range(300):
        value, attention, constraints = instance_of(seed, 6, 4)
        solution = solve(value, attention, constraints)
        slack = solution.relaxed
        if not slack.any():
            continue
        is_feasible = feasibility_oracle(constraints, slack, count_broken)
        for c, cause in explain(constraints, slack, solution.minimal_proven).items():
            minimum = next(slack_c for slack_c in range(slack[c] + 1) if is_feasible(c, slack_c))
            assert cause.violated_alone_by == minimum, seed
            alone += minimum > 0
            if minimum == slack[c]:
                assert cause.controls == (), seed
                continue
            conflicts += 1
            assert cause.irreducible
            assert cause.controls
            assert max(cause.controls) < c
            assert not is_feasible(c, slack[c] - 1, cause.controls), seed
            for member in cause.controls:
                assert is_feasible(c, slack[c] - 1, tuple(second for second in cause.controls if second != member)), (
                    seed
                )
    assert min(alone, conflicts) > 30


def test_conflict_sets_are_cached_by_limits_and_supply(make: Any) -> None:
    cache = ConflictCache()
    for seed in range(3):
        guided = make(COMPETING_QUOTAS, seed=seed)
        slack, minimal_proven = guided.solution.relaxed, guided.solution.minimal_proven
        assert cache.of(guided.bounds, slack, minimal_proven) == explain(guided.bounds, slack, minimal_proven)
    assert len(cache) == 1
    assert cache.of(guided.bounds, slack * 0, minimal_proven) == {}
    assert len(cache) == 1


def test_results_after_the_deadline_are_neither_proven_nor_cached(make: Any) -> None:
    cache, guided = ConflictCache(), make(COMPETING_QUOTAS, seed=0)
    slack, minimal_proven = guided.solution.relaxed, np.zeros(guided.bounds.controls, np.bool_)
    complete = explain(guided.bounds, slack, minimal_proven)
    assert any(cause.proven for cause in complete.values())
    expired = cache.of(guided.bounds, slack, minimal_proven, lambda: True)
    assert not any(cause.proven for cause in expired.values())
    assert len(cache) == 0
    assert cache.of(guided.bounds, slack, minimal_proven) == complete
