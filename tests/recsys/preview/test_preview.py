"""Previews: figures equal those of real pages, add up, and do not depend on the order of results."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.domain.placement import Placement
from recsys.domain.query import Query
from recsys.pacing.on_page import ActivePrices
from recsys.preview.ablations import without
from recsys.preview.aggregate import Aggregate, replay
from recsys.preview.bootstrap import weights
from recsys.preview.breakdown import slices, worst_hit
from recsys.preview.page_summary import PageSummary, changes_of
from recsys.preview.pairs import Pairs
from recsys.preview.report import Report
from recsys.preview.study import ReplayRequest, Study

ACTIVE = """
outlet: cn.zj
weights: {public_value: 0.2}
controls:
  - {id: public, action: quota, where: {label: public-service}, at_least: 0.3, prefixes: every, enforcement: mandatory}
  - {id: one-topic, action: cap, attribute: topic, at_most: 4}
"""


@pytest.fixture(scope="module")
def report(study: Study) -> Report:
    *_, last = replay(study)
    return last.report()


def test_report_equals_recomputed_engine_pages(study: Study, report: Report) -> None:
    utility: dict[str, list[float]] = {"before": [], "after": []}
    plays: dict[str, list[float]] = {"before": [], "after": []}
    relaxed = 0
    for request in study.requests:
        for side, policies in (("before", study.before), ("after", study.after)):
            page = study.engine.run(request.query, request.viewer, replace(study.world, policy=policies["cn.zj"]))
            k = np.arange(len(page.items))
            steps = k if request.query.placement.screen == "mobile" else k % 6 + 2 * (k // 6)
            decay = 0.92 if request.query.placement.screen == "mobile" else 0.94
            attention = np.minimum.accumulate(decay**steps)
            utility[side].append(float(attention @ [item.utility for item in page.items]))
            plays[side].append(sum(a * item.p["play"] for a, item in zip(attention, page.items, strict=True)))
            assert [stage.error for stage in page.trace if stage.error] == []
            relaxed += side == "after" and any(line.slack for line in page.receipt.controls)
    assert report.utility.before == pytest.approx(np.mean(utility["before"]))
    assert report.utility.after == pytest.approx(np.mean(utility["after"]))
    assert report.utility.difference.mean == pytest.approx(np.mean(utility["after"]) - np.mean(utility["before"]))
    assert report.expected_plays.before == pytest.approx(np.mean(plays["before"]))
    assert report.expected_plays.after == pytest.approx(np.mean(plays["after"]))
    assert report.expected_plays == report.actions["play"]
    assert report.relaxed_after == relaxed / 40
    assert report.complete
    assert (report.requests, report.of, report.viewers) == (40, 40, 10)


def test_identical_policies_report_no_change(study_of: Callable[..., Study]) -> None:
    *_, last = replay(study_of(after=ACTIVE))
    report = last.report()
    assert report.changed_pages == report.replaced_slots == report.moved_slots == 0
    for change in (report.utility, report.expected_plays, report.page_value, *report.actions.values()):
        assert (change.difference.mean, change.difference.low, change.difference.high) == (0, 0, 0)
    assert all(
        row.difference.mean == row.difference.high == 0 for row in (*report.labels, *report.outlets, *report.axes)
    )
    assert all(row.gained == row.lost == 0 for row in report.exposure)
    assert all(control.met_before == control.met_after for control in report.controls)


def test_report_does_not_depend_on_result_order(study: Study, report: Report) -> None:
    outcomes = list(study.run_all(study.tasks()))
    random.Random(3).shuffle(outcomes)
    aggregate = Aggregate(study)
    for outcome in outcomes:
        aggregate.add(outcome)
    assert aggregate.report() == report


def test_partial_report_states_its_coverage(study: Study) -> None:
    aggregate = Aggregate(study)
    with pytest.raises(ValueError, match="nothing"):
        aggregate.report()
    for outcome in study.run_all(list(study.tasks())[:7]):
        aggregate.add(outcome)
    early = aggregate.report()
    assert (early.requests, early.of, early.complete) == (7, 40, False)
    assert early.frontier == ()


def test_exposure_gains_and_losses_sum_to_the_difference(report: Report) -> None:
    for row in report.exposure:
        assert row.gained - row.lost == pytest.approx(row.difference.mean)
        assert row.after - row.before == pytest.approx(row.difference.mean)
    for side in ("before", "after", "unguided"):
        assert sum(getattr(row, side) for row in report.outlets) == pytest.approx(1)
        assert sum(getattr(row, side) for row in report.regions) == pytest.approx(1)
    assert sum(part.requests for part in report.by_screen) == sum(part.requests for part in report.by_outlet) == 40
    labels = {row.name: row for row in report.labels}
    assert labels["commercial"].after == 0 < labels["commercial"].unguided
    assert labels["public-service"].after > labels["public-service"].before


def test_infeasible_control_is_reported_with_causes(report: Report) -> None:
    """Half of the page must be public-service news, but only one of sixty items is both."""
    line = {control.id: control for control in report.controls}["too-much"]
    assert line.pages_after == 40
    assert line.met_after == 0
    assert line.infeasible_after + line.relaxed_after == 40
    assert sum(cause.pages for cause in line.causes) > 0
    assert "more would have to be available" in str(line.causes[0].reason)
    assert str(line.causes[0].where).endswith(("in cn.zj.hz", "in cn.zj.nb"))
    assert report.relaxed_before == 0
    assert report.relaxed_after == 1


def test_cost_of_a_control_is_the_gain_without_it(study: Study, report: Report) -> None:
    tried = [task for task in study.tasks() if task.kind == "drop" and task.name == "music"]
    gained, base = 0.0, 0.0
    for task in tried:
        request = study.requests[task.request]
        pages = [
            study.engine.run(request.query, request.viewer, replace(study.world, policy=policy))
            for policy in (study.after["cn.zj"], without(study.after["cn.zj"], "music"))
        ]
        decay = 0.92 if request.query.placement.screen == "mobile" else None
        if decay:
            utility = [sum(decay**k * item.utility for k, item in enumerate(page.items)) for page in pages]
        else:
            attention = np.minimum.accumulate(0.94 ** (np.arange(10) % 6 + 2 * (np.arange(10) // 6)))
            utility = [float(attention @ [item.utility for item in page.items]) for page in pages]
        gained, base = gained + utility[1] - utility[0], base + utility[0]
    line = {control.id: control for control in report.controls}["music"]
    assert line.tried == len(tried) == 40
    assert line.value is not None
    assert line.value.mean == pytest.approx(gained / base)


TARGET = "  - {id: aim, action: exposure_target, where: {label: commercial}, share: 0.5, until: 2026-03-05T00:00:00Z}\n"


def test_the_range_of_the_cost_of_a_target_is_known_before_it_runs(study_of: Callable[..., Study]) -> None:
    """Its cost lies between 0 and that at its maximum price, which the preview measures on pages."""
    draft = study_of(after=ACTIVE + TARGET, requests=12)
    *_, last = replay(draft)
    limit = {control.id: control for control in last.report().controls}["aim"].cost_at_limit
    assert limit is not None
    costs = []
    for price in (0.0, 0.1, 0.25, 0.5):
        *_, last = replay(replace(draft, world=replace(draft.world, prices=ActivePrices({"cn.zj/aim": price}))))
        costs.append(-last.report().utility.difference.mean / abs(last.report().utility.before))
        line = {control.id: control for control in last.report().controls}["aim"]
        assert line.cost_at_limit == pytest.approx(limit, abs=1e-12)
    assert costs[0] == 0
    assert costs == sorted(costs)
    assert costs[-1] == pytest.approx(limit.mean)


def test_new_target_without_price_has_a_note_instead_of_a_cost(study_of: Callable[..., Study]) -> None:
    """A target without a price has no effect, so a reported cost of 0 would be misleading."""
    *_, last = replay(study := study_of(after=ACTIVE + TARGET, requests=12))
    line = {control.id: control for control in last.report().controls}["aim"]
    assert (line.value, line.tried, line.action, line.origin) == (None, 0, "exposure_target", "cn.zj")
    assert "has no price before it runs" in str(line.note)
    assert last.complete
    steered = replace(study, world=replace(study.world, prices=ActivePrices({"cn.zj/aim": 3.0})))
    *_, last = replay(steered)
    line = {control.id: control for control in last.report().controls}["aim"]
    assert (line.tried, line.action, line.origin) == (12, "exposure_target", "cn.zj")
    assert line.value is not None
    assert line.value.mean != 0
    assert last.report().changed_pages > 0.5
    assert line.note is None
    *_, last = replay(study_of(before=ACTIVE + TARGET, after=ACTIVE + TARGET, requests=12))
    assert {control.id: control for control in last.report().controls}["aim"].value is not None


def test_block_has_a_control_report(report: Report) -> None:
    line = {control.id: control for control in report.controls}["no-ads"]
    assert (line.tried, line.action, line.origin) == (40, "block", "cn.zj")
    assert (line.pages_after, line.met_after, line.price) == (40, 1.0, 0.0)


def test_frontier_costs_rise_with_strength(report: Report) -> None:
    assert [point.strength for point in report.frontier] == [0.0, 0.5, 1.0, 1.5, 2.0]
    costs = [point.guidance_cost.mean for point in report.frontier]
    assert costs[0] < costs[2] < costs[4]
    assert costs[2] == pytest.approx(report.guidance_cost_after.mean), "at strength 1 on all forty requests"
    values = [point.values["public_value"] for point in report.frontier]
    assert values[0] < values[4]
    assert all(point.quotas["public"] >= 0.3 for point in report.frontier), "mandatory minimums apply at every strength"


def test_the_frontier_at_strength_one_is_the_draft(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """No figure has two values in a report, although the other strengths are replayed on a sample only."""
    monkeypatch.setattr("recsys.preview.study.FRONTIER_REQUESTS", 5)
    *_, last = replay(study)
    report = last.report()
    draft = {point.strength: point for point in report.frontier}[1.0]
    assert (draft.requests, draft.guidance_cost, draft.relaxed) == (
        40,
        report.guidance_cost_after,
        report.relaxed_after,
    )
    axes, labels = ({row.name: row for row in rows} for rows in (report.axes, report.labels))
    assert draft.values["public_value"] == pytest.approx(axes["public_value"].after)
    assert draft.quotas["public"] == pytest.approx(labels["public-service"].after)
    [whole] = report.by_outlet
    assert whole.guidance_cost_after == pytest.approx(report.guidance_cost_after.mean)
    assert (whole.utility, whole.relaxed_after) == (report.utility.relative, report.relaxed_after)


@given(st.permutations(range(9)), st.integers(0, 8), st.integers(0, 8))
def test_every_changed_slot_is_either_replaced_or_moved(order: list[int], before: int, after: int) -> None:
    old, new = list(range(8))[:before], order[:after]
    changes = changes_of(*(page_of(rows) for rows in (old, new)))
    assert changes.replaced == len(set(new) - set(old))
    assert changes.removed == max(before - after, 0)
    differ = sum(k >= len(old) or row != old[k] for k, row in enumerate(new))
    assert changes.replaced + changes.moved == differ
    assert any(changes) == (old != new)


def page_of(rows: list[int]) -> PageSummary:
    zeros = np.zeros(len(rows))
    return PageSummary(np.array(rows, np.int32), zeros, zeros, np.zeros(4), 0.0, ())


def paired(before: list[float], after: list[float], unguided: list[float] | None = None) -> Pairs:
    """Return pairs with one request per viewer and pages of the given utilities."""
    attention = np.ones(1)

    def side(utilities: list[float]) -> tuple[PageSummary, ...]:
        return tuple(
            PageSummary(np.zeros(1, np.int32), attention, attention * w, np.zeros(4), w, ()) for w in utilities
        )

    n = range(len(before))
    query = Query("r", "v", Placement.parse("cn.zj-tv-home"), "cn.zj.hz", 1_772_366_400.0 + 754, 1)
    sides = (side(unguided or before), side(before), side(after))
    return Pairs(tuple(n), tuple(ReplayRequest(query, None) for _ in n), sides, tuple(n), weights(n))


def test_worst_hit_is_the_tenth_with_the_largest_loss() -> None:
    before, after = np.linspace(1, 2, 120), np.linspace(1, 2, 120) * np.linspace(0.5, 1.5, 120)
    worst = worst_hit(paired(before.tolist(), after.tolist()))
    assert worst is not None
    assert worst.viewers == 12
    assert worst.mean_change == pytest.approx(np.linspace(-0.5, 0.5, 120)[:12].mean())
    assert worst.mean_change_all == pytest.approx(0)
    assert worst.threshold == pytest.approx(np.linspace(-0.5, 0.5, 120)[11])


def test_zero_or_negative_utility_gives_bounded_figures() -> None:
    before = [1.0] * 98 + [0.0, -1.0]
    after = [1.0] * 98 + [-0.001, -2.0]
    worst = worst_hit(paired(before, after))
    assert worst is not None
    assert -0.25 < worst.mean_change < 0
    [part] = slices(paired([-2.0] * 10, [-3.0] * 10, [-1.0] * 10), lambda request: request.query.region)
    assert part.guidance_cost_before == pytest.approx(1)
    assert part.guidance_cost_after == pytest.approx(2)


def test_small_groups_of_viewers_are_not_reported(study: Study, report: Report) -> None:
    """With ten viewers, five per region, the report must not reveal figures of an individual viewer."""
    assert report.worst_hit is None
    assert report.by_region == ()
    assert worst_hit(paired([1.0] * 99, [1.0] * 99)) is None
    pairs = paired([1.0] * 10, [1.0] * 10)
    assert len(slices(pairs, lambda request: request.query.region, 10)) == 1
    assert slices(pairs, lambda request: request.query.region, 11) == ()
    assert all(example.at % 3600 == 0 for example in report.examples)
    assert any(study.requests[n].query.now % 3600 for n in range(40))


def test_examples_are_complete_pages(report: Report) -> None:
    first = report.examples[0]
    assert len(first.before) == len(first.after) == 10
    differs = Counter(a.item_id != b.item_id for a, b in zip(first.before, first.after, strict=True))
    assert differs[True] == first.replaced + first.moved
    assert first.replaced == len({a.item_id for a in first.after} - {b.item_id for b in first.before})
    assert first.replaced == max(example.replaced for example in report.examples)
    assert first.after[0].title["en"]
