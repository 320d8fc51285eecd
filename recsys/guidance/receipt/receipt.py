"""The receipt of a page: the status and price of every control, the items that guidance moved, and what is proven.

A receipt is plain JSON with texts for editors, and `verify` recomputes it independently. A page without a policy also
has a receipt, without controls and moves.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from recsys.batch import Candidates
from recsys.domain.catalog import Catalog
from recsys.domain.types import F64, I32
from recsys.guidance.compilation.compile import CompiledPolicy
from recsys.guidance.policy.controls import Enforcement
from recsys.guidance.receipt.control_report import ControlOutcome, Status, evaluate
from recsys.guidance.receipt.target_effects import NO_EFFECTS, TargetEffects
from recsys.guidance.solver.infeasibility import Causes, explain, is_complete
from recsys.guidance.solver.page_budget import WorkPart
from recsys.guidance.solver.page_constraints import PageConstraints, Solution, relative_gap
from recsys.messages import Message
from recsys.utility import expected_plays

VALUE_TOLERANCE = 1e-8
"""Relative difference below which two page values are equal."""


class Part(BaseModel):
    """A part of a receipt."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Required(Part):
    """The requirement of a control on the page, in items.

    A pin has a `slot`, a spacing `at_most` within any `within` neighbouring slots, and a block `at_most` 0.

    first_slots  number of leading slots within which the full minimum is due; None: the whole page
    session      (items, slots) counted on the session's earlier pages, if they change what is required of this page;
                 for a cap, the items of its most frequent value
    """

    at_least: int | None = None
    first_slots: int | None = None
    at_most: int | None = None
    within: int | None = None
    slot: int | None = None
    session: tuple[int, int] | None = None


class RelaxationCause(Part):
    """The cause of a relaxation. It is proven that no page relaxes the control less, unless the kind is `unknown`.

    kind    supply    too few items or too few different values; `shortfall` of the line gives the number, if countable
            slots     the page, or a prefix of it, is too short
            itself    the control contradicts itself
            controls  more important controls leave no room
            unknown   not determined within the time limit
    violated_alone_by  slots by which the control is violated even as the only control
    control_ids        more important controls; while they are met as far as on this page, the violation
                       cannot be smaller by one
    irreducible        every one of these controls is needed for the conflict; otherwise a subset may suffice
    """

    kind: Literal["supply", "slots", "itself", "controls", "unknown"]
    violated_alone_by: int = 0
    control_ids: tuple[str, ...] = ()
    irreducible: bool = False


class ControlLine(Part):
    """The line of one active control.

    status   met         satisfied, also by the best page without controls
             active      satisfied, but not by the best page without controls: the control shaped this page
             relaxed     violated by `slack` slots, because more important controls leave no room; for a block, stronger
                         quotas or pins
             infeasible  violated by `slack` slots, because no page satisfies it, even as the only control
    achieved        members on the page; for a cap or spacing, those of the most frequent value; for a pin, 1 or 0
    achieved_first  members in the first `required.first_slots` slots, for a minimum that is due there
    minimal_proven  it is proven that no smaller `slack` is possible, given all more important controls
    cause           why the control was relaxed
    """

    id: str
    origin: str
    action: str
    enforcement: Enforcement
    priority: int
    required: Required
    achieved: int
    achieved_first: int | None = None
    status: Status
    slack: int = 0
    shortfall: int = 0
    minimal_proven: bool = True
    cause: RelaxationCause | None = None
    reason: Message
    legal_ref: str = ""


class Price(Part):
    """The value lost for one unit of a control, in play equivalents.

    how  resolved  exact: the page was solved again with the control one unit looser
         dual      estimate from the dual; too high rather than too low, but for a pin it may err either way

    All prices of a receipt have the same `how`.
    """

    control_id: str
    play_equivalents: float
    how: Literal["resolved", "dual"]


