"""The receipt that comes with each page: every control met or not, what it cost, what it moved, what is proven.

Plain JSON in editors' words; `verify` recomputes it. A page without a policy gets one too: no controls, nothing moved.
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
from recsys.guidance.solver.infeasibility import Causes, explain
from recsys.guidance.solver.page_constraints import PageConstraints, Solution, relative_gap
from recsys.messages import Message
from recsys.utility import expected_plays

NEAR = 1e-8
"""Worths that differ by less, relative to their size, are the same."""


class Part(BaseModel):
    """A part of a receipt."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Required(Part):
    """What the control asks of the whole page, in items; for a pin `slot`, for a spacing `at_most` in any `within`, for
    a block `at_most` 0 of its items.

    first_slots   the floor is due in full in so many first slots; None = on the page
    session       of these it counts so many items in so many slots of the session's earlier pages, where that changes
                  what is asked of this page; of a cap of its fullest value
    """

    at_least: int | None = None
    first_slots: int | None = None
    at_most: int | None = None
    within: int | None = None
    slot: int | None = None
    session: tuple[int, int] | None = None


class RelaxationCause(Part):
    """Why a control gave way: no page lets it give way less, proven, unless the kind is `unknown`.

    kind    supply    items are missing or too much alike, `missing` as far as they can be counted
            slots     the page, or its beginning, is too short
            itself    what it asks contradicts itself
            controls  more important controls leave no room
            unknown   not found out with the effort there was
    alone   by how many slots it gives way even where no other control is in force
    control_ids   the more important ones that, as far as they are kept here, leave it no room for one slot less
    narrowed      each of these is needed for that; else some of them would do
    """

    kind: Literal["supply", "slots", "itself", "controls", "unknown"]
    violated_alone_by: int = 0
    control_ids: tuple[str, ...] = ()
    irreducible: bool = False


class ControlLine(Part):
    """One control in force.

    status   met         kept, and the page would have kept it anyway
             active      kept, and the best page without controls would not have: it shaped this page
             relaxed     gave way by `by` slots, because more important controls left no room; a block: to harder floors
                         or pins
             infeasible  gave way by `by` slots, because no page keeps it, even if it were the only control
    why       it gave way
    achieved  members on the page; of a cap or spacing the fullest value's; of a pin 1 or 0
    achieved_first  members in the first `required.first_slots` of the page, for a floor that is due there
    settled   proven that it could not have given way less, given all more important controls
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
    """Value lost for one unit of a control, in `play_equivalents`: exact where the page was solved again one unit
    looser (`resolved`), else the dual's estimate (`dual`), which errs on the high side, but for a pin either way. One
    word for all prices of a receipt.
    """

    control_id: str
    play_equivalents: float
    how: Literal["resolved", "dual"]


class Move(Part):
    """An item that guidance moved: its slot with and without weights and controls (None = not on the page).

    cause   controls  those named hold it up or back
            weights   editors' weights, boosts and targets alone would have moved it the same way
            others    it made room for what moved, or took the room left, that of the controls named
    """

    item_id: str
    slot: int | None
    slot_without: int | None
    control_ids: tuple[str, ...]
    cause: Literal["controls", "weights", "others"]


class Receipt(Part):
    """What guidance did to one page. `value`, `bound`: sum of attention x (utility + bonus), in play
    equivalents (docs/reference/utility.md).

    utility, utility_without   sum of attention x utility on this page, and on the best page without any guidance: the
            whole price of guidance is their difference
    expected_plays, expected_plays_without   sum of attention x p(play) on the same two pages: how many plays they are
            expected to bring. The page without guidance has the highest utility, not always the most expected plays
    price   of every control in force, in their order, where the bound says that controls cost something; of blocks only
            of those that had to let items in: the others act before a page is made. None is more than the best page
            without controls is worth above this one
    bound   no page that keeps what this page keeps is worth more; at most what the pins that stand leave possible
    gap     (bound - value) / |value|; 0 when `proven` to be the best page
    legal_kept  False: a legal control could not be kept; the page must not go out, the editorial page answers
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
    moved: tuple[Move, ...] = ()
    legal_kept: bool = True


