"""The check before publication that pages under a policy can be served within their budget.

Sample pages are solved with counted work instead of time, so a policy is refused on every machine or on none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np

from recsys.distribution.layouts import screen_layout
from recsys.domain.catalog import Catalog
from recsys.domain.errors import Finding
from recsys.domain.query import Query
from recsys.guidance.compilation.compile import CompiledPolicy, compile_policy
from recsys.guidance.lint.sample_pages import PageContexts, page_name, sample_queries, showable_rows
from recsys.guidance.policy.policy import Policy
from recsys.guidance.solver.page_budget import PageBudget, receipt_work
from recsys.guidance.solver.page_constraints import PageConstraints
from recsys.guidance.solver.solve import solve
from recsys.messages import message

PAGE_WORK = 50_000.0
"""Counted work that a page may take: the default budget of a page, in microseconds."""

KINDS_MAX, PAGES_MAX = 300, 6
"""Kinds of pages that are compared by their number of controls and slots, and the largest of them, which are solved."""

CANDIDATES = 500
"""Number of candidates of a sample page."""


def page_work_findings(
    line: Sequence[Policy], catalog: Catalog, now: float, limit: float = PAGE_WORK
) -> Iterator[Finding]:
    """Yield a finding if a page under these policies, a policy and its ancestors, exceeds the limit of counted work.

    A page exceeds it if its controls cannot be relaxed, where they contradict each other, and reported within it.
    """
    policy = compile_policy(line, catalog)
    largest = sorted(_kinds_of_pages(policy, line[-1].outlet, catalog, now), key=lambda kind: -kind[0])
    for _, query, rows in largest[:PAGES_MAX]:
        constraints = policy.bounds(query, rows, query.slots, np.zeros(0, np.int32))
        if not is_within(constraints, query, limit):
            page = page_name(query.placement, query.region, line[-1].outlet)
            controls = int(constraints.active.sum())
            yield Finding("controls", message("policy_exceeds_page_budget", page=page, controls=controls))
            return


def is_within(constraints: PageConstraints, query: Query, limit: float) -> bool:
    """Return whether a page under these constraints is solved and reported within the limit of counted work.

    The candidates have different values, so that the solver has to search.
    """
    if receipt_work(constraints) > limit:
        return False
    budget = PageBudget(limit)
    budget.reserve(constraints)
    value = np.linspace(1.0, 0.0, len(constraints))
    solve(value, screen_layout(query.placement.screen).attention(query.slots), constraints, budget=budget)
    return "relaxation" not in budget.cut


def _kinds_of_pages(
    policy: CompiledPolicy, outlet: str, catalog: Catalog, now: float
) -> Iterator[tuple[int, Query, np.ndarray]]:
    """Yield size, query and candidates of each kind of page with controls; pages with the same controls count once."""
    done: set[tuple[int, tuple[int, ...]]] = set()
    for query in islice(sample_queries(PageContexts.of(outlet, policy, catalog), policy, now), KINDS_MAX):
        active = policy.active_controls(query)
        if not active or (query.slots, active) in done:
            continue
        done.add((query.slots, active))
        rows = showable_rows(policy, catalog, query)
        if len(rows):
            candidates = rows[np.linspace(0, len(rows) - 1, min(CANDIDATES, len(rows))).astype(np.int64)]
            yield len(active) * query.slots, query, candidates
