"""Verification of a receipt without trusting the solver: plain counting, and HiGHS for claims of optimality.

Estimates cannot be recomputed from the page, so only their range is checked. The bound must lie between the value of
the page and that of the best values in the best slots. Dual prices must cover every control, must not exceed the gain
of a page without controls, and must not all be 0 if the bound shows that controls cost something. A control named as
responsible for a move must count or pin the item.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from recsys.batch import Candidates
from recsys.domain.catalog import Catalog
from recsys.domain.errors import Finding
from recsys.domain.item import Item
from recsys.domain.types import F64, I32
from recsys.guidance.compilation.compile import CompiledPolicy
from recsys.guidance.policy.controls import Attribute, Cap
from recsys.guidance.receipt.receipt import (
    Receipt,
    best_without,
    controls_touching,
    is_positive,
    priced_controls,
    value_upper_bound,
    write_receipt,
)
from recsys.guidance.receipt.target_effects import TargetEffects, TargetPrice
from recsys.guidance.solver.infeasibility import Causes, ConflictSet, exists
from recsys.guidance.solver.milp import any_page, solve_optimal
from recsys.guidance.solver.page_constraints import PageConstraints, Solution, relative_gap
from recsys.guidance.solver.presolve import presolve
from recsys.models.probabilities import PLAY


def verify(
    receipt: Receipt,
    chosen: I32,
    policy: CompiledPolicy,
    constraints: PageConstraints,
    batch: Candidates,
    attention: F64,
    catalog: Catalog,
    *,
    targets: Sequence[TargetPrice] = (),
    exact: bool = True,
) -> tuple[Finding, ...]:
    """Return the errors in a receipt or its page; empty if everything holds.

    chosen   [K] candidates of the page in slot order
    targets  prices of exposure targets on the page
    exact   False skips the checks that need HiGHS (seconds on long pages): that no better page exists than claimed, and
            that no control is relaxed more than necessary

    The other arguments are those of `write_receipt`.
    """
    broken_page = tuple(_check_page(chosen, constraints))
    if broken_page:
        return broken_page
    slack = find_excess(constraints, chosen)
    value, weight = batch.utility + batch.bonus, attention[: constraints.slots]
    findings = list(_check_values(receipt, chosen, batch, weight))
    findings += _check_plays(receipt, chosen, constraints, batch, weight)
    effects = TargetEffects.of(targets, batch.utility, batch.bonus, constraints.tie, weight)
    findings += _check_lines(receipt, chosen, slack, policy, constraints, batch, attention, catalog, effects)
    findings += _check_prices(receipt, slack, policy, constraints, value, weight)
    if not findings:
        findings += _check_causes(receipt, slack, policy, constraints, exact)
        findings += _check_optimum(receipt, slack, policy, constraints, value, weight) if exact else ()
    return tuple(findings)


def find_excess(constraints: PageConstraints, chosen: I32) -> I32:
    """Return [C] the number of slots by which the page violates each control, counted slot by slot."""
    excess = [0] * constraints.controls
    page = [int(i) for i in chosen]
    for row, control in enumerate(constraints.row_control.tolist()):
        count = 0
        for slot, item in enumerate(page):
            count += bool(constraints.member[row, item])
            excess[control] = max(
                excess[control], int(constraints.lower[row, slot]) - count, count - int(constraints.upper[row, slot])
            )
    for s, control in enumerate(constraints.spacing_control.tolist()):
        width = int(constraints.within[s])
        codes = [*constraints.before[s].tolist(), *(int(constraints.code[s, item]) for item in page)]
        for end in range(len(codes) - len(page), len(codes)):
            window = codes[max(0, end - width + 1) : end + 1]
            crowd = window.count(codes[end]) if codes[end] >= 0 else 0
            excess[control] = max(excess[control], crowd - int(constraints.at_most[s]))
    for item, slot, control in zip(
        constraints.pin_item, constraints.pin_slot, constraints.pin_control.tolist(), strict=True
    ):
        in_place = item >= 0 and slot < len(page) and page[slot] == item
        excess[control] = max(excess[control], int(not in_place))
    return np.array(excess, np.int32)


def _check_page(chosen: I32, constraints: PageConstraints) -> Iterator[Finding]:
    if len(chosen) != constraints.slots:
        yield Finding("page", f"{len(chosen)} items in a page of {constraints.slots} slots")
    if len(set(chosen.tolist())) != len(chosen):
        yield Finding("page", "an item appears twice")
    if any(not 0 <= item < len(constraints) for item in chosen.tolist()):
        yield Finding("page", "an item was not among the candidates")


def _check_values(receipt: Receipt, chosen: I32, batch: Candidates, attention: F64) -> Iterator[Finding]:
    """Check value, bound, gap and proof against each other and against the page."""
    value = math.fsum(a * (batch.utility[i] + batch.bonus[i]) for a, i in zip(attention, chosen, strict=True))
    if not _close(receipt.value, value):
        yield Finding("value", f"the value of the page is {value:.9g}, not {receipt.value:.9g}")
    utility = math.fsum(a * batch.utility[i] for a, i in zip(attention, chosen, strict=True))
    without = math.fsum(np.sort(attention) * np.sort(batch.utility)[len(batch) - len(attention) :])
    if not _close(receipt.utility, utility):
        yield Finding("utility", f"the utility of the page is {utility:.9g}, not {receipt.utility:.9g}")
    if not _close(receipt.utility_without, without):
        yield Finding("utility_without", f"the utility without guidance is {without:.9g}")
    if not receipt.bound >= receipt.value - _tolerance(receipt.value):
        yield Finding("bound", f"{receipt.bound:.9g} is below the value of the page")
    if not _close(receipt.gap, relative_gap(receipt.bound, receipt.value)):
        yield Finding("gap", f"should be {relative_gap(receipt.bound, receipt.value):.3g}")
    if receipt.proven and not _close(receipt.bound, receipt.value):
        yield Finding("proven", "bound and value differ, so the page is not proven to be the best")
    if not receipt.proven and _close(receipt.bound, receipt.value):
        yield Finding("proven", "bound and value are equal, so the page is proven to be the best")


def _check_plays(
    receipt: Receipt, chosen: I32, constraints: PageConstraints, batch: Candidates, attention: F64
) -> Iterator[Finding]:
    """Check the expected plays of the page and of the best page without guidance, summed slot by slot."""
    pages = {"expected_plays": chosen, "expected_plays_without": best_without(batch.utility, constraints)}
    for field, page in pages.items():
        plays = math.fsum(a * float(batch.p[i, PLAY]) for a, i in zip(attention, page, strict=True))
        if not _close(getattr(receipt, field), plays):
            yield Finding(field, f"should be {plays:.9g}")


def _check_lines(
    receipt: Receipt,
    chosen: I32,
    slack: I32,
    policy: CompiledPolicy,
    constraints: PageConstraints,
    batch: Candidates,
    attention: F64,
    catalog: Catalog,
    effects: TargetEffects,
) -> Iterator[Finding]:
    """Check control lines, targets and moves against those recomputed from the page."""
    c, n = constraints.controls, len(constraints)
    claimed = {line.id: line.minimal_proven for line in receipt.controls}
    minimal_proven = np.array([claimed.get(origin.control.id, True) for origin in policy.controls], np.bool_)
    zeros = np.zeros((c, n))
    recount = Solution(
        chosen, slack, minimal_proven, np.zeros(c), np.zeros(c, np.bool_), zeros, zeros > 0,
        np.full((n, 2), -1, np.int32), 0.0, 0.0, False,
    )  # fmt: skip
    causes = _reported_causes(receipt, slack, policy)
    expected = write_receipt(policy, constraints, recount, batch, attention, catalog, causes, effects=effects)
    if receipt.policy_version != expected.policy_version:
        yield Finding("policy_version", f"should be {expected.policy_version}")
    if receipt.legal_met != expected.legal_met:
        yield Finding("legal_met", f"should be {expected.legal_met}")
    if [line.id for line in receipt.controls] != [line.id for line in expected.controls]:
        yield Finding(
            "controls",
            f"the active controls are {', '.join(line.id for line in expected.controls) or 'none'}, in this order",
        )
        return
    for index, (claim, counted) in enumerate(zip(receipt.controls, expected.controls, strict=True)):
        if not claim.minimal_proven and not claim.slack:
            yield Finding(f"controls[{index}].minimal_proven", f"{claim.id} is not relaxed, so its slack is minimal")
        for field in type(claim).model_fields:
            if getattr(claim, field) != getattr(counted, field):
                yield Finding(f"controls[{index}].{field}", f"{claim.id}: recomputed as {getattr(counted, field)!r}")
    yield from _check_caps(receipt, chosen, policy, batch, catalog)
    if receipt.targets != expected.targets:
        yield Finding("targets", f"should be {expected.targets}")
    yield from _check_moves(receipt, expected, policy, constraints, batch, catalog, effects)


def _check_moves(
    receipt: Receipt,
    expected: Receipt,
    policy: CompiledPolicy,
    constraints: PageConstraints,
    batch: Candidates,
    catalog: Catalog,
    effects: TargetEffects,
) -> Iterator[Finding]:
    """Check the moves, their causes and the controls and targets that they name."""
    moves = [(move.item_id, move.slot, move.slot_without) for move in expected.moved]
    if [(move.item_id, move.slot, move.slot_without) for move in receipt.moved] != moves:
        yield Finding("moved", f"should be {moves}")
        return
    number = {origin.control.id: c for c, origin in enumerate(policy.controls)}
    candidate = {catalog.ids[row]: i for i, row in enumerate(batch.row)}
    for index, (move, counted_move) in enumerate(zip(receipt.moved, expected.moved, strict=True)):
        i = candidate[move.item_id]
        up = move.slot is not None and (move.slot_without is None or move.slot < move.slot_without)
        targets = {policy.controls[c].control.id for c in effects.moved(i, up)} if effects.prices else set()
        if not targets <= set(move.control_ids):
            yield Finding(f"moved[{index}].control_ids", f"should name {', '.join(sorted(targets))}")
        control_ids = tuple(control_id for control_id in move.control_ids if control_id not in targets)
        touches = any(number.get(control_id, -1) in controls_touching(constraints, i) for control_id in control_ids)
        yield from _check_responsible(index, move.cause, control_ids, i, move.item_id, policy, constraints)
        cause = "controls" if touches else counted_move.cause  # the recomputed moves name no controls
        if move.cause != cause:
            yield Finding(f"moved[{index}].cause", f"should be {cause}")


def _check_caps(
    receipt: Receipt, chosen: I32, policy: CompiledPolicy, batch: Candidates, catalog: Catalog
) -> Iterator[Finding]:
    """Check caps on an attribute by counting the catalog values of the items."""
    controls = {origin.control.id: origin.control for origin in policy.controls}
    page = [catalog.items[row] for row in batch.row[chosen]]
    for index, line in enumerate(receipt.controls):
        control = controls[line.id]
        if not isinstance(control, Cap):
            continue
        counts = Counter(value for item in page if (value := value_of(item, control.attribute)))
        if line.achieved != (largest := max(counts.values(), default=0)):
            yield Finding(f"controls[{index}].achieved", f"{line.id}: {largest} items share one {control.attribute}")
        amount = control.at_most
        allowed = min(amount, len(page)) if isinstance(amount, int) else math.floor(amount * len(page) + 1e-9)
        if line.required.at_most != allowed:
            yield Finding(
                f"controls[{index}].required", f"{line.id}: allows {allowed} items of one {control.attribute}"
            )


def value_of(item: Item, attribute: Attribute) -> str:
    """Return the value of an attribute of an item; "" if it has none, which no cap counts."""
    if attribute == "topic":
        return item.topic or next((label.split("/")[0] for label in item.labels), "")
    if attribute == "provider":
        return item.provider or item.outlet
    value: str | None = getattr(item, attribute)
    return value or ""


def _check_responsible(
    index: int,
    cause: str,
    ids: tuple[str, ...],
    candidate: int,
    item_id: str,
    policy: CompiledPolicy,
    constraints: PageConstraints,
) -> Iterator[Finding]:
    """Check the controls that a move names besides targets."""
    number = {origin.control.id: c for c, origin in enumerate(policy.controls) if constraints.active[c]}
    allowed = controls_touching(constraints, candidate) if cause == "controls" else set(number.values())
    if len(ids) > 2 or len(set(ids)) < len(ids) or any(number.get(control_id, -1) not in allowed for control_id in ids):
        yield Finding(f"moved[{index}].control_ids", f"{ids} are not one or two controls that affect {item_id}")


def _check_prices(
    receipt: Receipt, slack: I32, policy: CompiledPolicy, constraints: PageConstraints, value: F64, attention: F64
) -> Iterator[Finding]:
    """Check the bound and the prices against the best values in the best slots."""
    unpinned, pinned = (
        value_upper_bound(value, attention, constraints),
        value_upper_bound(value, attention, constraints, slack),
    )
    if not receipt.bound <= pinned + _tolerance(pinned):
        yield Finding("bound", f"exceeds {pinned:.9g}, the value of the best items in the best slots")
    hows = {price.how for price in receipt.price}
    if len(hows) > 1:
        yield Finding("price", "either all prices are `resolved` or all are `dual`")
    due = priced_controls(constraints) if is_positive(receipt.bound, unpinned) else []
    ids = [policy.controls[c].control.id for c in due]
    if [price.control_id for price in receipt.price] != ids:
        yield Finding("price", f"prices are required for {', '.join(ids) or 'none'}, in this order")
    for index, price in enumerate(receipt.price):
        if not 0 <= price.play_equivalents <= unpinned - receipt.value + _tolerance(unpinned):
            yield Finding(
                f"price[{index}].play_equivalents",
                f"must lie between 0 and {unpinned - receipt.value:.9g}, the cost of all controls",
            )
    if (
        hows == {"dual"}
        and is_positive(receipt.bound, pinned)
        and not any(price.play_equivalents > 0 for price in receipt.price)
    ):
        yield Finding("price", f"a bound below {pinned:.9g} needs at least one positive price")


def _reported_causes(receipt: Receipt, slack: I32, policy: CompiledPolicy) -> Causes:
    """Return the causes claimed by the receipt, without unknown controls; `_check_causes` checks them."""
    number = {origin.control.id: c for c, origin in enumerate(policy.controls)}
    causes_by_id = {line.id: line.cause for line in receipt.controls if line.cause}
    causes = {}
    for c in np.flatnonzero(slack > 0).tolist():
        claim = causes_by_id.get(policy.controls[c].control.id)
        ids = claim.control_ids if claim else ()
        causes[c] = (
            ConflictSet(
                claim.violated_alone_by,
                tuple(sorted({number[control_id] for control_id in ids if control_id in number})),
                claim.irreducible,
            )
            if claim
            else ConflictSet()
        )
    return causes


def _check_causes(
    receipt: Receipt, slacks: I32, policy: CompiledPolicy, constraints: PageConstraints, exact: bool
) -> Iterator[Finding]:
    """Check every cause again: the named controls must leave no room, and each of them must be needed."""

    def exists_page(c: int, slack: int, conflicts: tuple[int, ...] = ()) -> bool | None:
        keep, relaxed_slack = np.zeros(constraints.controls, np.bool_), slacks.copy()
        keep[[c, *conflicts]], relaxed_slack[c] = True, slack
        relaxed = constraints.with_slack(relaxed_slack).restricted_to(keep)
        if not exact:
            return exists(relaxed)
        return any_page(presolve(np.zeros(len(constraints)), np.ones(constraints.slots), relaxed)).page is not None

    lines = {line.id: index for index, line in enumerate(receipt.controls)}
    for c, cause in _reported_causes(receipt, slacks, policy).items():
        if c in constraints.block_control:
            continue  # counted from the page in `_check_lines`
        index, slack = lines[policy.controls[c].control.id], int(slacks[c])
        path, alone, conflicts = f"controls[{index}].cause", cause.violated_alone_by, cause.controls
        if not alone and not conflicts and "causes" in receipt.cut_short:
            continue  # the receipt claims no cause
        if any(conflict >= c or not constraints.active[conflict] for conflict in conflicts):
            yield Finding(f"{path}.control_ids", "are not active, more important controls")
        elif not 0 <= alone <= slack or (alone and exists_page(c, alone - 1)) or exists_page(c, alone) is False:
            yield Finding(f"{path}.violated_alone_by", f"as the only control it is not violated by {alone} slots")
        elif alone == slack:
            if conflicts or not cause.irreducible:
                yield Finding(path, "other controls are not needed for this relaxation")
        elif not conflicts:
            if receipt.controls[index].minimal_proven:
                yield Finding(path, "the slack is proven to be minimal, so a cause is required")
        elif exists_page(c, slack - 1, conflicts):
            yield Finding(f"{path}.control_ids", f"leave room for a violation of only {slack - 1}")
        elif cause.irreducible:
            for conflict in conflicts:
                if exists_page(c, slack - 1, tuple(k for k in conflicts if k != conflict)) is False:
                    yield Finding(f"{path}.control_ids", f"{policy.controls[conflict].control.id} is not needed")


def _check_optimum(
    receipt: Receipt, slack: I32, policy: CompiledPolicy, constraints: PageConstraints, value: F64, attention: F64
) -> Iterator[Finding]:
    """Check claims about other pages with HiGHS."""
    best = solve_optimal(presolve(value, attention, constraints.with_slack(slack))).bound
    if receipt.bound < best - _tolerance(best):
        yield Finding("bound", f"a page of value {best:.9g} exists")
    enforced = np.zeros(constraints.controls, np.bool_)
    lines = {line.id: index for index, line in enumerate(receipt.controls)}
    for c in np.flatnonzero(constraints.active).tolist():
        enforced[c] = True
        index = lines[policy.controls[c].control.id]
        if slack[c] and receipt.controls[index].minimal_proven:
            tighter = slack.copy()
            tighter[c] -= 1
            if (
                any_page(presolve(value, attention, constraints.with_slack(tighter).restricted_to(enforced))).page
                is not None
            ):
                yield Finding(f"controls[{index}].slack", f"a slack of {slack[c]} is not necessary")
    number = {origin.control.id: c for c, origin in enumerate(policy.controls)}
    for index, price in enumerate(receipt.price):
        if price.how == "resolved":
            looser = slack.copy()
            looser[number[price.control_id]] += 1
            gain = solve_optimal(presolve(value, attention, constraints.with_slack(looser))).bound - receipt.value
            if not math.isclose(price.play_equivalents, gain, rel_tol=1e-6, abs_tol=1e-6):
                yield Finding(
                    f"price[{index}].play_equivalents", f"with the control one unit looser, the page gains {gain:.9g}"
                )


def _tolerance(size: float) -> float:
    return 1e-6 * (1.0 + abs(size))


def _close(a: float, b: float) -> bool:
    return math.isfinite(a) and abs(a - b) <= 1e-8 * (1.0 + abs(b))
