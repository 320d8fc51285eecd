"""Why controls give way: the cause told is the cause there is, by a look at every page."""

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

FEW = (
    "{id: few, action: block, where: {not: {any: [{item: [i0, i7, i14, i21, i28, i35]}, {item: [i1, i8, i15, i22]}]}}}"
)
ONE_PROVIDER = "{id: few, action: block, where: {not: {provider: p0}}}"
RIVALS = """
outlet: cn
controls:
  - {id: sport, action: quota, where: {label: sport}, at_least: 0.5, priority: 9}
  - {id: topics, action: cap, attribute: topic, at_most: 6, priority: 8}
  - {id: culture, action: quota, where: {label: culture}, at_least: 0.4, priority: 7}
  - {id: news, action: quota, where: {label: news}, at_least: 0.3, priority: 6}
  - {id: ads, action: quota, where: {label: commercial}, at_most: 0.5, priority: 5}
"""


def check(made: Any, receipt: Any = None, exact: bool = True) -> tuple[Any, ...]:
    receipt = made.receipt if receipt is None else receipt
    parts = (made.policy, made.bounds, made.batch, made.attention, made.catalog)
    return verify(receipt, made.solution.chosen, *parts, exact=exact)


@pytest.mark.parametrize(
    ("control", "kind", "missing", "words"),
    [
        (f"{{id: a, action: cap, attribute: topic, at_most: 4}}, {FEW}", "supply", 2,
         "at most 4 on the page: 6; 2 values of topic x 4 = 8 of 10 slots: 2 more items of other values needed"),
        (f"{{id: a, action: spacing, attribute: provider, at_most: 1, within: 2}}, {ONE_PROVIDER}", "supply", 0,
         "1 value of provider: too few for at most 1 of one in any 2 of 12 neighbouring slots"),
        ("{id: a, action: quota, where: {label: sport}, at_least: 0.3, at_most: 0.3}", "itself", 0,
         "at least 4 and at most 3 of 12 slots contradict each other"),
        ("{id: a, action: quota, where: {label: sport}, at_least: 5, prefixes: [3]}", "slots", 0,
         "5 do not fit into the first 3 slots"),
        ("{id: a, action: quota, where: {series: harvest}, at_least: 9}", "supply", 3,
         "3 more would have to be available: only 6 may be shown here now"),
        ("{id: a, action: quota, where: {not: {series: harvest}}, at_most: 2}", "supply", 4,
         "4 more others would have to be available: only 6 may be shown here now"),
        ("{id: a, action: pin, item: i3, slot: 2, on: {regions: [cn]}}, {id: b, action: block, where: {item: i3}}",
         "supply", 1, "slot 2: the item may not be shown here now"),
    ],
)  # fmt: skip
def test_a_control_that_cannot_be_kept_alone_says_what_it_lacks(
    make: Any, control: str, kind: str, missing: int, words: str
) -> None:
    made = make(f"outlet: cn\ncontrols: [{control}]")
    [line] = [line for line in made.receipt.controls if line.action != "block"]
    assert (line.status, line.cause.kind, line.shortfall) == ("infeasible", kind, missing)
    assert (line.cause.violated_alone_by, line.cause.control_ids) == (line.slack, ())
    assert words in str(line.reason)
    assert "more important" not in str(line.reason)
    assert check(made) == ()


def test_the_stock_policy_of_few_topics_is_told_so_by_lint() -> None:
    from benchmarks.guidance.receipt_claims import _item  # items of seven topics, of which five are kept

    rng = np.random.default_rng(0)
    items = [item for item in (_item(n, rng) for n in range(200)) if item.topic in {f"t{n}" for n in range(5)}]
    policy = parse_policy("outlet: cn.zj\ncontrols: [{id: one-topic, action: cap, attribute: topic, at_most: 4}]")
    [finding] = lint([policy], Catalog.of(items), 1_772_424_000.0)
    assert "5 values of topic x 4 = 20 of 24 slots" in finding.message