def write_receipt(
    policy: CompiledPolicy,
    bounds: PageConstraints,
    solution: Solution,
    batch: Candidates,
    attention: F64,
    catalog: Catalog,
    causes: Causes | None = None,
) -> Receipt:
    """What the solution keeps, moves and costs.

    batch      the N candidates as solved, with utility and bonus
    attention  [>= K] of each slot
    causes     of what gave way, where they are known already (`Remembered`)
    """
    value = batch.utility + batch.bonus
    plain = best_without(batch.utility, bounds)
    weight = attention[: bounds.slots]
    most = most_worth(value, weight, bounds, solution.relaxed)
    bound = max(solution.value, min(solution.bound, most))
    if causes is None:
        causes = explain(bounds, solution.relaxed, solution.minimal_proven)
    told = evaluate(policy.controls, bounds, solution, value, causes)
    controls = tuple(_line(policy, c, one, solution) for c, one in enumerate(told) if one is not None)
    return Receipt(
        policy_version=policy.version,
        controls=controls,
        price=tuple(_prices(policy, bounds, solution, value, weight, bound)),
        value=solution.value,
        utility=math.fsum(weight * batch.utility[solution.chosen]),
        utility_without=math.fsum(weight * batch.utility[plain]),
        expected_plays=expected_plays(batch.p[solution.chosen], weight),
        expected_plays_without=expected_plays(batch.p[plain], weight),
        bound=bound,
        gap=relative_gap(bound, solution.value),
        proven=solution.proven or bound - solution.value <= NEAR * (1.0 + abs(bound)),
        moved=tuple(_moves(policy, bounds, solution, batch, plain, catalog)),
        legal_kept=not any(line.enforcement == "legal" and line.slack for line in controls),
    )


def best_without(value: F64, bounds: PageConstraints) -> I32:
    """[K] candidates of the best page without any control: the order of value, ties as the solver breaks them."""
    return np.lexsort((bounds.tie, -value))[: bounds.slots].astype(np.int32)


def most_worth(value: F64, attention: F64, bounds: PageConstraints, by: I32 | None = None) -> float:
    """What no page is worth more than: the best values in the best slots; with `by` [C], around the pins that stand.

    value [N], attention [K]
    """
    free, loose = np.ones(len(value), np.bool_), np.ones(len(attention), np.bool_)
    worth = []
    for item, slot, control in zip(bounds.pin_item, bounds.pin_slot, bounds.pin_control, strict=True):
        if by is not None and by[control] == 0 and loose[slot]:
            worth.append(attention[slot] * value[item])
            free[item] = loose[slot] = False
    left = int(loose.sum())
    best = np.sort(value[free])
    return math.fsum([*worth, *(np.sort(attention[loose]) * best[len(best) - left :])])


def _prices(
    policy: CompiledPolicy, bounds: PageConstraints, solution: Solution, value: F64, attention: F64, bound: float
) -> Iterator[Price]:
    """One price for each control that can have one."""
    most = most_worth(value, attention, bounds)
    if not is_positive(bound, most):
        return
    resolved = bool(solution.resolved[bounds.active].all())
    for c in priced(bounds):
        price = min(float(solution.price[c]), most - solution.value)
        how: Literal["resolved", "dual"] = "resolved" if resolved else "dual"
        yield Price(control_id=policy.controls[c].control.id, play_equivalents=price, how=how)


def is_positive(bound: float, most: float) -> bool:
    """Whether a bound says that controls cost something, when pages without controls are worth `most`."""
    return most - bound > NEAR * (1.0 + abs(most))


def priced(bounds: PageConstraints) -> list[int]:
    """Numbers of the controls in force that have a price."""
    numbers: list[int] = np.flatnonzero(bounds.active).tolist()
    return numbers


