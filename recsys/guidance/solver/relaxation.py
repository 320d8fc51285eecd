"""Who gives way where no page keeps everything: lexicographically, each control by as little as can be found out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recsys.domain.types import F64, I32, Bool
from recsys.guidance.solver.feasibility import UNLIMITED, SearchBudget, find_feasible, nearly_feasible
from recsys.guidance.solver.page_constraints import PageConstraints
from recsys.guidance.solver.relaxation_cache import RelaxationCache, cache_key, limits_of


@dataclass(frozen=True)
class Relaxation:
    """by [C] slots that each control gives way, `settled` [C] where that is proven to be the least, `page` [K] so."""

    by: I32
    settled: Bool
    page: I32


def relaxation(
    value: F64, attention: F64, bounds: PageConstraints, memory: RelaxationCache | None, haste: SearchBudget
) -> Relaxation:
    """What gives way, remembered (then without a page) or found out."""
    key = cache_key(bounds) if memory is not None else b""
    if memory is not None and (known := memory.get(key)) is not None:
        return Relaxation(*known, np.zeros(0, np.int32))
    if memory is None or haste is UNLIMITED:
        kept = relax(value, attention, bounds, haste)
    else:
        limits = limits_of(bounds)
        kept = relax(value, attention, bounds, haste, memory.hint(limits))
        memory.suggest(limits, kept.by)
    if memory is not None and kept.settled.all():
        memory.put(key, kept.by, kept.settled)
    return kept


def relax(
    value: F64, attention: F64, bounds: PageConstraints, haste: SearchBudget = UNLIMITED, hint: I32 | None = None
) -> Relaxation:
    """Each control in order of importance gives way by the least that the more important ones allow.

    In haste no search but that by prices is asked, so the least that it finds may not be the least there is. When it
    gets late meanwhile, what gives way is what a page breaks that was made to break little of any control first.
    `hint`: by [C] slots that controls gave way on a page like this, where it begins.
    """
    quick = haste if haste is UNLIMITED else SearchBudget(0, 0, haste.late)
    settled = np.ones(bounds.controls, np.bool_)
    by = np.zeros(bounds.controls, np.int32)
    accepted = np.zeros(bounds.controls, np.bool_)
    page = _warm_start(value, attention, bounds, hint, quick)  # keeps all that is accepted so far
    if haste is not UNLIMITED:
        page = near = _improve(value, attention, bounds, page, quick)
    for c in np.flatnonzero(bounds.active).tolist():
        accepted[c] = True
        most = int(bounds.violated_by(page)[c])
        least = min(_violation(bounds, c), most)
        while least < most and not haste.late():  # `most` is known to be possible; halve what is between
            middle = (least + most) // 2
            by[c] = middle
            found = find_feasible(value, attention, bounds.with_slack(by).only(accepted), quick)
            if found.page is None:
                least = middle + 1
                settled[c] &= found.settled
            else:
                page = found.page
                most = middle
        if least < most:  # late
            by = bounds.violated_by(near)
            return Relaxation(by, by <= violations(bounds, by), near)
        by[c] = most
    return Relaxation(by, settled, page)


def _improve(value: F64, attention: F64, bounds: PageConstraints, page: I32, haste: SearchBudget) -> I32:
    """A page that breaks no control more than this one does, and the more important ones less where one is found."""
    for c in np.flatnonzero(bounds.active).tolist():
        by = bounds.violated_by(page)
        least, most = _violation(bounds, c), int(by[c])
        while least < most and not haste.late():
            by[c] = (least + most) // 2
            found = find_feasible(value, attention, bounds.with_slack(by), haste).page
            if found is None:
                least = int(by[c]) + 1
            else:
                page, by = found, bounds.violated_by(found)
                most = int(by[c])
    return page


def violations(bounds: PageConstraints, by: I32) -> I32:
    """[C] `_shortage` of the controls that gave way."""
    return np.array([_violation(bounds, c) if by[c] else 0 for c in range(bounds.controls)], np.int32)


def _warm_start(value: F64, attention: F64, bounds: PageConstraints, hint: I32 | None, haste: SearchBudget) -> I32:
    """A page that breaks the more important controls little."""
    pages = [np.lexsort((bounds.tie, -value))[: bounds.slots].astype(np.int32)]
    if (near := nearly_feasible(value, attention, bounds)) is not None:
        pages.append(near)
    if hint is not None and (found := find_feasible(value, attention, bounds.with_slack(hint), haste).page) is not None:
        pages.append(found)
    return min(pages, key=lambda page: tuple(bounds.violated_by(page)))


def _violation(bounds: PageConstraints, c: int) -> int:
    """By how many slots control c must give way for want of candidates or slots alone."""
    rows = bounds.row_control == c
    supply = bounds.member[rows].sum(axis=1)
    reach = np.minimum(np.arange(1, bounds.slots + 1), supply[:, None])
    return int((bounds.lower[rows] - reach).max(initial=0))
