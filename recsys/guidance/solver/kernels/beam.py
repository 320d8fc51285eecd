"""Beam search over partial pages, slot by slot, ordered by *loss* against the dual bound.

    value(page) = bound - sum_k loss[k, page[k]] - sum_{unused} item_price - sum price * slack      (every term >= 0)

A partial page whose loss exceeds `bound - primal bound` cannot improve on the incumbent. If no partial page within this
budget is pruned, the search is complete and proves optimality; otherwise the smallest pruned loss tightens the dual
bound. Two devices keep the beam narrow: slack of lower limits is charged when a surplus member is placed rather than
when the limit is reached, and `lookahead` bounds the loss of the remaining slots.
"""

from __future__ import annotations

import numpy as np

from recsys.domain.types import F64
from recsys.guidance.solver.kernels import kernel
from recsys.guidance.solver.kernels.assignment import FAR
from recsys.guidance.solver.kernels.beam_state import (
    Beam,
    SlotDemands,
    commit,
    find_entry,
    is_used,
    item_prices_of,
    new_beam,
    prune,
    state_hash,
)
from recsys.guidance.solver.kernels.instance import Instance, is_member
from recsys.guidance.solver.kernels.lagrangian import Prices
from recsys.guidance.solver.kernels.lookahead import SHORTLIST_SIZE, Lookahead, build_lookahead, shortlist_by_loss


@kernel
def slot_demands(
    instance: Instance,
    working_set: np.ndarray,
    prices: Prices,
    lookahead: Lookahead,
    window_groups: np.ndarray,
    beam: Beam,
    half: int,
    s: int,
    k: int,
    demands: SlotDemands,
) -> tuple[float, float]:
    """Fill `demands` for partial page s in slot k.

    Returns the accrued loss if the item placed here is in no priced group, and the largest lower bound on the remaining
    loss by any single group.
    """
    required, forbidden, count, page = demands.required, demands.forbidden, beam.members[half, s], beam.page[half, s]
    lower, upper, mask = instance.lower, instance.upper, instance.mask
    for word in range(len(required)):
        required[word] = forbidden[word] = np.uint64(0)
    for g in range(len(lower)):
        required[g >> 6] |= np.uint64(count[g] < lower[g, k]) << np.uint64(g & 63)
        forbidden[g >> 6] |= np.uint64(count[g] >= upper[g, k]) << np.uint64(g & 63)
    accrued_loss = beam.loss[half, s]
    for g in window_groups:
        window = instance.window_length[g]
        members = 0
        for q in range(max(0, k - window + 1), k):
            members += is_member(mask, instance.pin[q] if page[q] < 0 else working_set[page[q]], g)
        if members >= instance.window_limit[g]:
            forbidden[g >> 6] |= np.uint64(1) << np.uint64(g & 63)
        if k - window + 1 >= 0:  # slack of the window that ends in slot k, if no member is placed
            accrued_loss += prices.window[g, k - window + 1] * (instance.window_limit[g] - members)
    future_loss = 0.0
    group, upper_price, loss_to_go, loss_without, loss_with = (
        lookahead.group,
        lookahead.upper_price,
        lookahead.loss_to_go,
        demands.loss_without,
        demands.loss_with,
    )
    for x in range(len(group)):
        c = np.int64(count[group[x]])
        accrued_loss += upper_price[x, k] * (upper[group[x], k] - c)
        loss_without[x], loss_with[x] = loss_to_go[x, k + 1, c], loss_to_go[x, k + 1, c + 1]
        future_loss = max(future_loss, min(loss_without[x], loss_with[x]))
    return accrued_loss, future_loss