def _line(policy: CompiledPolicy, c: int, told: ControlOutcome, solution: Solution) -> ControlLine:
    origin = policy.controls[c]
    control, by, cause = origin.control, int(solution.relaxed[c]), told.cause
    settled = by == 0 or bool(solution.minimal_proven[c])
    why = None
    if cause is not None:
        ids = tuple(policy.controls[other].control.id for other in cause.controls)
        why = RelaxationCause(
            kind=told.kind_of_cause,
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
            at_least=told.at_least,
            first_slots=told.first_slots,
            at_most=told.at_most,
            within=told.within,
            slot=told.slot,
            session=told.session,
        ),
        achieved=told.achieved,
        achieved_first=told.achieved_first,
        status=told.status,
        slack=by,
        shortfall=told.shortfall,
        minimal_proven=settled,
        cause=why,
        reason=told.reason(),
        legal_ref=control.legal_ref,
    )


def _moves(
    policy: CompiledPolicy, bounds: PageConstraints, solution: Solution, batch: Candidates, plain: I32, catalog: Catalog
) -> list[Move]:
    last = bounds.slots + 1  # where an item stands that is not on the page
    slot = {int(i): k + 1 for k, i in enumerate(solution.chosen)}
    without = {int(i): k + 1 for k, i in enumerate(plain)}
    weighed = {int(i): k + 1 for k, i in enumerate(best_without(batch.utility + batch.bonus, bounds))}
    moves = []
    for i in [*slot, *(i for i in without if i not in slot)]:
        if slot.get(i) == without.get(i):
            continue
        before = without.get(i, last)
        up = slot.get(i, last) < before
        named = responsible_controls(bounds, solution, i, up)
        about = [c for c in named if c in controls_touching(bounds, i)]
        ids = tuple(policy.controls[c].control.id for c in about or named)
        moved_by_weights = weighed.get(i, last) < before if up else weighed.get(i, last) > before
        moves.append(
            Move(
                item_id=catalog.ids[batch.row[i]],
                slot=slot.get(i),
                slot_without=without.get(i),
                control_ids=ids,
                cause="controls" if about else "weights" if moved_by_weights else "others",
            )
        )
    return moves


def responsible_controls(bounds: PageConstraints, solution: Solution, candidate: int, up: bool) -> list[int]:
    """At most two controls that lifted (or held back) a candidate, the more decisive first.

    A pin answers for its item. Else those without which, as far as prices tell, the candidate would not be on the page
    (or would be); among them those that speak about it, by credit. They may also have made room for it: then they speak
    about others.
    """
    pinned = bounds.pin_control[(bounds.pin_item == candidate) & (solution.relaxed[bounds.pin_control] == 0)]
    if up and len(pinned):
        return [int(pinned[0])]
    credit = solution.credit[:, candidate] * (1.0 if up else -1.0)
    priced = solution.price > 0
    on_page = bool((solution.chosen == candidate).any())
    decisive = priced & (solution.on_page_without[:, candidate] != on_page) if up == on_page else np.zeros_like(priced)
    if up == on_page and solution.joint_cause[candidate, 0] >= 0:
        return sorted(solution.joint_cause[candidate].tolist(), key=lambda c: (-credit[c], -solution.price[c]))
    order = np.lexsort((-solution.price, -credit, ~decisive))[:2]
    return [int(c) for c in order if decisive[c] or credit[c] > 1e-9]  # where one alone is not enough, two together


def controls_touching(bounds: PageConstraints, candidate: int) -> set[int]:
    """Controls whose limits count the candidate, or that pin it."""
    return {
        *bounds.row_control[bounds.member[:, candidate]].tolist(),
        *bounds.space_control[bounds.code[:, candidate] >= 0].tolist(),
        *bounds.pin_control[bounds.pin_item == candidate].tolist(),
    }