class Move(Part):
    """An item that guidance moved: its slot with and without weights and controls (None: not on the page).

    control_ids  the controls and exposure targets that moved it
    cause   controls  the named controls moved it
            targets   the prices of the named exposure targets moved it
            weights   editors' weights and boosts alone move it in the same direction
            others    it made room for other moved items, or filled the room they left; the named controls moved those
    """

    item_id: str
    slot: int | None
    slot_without: int | None
    control_ids: tuple[str, ...]
    cause: Literal["controls", "targets", "weights", "others"]


class TargetLine(Part):
    """The line of one exposure target whose price acts on this page.

    price      play equivalents per unit of attention; negative for a target with a maximum
    delivered  attention of its items on this page
    cost       utility that the page would gain without this price, in play equivalents, if no control were in force
    """

    id: str
    origin: str
    price: float
    delivered: float
    cost: float


class Receipt(Part):
    """The report of the effects of guidance on one page.

    value   sum of attention x (utility + bonus), in play equivalents (docs/reference/utility.md)
    utility, utility_without   sum of attention x utility on this page, and on the best page without any guidance; the
            difference is the total price of guidance
    expected_plays, expected_plays_without   sum of attention x p(play) on the same two pages. The page without guidance
            has the highest utility, but not necessarily the most expected plays
    price   price of every active control in policy order, if the bound shows that controls cost something. A block has
            a price only if it was relaxed, since other blocks act before the page is solved. No price exceeds the
            value difference between the best page without controls and this page
    bound   upper bound on the value of any page that satisfies the controls as far as this page does
    gap     (bound - value) / |value|; 0 if the page is `proven` to be the best
    legal_met  False: a legal control is violated. The page must not be served; the editorial page is served instead
    cut_short  parts that the budget of the page cut short; blocks and the counts of every line hold in any case
               page        was not improved further: a better page may exist
               relaxation  a control may be relaxed by more than necessary
               causes      some relaxed controls have no cause
               moves       moved items name controls by their credit only
    """

    policy_version: str
    controls: tuple[ControlLine, ...] = ()
    price: tuple[Price, ...] = ()
    value: float
    utility: float
    utility_without: float
    expected_plays: float
    expected_plays_without: float
    bound: float
    gap: float
    proven: bool
    targets: tuple[TargetLine, ...] = ()
    moved: tuple[Move, ...] = ()
    legal_met: bool = True
    cut_short: tuple[WorkPart, ...] = ()


def write_receipt(
    policy: CompiledPolicy,
    constraints: PageConstraints,
    solution: Solution,
    batch: Candidates,
    attention: F64,
    catalog: Catalog,
    causes: Causes | None = None,
    cut_short: tuple[WorkPart, ...] = (),
    effects: TargetEffects = NO_EFFECTS,
) -> Receipt:
    """Return the receipt of a solved page.

    batch      the N candidates as solved, with utility and bonus
    attention  [>= K] attention of each slot
    causes     causes of the relaxations, if already computed (see `relaxation_cache.py`); else they are computed
    cut_short  parts that the budget cut short
    effects    effects of the prices of exposure targets
    """
    value = batch.utility + batch.bonus
    unguided = best_without(batch.utility, constraints)
    weight = attention[: constraints.slots]
    upper = value_upper_bound(value, weight, constraints, solution.relaxed)
    bound = max(solution.value, min(solution.bound, upper))
    if causes is None:
        causes = explain(constraints, solution.relaxed, solution.minimal_proven)
        cut_short = cut_short if is_complete(causes) else ("causes",)
    outcomes = evaluate(policy.controls, constraints, solution, value, causes)
    controls = tuple(_line(policy, c, outcome, solution) for c, outcome in enumerate(outcomes) if outcome is not None)
    return Receipt(
        policy_version=policy.version,
        controls=controls,
        price=tuple(_prices(policy, constraints, solution, value, weight, bound)),
        value=solution.value,
        utility=math.fsum(weight * batch.utility[solution.chosen]),
        utility_without=math.fsum(weight * batch.utility[unguided]),
        expected_plays=expected_plays(batch.p[solution.chosen], weight),
        expected_plays_without=expected_plays(batch.p[unguided], weight),
        bound=bound,
        gap=relative_gap(bound, solution.value),
        proven=solution.proven or bound - solution.value <= VALUE_TOLERANCE * (1.0 + abs(bound)),
        targets=tuple(_target_lines(policy, effects, effects.delivered(solution.chosen, weight))),
        moved=tuple(_moves(policy, constraints, solution, batch, unguided, catalog, effects)),
        legal_met=not any(line.enforcement == "legal" and line.slack for line in controls),
        cut_short=cut_short,
    )