@kernel
def penalty(
    groups_of: np.ndarray,
    item: int,
    window_length: np.ndarray,
    window: F64,
    position: np.ndarray,
    surplus_price: F64,
    upper_price: F64,
    members: np.ndarray,
    half: int,
    s: int,
    k: int,
) -> float:
    """Return the slack price of lower limits for an item in slot k, minus the slack it uses up elsewhere.

    Upper and window limits are charged in advance, as if no member were placed, so a member is credited that charge.


    s: index of the partial page in the given half; arrays as in `Instance`, `Prices`, `Lookahead` and `Beam`
    """
    total = 0.0
    for d in range(groups_of.shape[1]):
        g = groups_of[item, d]
        if g < 0:
            break
        x = position[g]
        if x >= 0:
            total += surplus_price[x, members[half, s, g], k] - upper_price[x, k]
        if window_length[g] and k - window_length[g] + 1 >= 0:
            total -= window[g, k - window_length[g] + 1]
    return total


@kernel
def beam_search(
    instance: Instance,
    working_set: np.ndarray,
    duplicate_of: np.ndarray,
    prices: Prices,
    loss: F64,
    item_price: F64,
    budget: float,
    width: int,
    pages: np.ndarray,
) -> tuple[int, float]:
    """Search for pages that lose at most `budget`, keeping the `width` best partial pages per slot.

    loss [K, M], item_price [M] of the columns; duplicate_of [M] better duplicate that must be placed first, -1 = none
    pages [P, K]: filled with the best pages found, by ascending loss (columns, -1 at pins)

    Returns the number of pages found and the minimum loss of any pruned partial page (FAR = none pruned).
    """
    slots, m, words = len(instance.pin), len(working_set), instance.mask.shape[1]
    shortlist, shortlist_size, omitted_loss = (
        np.empty((slots, SHORTLIST_SIZE), np.int64),
        np.zeros(slots, np.int64),
        np.zeros(slots),
    )
    for k in range(slots):
        if instance.pin[k] < 0:
            shortlist_size[k], omitted_loss[k] = shortlist_by_loss(loss, k, budget, shortlist[k])
    lookahead = build_lookahead(instance, working_set, prices, loss, shortlist, shortlist_size, omitted_loss)
    priced_groups = len(lookahead.group)
    item_prices = item_prices_of(instance, loss, item_price)
    window_groups = np.flatnonzero(instance.window_length > 0)
    order_depth = max(0, instance.window_length.max() - 1) if len(window_groups) else 0
    refund = np.zeros(slots)  # upper bound on how much of the slack charged in advance an item can offset
    for k in range(slots):
        refund[k] = lookahead.upper_price[:, k].sum()
        for g in window_groups:
            if k - instance.window_length[g] + 1 >= 0:
                refund[k] += prices.window[g, k - instance.window_length[g] + 1]
    beam = new_beam(instance, m, width)
    members, used, page, loss_of, key_of, digests, parent, added_column, table, stamps = beam
    mask, groups_of, surplus_price, upper_price, window = (
        instance.mask,
        instance.groups_of,
        lookahead.surplus_price,
        lookahead.upper_price,
        prices.window,
    )
    position, group, window_length = lookahead.position, lookahead.group, instance.window_length
    required, forbidden = np.zeros(words, np.uint64), np.zeros(words, np.uint64)
    loss_without, loss_with = np.zeros(priced_groups), np.zeros(priced_groups)
    demands = SlotDemands(required, forbidden, loss_without, loss_with)
    state_count, half, dropped_loss, stamp = 1, 0, FAR, 0
    for k in range(slots):
        next_half, pinned = 1 - half, instance.pin[k] >= 0
        children, cutoff = 0, FAR  # cutoff: key of the worst child to keep
        stamp += 1
        for s in range(state_count):
            parent_loss = loss_of[half, s]
            base, rest = slot_demands(
                instance, working_set, prices, lookahead, window_groups, beam, half, s, k, demands
            )
            unused_loss = 0.0
            for z in range(len(item_prices.column)):
                if not is_used(used, half, s, item_prices.column[z]):
                    unused_loss += item_prices.future_loss[k + 1, z]
            expanded, widened, y = 0, False, -1
            candidates = 1 if pinned else shortlist_size[k]
            while True:
                y += 1
                if y >= candidates:
                    if pinned or widened or expanded or omitted_loss[k] > budget:
                        break
                    widened, y, candidates = True, 0, m  # no column of the shortlist fits: try all columns
                a, i, r = -1, instance.pin[k], 0.0
                if not pinned:
                    a = y if widened else shortlist[k, y]
                    i, r = working_set[a], loss[k, a]
                    if not widened:
                        lower_bound = max(parent_loss + r, base + r - refund[k]) + rest
                        if lower_bound > budget:
                            break
                        if lower_bound >= cutoff:
                            dropped_loss = min(dropped_loss, lower_bound)
                            break
                    if is_used(used, half, s, a) or (
                        duplicate_of[a] >= 0 and not is_used(used, half, s, duplicate_of[a])
                    ):
                        continue
                fits = True
                for word in range(words):
                    fits &= (required[word] & ~mask[i, word]) == 0 and (forbidden[word] & mask[i, word]) == 0
                if not fits:
                    continue
                child_loss = (
                    base
                    + r
                    + penalty(
                        groups_of, i, window_length, window, position, surplus_price, upper_price, members, half, s, k
                    )
                )
                if child_loss > budget:
                    continue
                future_loss = unused_loss
                if a >= 0 and item_prices.position[a] >= 0:
                    future_loss -= item_prices.future_loss[k + 1, item_prices.position[a]]
                for x in range(priced_groups):
                    future_loss = max(future_loss, loss_with[x] if is_member(mask, i, group[x]) else loss_without[x])
                key = child_loss + future_loss
                if key > budget:
                    continue
                if key >= cutoff:
                    dropped_loss = min(dropped_loss, key)
                    continue
                expanded += 1
                # same columns in a different order, with the same most recent ones: keep only the better page
                digest = state_hash(digests[half, s], page, half, s, a, k, order_depth)
                duplicate, entry = find_entry(table, stamps, digests, next_half, digest, stamp)
                if duplicate >= 0:
                    if child_loss < loss_of[next_half, duplicate]:
                        loss_of[next_half, duplicate], key_of[next_half, duplicate] = child_loss, key
                        parent[duplicate], added_column[duplicate] = s, a
                    continue
                if children == len(parent):
                    children, cutoff, dropped_loss = prune(beam, next_half, children, width, dropped_loss)
                    stamp += 1
                    for z in range(children):
                        _, entry = find_entry(table, stamps, digests, next_half, digests[next_half, z], stamp)
                        table[entry], stamps[entry] = z, stamp
                    if key >= cutoff:
                        dropped_loss = min(dropped_loss, key)
                        continue
                    _, entry = find_entry(table, stamps, digests, next_half, digest, stamp)
                table[entry], stamps[entry] = children, stamp
                loss_of[next_half, children], key_of[next_half, children] = child_loss, key
                digests[next_half, children] = digest
                parent[children], added_column[children] = s, a
                children += 1
            if not pinned and not widened and parent_loss + omitted_loss[k] <= budget:
                dropped_loss = min(dropped_loss, parent_loss + omitted_loss[k])
        if children > width:
            children, cutoff, dropped_loss = prune(beam, next_half, children, width, dropped_loss)
        if children == 0:
            return 0, dropped_loss
        commit(instance, working_set, beam, half, children, k)
        state_count, half = children, next_half
    for s in range(state_count):
        for z in range(len(item_prices.column)):
            if not is_used(used, half, s, item_prices.column[z]):
                loss_of[half, s] += item_price[item_prices.column[z]]
    page_count = min(len(pages), state_count)
    by_loss = np.argsort(loss_of[half, :state_count])
    for p in range(page_count):
        pages[p] = page[half, by_loss[p]]
    return page_count, dropped_loss
