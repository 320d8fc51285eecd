"""The tables of a report: shares, slices, controls, worst-hit viewers and example pages."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping

import numpy as np

from recsys.domain.catalog import Catalog
from recsys.domain.query import Query
from recsys.guidance.policy.inheritance import SourcedControl
from recsys.messages import Message, message
from recsys.preview.bootstrap import Estimate, ratio
from recsys.preview.groups import GROUPS_MAX, Groups
from recsys.preview.page_summary import Changes, ControlOutcome, PageSummary, changes_of
from recsys.preview.pairs import AFTER, BEFORE, FREE, Pairs
from recsys.preview.report import (
    Cause,
    ControlReport,
    Example,
    PageOfItem,
    Share,
    Slice,
    WorstHit,
)
from recsys.preview.study import ReplayRequest, Study

CAUSES_MAX = 3
VIEWERS_MIN = 10
"""Minimum number of viewers of a reported group, for privacy."""

MIN_DENOMINATOR = 1e-3
"""Minimum of a denominator, as a part of its mean magnitude, since utility may be 0 or negative."""

HOUR_S = 3600.0
EXAMPLES = (("most changed", 1.0), ("typical", 0.5), ("next", 0.9))


def shares(groups: Groups, kind: str, pairs: Pairs) -> tuple[Share, ...]:
    """Return the exposure share of each group, largest changes first; for axes, the exposure-weighted mean value."""
    exposure, attention = pairs.exposure(groups, kind), pairs.attention
    total = np.maximum(attention.sum(axis=1), 1e-9)
    share = exposure.sum(axis=1) / total[:, None]
    change = np.abs(share[AFTER] - share[BEFORE])
    order = np.lexsort((-share[BEFORE], -np.round(change, 6)))[:GROUPS_MAX]
    names = groups.names(kind)
    rows = []
    for g in order.tolist():
        if not share[:, g].any():
            continue
        after, before = pairs.w @ exposure[AFTER, :, g], pairs.w @ exposure[BEFORE, :, g]
        difference = after / np.maximum(pairs.w @ attention[AFTER], 1e-9) - before / np.maximum(
            pairs.w @ attention[BEFORE], 1e-9
        )
        low, high = np.quantile(difference, [0.025, 0.975])
        rows.append(
            Share(
                name=names[g],
                unguided=float(share[FREE, g]),
                before=float(share[BEFORE, g]),
                after=float(share[AFTER, g]),
                difference=Estimate(mean=float(share[AFTER, g] - share[BEFORE, g]), low=float(low), high=float(high)),
            )
        )
    return tuple(rows)


def slices(pairs: Pairs, key_of: Callable[[ReplayRequest], str], viewers_min: int = 1) -> tuple[Slice, ...]:
    """Return the figures for each part of the requests with at least `viewers_min` viewers, largest parts first."""
    parts: dict[str, list[int]] = defaultdict(list)
    for i, request in enumerate(pairs.requests):
        parts[key_of(request)].append(i)
    reported = [part for part in parts.items() if len({pairs.unit[i] for i in part[1]}) >= viewers_min]
    return tuple(_slice(pairs, name, indexes) for name, indexes in sorted(reported, key=lambda p: (-len(p[1]), p[0])))


def _slice(pairs: Pairs, name: str, indexes: list[int]) -> Slice:
    free, before, after = pairs.utility[:, indexes]
    plays = pairs.expected_plays[:, indexes]
    total = max(abs(float(free.sum())), MIN_DENOMINATOR * float(np.abs(free).sum()), 1e-9)
    relaxed = [float(np.mean([pairs.pages[side][i].has_relaxed for i in indexes])) for side in (BEFORE, AFTER)]
    return Slice(
        name=name,
        requests=len(indexes),
        utility=ratio(after - before, before, pairs.w[:, indexes]),
        expected_plays=ratio(plays[AFTER] - plays[BEFORE], plays[BEFORE], pairs.w[:, indexes]),
        guidance_cost_before=float((free - before).sum()) / total,
        guidance_cost_after=float((free - after).sum()) / total,
        relaxed_before=relaxed[0],
        relaxed_after=relaxed[1],
    )


def control_reports(
    study: Study,
    pairs: Pairs,
    drops: Mapping[str, Mapping[int, PageSummary]],
    limits: Mapping[str, Mapping[int, PageSummary]],
) -> tuple[ControlReport, ...]:
    """Return a report per control that is active on any page: those of the draft first, by importance.

    Controls without a receipt line follow (boosts and targets), and then new targets without a price.

    drops, limits  control -> request -> the page without the control, or with a target at its maximum price
    """
    outcomes: dict[tuple[str, str], dict[int, list[tuple[ControlOutcome, int]]]] = {}
    for side in (AFTER, BEFORE):
        for i, page in enumerate(pairs.pages[side]):
            for outcome in page.outcomes:
                by_side = outcomes.setdefault((outcome.control_id, outcome.origin), {AFTER: [], BEFORE: []})
                by_side[side].append((outcome, i))
    lines = [_control(pairs, by_side, drops.get(control_id, {})) for (control_id, _), by_side in outcomes.items()]
    on_receipt = {line.id for line in lines}
    controls = {origin.control.id: origin for policy in study.after.values() for origin in policy.controls}
    off_receipt = (
        _off_receipt(controls[name], *_value_without(pairs, pages))
        for name, pages in drops.items()
        if name not in on_receipt
    )
    unpriced = (_off_receipt(origin, None, 0, message("target_without_price")) for origin in study.unpriced().values())
    reports = (*lines, *off_receipt, *unpriced)
    ranges = {name: _cost_at_limit(pairs, drops.get(name), pages) for name, pages in limits.items()}
    return tuple(report.model_copy(update={"cost_at_limit": ranges.get(report.id)}) for report in reports)


def _cost_at_limit(
    pairs: Pairs, free: Mapping[int, PageSummary] | None, limit: Mapping[int, PageSummary]
) -> Estimate | None:
    """Return the part of the utility that pages lose with a target at its maximum price, against pages without it.

    free  the pages without the target; None: it has no price yet, so the pages of the draft
    """
    indexes = [i for i, n in enumerate(pairs.numbers) if n in limit and (free is None or n in free)]
    if not indexes:
        return None
    numbers = [pairs.numbers[i] for i in indexes]
    without = pairs.utility[AFTER, indexes] if free is None else np.array([free[n].page_utility for n in numbers])
    return ratio(without - np.array([limit[n].page_utility for n in numbers]), without, pairs.w[:, indexes])


def _control(
    pairs: Pairs, by_side: Mapping[int, list[tuple[ControlOutcome, int]]], dropped: Mapping[int, PageSummary]
) -> ControlReport:
    first = (by_side[AFTER] or by_side[BEFORE])[0][0]
    after = [outcome for outcome, _ in by_side[AFTER]]
    status = Counter(outcome.status for outcome in after)
    value, tried = _value_without(pairs, dropped) if after else (None, 0)
    return ControlReport(
        id=first.control_id,
        origin=first.origin,
        action=first.action,
        enforcement=first.enforcement,
        pages_before=len(by_side[BEFORE]),
        pages_after=len(after),
        met_before=_share_met([outcome for outcome, _ in by_side[BEFORE]]),
        met_after=_share_met(after),
        active_after=status["active"] / len(after) if after else None,
        relaxed_after=status["relaxed"],
        infeasible_after=status["infeasible"],
        price=float(np.mean([outcome.price for outcome in after])) if after else 0.0,
        value=value,
        tried=tried,
        causes=_causes(pairs, by_side[AFTER]),
    )


def _off_receipt(
    origin: SourcedControl, value: Estimate | None, tried: int, note: Message | None = None
) -> ControlReport:
    """Return the report of a boost or target. It has no receipt line, so only its cost is reported."""
    return ControlReport(
        id=origin.control.id,
        origin=origin.outlet,
        action=origin.control.action,
        enforcement=origin.control.enforcement,
        pages_before=0,
        pages_after=0,
        met_before=None,
        met_after=None,
        active_after=None,
        relaxed_after=0,
        infeasible_after=0,
        price=0.0,
        value=value,
        tried=tried,
        note=note,
    )


def _value_without(pairs: Pairs, dropped: Mapping[int, PageSummary]) -> tuple[Estimate | None, int]:
    """Return the relative gain in utility without a control, and the number of requests on which it was tried."""
    indexes = [i for i, n in enumerate(pairs.numbers) if n in dropped]
    if not indexes:
        return None, 0
    free = np.array([dropped[pairs.numbers[i]].page_utility for i in indexes])
    after = pairs.utility[AFTER, indexes]
    return ratio(free - after, after, pairs.w[:, indexes]), len(indexes)


def _share_met(outcomes: list[ControlOutcome]) -> float | None:
    return sum(outcome.slack == 0 for outcome in outcomes) / len(outcomes) if outcomes else None


def _causes(pairs: Pairs, outcomes: list[tuple[ControlOutcome, int]]) -> tuple[Cause, ...]:
    """Return the most frequent causes of relaxation, with the number of pages."""
    violated = [(outcome, pairs.requests[i].query) for outcome, i in outcomes if outcome.slack]
    reasons = Counter(outcome.reason for outcome, _ in violated)
    first = {outcome.reason: query for outcome, query in reversed(violated)}
    return tuple(Cause(reason=r, pages=n, where=_page_text(first[r])) for r, n in reasons.most_common(CAUSES_MAX))


def _page_text(query: Query) -> Message:
    page = query.placement
    return message("page_in_region", screen=page.screen, surface=page.surface, region=query.region)


def worst_hit(pairs: Pairs) -> WorstHit | None:
    """Return the tenth of the viewers with the largest relative loss of utility; None if they are too few to report."""
    unit = np.asarray(pairs.unit)
    viewers, index = np.unique(unit, return_inverse=True)
    before = np.bincount(index, pairs.utility[BEFORE])
    after = np.bincount(index, pairs.utility[AFTER])
    if len(viewers) // 10 < VIEWERS_MIN:
        return None
    size = np.abs(before)
    change = (after - before) / np.maximum(size, max(MIN_DENOMINATOR * float(size.mean()), 1e-9))
    worst = np.argsort(change, kind="stable")[: len(viewers) // 10]
    is_hit = np.isin(index, worst)
    screens = Counter(
        request.query.placement.screen.value for request, h in zip(pairs.requests, is_hit, strict=True) if h
    )
    return WorstHit(
        viewers=len(worst),
        mean_change_all=float(change.mean()),
        mean_change=float(change[worst].mean()),
        threshold=float(change[worst].max()),
        screens={name: n / max(int(is_hit.sum()), 1) for name, n in screens.most_common()},
    )


def examples(pairs: Pairs, catalog: Catalog) -> tuple[Example, ...]:
    """Return example pages: the most changed one, a strongly changed one and a typical one."""
    loss = pairs.utility[BEFORE] - pairs.utility[AFTER]
    changes = [changes_of(b, a) for b, a in zip(pairs.pages[BEFORE], pairs.pages[AFTER], strict=True)]
    order = np.lexsort((loss, [c.moved for c in changes], [c.replaced + c.removed for c in changes]))
    chosen = dict.fromkeys(int(order[round(at * (len(order) - 1))]) for _, at in EXAMPLES)
    return tuple(_example(pairs, i, changes[i], catalog) for i in chosen)


def _example(pairs: Pairs, i: int, changes: Changes, catalog: Catalog) -> Example:
    query = pairs.requests[i].query

    def page(shown: PageSummary) -> tuple[PageOfItem, ...]:
        return tuple(
            PageOfItem(item_id=catalog.ids[row], title=dict(catalog.items[row].title), attention=float(a))
            for row, a in zip(shown.row, shown.attention, strict=True)
        )

    before, after = pairs.pages[BEFORE][i], pairs.pages[AFTER][i]
    return Example(
        placement=query.placement.id,
        region=query.region,
        at=query.now // HOUR_S * HOUR_S,
        replaced=changes.replaced,
        moved=changes.moved,
        utility_before=before.page_utility,
        utility_after=after.page_utility,
        expected_plays_before=before.expected_plays,
        expected_plays_after=after.expected_plays,
        before=page(before),
        after=page(after),
    )