def best_without(value: F64, constraints: PageConstraints) -> I32:
    """Return [K] the best page without any control: candidates by value, with ties broken as in the solver."""
    return np.lexsort((constraints.tie, -value))[: constraints.slots].astype(np.int32)


def value_upper_bound(value: F64, attention: F64, constraints: PageConstraints, relaxed: I32 | None = None) -> float:
    """Return an upper bound on the value of any page: the best values in the best slots.

    value      [N] value of each candidate
    attention  [K] attention of each slot
    relaxed    [C] slack of each control; if given, the pins that are met keep their slots
    """
    open_items, open_slots = np.ones(len(value), np.bool_), np.ones(len(attention), np.bool_)
    pinned_values = []
    for item, slot, control in zip(constraints.pin_item, constraints.pin_slot, constraints.pin_control, strict=True):
        if relaxed is not None and relaxed[control] == 0 and open_slots[slot]:
            pinned_values.append(attention[slot] * value[item])
            open_items[item] = open_slots[slot] = False
    slots_left = int(open_slots.sum())
    best = np.sort(value[open_items])
    return math.fsum([*pinned_values, *(np.sort(attention[open_slots]) * best[len(best) - slots_left :])])


def _prices(
    policy: CompiledPolicy, constraints: PageConstraints, solution: Solution, value: F64, attention: F64, bound: float
) -> Iterator[Price]:
    """Yield the price of every control that has one."""
    upper = value_upper_bound(value, attention, constraints)
    if not is_positive(bound, upper):
        return
    resolved = bool(solution.resolved[constraints.active].all())
    for c in priced_controls(constraints):
        price = min(float(solution.price[c]), upper - solution.value)
        how: Literal["resolved", "dual"] = "resolved" if resolved else "dual"
        yield Price(control_id=policy.controls[c].control.id, play_equivalents=price, how=how)


def is_positive(bound: float, upper: float) -> bool:
    """Return whether `bound` shows that controls cost something; `upper` bounds the value of pages without controls."""
    return upper - bound > VALUE_TOLERANCE * (1.0 + abs(upper))


def priced_controls(constraints: PageConstraints) -> list[int]:
    """Return the indexes of the active controls."""
    numbers: list[int] = np.flatnonzero(constraints.active).tolist()
    return numbers


def _line(policy: CompiledPolicy, c: int, outcome: ControlOutcome, solution: Solution) -> ControlLine:
    origin = policy.controls[c]
    control, slack, cause = origin.control, int(solution.relaxed[c]), outcome.cause
    minimal_proven = slack == 0 or bool(solution.minimal_proven[c])
    relaxation = None
    if cause is not None:
        ids = tuple(policy.controls[k].control.id for k in cause.controls)
        relaxation = RelaxationCause(
            kind=outcome.kind_of_cause,
            violated_alone_by=cause.violated_alone_by,
            control_ids=ids,
            irreducible=cause.irreducible,
        )
    return ControlLine(
        id=control.id,
        origin=origin.outlet,
        action=control.action,
        enforcement=control.enforcement,
        priority=control.priority,
        required=Required(
            at_least=outcome.at_least,
            first_slots=outcome.first_slots,
            at_most=outcome.at_most,
            within=outcome.within,
            slot=outcome.slot,
            session=outcome.session,
        ),
        achieved=outcome.achieved,
        achieved_first=outcome.achieved_first,
        status=outcome.status,
        slack=slack,
        shortfall=outcome.shortfall,
        minimal_proven=minimal_proven,
        cause=relaxation,
        reason=outcome.reason(),
        legal_ref=control.legal_ref,
    )


