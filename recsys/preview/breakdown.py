"""The tables of a report: shares, slices, controls, frontier, who is hit worst, pages to look at."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping

import numpy as np

from recsys.domain.catalog import Catalog
from recsys.domain.query import Query
from recsys.guidance.policy.controls import Quota as ShareControl
from recsys.guidance.policy.inheritance import SourcedControl
from recsys.messages import Message, message
from recsys.preview.bootstrap import Estimate, ratio
from recsys.preview.groups import GROUPS_MAX, Groups
from recsys.preview.page_summary import ControlOutcome, PageSummary
from recsys.preview.pairs import AFTER, BEFORE, FREE, Pairs
from recsys.preview.report import (
    Cause,
    ControlReport,
    Example,
    PageOfItem,
    Point,
    Share,
    Slice,
    WorstHit,
)
from recsys.preview.study import ReplayRequest, Study

CAUSES_MAX = 3
VIEWERS_MIN = 10
"""A group of fewer viewers is not told of."""

MIN_DENOMINATOR = 1e-3
"""What is divided by is at least this part of its mean size: utility may be 0 or below."""

HOUR_S = 3600.0
EXAMPLES = (("most changed", 1.0), ("typical", 0.5), ("next", 0.9))


def shares(groups: Groups, kind: str, pairs: Pairs) -> tuple[Share, ...]:
    """Exposure share of each group, the largest changes first; for axes the exposure-weighted mean value."""
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
        with_, less = pairs.w @ exposure[AFTER, :, g], pairs.w @ exposure[BEFORE, :, g]
        both = with_ / np.maximum(pairs.w @ attention[AFTER], 1e-9) - less / np.maximum(
            pairs.w @ attention[BEFORE], 1e-9
        )
        low, high = np.quantile(both, [0.025, 0.975])
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


def slices(pairs: Pairs, of: Callable[[ReplayRequest], str], viewers_min: int = 1) -> tuple[Slice, ...]:
    """The same figures for parts of the requests with so many viewers at least, the most frequent first."""
    parts: dict[str, list[int]] = defaultdict(list)
    for i, asked in enumerate(pairs.requests):
        parts[of(asked)].append(i)
    told = [part for part in parts.items() if len({pairs.unit[i] for i in part[1]}) >= viewers_min]
    return tuple(_slice(pairs, name, at) for name, at in sorted(told, key=lambda p: (-len(p[1]), p[0])))


def _slice(pairs: Pairs, name: str, at: list[int]) -> Slice:
    free, before, after = pairs.utility[:, at]
    plays = pairs.expected_plays[:, at]
    total = max(abs(float(free.sum())), MIN_DENOMINATOR * float(np.abs(free).sum()), 1e-9)
    gave = [float(np.mean([pairs.pages[side][i].has_relaxed for i in at])) for side in (BEFORE, AFTER)]
    return Slice(
        name=name,
        requests=len(at),
        utility=ratio(after - before, before, pairs.w[:, at]),
        expected_plays=ratio(plays[AFTER] - plays[BEFORE], plays[BEFORE], pairs.w[:, at]),
        guidance_cost_before=float((free - before).sum()) / total,
        guidance_cost_after=float((free - after).sum()) / total,
        relaxed_before=gave[0],
        relaxed_after=gave[1],
    )


def control_reports(
    study: Study, pairs: Pairs, drops: Mapping[str, Mapping[int, PageSummary]]
) -> tuple[ControlReport, ...]:
    """Every control in force on any page, those of the draft first, in the order of their importance; then targets
    whose price is not known yet."""
    fates: dict[tuple[str, str], dict[int, list[tuple[ControlOutcome, int]]]] = {}
    for side in (AFTER, BEFORE):
        for i, page in enumerate(pairs.pages[side]):
            for fate in page.outcomes:
                of = fates.setdefault((fate.control_id, fate.origin), {AFTER: [], BEFORE: []})
                of[side].append((fate, i))
    lines = [_control(pairs, of, drops.get(control_id, {})) for (control_id, _), of in fates.items()]
    seen = {line.id for line in lines}
    said = {origin.control.id: origin for policy in study.after.values() for origin in policy.controls}
    others = (
        _off_receipt(said[name], *_value_without(pairs, pages)) for name, pages in drops.items() if name not in seen
    )
    new = (_off_receipt(origin, None, 0, message("target_without_price")) for origin in study.unpriced().values())
    return (*lines, *others, *new)


def _control(
    pairs: Pairs, of: Mapping[int, list[tuple[ControlOutcome, int]]], dropped: Mapping[int, PageSummary]
) -> ControlReport:
    first = (of[AFTER] or of[BEFORE])[0][0]
    after = [fate for fate, _ in of[AFTER]]
    status = Counter(fate.status for fate in after)
    worth, tried = _value_without(pairs, dropped) if after else (None, 0)
    return ControlReport(
        id=first.control_id,
        origin=first.origin,
        action=first.action,
        enforcement=first.enforcement,
        pages_before=len(of[BEFORE]),
        pages_after=len(after),
        met_before=_share_met([fate for fate, _ in of[BEFORE]]),
        met_after=_share_met(after),
        active_after=status["active"] / len(after) if after else None,
        relaxed_after=status["relaxed"],
        infeasible_after=status["infeasible"],
        price=float(np.mean([fate.price for fate in after])) if after else 0.0,
        value=worth,
        tried=tried,
        causes=_causes(pairs, of[AFTER]),
    )


def _off_receipt(
    origin: SourcedControl, worth: Estimate | None, tried: int, note: Message | None = None
) -> ControlReport:
    """A boost or target: it never stands on a receipt, so only what it costs is told."""
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
        value=worth,
        tried=tried,
        note=note,
    )


def _value_without(pairs: Pairs, dropped: Mapping[int, PageSummary]) -> tuple[Estimate | None, int]:
    """Utility gained without the control, relative to the draft's, over the requests on which that was tried."""
    at = [i for i, n in enumerate(pairs.numbers) if n in dropped]
    if not at:
        return None, 0
    free = np.array([dropped[pairs.numbers[i]].page_utility for i in at])
    after = pairs.utility[AFTER, at]
    return ratio(free - after, after, pairs.w[:, at]), len(at)