def test_a_conflict_names_those_that_leave_no_room_and_no_others(make: Any) -> None:
    made = make(RIVALS, slots=12)
    lines = {line.id: line for line in made.receipt.controls}
    assert lines["news"].status == "relaxed"
    assert lines["news"].cause.control_ids == ("sport", "culture")
    assert "beside the more important 'sport', 'culture' there is no room for more among the candidates" in str(
        lines["news"].reason
    )
    assert check(made) == ()


@pytest.mark.parametrize("exact", [False, True])
def test_a_false_cause_is_found_out_however_well_it_is_told(make: Any, exact: bool) -> None:
    made = make(RIVALS, slots=12)
    number = {origin.control.id: c for c, origin in enumerate(made.policy.controls)}
    news, by = number["news"], int(made.solution.relaxed[number["news"]])
    sport, topics, culture = (number[one] for one in ("sport", "topics", "culture"))
    honest = explain(made.bounds, made.solution.relaxed, made.solution.minimal_proven)
    assert honest[news] == ConflictSet(0, (sport, culture), True)
    for lie in (
        ConflictSet(by, (), True),
        ConflictSet(0, (sport,), True),
        ConflictSet(0, (sport, topics), True),
        ConflictSet(0, (sport, topics, culture), True),
        ConflictSet(0, (sport, culture, number["ads"]), True),
        ConflictSet(1, (sport, culture), True),
        ConflictSet(),
    ):
        parts = (made.policy, made.bounds, made.solution, made.batch, made.attention, made.catalog)
        receipt = write_receipt(*parts, honest | {news: lie})
        assert check(made, receipt, exact), lie
    assert not check(made, write_receipt(*parts, honest), exact)


def every_cause(
    bounds: PageConstraints, by: Any, count_broken: Callable[[PageConstraints, tuple[int, ...]], tuple[int, ...]]
) -> Any:
    """(control, one slot less, others) -> whether any page is there, by looking at all of them."""
    pages = [np.array(count_broken(bounds, page)) for page in permutations(range(len(bounds)), bounds.slots)]

    def page(c: int, less: int, others: tuple[int, ...] = ()) -> bool:
        return any(broken[c] <= less and all(broken[o] <= by[o] for o in others) for broken in pages)

    return page


def test_causes_are_those_that_a_look_at_every_page_finds(instance_of: Any, count_broken: Any) -> None:
    """Named controls leave no room, each of them is needed, and `alone` is what the control lacks by itself."""
    alone, conflicts = 0, 0
    for seed in range(300):
        value, attention, bounds = instance_of(seed, 6, 4)
        solution = solve(value, attention, bounds)
        by = solution.relaxed
        if not by.any():
            continue
        page = every_cause(bounds, by, count_broken)
        for c, cause in explain(bounds, by, solution.minimal_proven).items():
            least = next(less for less in range(by[c] + 1) if page(c, less))
            assert cause.violated_alone_by == least, seed
            alone += least > 0
            if least == by[c]:
                assert cause.controls == (), seed
                continue
            conflicts += 1
            assert cause.irreducible
            assert cause.controls
            assert max(cause.controls) < c
            assert not page(c, by[c] - 1, cause.controls), seed
            for one in cause.controls:
                assert page(c, by[c] - 1, tuple(o for o in cause.controls if o != one)), seed
    assert min(alone, conflicts) > 30


def test_the_same_want_is_looked_into_once(make: Any) -> None:
    memory = ConflictCache()
    for seed in range(3):
        made = make(RIVALS, seed=seed)
        by, settled = made.solution.relaxed, made.solution.minimal_proven
        assert memory.of(made.bounds, by, settled) == explain(made.bounds, by, settled)
    assert len(memory) == 1
    assert memory.of(made.bounds, by * 0, settled) == {}
    assert len(memory) == 1


def test_what_is_asked_too_late_is_neither_found_out_nor_remembered(make: Any) -> None:
    memory, made = ConflictCache(), make(RIVALS, seed=0)
    by, settled = made.solution.relaxed, np.zeros(made.bounds.controls, np.bool_)
    in_time = explain(made.bounds, by, settled)
    assert any(cause.known for cause in in_time.values())
    hasty = memory.of(made.bounds, by, settled, lambda: True)
    assert not any(cause.known for cause in hasty.values())
    assert len(memory) == 0
    assert memory.of(made.bounds, by, settled) == in_time