def _target_lines(policy: CompiledPolicy, effects: TargetEffects, delivered: tuple[float, ...]) -> Iterator[TargetLine]:
    for price, cost, attention in zip(effects.prices, effects.cost, delivered, strict=True):
        origin = policy.controls[price.control]
        yield TargetLine(id=origin.control.id, origin=origin.outlet, price=price.price, delivered=attention, cost=cost)


def _moves(
    policy: CompiledPolicy,
    constraints: PageConstraints,
    solution: Solution,
    batch: Candidates,
    unguided: I32,
    catalog: Catalog,
    effects: TargetEffects,
) -> list[Move]:
    last = constraints.slots + 1  # stands for an item that is not on the page
    slot = {int(i): k + 1 for k, i in enumerate(solution.chosen)}
    without = {int(i): k + 1 for k, i in enumerate(unguided)}
    by_weights = {int(i): k + 1 for k, i in enumerate(best_without(batch.utility + batch.bonus, constraints))}
    moves = []
    for i in [*slot, *(i for i in without if i not in slot)]:
        if slot.get(i) == without.get(i):
            continue
        before = without.get(i, last)
        up = slot.get(i, last) < before
        responsible = responsible_controls(constraints, solution, i, up)
        targets = effects.moved(i, up) if effects.prices else ()
        touching = [c for c in responsible if c in controls_touching(constraints, i) and c not in targets]
        named = touching or ([] if targets else responsible)
        ids = tuple(policy.controls[c].control.id for c in (*named, *targets))
        moved_by_weights = by_weights.get(i, last) < before if up else by_weights.get(i, last) > before
        moves.append(
            Move(
                item_id=catalog.ids[batch.row[i]],
                slot=slot.get(i),
                slot_without=without.get(i),
                control_ids=ids,
                cause="controls" if touching else "targets" if targets else "weights" if moved_by_weights else "others",
            )
        )
    return moves


def responsible_controls(constraints: PageConstraints, solution: Solution, candidate: int, up: bool) -> list[int]:
    """Return at most two controls that raised (or lowered) a candidate, the more decisive first.

    A pin is responsible for its item. Otherwise these are the controls without which, according to the prices, the
    candidate would not be (or would be) on the page, ordered by credit. A responsible control need not count the
    candidate: it may have made room for it by moving other items.
    """
    pinned = constraints.pin_control[
        (constraints.pin_item == candidate) & (solution.relaxed[constraints.pin_control] == 0)
    ]
    if up and len(pinned):
        return [int(pinned[0])]
    credit = solution.credit[:, candidate] * (1.0 if up else -1.0)
    has_price = solution.price > 0
    on_page = bool((solution.chosen == candidate).any())
    decisive = (
        has_price & (solution.on_page_without[:, candidate] != on_page) if up == on_page else np.zeros_like(has_price)
    )
    if up == on_page and solution.joint_cause[candidate, 0] >= 0:
        return sorted(solution.joint_cause[candidate].tolist(), key=lambda c: (-credit[c], -solution.price[c]))
    order = np.lexsort((-solution.price, -credit, ~decisive))[:2]
    return [int(c) for c in order if decisive[c] or credit[c] > 1e-9]  # two controls together if one is not enough


def controls_touching(constraints: PageConstraints, candidate: int) -> set[int]:
    """Return the controls whose limits count the candidate or that pin it."""
    return {
        *constraints.row_control[constraints.member[:, candidate]].tolist(),
        *constraints.spacing_control[constraints.code[:, candidate] >= 0].tolist(),
        *constraints.pin_control[constraints.pin_item == candidate].tolist(),
    }
