"""The search for one page: subgradient ascent, pricing of all items, beam search and local search.

Prices are fitted on a small working set; all items are then re-priced, and the dual bound of the working set is
corrected for the items outside it. Beam search and local search produce the incumbent.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from recsys.domain.types import F64
from recsys.guidance.solver.kernels import kernel
from recsys.guidance.solver.kernels.assignment import FAR, assign
from recsys.guidance.solver.kernels.beam import beam_search
from recsys.guidance.solver.kernels.instance import Instance
from recsys.guidance.solver.kernels.lagrangian import (
    Prices,
    adagrad_step,
    count_members,
    dual_constant,
    fill_adjustment,
    fill_profit,
    fill_reduced_value,
    fill_violations,
    new_adagrad_state,
    polyak_step,
    swap_improve,
    zero_prices,
)
from recsys.guidance.solver.kernels.local_search import swap_search
from recsys.guidance.solver.kernels.search_state import State, is_feasible, is_optimal, update_incumbent
from recsys.guidance.solver.kernels.working_set import (
    best_columns,
    duplicates,
    initial_working_set,
    select_within_bound,
    warm_start_page,
)

MAX_COLUMNS = 256
"""Maximum number of items outside the working set that beam search considers; if more qualify, no proof is possible."""


class DualSolution(NamedTuple):
    """Optimal assignment on a working set of M columns, for F free slots.

    page [F] columns, slot_price [F], item_price [M], profit [F, M]
    """

    page: np.ndarray
    slot_price: F64
    item_price: F64
    profit: F64


@kernel
def dual_bound(
    instance: Instance,
    working_set: np.ndarray,
    prices: Prices,
    adjustment: F64,
    priced: np.ndarray,
    profit: F64,
    free: np.ndarray,
    dual: DualSolution,
) -> float:
    """Return the dual bound on the working set at these prices.

    Fills adjustment, priced, profit and dual; `dual` is also the warm start.
    """
    m, slots = profit.shape
    fill_adjustment(instance, prices, adjustment, priced)
    fill_profit(instance, working_set, adjustment, priced, profit)
    for f in range(len(free)):
        for a in range(m):
            dual.profit[f, a] = profit[a, free[f]]
    assign(dual.profit, dual.page, dual.slot_price, dual.item_price)
    bound = dual_constant(instance, prices)
    for f in range(len(free)):
        bound += dual.slot_price[f]
    for a in range(m):
        bound += dual.item_price[a]
    for k in range(slots):
        i = instance.pin[k]
        if i >= 0:
            bound += instance.attention[k] * instance.value[i]
            for d in range(instance.groups_of.shape[1]):
                g = instance.groups_of[i, d]
                if g >= 0:
                    bound += adjustment[g, k]
    return bound


@kernel
def adagrad_ascent(
    instance: Instance,
    working_set: np.ndarray,
    state: State,
    steps: int,
    step_length: float,
    slowing: float,
    items: np.ndarray,
) -> None:
    """Update the prices by AdaGrad steps against a page that is only improved by local swaps.

    items [K]: that page, as warm start and as result
    """
    groups, slots = instance.lower.shape
    m = len(working_set)
    fixed = instance.pin >= 0
    adjustment, priced = np.zeros((groups, slots)), np.zeros(groups, np.bool_)
    count, profit = np.zeros((groups, slots + 1), np.int64), np.empty((m, slots))
    page, used = np.empty(slots, np.int64), np.zeros(m, np.bool_)
    warm_start_page(instance, working_set, items, page, used)
    for step in range(steps + 1):
        fill_adjustment(instance, state.prices, adjustment, priced)
        fill_profit(instance, working_set, adjustment, priced, profit)
        swap_improve(profit, page, used, fixed, 2 if step else 4)
        if step == steps:
            break
        count_members(instance, working_set, page, count)
        violated = adagrad_step(
            instance, state.prices, state.adagrad, count, step_length * (1.0 - slowing * step / steps)
        )
        if violated == 0 and is_feasible(instance, count):
            update_incumbent(instance, working_set, page, state)
    for k in range(slots):
        state.slot_price[k] = FAR if fixed[k] else profit[page[k], k]
        items[k] = -1 if fixed[k] else working_set[page[k]]
    fill_reduced_value(instance, adjustment, priced, state.slot_price, state.reduced_value)


@kernel
def polyak_ascent(
    instance: Instance,
    working_set: np.ndarray,
    state: State,
    steps: int,
    step_length: float,
    dual: DualSolution,
    adjustment: F64,
    priced: np.ndarray,
    profit: F64,
    free: np.ndarray,
) -> float:
    """Update the prices by Polyak steps on optimal assignments; return the lowest dual bound on the working set.

    The target of the steps is the value of the incumbent; after three steps without progress it moves halfway to the
    dual bound. Without an incumbent, AdaGrad steps are used instead. On return, prices, dual, adjustment, priced and
    profit are those of the lowest dual bound.
    """
    groups, slots = instance.lower.shape
    prices = state.prices
    count = np.zeros((groups, slots + 1), np.int64)
    page = np.full(slots, -1, np.int64)
    best_prices = Prices(prices.row.copy(), prices.window.copy())
    row_violation, window_violation = np.zeros(len(prices.row)), np.zeros((groups, slots))
    row_direction, window_direction = np.zeros(len(prices.row)), np.zeros((groups, slots))
    best_bound, target, stalled_steps, moved = FAR, -FAR, 0, False
    for step in range(max(1, steps)):
        bound = dual_bound(instance, working_set, prices, adjustment, priced, profit, free, dual)
        if bound < best_bound:
            stalled_steps = (
                0 if bound < best_bound - 0.05 * (best_bound - max(target, state.bounds[0])) else stalled_steps + 1
            )
            best_bound, moved = bound, False
            best_prices.row[:] = prices.row
            best_prices.window[:] = prices.window
        else:
            stalled_steps, moved = stalled_steps + 1, True
        for f in range(len(free)):
            page[free[f]] = dual.page[f]
        count_members(instance, working_set, page, count)
        violated, squared_norm = fill_violations(instance, prices, count, row_violation, window_violation)
        if violated == 0 and is_feasible(instance, count):
            update_incumbent(instance, working_set, page, state)
        if squared_norm < 1e-12 or best_bound - state.bounds[0] <= 1e-9 * abs(best_bound) or step >= steps - 1:
            break
        moved = True
        if state.bounds[0] == -FAR:  # no target value yet
            adagrad_step(instance, prices, state.adagrad, count, step_length)
            continue
        target = max(target, state.bounds[0])
        if stalled_steps >= 3:
            target, stalled_steps = 0.5 * (target + best_bound), 0
            prices.row[:] = best_prices.row
            prices.window[:] = best_prices.window
            row_direction[:] = 0.0
            window_direction[:] = 0.0
        polyak_step(
            instance,
            prices,
            row_violation,
            window_violation,
            row_direction,
            window_direction,
            0.7 * (bound - target),
            0.3,
        )
    if moved:
        prices.row[:] = best_prices.row
        prices.window[:] = best_prices.window
        best_bound = dual_bound(instance, working_set, prices, adjustment, priced, profit, free, dual)
    return best_bound


@kernel
def initial_state(
    instance: Instance,
    initial_size: int,
    working_set_size: int,
    coarse_steps: int,
    fine_steps: int,
    relative_step: float,
) -> State:
    """Create the search state with initial prices.

    Takes `coarse_steps` AdaGrad steps on a working set of about `initial_size` items, then `fine_steps` on the
    `working_set_size` items with the highest reduced value.

    relative_step: first step length, relative to the value of the first item below the page (see `step_size`)
    """
    n, slots = len(instance.value), len(instance.pin)
    free = np.flatnonzero(instance.pin < 0)
    # dual bound without constraints: the highest values in the slots of highest attention
    sorted_attention, value_bound = np.sort(instance.attention)[::-1], 0.0
    for k in range(min(n, slots)):
        value_bound += sorted_attention[k] * instance.value[k]
    state = State(
        np.full(slots, -1, np.int64),
        np.array([-FAR, value_bound]),
        zero_prices(instance),
        new_adagrad_state(instance),
        np.empty(n),
        np.empty(slots),
        np.zeros(n),
        np.full(len(free), -1, np.int64),
    )
    items = np.full(slots, -1, np.int64)
    working_set = initial_working_set(instance, initial_size)
    step_length = step_size(instance, relative_step)
    adagrad_ascent(instance, working_set, state, coarse_steps, step_length, 0.0, items)
    if fine_steps:
        working_set = best_columns(state.reduced_value, working_set_size, items[items >= 0])
        adagrad_ascent(instance, working_set, state, fine_steps, step_length, 0.85, items)
    for f in range(len(free)):
        state.assigned_items[f] = items[free[f]]
    return state


@kernel
def refine(
    instance: Instance,
    state: State,
    step_length: float,
    working_set_size: int,
    steps: int,
    beam_width: int,
    polished_pages: int,
    max_moves: int,
    attention_falls: bool,
) -> None:
    """Run one round: Polyak steps on a working set, pricing of all items, beam search, and local search.

    steps: number of Polyak steps; beam_width: partial pages kept per slot (0 = no beam search)
    polished_pages: pages of the beam improved by local search, with up to `max_moves` moves evaluated for each
    attention_falls: attention never increases from slot to slot, so the better of two duplicates takes the earlier slot
    """
    n, (groups, slots) = len(instance.value), instance.lower.shape
    free = np.flatnonzero(instance.pin < 0)
    adjustment, priced = np.zeros((groups, slots)), np.zeros(groups, np.bool_)
    working_set = best_columns(state.reduced_value, working_set_size, state.assigned_items)
    m = len(working_set)
    dual = DualSolution(np.full(len(free), -1, np.int64), np.empty(len(free)), np.zeros(m), np.empty((len(free), m)))
    for a in range(m):
        dual.item_price[a] = state.item_price[working_set[a]]
    for f in range(len(free)):
        dual.page[f] = np.searchsorted(working_set, state.assigned_items[f])
    bound = polyak_ascent(
        instance, working_set, state, steps, step_length, dual, adjustment, priced, np.empty((m, slots)), free
    )
    # re-price every item
    for k in range(slots):
        state.slot_price[k] = FAR
    for f in range(len(free)):
        state.slot_price[free[f]] = dual.slot_price[f]
        state.assigned_items[f] = working_set[dual.page[f]]
    fill_reduced_value(instance, adjustment, priced, state.slot_price, state.reduced_value)
    in_working_set = np.zeros(n, np.bool_)
    state.item_price[:] = 0.0
    for a in range(m):
        in_working_set[working_set[a]] = True
        state.item_price[working_set[a]] = dual.item_price[a]
    for i in range(n):
        if not in_working_set[i] and state.reduced_value[i] > 0.0:  # items outside the working set may raise the bound
            state.item_price[i] = state.reduced_value[i]
            bound += state.reduced_value[i]
    state.bounds[1] = min(state.bounds[1], bound)
    if state.bounds[0] > -FAR:
        working_set, omitted_loss = select_within_bound(
            state.reduced_value, state.item_price, in_working_set, bound - state.bounds[0], MAX_COLUMNS
        )
    else:
        omitted_loss = 0.0
    m = len(working_set)
    item_price, profit = np.empty(m), np.empty((m, slots))
    for a in range(m):
        item_price[a] = state.item_price[working_set[a]]
    fill_profit(instance, working_set, adjustment, priced, profit)
    loss = np.zeros((slots, m))
    for f in range(len(free)):
        for a in range(m):
            loss[free[f], a] = max(0.0, dual.slot_price[f] + item_price[a] - profit[a, free[f]])
    pages, items, count = (
        np.empty((4, slots), np.int64),
        np.empty(slots, np.int64),
        np.zeros((groups, slots + 1), np.int64),
    )
    duplicate_of = duplicates(instance, working_set) if attention_falls else np.full(m, -1, np.int64)
    for _ in range(3):  # a better incumbent shrinks the loss budget, so the next beam search covers more
        best = state.bounds[0]
        if is_optimal(state) or beam_width == 0:
            return
        budget = bound - best if best > -FAR else 0.1 * FAR
        page_count, dropped_loss = beam_search(
            instance, working_set, duplicate_of, state.prices, loss, item_price, budget, beam_width, pages
        )
        for p in range(min(page_count, polished_pages)):
            for k in range(slots):
                items[k] = instance.pin[k] if pages[p, k] < 0 else working_set[pages[p, k]]
            count_members(instance, working_set, pages[p], count)
            swap_search(instance, working_set, loss, bound, pages[p], items, count, max_moves)
            update_incumbent(instance, working_set, pages[p], state)
        proven_loss = min(budget, min(dropped_loss, omitted_loss))
        if best > -FAR or page_count:
            state.bounds[1] = max(state.bounds[0], min(state.bounds[1], bound - proven_loss))
        if proven_loss == budget or state.bounds[0] < best + 0.3 * budget or best == -FAR:
            return


@kernel
def step_size(instance: Instance, relative_step: float) -> float:
    """Return the length of a price step in play equivalents.

    It is proportional to the value of the first item below the page or, if larger, to half the spread of the item
    values.
    """
    last, slots = len(instance.value) - 1, instance.lower.shape[1]
    spread = instance.value[0] - instance.value[min(last, max(slots, last // 2))]
    return float(relative_step * max(abs(instance.value[min(slots, last)]), 0.5 * spread, 1e-6))