def _share_met(fates: list[ControlOutcome]) -> float | None:
    return sum(fate.slack == 0 for fate in fates) / len(fates) if fates else None


def _causes(pairs: Pairs, fates: list[tuple[ControlOutcome, int]]) -> tuple[Cause, ...]:
    """Why it gave way: how often inventory was missing, how often more important controls left no room."""
    broken = [(fate, pairs.requests[i].query) for fate, i in fates if fate.slack]
    reasons = Counter(fate.reason for fate, _ in broken)
    first = {fate.reason: query for fate, query in reversed(broken)}
    return tuple(Cause(reason=r, pages=n, where=_page_text(first[r])) for r, n in reasons.most_common(CAUSES_MAX))


def _page_text(query: Query) -> Message:
    page = query.placement
    return message("page_in_region", screen=page.screen, surface=page.surface, region=query.region)


def frontier(study: Study, pairs: Pairs, strengths: Mapping[float, Mapping[int, PageSummary]]) -> tuple[Point, ...]:
    """The draft at every strength that was tried, on the requests for which all of them are there."""
    if not strengths:
        return ()
    common = set.intersection(*(set(pages) for pages in strengths.values()))
    at = [i for i, n in enumerate(pairs.numbers) if n in common]
    if not at:
        return ()
    points = {s: [pages[pairs.numbers[i]] for i in at] for s, pages in strengths.items()}
    points[1.0] = [pairs.pages[AFTER][i] for i in at]
    return tuple(_point(study, pairs, at, s, pages) for s, pages in sorted(points.items()))


def _point(study: Study, pairs: Pairs, at: list[int], strength: float, pages: list[PageSummary]) -> Point:
    catalog, free = study.world.catalog, pairs.utility[FREE, at]
    there = np.array([page.page_utility for page in pages])
    total = max(sum(float(page.attention.sum()) for page in pages), 1e-9)
    values: dict[str, float] = defaultdict(float)
    floors: dict[str, float] = defaultdict(float)
    for i, page in zip(at, pages, strict=True):
        query = pairs.requests[i].query
        policy = study.after[query.placement.outlet]
        for axis in policy.effective.weights:
            if axis in catalog.axes.code:
                worth = catalog.axis[page.row, catalog.axes.code[axis]]
                values[axis] += float(page.attention @ worth) / total
        for origin in policy.controls:
            control = origin.control
            if isinstance(control, ShareControl) and control.at_least is not None and control.holds(query):
                member = policy.member(control.where, query.region)[page.row]
                floors[control.id] += float(page.attention @ member) / total
    return Point(
        strength=strength,
        requests=len(at),
        guidance_cost=ratio(free - there, free, pairs.w[:, at]),
        relaxed=float(np.mean([page.has_relaxed for page in pages])),
        values=dict(values),
        quotas=dict(floors),
    )


def worst_hit(pairs: Pairs) -> WorstHit | None:
    """The tenth of the viewers whose utility falls most, relative to before; None where these are few."""
    unit = np.asarray(pairs.unit)
    viewers, place = np.unique(unit, return_inverse=True)
    before = np.bincount(place, pairs.utility[BEFORE])
    after = np.bincount(place, pairs.utility[AFTER])
    if len(viewers) // 10 < VIEWERS_MIN:
        return None
    size = np.abs(before)
    change = (after - before) / np.maximum(size, max(MIN_DENOMINATOR * float(size.mean()), 1e-9))
    worst = np.argsort(change, kind="stable")[: len(viewers) // 10]
    hit = np.isin(place, worst)
    screens = Counter(asked.query.placement.screen.value for asked, h in zip(pairs.requests, hit, strict=True) if h)
    return WorstHit(
        viewers=len(worst),
        mean_change_all=float(change.mean()),
        mean_change=float(change[worst].mean()),
        threshold=float(change[worst].max()),
        screens={name: n / max(int(hit.sum()), 1) for name, n in screens.most_common()},
    )


def examples(pairs: Pairs, catalog: Catalog) -> tuple[Example, ...]:
    """Pages to look at: the one that changes most, one near the end of the order, a typical one."""
    loss = pairs.utility[BEFORE] - pairs.utility[AFTER]
    moved = np.array([_changed_slots(b, a) for b, a in zip(pairs.pages[BEFORE], pairs.pages[AFTER], strict=True)])
    order = np.lexsort((loss, moved))
    chosen = dict.fromkeys(int(order[round(at * (len(order) - 1))]) for _, at in EXAMPLES)
    return tuple(_example(pairs, i, int(moved[i]), catalog) for i in chosen)


def _changed_slots(before: PageSummary, after: PageSummary) -> int:
    size = min(len(before.row), len(after.row))
    return int((before.row[:size] != after.row[:size]).sum()) + abs(len(before.row) - len(after.row))


def _example(pairs: Pairs, i: int, changed: int, catalog: Catalog) -> Example:
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
        changed=changed,
        utility_before=before.page_utility,
        utility_after=after.page_utility,
        expected_plays_before=before.expected_plays,
        expected_plays_after=after.expected_plays,
        before=page(before),
        after=page(after),
    )
