"""Previews: pairs are real pages, nothing changes where nothing was changed, figures add up, order is nothing."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from recsys.domain.placement import Placement
from recsys.domain.query import Query
from recsys.pacing.on_page import ActivePrices
from recsys.preview.ablations import without
from recsys.preview.aggregate import Aggregate, replay
from recsys.preview.bootstrap import weights
from recsys.preview.breakdown import slices, worst_hit
from recsys.preview.page_summary import PageSummary
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


def test_pairs_are_the_pages_that_the_engine_makes(study: Study, report: Report) -> None:
    worth: dict[str, list[float]] = {"before": [], "after": []}
    plays: dict[str, list[float]] = {"before": [], "after": []}
    gave_way = 0
    for asked in study.requests:
        for side, policies in (("before", study.before), ("after", study.after)):
            page = study.engine.run(asked.query, asked.viewer, replace(study.world, policy=policies["cn.zj"]))
            k = np.arange(len(page.items))
            steps = k if asked.query.placement.screen == "mobile" else k % 6 + 2 * (k // 6)
            decay = 0.92 if asked.query.placement.screen == "mobile" else 0.94
            attention = np.minimum.accumulate(decay**steps)
            worth[side].append(float(attention @ [item.utility for item in page.items]))
            plays[side].append(sum(a * item.p["play"] for a, item in zip(attention, page.items, strict=True)))
            assert [stage.error for stage in page.trace if stage.error] == []
            gave_way += side == "after" and any(line.slack for line in page.receipt.controls)
    assert report.utility.before == pytest.approx(np.mean(worth["before"]))
    assert report.utility.after == pytest.approx(np.mean(worth["after"]))
    assert report.utility.difference.mean == pytest.approx(np.mean(worth["after"]) - np.mean(worth["before"]))
    assert report.expected_plays.before == pytest.approx(np.mean(plays["before"]))
    assert report.expected_plays.after == pytest.approx(np.mean(plays["after"]))
    assert report.expected_plays == report.actions["play"]
    assert report.relaxed_after == gave_way / 40
    assert report.complete
    assert (report.requests, report.of, report.viewers) == (40, 40, 10)


def test_the_same_policy_twice_changes_nothing(study_of: Callable[..., Study]) -> None:
    *_, last = replay(study_of(after=ACTIVE))
    said = last.report()
    assert said.changed_pages == said.changed_slots == 0
    for worth in (said.utility, said.expected_plays, said.page_value, *said.actions.values()):
        assert (worth.difference.mean, worth.difference.low, worth.difference.high) == (0, 0, 0)
    assert all(row.difference.mean == row.difference.high == 0 for row in (*said.labels, *said.outlets, *said.axes))
    assert all(row.gained == row.lost == 0 for row in said.exposure)
    assert all(control.met_before == control.met_after for control in said.controls)


def test_figures_do_not_depend_on_the_order_in_which_results_come_in(study: Study, report: Report) -> None:
    outcomes = list(study.run_all(study.tasks()))
    random.Random(3).shuffle(outcomes)
    tally = Aggregate(study)
    for outcome in outcomes:
        tally.add(outcome)
    assert tally.report() == report


def test_figures_come_early_and_say_of_how_many(study: Study) -> None:
    tally = Aggregate(study)
    with pytest.raises(ValueError, match="nothing"):
        tally.report()
    for outcome in study.run_all(list(study.tasks())[:7]):
        tally.add(outcome)
    early = tally.report()
    assert (early.requests, early.of, early.complete) == (7, 40, False)
    assert early.frontier == ()


def test_exposure_adds_up(report: Report) -> None:
    for row in report.exposure:
        assert row.gained - row.lost == pytest.approx(row.difference.mean)
        assert row.after - row.before == pytest.approx(row.difference.mean)
    for side in ("before", "after", "unguided"):
        assert sum(getattr(row, side) for row in report.outlets) == pytest.approx(1)
        assert sum(getattr(row, side) for row in report.regions) == pytest.approx(1)
    assert sum(one.requests for one in report.by_screen) == sum(one.requests for one in report.by_outlet) == 40
    labels = {row.name: row for row in report.labels}
    assert labels["commercial"].after == 0 < labels["commercial"].unguided
    assert labels["public-service"].after > labels["public-service"].before


def test_a_control_that_cannot_be_met_is_told_with_its_causes(report: Report) -> None:
    """Half a page of public-service news: of sixty items one is both, and that is not enough."""
    line = {control.id: control for control in report.controls}["too-much"]
    assert line.pages_after == 40
    assert line.met_after == 0
    assert line.infeasible_after + line.relaxed_after == 40
    assert sum(cause.pages for cause in line.causes) > 0
    assert "more would have to be available" in str(line.causes[0].reason)
    assert str(line.causes[0].where).endswith(("in cn.zj.hz", "in cn.zj.nb"))
    assert report.relaxed_before == 0
    assert report.relaxed_after == 1


def test_what_a_control_costs_is_what_a_page_without_it_gains(study: Study, report: Report) -> None:
    tried = [task for task in study.tasks() if task.kind == "drop" and task.name == "music"]
    gained, base = 0.0, 0.0
    for task in tried:
        asked = study.requests[task.request]
        pages = [
            study.engine.run(asked.query, asked.viewer, replace(study.world, policy=policy))
            for policy in (study.after["cn.zj"], without(study.after["cn.zj"], "music"))
        ]
        at = 0.92 if asked.query.placement.screen == "mobile" else None
        if at:
            worth = [sum(at**k * item.utility for k, item in enumerate(page.items)) for page in pages]
        else:
            attention = np.minimum.accumulate(0.94 ** (np.arange(10) % 6 + 2 * (np.arange(10) // 6)))
            worth = [float(attention @ [item.utility for item in page.items]) for page in pages]
        gained, base = gained + worth[1] - worth[0], base + worth[0]
    line = {control.id: control for control in report.controls}["music"]
    assert line.tried == len(tried) == 40
    assert line.value is not None
    assert line.value.mean == pytest.approx(gained / base)


TARGET = "  - {id: aim, action: exposure_target, where: {label: commercial}, share: 0.5, until: 2026-03-05T00:00:00Z}\n"


def test_a_new_target_has_no_price_and_says_so(study_of: Callable[..., Study]) -> None:
    """What nobody has steered yet moves nothing: that it costs nothing would be a lie."""
    *_, last = replay(fresh := study_of(after=ACTIVE + TARGET, requests=12))
    line = {control.id: control for control in last.report().controls}["aim"]
    assert (line.value, line.tried, line.action, line.origin) == (None, 0, "exposure_target", "cn.zj")
    assert "has no price before it runs" in str(line.note)
    assert last.complete
    steered = replace(fresh, world=replace(fresh.world, prices=ActivePrices({"cn.zj/aim": 3.0})))
    *_, last = replay(steered)
    line = {control.id: control for control in last.report().controls}["aim"]
    assert (line.tried, line.action, line.origin) == (12, "exposure_target", "cn.zj")
    assert line.value is not None
    assert line.value.mean != 0
    assert last.report().changed_pages > 0.5
    assert line.note is None
    *_, last = replay(study_of(before=ACTIVE + TARGET, after=ACTIVE + TARGET, requests=12))
    assert {control.id: control for control in last.report().controls}["aim"].value is not None


def test_the_block_has_a_cost_too(report: Report) -> None:
    line = {control.id: control for control in report.controls}["no-ads"]
    assert (line.tried, line.action, line.origin) == (40, "block", "cn.zj")
    assert (line.pages_after, line.met_after, line.price) == (40, 1.0, 0.0)


def test_the_frontier_goes_from_what_is_owed_to_twice_what_is_wanted(report: Report) -> None:
    assert [point.strength for point in report.frontier] == [0.0, 0.5, 1.0, 1.5, 2.0]
    costs = [point.guidance_cost.mean for point in report.frontier]
    assert costs[0] < costs[2] < costs[4]
    assert costs[2] == pytest.approx(report.guidance_cost_after.mean), "at strength 1 on all forty requests"
    values = [point.values["public_value"] for point in report.frontier]
    assert values[0] < values[4]
    assert all(point.quotas["public"] >= 0.3 for point in report.frontier), "binding floors stand at every strength"


def paired(before: list[float], after: list[float], free: list[float] | None = None) -> Pairs:
    """One request of each of so many viewers, with pages of this worth."""
    one = np.ones(1)

    def side(worth: list[float]) -> tuple[PageSummary, ...]:
        return tuple(PageSummary(np.zeros(1, np.int32), one, one * w, np.zeros(4), w, ()) for w in worth)

    n = range(len(before))
    query = Query("r", "v", Placement.parse("cn.zj-tv-home"), "cn.zj.hz", 1_772_366_400.0 + 754, 1)
    sides = (side(free or before), side(before), side(after))
    return Pairs(tuple(n), tuple(ReplayRequest(query, None) for _ in n), sides, tuple(n), weights(n))


def test_the_worst_hit_tenth_is_the_tenth_with_the_largest_loss() -> None:
    before, after = np.linspace(1, 2, 120), np.linspace(1, 2, 120) * np.linspace(0.5, 1.5, 120)
    said = worst_hit(paired(before.tolist(), after.tolist()))
    assert said is not None
    assert said.viewers == 12
    assert said.mean_change == pytest.approx(np.linspace(-0.5, 0.5, 120)[:12].mean())
    assert said.mean_change_all == pytest.approx(0)
    assert said.threshold == pytest.approx(np.linspace(-0.5, 0.5, 120)[11])


def test_worth_of_nought_or_below_makes_no_figure_explode() -> None:
    before = [1.0] * 98 + [0.0, -1.0]
    after = [1.0] * 98 + [-0.001, -2.0]
    said = worst_hit(paired(before, after))
    assert said is not None
    assert -0.25 < said.mean_change < 0
    [part] = slices(paired([-2.0] * 10, [-3.0] * 10, [-1.0] * 10), lambda asked: asked.query.region)
    assert part.guidance_cost_before == pytest.approx(1)
    assert part.guidance_cost_after == pytest.approx(2)


def test_few_viewers_are_not_told_of(study: Study, report: Report) -> None:
    """Ten viewers, five in each region: whoever knows one of them must not read that one off the report."""
    assert report.worst_hit is None
    assert report.by_region == ()
    assert worst_hit(paired([1.0] * 99, [1.0] * 99)) is None
    pairs = paired([1.0] * 10, [1.0] * 10)
    assert len(slices(pairs, lambda asked: asked.query.region, 10)) == 1
    assert slices(pairs, lambda asked: asked.query.region, 11) == ()
    assert all(example.at % 3600 == 0 for example in report.examples)
    assert any(study.requests[n].query.now % 3600 for n in range(40))


def test_examples_are_whole_pages(report: Report) -> None:
    first = report.examples[0]
    assert len(first.before) == len(first.after) == 10
    differs = Counter(a.item_id != b.item_id for a, b in zip(first.before, first.after, strict=True))
    assert differs[True] == first.changed == max(example.changed for example in report.examples)
    assert first.after[0].title["en"]
