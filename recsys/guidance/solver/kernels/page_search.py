"""One page, all the way: prices on a small working set, every item re-priced, partial pages by loss, proof or gap."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from recsys.domain.types import F64
from recsys.guidance.solver.kernels import kernel
from recsys.guidance.solver.kernels.assignment import FAR, assign
from recsys.guidance.solver.kernels.beam import beam_search
from recsys.guidance.solver.kernels.instance import Instance
from recsys.guidance.solver.kernels.lagrangian import (
    AdagradState,
    Prices,
    adagrad_step,
    add_up,
    constant,
    count_members,
    margins,
    new_adagrad_state,
    no_prices,
    polyak_step,
    profits,
    swap_improve,
    violations,
)
from recsys.guidance.solver.kernels.local_search import swap_search
from recsys.guidance.solver.kernels.working_set import (
    best_columns,
    duplicates,
    initial_working_set,
    place,
    select_within_bound,
)

WIDEST = 256
"""Items that partial pages are built from; with more in reach the proof stays open."""


class State(NamedTuple):
    """How far the work on one page has come; `turn` works in place.

    page [K]       best page so far, items of the layout; all -1 = none yet
    known [2]      its value (-FAR = none), and the bound: no page is worth more
    prices, pace   of the limits
    margin [N]     what each item could add at these prices; rent [K] of the slots (FAR at pins), wage [N] of the items
    held [F]       items of the free slots in the last assignment
    """

    page: np.ndarray
    known: F64
    prices: Prices
    adagrad: AdagradState
    reduced_value: F64
    slot_price: F64
    item_price: F64
    polyak_level: np.ndarray


@kernel
def is_feasible(layout: Instance, count: np.ndarray) -> bool:
    """Whether counts [G, K + 1] keep all limits."""
    groups, slots = layout.lower.shape
    for g in range(groups):
        for k in range(slots):
            if count[g, k + 1] < layout.lower[g, k] or count[g, k + 1] > layout.upper[g, k]:
                return False
        within = layout.run_within[g]
        if within:
            for q in range(slots - within + 1):
                if count[g, q + within] - count[g, q] > layout.run_most[g]:
                    return False
    return True


class Dual(NamedTuple):
    """The bound of some prices on a working set: page and rent [F] of the free slots, wage [M], flat [F, M] profits."""

    page: np.ndarray
    slot_price: F64
    item_price: F64
    flat: F64


@kernel
def bound_of(
    layout: Instance,
    column: np.ndarray,
    prices: Prices,
    adder: F64,
    active: np.ndarray,
    profit: F64,
    free: np.ndarray,
    dual: Dual,
) -> float:
    """The bound by these prices, on the working set alone; fills adder, active, profit and dual, from where it was."""
    m, slots = profit.shape
    add_up(layout, prices, adder, active)
    profits(layout, column, adder, active, profit)
    for f in range(len(free)):
        for a in range(m):
            dual.flat[f, a] = profit[a, free[f]]
    assign(dual.flat, dual.page, dual.slot_price, dual.item_price)
    bound = constant(layout, prices)
    for f in range(len(free)):
        bound += dual.slot_price[f]
    for a in range(m):
        bound += dual.item_price[a]
    for k in range(slots):
        i = layout.pin[k]
        if i >= 0:
            bound += layout.attention[k] * layout.value[i]
            for d in range(layout.groups_of.shape[1]):
                g = layout.groups_of[i, d]
                if g >= 0:
                    bound += adder[g, k]
    return bound


@kernel
def update_incumbent(layout: Instance, column: np.ndarray, page: np.ndarray, state: State) -> None:
    """Keeps a page [K] of columns that holds all limits, if it is better than the best known."""
    value = 0.0
    for k in range(len(page)):
        value += layout.attention[k] * layout.value[layout.pin[k] if layout.pin[k] >= 0 else column[page[k]]]
    if value > state.known[0] + 1e-12:
        state.known[0] = value
        for k in range(len(page)):
            state.page[k] = layout.pin[k] if layout.pin[k] >= 0 else column[page[k]]


@kernel
def adagrad_ascent(
    layout: Instance, column: np.ndarray, state: State, steps: int, stride: float, slowing: float, items: np.ndarray
) -> None:
    """Prices by AdaGrad steps against a page that is only improved locally; items [K]: that page, before and after."""
    groups, slots = layout.lower.shape
    m = len(column)
    fixed = layout.pin >= 0
    adder, active = np.zeros((groups, slots)), np.zeros(groups, np.bool_)
    count, profit = np.zeros((groups, slots + 1), np.int64), np.empty((m, slots))
    page, used = np.empty(slots, np.int64), np.zeros(m, np.bool_)
    place(layout, column, items, page, used)
    for at in range(steps + 1):
        add_up(layout, state.prices, adder, active)
        profits(layout, column, adder, active, profit)
        swap_improve(profit, page, used, fixed, 2 if at else 4)
        if at == steps:
            break
        count_members(layout, column, page, count)
        broken = adagrad_step(layout, state.prices, state.adagrad, count, stride * (1.0 - slowing * at / steps))
        if broken == 0 and is_feasible(layout, count):
            update_incumbent(layout, column, page, state)
    for k in range(slots):
        state.slot_price[k] = FAR if fixed[k] else profit[page[k], k]
        items[k] = -1 if fixed[k] else column[page[k]]
    margins(layout, adder, active, state.slot_price, state.reduced_value)


@kernel
def polyak_ascent(
    layout: Instance,
    column: np.ndarray,
    state: State,
    steps: int,
    stride: float,
    dual: Dual,
    adder: F64,
    active: np.ndarray,
    profit: F64,
    free: np.ndarray,
) -> float:
    """Prices by Polyak steps on exact assignments, aimed at the best page known; the least bound on the working set.

    While no page is known, AdaGrad's steps go on. Where the aim proves too low it moves half way to the bound. Leaves
    prices, dual, adder, active and profit as they are at the least bound.
    """
    groups, slots = layout.lower.shape
    prices = state.prices
    count = np.zeros((groups, slots + 1), np.int64)
    page = np.full(slots, -1, np.int64)
    kept = Prices(prices.row.copy(), prices.run.copy())
    row_off, run_off = np.zeros(len(prices.row)), np.zeros((groups, slots))
    row_way, run_way = np.zeros(len(prices.row)), np.zeros((groups, slots))
    least, aim, stale, away = FAR, -FAR, 0, False
    for at in range(max(1, steps)):
        bound = bound_of(layout, column, prices, adder, active, profit, free, dual)
        if bound < least:
            stale = 0 if bound < least - 0.05 * (least - max(aim, state.known[0])) else stale + 1
            least, away = bound, False
            kept.row[:] = prices.row
            kept.run[:] = prices.run
        else:
            stale, away = stale + 1, True
        for f in range(len(free)):
            page[free[f]] = dual.page[f]
        count_members(layout, column, page, count)
        broken, size = violations(layout, prices, count, row_off, run_off)
        if broken == 0 and is_feasible(layout, count):
            update_incumbent(layout, column, page, state)
        if size < 1e-12 or least - state.known[0] <= 1e-9 * abs(least) or at >= steps - 1:
            break
        away = True
        if state.known[0] == -FAR:  # nothing to aim at
            adagrad_step(layout, prices, state.adagrad, count, stride)
            continue
        aim = max(aim, state.known[0])
        if stale >= 3:
            aim, stale = 0.5 * (aim + least), 0
            prices.row[:] = kept.row
            prices.run[:] = kept.run
            row_way[:] = 0.0
            run_way[:] = 0.0
        polyak_step(layout, prices, row_off, run_off, row_way, run_way, 0.7 * (bound - aim), 0.3)
    if away:
        prices.row[:] = kept.row
        prices.run[:] = kept.run
        least = bound_of(layout, column, prices, adder, active, profit, free, dual)
    return least


@kernel
def start(layout: Instance, first: int, most: int, rough: int, fine: int, length: float) -> State:
    """First prices: `rough` steps on a first working set of about `first` items, `fine` ones on the `most` promising.

    length: of the first steps, relative to the value of the first item that has no slot
    """
    n, slots = len(layout.value), len(layout.pin)
    free = np.flatnonzero(layout.pin < 0)
    falling, top = np.sort(layout.attention)[::-1], 0.0  # no page is worth more than the best values in the best slots
    for k in range(min(n, slots)):
        top += falling[k] * layout.value[k]
    state = State(
        np.full(slots, -1, np.int64),
        np.array([-FAR, top]),
        no_prices(layout),
        new_adagrad_state(layout),
        np.empty(n),
        np.empty(slots),
        np.zeros(n),
        np.full(len(free), -1, np.int64),
    )
    items = np.full(slots, -1, np.int64)
    column = initial_working_set(layout, first)
    stride = step_size(layout, length)
    adagrad_ascent(layout, column, state, rough, stride, 0.0, items)
    if fine:
        column = best_columns(state.reduced_value, most, items[items >= 0])
        adagrad_ascent(layout, column, state, fine, stride, 0.85, items)
    for f in range(len(free)):
        state.polyak_level[f] = items[free[f]]
    return state


@kernel
def refine(
    layout: Instance,
    state: State,
    stride: float,
    most: int,
    steps: int,
    width: int,
    leaves: int,
    tries: int,
    falling: bool,
) -> None:
    """Exact steps of the prices on a working set, every item re-priced, then partial pages by loss, polished.

    steps: of the prices; width: partial pages kept; leaves: pages polished of those found, by so many `tries`
    falling: attention falls from slot to slot, so that of items alike the better stands first
    """
    n, (groups, slots) = len(layout.value), layout.lower.shape
    free = np.flatnonzero(layout.pin < 0)
    adder, active = np.zeros((groups, slots)), np.zeros(groups, np.bool_)
    column = best_columns(state.reduced_value, most, state.polyak_level)
    m = len(column)
    dual = Dual(np.full(len(free), -1, np.int64), np.empty(len(free)), np.zeros(m), np.empty((len(free), m)))
    for a in range(m):
        dual.item_price[a] = state.item_price[column[a]]
    for f in range(len(free)):
        dual.page[f] = np.searchsorted(column, state.polyak_level[f])
    bound = polyak_ascent(layout, column, state, steps, stride, dual, adder, active, np.empty((m, slots)), free)
    # every item's price, and what the items left out might add
    for k in range(slots):
        state.slot_price[k] = FAR
    for f in range(len(free)):
        state.slot_price[free[f]] = dual.slot_price[f]
        state.polyak_level[f] = column[dual.page[f]]
    margins(layout, adder, active, state.slot_price, state.reduced_value)
    inside = np.zeros(n, np.bool_)
    state.item_price[:] = 0.0
    for a in range(m):
        inside[column[a]] = True
        state.item_price[column[a]] = dual.item_price[a]
    for i in range(n):
        if not inside[i] and state.reduced_value[i] > 0.0:  # what the items left out might add
            state.item_price[i] = state.reduced_value[i]
            bound += state.reduced_value[i]
    state.known[1] = min(state.known[1], bound)
    if state.known[0] > -FAR:
        column, outside = select_within_bound(
            state.reduced_value, state.item_price, inside, bound - state.known[0], WIDEST
        )
    else:
        outside = 0.0
    m = len(column)
    wage, profit = np.empty(m), np.empty((m, slots))
    for a in range(m):
        wage[a] = state.item_price[column[a]]
    profits(layout, column, adder, active, profit)
    loss = np.zeros((slots, m))
    for f in range(len(free)):
        for a in range(m):
            loss[free[f], a] = max(0.0, dual.slot_price[f] + wage[a] - profit[a, free[f]])
    pages, items, count = (
        np.empty((4, slots), np.int64),
        np.empty(slots, np.int64),
        np.zeros((groups, slots + 1), np.int64),
    )
    twin = duplicates(layout, column) if falling else np.full(m, -1, np.int64)
    for _ in range(3):  # a better page leaves less to lose, and so a smaller search
        best = state.known[0]
        if is_optimal(state) or width == 0:
            return
        budget = bound - best if best > -FAR else 0.1 * FAR
        found, dropped = beam_search(layout, column, twin, state.prices, loss, wage, budget, width, pages)
        for p in range(min(found, leaves)):
            for k in range(slots):
                items[k] = layout.pin[k] if pages[p, k] < 0 else column[pages[p, k]]
            count_members(layout, column, pages[p], count)
            swap_search(layout, column, loss, bound, pages[p], items, count, tries)
            update_incumbent(layout, column, pages[p], state)
        lost = min(budget, min(dropped, outside))
        if best > -FAR or found:
            state.known[1] = max(state.known[0], min(state.known[1], bound - lost))
        if lost == budget or state.known[0] < best + 0.3 * budget or best == -FAR:
            return


@kernel
def is_optimal(state: State) -> bool:
    """Whether no better page is possible."""
    return bool(state.known[1] - state.known[0] <= 1e-9 * (1.0 + abs(state.known[1])))


@kernel
def step_size(layout: Instance, length: float) -> float:
    """The length of a price step in play equivalents: in proportion to the first item without a slot, or to how values
    spread."""
    last, slots = len(layout.value) - 1, layout.lower.shape[1]
    spread = layout.value[0] - layout.value[min(last, max(slots, last // 2))]
    return float(length * max(abs(layout.value[min(slots, last)]), 0.5 * spread, 1e-6))


@kernel
def solve_without_rows(layout: Instance) -> bool:
    """Whether the order of value itself keeps all limits."""
    groups, slots = layout.lower.shape
    count, column, page = np.zeros((groups, slots + 1), np.int64), np.arange(slots), np.arange(slots)
    for k in range(slots):
        if layout.pin[k] >= 0 and layout.pin[k] != k:
            return False
    count_members(layout, column, page, count)
    return is_feasible(layout, count)
