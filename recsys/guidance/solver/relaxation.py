"""Lexicographic relaxation: if no page is feasible, relax each control in turn by as little as possible."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recsys.domain.types import F64, I32, Bool
from recsys.guidance.solver.feasibility import UNLIMITED, SearchBudget, find_feasible, nearly_feasible
from recsys.guidance.solver.page_constraints import PageConstraints
from recsys.guidance.solver.relaxation_cache import RelaxationCache, cache_key, limits_of


@dataclass(frozen=True)
class Relaxation:
    """The result of a relaxation.

    slack [C]: slots by which each control is relaxed; minimal_proven [C]: proven to be the minimum; page [K]: a page
    that is feasible with this slack (empty if unknown)
    """

    slack: I32
    minimal_proven: Bool
    page: I32


def cached_relaxation(
    value: F64, attention: F64, constraints: PageConstraints, cache: RelaxationCache | None, budget: SearchBudget
) -> Relaxation:
    """Return the relaxation from the cache (without a page) or compute it."""
    key = cache_key(constraints) if cache is not None else b""
    if cache is not None and (entry := cache.get(key)) is not None:
        return Relaxation(*entry, np.zeros(0, np.int32))
    if cache is None or budget is UNLIMITED:
        result = relax(value, attention, constraints, budget)
    else:
        limits = limits_of(constraints)
        result = relax(value, attention, constraints, budget, cache.hint(limits))
        cache.suggest(limits, result.slack)
    if cache is not None and result.minimal_proven.all():
        cache.put(key, result.slack, result.minimal_proven)
    return result


def relax(
    value: F64, attention: F64, constraints: PageConstraints, budget: SearchBudget = UNLIMITED, hint: I32 | None = None
) -> Relaxation:
    """Relax each control, in order of importance, by the minimum that the more important ones allow.

    With a limited budget only the pricing search is used, so the slack found may not be minimal. If the deadline
    expires, the slack is what the fallback page violates; that page was improved for the most important controls first.
    hint: slack [C] of a similar page, used as a warm start
    """
    pricing_only = budget if budget is UNLIMITED else SearchBudget(0, 0, budget.expired, budget.charge)
    minimal_proven = np.ones(constraints.controls, np.bool_)
    slack = np.zeros(constraints.controls, np.int32)
    accepted = np.zeros(constraints.controls, np.bool_)
    minimum = minimum_violations(constraints)
    page = _warm_start(value, attention, constraints, hint, pricing_only)  # satisfies all controls accepted so far
    if budget is not UNLIMITED:
        page = fallback = _improve(value, attention, constraints, page, minimum, pricing_only)
    violation = constraints.violated_by(page)
    for c in np.flatnonzero(constraints.active).tolist():
        accepted[c] = True
        upper = int(violation[c])
        lower = min(int(minimum[c]), upper)
        while lower < upper and not budget.expired():  # `upper` is feasible: bisect
            middle = (lower + upper) // 2
            slack[c] = middle
            result = find_feasible(
                value, attention, constraints.with_slack(slack).restricted_to(accepted), pricing_only
            )
            if result.page is None:
                lower = middle + 1
                minimal_proven[c] &= result.proven
            else:
                page, violation = result.page, constraints.violated_by(result.page)
                upper = middle
        if lower < upper:  # the deadline expired
            slack = constraints.violated_by(fallback)
            return Relaxation(slack, slack <= np.where(slack > 0, minimum, 0), fallback)
        slack[c] = upper
    return Relaxation(slack, minimal_proven, page)


def _improve(
    value: F64, attention: F64, constraints: PageConstraints, page: I32, minimum: I32, budget: SearchBudget
) -> I32:
    """Return a page with smaller violations, reduced in order of importance, or `page` itself if none is found.

    minimum [C]: violation of each control that no page avoids

    No violation increases.
    """
    violation = constraints.violated_by(page)
    for c in np.flatnonzero(constraints.active).tolist():
        lower, upper = int(minimum[c]), int(violation[c])
        while lower < upper and not budget.expired():
            trial = violation.copy()
            trial[c] = (lower + upper) // 2
            improved = find_feasible(value, attention, constraints.with_slack(trial), budget).page
            if improved is None:
                lower = int(trial[c]) + 1
            else:
                page, violation = improved, constraints.violated_by(improved)
                upper = int(violation[c])
    return page


def violations(constraints: PageConstraints, slack: I32) -> I32:
    """Return the minimum violation [C] of each relaxed control, from supply and slots alone; 0 for the others."""
    return np.where(slack > 0, minimum_violations(constraints), 0).astype(np.int32)


def _warm_start(
    value: F64, attention: F64, constraints: PageConstraints, hint: I32 | None, budget: SearchBudget
) -> I32:
    """Return a page with small violations of the more important controls."""
    pages = [np.lexsort((constraints.tie, -value))[: constraints.slots].astype(np.int32)]
    if (approximate := nearly_feasible(value, attention, constraints)) is not None:
        pages.append(approximate)
    if (
        hint is not None
        and (hinted := find_feasible(value, attention, constraints.with_slack(hint), budget).page) is not None
    ):
        pages.append(hinted)
    return min(pages, key=lambda page: tuple(constraints.violated_by(page)))


def minimum_violations(constraints: PageConstraints) -> I32:
    """Return [C] by how many slots each control must be relaxed because of supply and slots alone."""
    reach = np.minimum(np.arange(1, constraints.slots + 1), constraints.member.sum(axis=1)[:, None])
    missing = np.maximum(constraints.lower - reach, 0).max(axis=1, initial=0).astype(np.int32)
    minimum = np.zeros(constraints.controls, np.int32)
    np.maximum.at(minimum, constraints.row_control, missing)
    return minimum
