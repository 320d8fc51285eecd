"""A receipt recomputed without trusting the solver: plain counting, and HiGHS for what is claimed to be best or least.

What cannot be recomputed from the page alone are estimates. A bound must lie between the page's worth and that of the
best values in the best slots; prices of the dual must name every control, be no more than what is to be won without
controls, and not all be 0 where the bound says that controls cost something. Which estimate within these limits is the
better one, nobody can tell without the solver. A control named as responsible for a move must speak about the item.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

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
    most_worth,
    priced,
    write_receipt,
)
from recsys.guidance.solver.infeasibility import Causes, ConflictSet, exists
from recsys.guidance.solver.milp import any_page, solve_optimal
from recsys.guidance.solver.page_constraints import PageConstraints, Solution, relative_gap
from recsys.guidance.solver.presolve import presolve
from recsys.models.probabilities import PLAY


def verify(
    receipt: Receipt,
    chosen: I32,
    policy: CompiledPolicy,
    bounds: PageConstraints,
    batch: Candidates,
    attention: F64,
    catalog: Catalog,
    *,
    exact: bool = True,
) -> tuple[Finding, ...]:
    """What is wrong with a receipt or its page; empty when all holds.

    chosen [K] candidates of the page in slot order; the others are what `write_receipt` was given. `exact=False` leaves
    out what needs HiGHS (seconds on long pages): that no better page exists than claimed, and that no control gave way
    further than it had to.
    """
    broken_page = tuple(_page(chosen, bounds))
    if broken_page:
        return broken_page
    by = find_excess(bounds, chosen)
    value, weight = batch.utility + batch.bonus, attention[: bounds.slots]
    findings = list(_numbers(receipt, chosen, batch, weight))
    findings += _plays(receipt, chosen, bounds, batch, weight)
    findings += _lines(receipt, chosen, by, policy, bounds, batch, attention, catalog)
    findings += _prices(receipt, by, policy, bounds, value, weight)
    if not findings:
        findings += _causes(receipt, by, policy, bounds, exact)
        findings += _optimum(receipt, by, policy, bounds, value, weight) if exact else ()
    return tuple(findings)


def find_excess(bounds: PageConstraints, chosen: I32) -> I32:
    """[C] by how many slots the page breaks each control, counted slot by slot."""
    by = [0] * bounds.controls
    page = [int(i) for i in chosen]
    for row, control in enumerate(bounds.row_control.tolist()):
        count = 0
        for slot, item in enumerate(page):
            count += bool(bounds.member[row, item])
            by[control] = max(by[control], int(bounds.lower[row, slot]) - count, count - int(bounds.upper[row, slot]))
    for s, control in enumerate(bounds.space_control.tolist()):
        width = int(bounds.within[s])
        line = [*bounds.before[s].tolist(), *(int(bounds.code[s, item]) for item in page)]
        for end in range(len(line) - len(page), len(line)):
            window = line[max(0, end - width + 1) : end + 1]
            crowd = window.count(line[end]) if line[end] >= 0 else 0
            by[control] = max(by[control], crowd - int(bounds.at_most[s]))
    for item, slot, control in zip(bounds.pin_item, bounds.pin_slot, bounds.pin_control.tolist(), strict=True):
        stands = item >= 0 and slot < len(page) and page[slot] == item
        by[control] = max(by[control], int(not stands))
    return np.array(by, np.int32)


def _page(chosen: I32, bounds: PageConstraints) -> Iterator[Finding]:
    if len(chosen) != bounds.slots:
        yield Finding("page", f"{len(chosen)} items in a page of {bounds.slots} slots")
    if len(set(chosen.tolist())) != len(chosen):
        yield Finding("page", "an item stands twice")
    if any(not 0 <= item < len(bounds) for item in chosen.tolist()):
        yield Finding("page", "an item was not among the candidates")


def _numbers(receipt: Receipt, chosen: I32, batch: Candidates, attention: F64) -> Iterator[Finding]:
    """Value, bound, gap and proof against each other and against the page."""
    value = math.fsum(a * (batch.utility[i] + batch.bonus[i]) for a, i in zip(attention, chosen, strict=True))
    if not _close(receipt.value, value):
        yield Finding("value", f"the page is worth {value:.9g}, not {receipt.value:.9g}")
    utility = math.fsum(a * batch.utility[i] for a, i in zip(attention, chosen, strict=True))
    without = math.fsum(np.sort(attention) * np.sort(batch.utility)[len(batch) - len(attention) :])
    if not _close(receipt.utility, utility):
        yield Finding("utility", f"viewers get {utility:.9g}, not {receipt.utility:.9g}")
    if not _close(receipt.utility_without, without):
        yield Finding("utility_without", f"without guidance viewers would get {without:.9g}")
    if not receipt.bound >= receipt.value - _tolerance(receipt.value):
        yield Finding("bound", f"{receipt.bound:.9g} is below the page's own value")
    if not _close(receipt.gap, relative_gap(receipt.bound, receipt.value)):
        yield Finding("gap", f"should be {relative_gap(receipt.bound, receipt.value):.3g}")
    if receipt.proven and not _close(receipt.bound, receipt.value):
        yield Finding("proven", "bound and value differ, so nothing is proven")
    if not receipt.proven and _close(receipt.bound, receipt.value):
        yield Finding("proven", "bound and value agree, so the page is proven to be best")


def _plays(
    receipt: Receipt, chosen: I32, bounds: PageConstraints, batch: Candidates, attention: F64
) -> Iterator[Finding]:
    """Expected plays of the page and of the best page without guidance, counted slot by slot."""
    pages = {"expected_plays": chosen, "expected_plays_without": best_without(batch.utility, bounds)}
    for field, page in pages.items():
        plays = math.fsum(a * float(batch.p[i, PLAY]) for a, i in zip(attention, page, strict=True))
        if not _close(getattr(receipt, field), plays):
            yield Finding(field, f"should be {plays:.9g}")


def _lines(
    receipt: Receipt,
    chosen: I32,
    by: I32,
    policy: CompiledPolicy,
    bounds: PageConstraints,
    batch: Candidates,
    attention: F64,
    catalog: Catalog,
) -> Iterator[Finding]:
    """Control lines and moves against those that the page itself gives."""
    c, n = bounds.controls, len(bounds)
    claimed = {line.id: line.minimal_proven for line in receipt.controls}
    settled = np.array([claimed.get(origin.control.id, True) for origin in policy.controls], np.bool_)
    nothing = np.zeros((c, n))
    recount = Solution(
        chosen, by, settled, np.zeros(c), np.zeros(c, np.bool_), nothing, nothing > 0, np.full((n, 2), -1, np.int32),
        0.0, 0.0, False,
    )  # fmt: skip
    causes = _reported_causes(receipt, by, policy)
    own = write_receipt(policy, bounds, recount, batch, attention, catalog, causes)
    if receipt.policy_version != own.policy_version:
        yield Finding("policy_version", f"should be {own.policy_version}")
    if receipt.legal_kept != own.legal_kept:
        yield Finding("legal_kept", f"should be {own.legal_kept}")
    if [line.id for line in receipt.controls] != [line.id for line in own.controls]:
        yield Finding(
            "controls", f"in force are {', '.join(line.id for line in own.controls) or 'none'}, in this order"
        )
        return
    for place, (said, counted) in enumerate(zip(receipt.controls, own.controls, strict=True)):
        if not said.minimal_proven and not said.slack:
            yield Finding(f"controls[{place}].settled", f"{said.id} did not give way, and less is not possible")
        for field in type(said).model_fields:
            if getattr(said, field) != getattr(counted, field):
                yield Finding(f"controls[{place}].{field}", f"{said.id}: counted {getattr(counted, field)!r}")
    yield from _capped(receipt, chosen, policy, batch, catalog)
    moves = [(move.item_id, move.slot, move.slot_without) for move in own.moved]
    if [(move.item_id, move.slot, move.slot_without) for move in receipt.moved] != moves:
        yield Finding("moved", f"should be {moves}")
        return
    number = {origin.control.id: c for c, origin in enumerate(policy.controls)}
    candidate = {catalog.ids[row]: i for i, row in enumerate(batch.row)}
    for place, (move, counted_move) in enumerate(zip(receipt.moved, own.moved, strict=True)):
        i = candidate[move.item_id]
        about = any(number.get(one, -1) in controls_touching(bounds, i) for one in move.control_ids)
        cause = "controls" if about else counted_move.cause  # no control is named in the recount
        if move.cause != cause:
            yield Finding(f"moved[{place}].cause", f"should be {cause}")
    yield from _responsible(receipt, policy, bounds, batch, catalog)


def _capped(
    receipt: Receipt, chosen: I32, policy: CompiledPolicy, batch: Candidates, catalog: Catalog
) -> Iterator[Finding]:
    """Caps on an attribute, counted by what the catalogue says of each item."""
    controls = {origin.control.id: origin.control for origin in policy.controls}
    page = [catalog.items[row] for row in batch.row[chosen]]
    for place, line in enumerate(receipt.controls):
        control = controls[line.id]
        if not isinstance(control, Cap):
            continue
        named = Counter(value for item in page if (value := value_of(item, control.attribute)))
        if line.achieved != (most := max(named.values(), default=0)):
            yield Finding(f"controls[{place}].achieved", f"{line.id}: of one {control.attribute} there are {most}")
        amount = control.at_most
        asked = min(amount, len(page)) if isinstance(amount, int) else math.floor(amount * len(page) + 1e-9)
        if line.required.at_most != asked:
            yield Finding(f"controls[{place}].required", f"{line.id}: allows {asked} of one {control.attribute}")


def value_of(item: Item, attribute: Attribute) -> str:
    """What an item says of an attribute; "" = nothing, which never crowds."""
    if attribute == "topic":
        return item.topic or next((label.split("/")[0] for label in item.labels), "")
    if attribute == "provider":
        return item.provider or item.outlet
    said: str | None = getattr(item, attribute)
    return said or ""


def _responsible(
    receipt: Receipt, policy: CompiledPolicy, bounds: PageConstraints, batch: Candidates, catalog: Catalog
) -> Iterator[Finding]:
    number = {origin.control.id: c for c, origin in enumerate(policy.controls) if bounds.active[c]}
    candidate = {catalog.ids[row]: i for i, row in enumerate(batch.row)}
    for place, move in enumerate(receipt.moved):
        may = controls_touching(bounds, candidate[move.item_id]) if move.cause == "controls" else set(number.values())
        ids = move.control_ids
        if len(ids) > 2 or len(set(ids)) < len(ids) or any(number.get(one, -1) not in may for one in ids):
            yield Finding(f"moved[{place}].control_ids", f"{ids} are not one or two controls about {move.item_id}")


def _prices(
    receipt: Receipt, by: I32, policy: CompiledPolicy, bounds: PageConstraints, value: F64, attention: F64
) -> Iterator[Finding]:
    """Bound and prices against the best values in the best slots."""
    free, pinned = most_worth(value, attention, bounds), most_worth(value, attention, bounds, by)
    if not receipt.bound <= pinned + _tolerance(pinned):
        yield Finding("bound", f"the best values in the best slots are worth {pinned:.9g}, no more")
    hows = {price.how for price in receipt.price}
    if len(hows) > 1:
        yield Finding("price", "either all prices were found by solving again, or none")
    due = priced(bounds) if is_positive(receipt.bound, free) else []
    ids = [policy.controls[c].control.id for c in due]
    if [price.control_id for price in receipt.price] != ids:
        yield Finding("price", f"prices are due of {', '.join(ids) or 'none'}, in this order")
    for place, price in enumerate(receipt.price):
        if not 0 <= price.play_equivalents <= free - receipt.value + _tolerance(free):
            yield Finding(
                f"price[{place}].play_equivalents",
                f"lies between 0 and the {free - receipt.value:.9g} that all controls cost",
            )
    if (
        hows == {"dual"}
        and is_positive(receipt.bound, pinned)
        and not any(price.play_equivalents > 0 for price in receipt.price)
    ):
        yield Finding("price", f"without any price no bound below {pinned:.9g} can be told")


def _reported_causes(receipt: Receipt, by: I32, policy: CompiledPolicy) -> Causes:
    """The causes as the receipt tells them, without controls that are not there, to be put to the test by `_causes`."""
    number = {origin.control.id: c for c, origin in enumerate(policy.controls)}
    said = {line.id: line.cause for line in receipt.controls if line.cause}
    causes = {}
    for c in np.flatnonzero(by > 0).tolist():
        why = said.get(policy.controls[c].control.id)
        ids = why.control_ids if why else ()
        causes[c] = (
            ConflictSet(
                why.violated_alone_by, tuple(sorted({number[one] for one in ids if one in number})), why.irreducible
            )
            if why
            else ConflictSet()
        )
    return causes


def _causes(
    receipt: Receipt, by: I32, policy: CompiledPolicy, bounds: PageConstraints, exact: bool
) -> Iterator[Finding]:
    """Every cause is asked for again: what is said to leave no room must leave none, and each part be needed."""

    def page(c: int, less: int, others: tuple[int, ...] = ()) -> bool | None:
        keep, loose = np.zeros(bounds.controls, np.bool_), by.copy()
        keep[[c, *others]], loose[c] = True, less
        asked = bounds.with_slack(loose).restricted_to(keep)
        if not exact:
            return exists(asked)
        return any_page(presolve(np.zeros(len(bounds)), np.ones(bounds.slots), asked)).page is not None

    lines = {line.id: place for place, line in enumerate(receipt.controls)}
    for c, cause in _reported_causes(receipt, by, policy).items():
        if c in bounds.block_control:
            continue  # counted from the page, in `_lines`
        place, least = lines[policy.controls[c].control.id], int(by[c])
        where, alone, others = f"controls[{place}].why", cause.violated_alone_by, cause.controls
        if any(other >= c or not bounds.active[other] for other in others):
            yield Finding(f"{where}.control_ids", "are not more important controls in force")
        elif not 0 <= alone <= least or (alone and page(c, alone - 1)) or page(c, alone) is False:
            yield Finding(f"{where}.alone", f"without other controls it would not give way by {alone}")
        elif alone == least:
            if others or not cause.irreducible:
                yield Finding(where, "needs no other control to give way so far")
        elif not others:
            if receipt.controls[place].minimal_proven:
                yield Finding(where, "is settled, so a cause is known")
        elif page(c, least - 1, others):
            yield Finding(f"{where}.control_ids", f"leave room to give way by {least - 1} only")
        elif cause.irreducible:
            for one in others:
                if page(c, least - 1, tuple(other for other in others if other != one)) is False:
                    yield Finding(f"{where}.control_ids", f"{policy.controls[one].control.id} is not needed")


def _optimum(
    receipt: Receipt, by: I32, policy: CompiledPolicy, bounds: PageConstraints, value: F64, attention: F64
) -> Iterator[Finding]:
    """Claims about pages that were not chosen, settled by HiGHS."""
    best = solve_optimal(presolve(value, attention, bounds.with_slack(by))).bound
    if receipt.bound < best - _tolerance(best):
        yield Finding("bound", f"a page worth {best:.9g} exists")
    kept = np.zeros(bounds.controls, np.bool_)
    lines = {line.id: place for place, line in enumerate(receipt.controls)}
    for c in np.flatnonzero(bounds.active).tolist():
        kept[c] = True
        place = lines[policy.controls[c].control.id]
        if by[c] and receipt.controls[place].minimal_proven:
            less = by.copy()
            less[c] -= 1
            if any_page(presolve(value, attention, bounds.with_slack(less).restricted_to(kept))).page is not None:
                yield Finding(f"controls[{place}].by", f"need not have given way by {by[c]}")
    number = {origin.control.id: c for c, origin in enumerate(policy.controls)}
    for place, price in enumerate(receipt.price):
        if price.how == "resolved":
            looser = by.copy()
            looser[number[price.control_id]] += 1
            worth = solve_optimal(presolve(value, attention, bounds.with_slack(looser))).bound - receipt.value
            if not math.isclose(price.play_equivalents, worth, rel_tol=1e-6, abs_tol=1e-6):
                yield Finding(f"price[{place}].play_equivalents", f"one unit looser the page would gain {worth:.9g}")


def _tolerance(size: float) -> float:
    return 1e-6 * (1.0 + abs(size))


def _close(one: float, other: float) -> bool:
    return math.isfinite(one) and abs(one - other) <= 1e-8 * (1.0 + abs(other))
