"""Test pages, solved under a policy before it is published, from all items that may be shown, per screen and region.

All items have the same utility here, so a control is relaxed only if no page can meet it. Controls that no page could
violate are reported as well, because they have no effect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from recsys.domain.catalog import Catalog
from recsys.domain.errors import Finding
from recsys.domain.query import Query
from recsys.guidance.compilation.compile import CompiledPolicy, compile_policy
from recsys.guidance.lint.sample_pages import PageContexts, page_name, sample_queries, showable_rows
from recsys.guidance.policy.controls import Cap, Control, Pin, Spacing
from recsys.guidance.policy.inheritance import SourcedControl
from recsys.guidance.policy.policy import Policy
from recsys.guidance.receipt.control_report import ControlOutcome, evaluate
from recsys.guidance.solver.infeasibility import ConflictCache
from recsys.guidance.solver.page_budget import PageBudget
from recsys.guidance.solver.page_constraints import PageConstraints
from recsys.guidance.solver.relaxation_cache import RelaxationCache
from recsys.guidance.solver.solve import is_late_after, solve
from recsys.messages import Message, message

PLACES_MAX = 4
"""Maximum number of pages, regions or outlets in a finding."""


PAGE_S = 0.05
"""Time limit of the solver for a page, in seconds; it needs a clock."""

PAGE_BUDGET_S = 0.5
"""Time in which a page is solved, relaxed and explained; these pages have all items as candidates."""


@dataclass
class _SharedState:
    """The clock and the caches that all pages of a dry run share."""

    clock: Callable[[], float] | None
    relaxations: RelaxationCache = field(default_factory=RelaxationCache)
    causes: ConflictCache = field(default_factory=ConflictCache)


@dataclass
class _Record:
    """The results for a control: the pages on which it was relaxed, and whether any page could violate it."""

    short: list[tuple[int, Message, Message]] = field(default_factory=list)  # by how much, page, reason
    amiss: dict[Message, Message] = field(default_factory=dict)  # page -> by how much, in words
    in_force: bool = False
    could_bind: bool = False


def dry_run(
    line: Sequence[Policy],
    catalog: Catalog,
    now: float,
    clock: Callable[[], float] | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> Iterator[Finding]:
    """Yield findings about controls that some page cannot meet, and about controls that have no effect.

    clock    returns seconds, for the time limits per page; without a clock, all pages are solved to proof
    stopped  returns whether no further page is to be tried
    """
    policy = compile_policy(line, catalog)
    own_index = {control.id: index for index, control in enumerate(line[-1].controls)}
    records, shared = [_Record() for _ in policy.controls], _SharedState(clock)
    done: set[tuple[bytes, int, bytes]] = set()
    contexts = PageContexts.of(line[-1].outlet, policy, catalog)
    yield from contexts.untried()
    for query in sample_queries(contexts, policy, now):
        if stopped():
            yield Finding("controls", message("dry_run_pages_truncated", tried=len(done)), "hint")
            break
        rows = showable_rows(policy, catalog, query)
        constraints = policy.bounds(query, rows, query.slots, np.zeros(0, np.int32))
        key = (constraints.active.tobytes(), query.slots, constraints.member.tobytes() + rows.tobytes())
        if key in done or not constraints.active.any() or not len(rows):
            continue
        done.add(key)
        _try_page(policy, constraints, query, records, line[-1].outlet, shared)
    for origin, record in zip(policy.controls, records, strict=True):
        index = own_index.get(origin.control.id) if origin.outlet == line[-1].outlet else None
        if index is not None and not contexts.reach(origin.control):
            yield Finding(f"controls[{index}].on.outlets", message("outlets_out_of_reach", outlet=line[-1].outlet))
        field = "controls" if index is None else f"controls[{index}]"
        if record.short:
            yield Finding(field, _cannot(record, None if index is not None else origin))
        elif record.in_force and not record.could_bind and index is not None:
            yield Finding(field, message("control_never_binds"), "hint")


def _try_page(
    policy: CompiledPolicy,
    constraints: PageConstraints,
    query: Query,
    records: list[_Record],
    outlet: str,
    shared: _SharedState,
) -> None:
    value = np.zeros(len(constraints))
    budget = PageBudget(1e6 * PAGE_BUDGET_S, shared.clock) if shared.clock else PageBudget()
    budget.reserve(constraints)
    solution = solve(
        value,
        np.ones(constraints.slots),
        constraints,
        effort="fast",
        deadline_s=PAGE_S,
        clock=shared.clock,
        cache=shared.relaxations,
        budget=budget,
    )
    is_late = is_late_after(2.0 * PAGE_S, shared.clock)
    causes = shared.causes.of(constraints, solution.relaxed, solution.minimal_proven, is_late)
    for c, outcome in enumerate(evaluate(policy.controls, constraints, solution, value, causes)):
        if outcome is None or outcome.kind == "block":  # `blocked_floors` reports relaxed blocks
            continue
        records[c].in_force = True
        records[c].could_bind |= breakable(constraints, c)
        if slack := int(solution.relaxed[c]):
            page = page_name(query.placement, query.region, outlet)
            records[c].amiss[page] = _problem(policy.controls[c].control, outcome, slack)
            records[c].short.append((slack, page, _words(outcome, query.slots)))


def breakable(constraints: PageConstraints, c: int) -> bool:
    """Return whether some page of these candidates would violate control `c`; if not, it has no effect here.

    With `m` members and `n` others, the first k slots hold from max(0, k - n) to min(k, m) members.
    """
    if (constraints.pin_control == c).any():
        return True
    k = np.arange(1, constraints.slots + 1)
    for row in np.flatnonzero(constraints.row_control == c):
        members = int(constraints.member[row].sum())
        minimum, maximum = np.maximum(k - (len(constraints) - members), 0), np.minimum(k, members)
        if (minimum < constraints.lower[row]).any() or (maximum > constraints.upper[row]).any():
            return True
    for s in np.flatnonzero(constraints.spacing_control == c):
        codes = constraints.code[s][constraints.code[s] >= 0]
        if (
            len(codes)
            and np.bincount(codes).max() > constraints.at_most[s]
            and constraints.slots > constraints.at_most[s]
        ):
            return True
    return False


def _cannot(record: _Record, source: SourcedControl | None) -> Message:
    """Describe the page with the largest deviation in full, then list the other pages.

    source  the control, if it belongs to another policy
    """
    worst = max(record.short, key=lambda short: short[0])
    pages = [page for _, page, _ in record.short if page != worst[1]]
    n_omitted = len(pages) - PLACES_MAX
    further_pages = message(
        "nor_on_pages",
        pages=[message("page_amiss", page=page, amiss=record.amiss[page]) for page in pages[:PLACES_MAX]],
        more=message("and_more_pages", count=n_omitted) if n_omitted > 0 else None,
    )
    return message(
        "control_infeasible",
        control=source and message("about_control", control=source.named("")),
        page=worst[1],
        reason=worst[2],
        others=further_pages if pages else None,
    )


def _words(outcome: ControlOutcome, slots: int) -> Message:
    """Return the cause of a relaxation: too little supply or too few slots; else the conflicting controls."""
    if outcome.at_least and outcome.shortfall and outcome.shortfall == outcome.at_least - outcome.supply:
        params = {"supply": outcome.supply, "missing": outcome.shortfall}
        return message("minimum_short_of_items", minimum=outcome.at_least, slots=slots, **params)
    if outcome.kind == "quota" and (outcome.at_least or 0) > slots:
        return message("minimum_above_slots", minimum=outcome.at_least, slots=slots)
    return outcome.reason()


def _problem(control: Control, outcome: ControlOutcome, count: int) -> Message:
    """Return by how much, and in which direction, the control deviates.

    >>> pin = Pin(id="a", action="pin", item="i", slot=1)
    >>> str(_problem(pin, ControlOutcome("pin", 12, 0, 0, 1, True), 1))
    'the item cannot be placed there'
    """
    if isinstance(control, Pin):
        return message("pin_not_possible")
    if isinstance(control, Spacing):
        return message("items_excess_nearby", count=count, attribute=control.attribute)
    if isinstance(control, Cap):
        return message("items_excess_of_value", count=count, attribute=control.attribute)
    maximum = getattr(control, "at_most", None)
    both = maximum is not None and getattr(control, "at_least", None) is not None
    too_many = outcome.at_most is not None and outcome.achieved > outcome.at_most if both else maximum is not None
    return message("items_excess", count=count) if too_many else message("items_missing", count=count)
