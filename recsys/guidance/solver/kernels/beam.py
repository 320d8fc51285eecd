"""The page built slot by slot, many partial pages side by side, by *loss*: what a page forgoes against the bound.

    value(page) = bound - sum_k loss[k, page[k]] - sum_{unused} wage - sum price * slack        (every term >= 0)

A partial page that has lost more than `bound - best` cannot become a better page. Where no slot had to drop a partial
page within that budget, the search was complete and the best page is proven; otherwise the least loss dropped tells how
good a better page could be. Two things make few partial pages enough: slack of floors is charged when a member too many
is placed, not when the limit is reached; and `ahead` knows the least loss of the slots to come.
"""

from __future__ import annotations

import numpy as np

from recsys.domain.types import F64
from recsys.guidance.solver.kernels import kernel
from recsys.guidance.solver.kernels.assignment import FAR
from recsys.guidance.solver.kernels.beam_state import (
    Beam,
    SlotRooms,
    commit,
    find,
    is_used,
    item_prices_of,
    prune,
    room_for,
    state_hash,
)
from recsys.guidance.solver.kernels.instance import Instance, is_member
from recsys.guidance.solver.kernels.lagrangian import Prices
from recsys.guidance.solver.kernels.lookahead import LISTED, Lookahead, in_order, look_ahead


@kernel
def slot_demands(
    layout: Instance,
    column: np.ndarray,
    prices: Prices,
    to_come: Lookahead,
    spaced: np.ndarray,
    partial: Beam,
    now: int,
    s: int,
    k: int,
    slot: SlotRooms,
) -> tuple[float, float]:
    """Fills `slot` for partial page s in slot k.

    Results: what it has lost if the item here is in no priced group, and the largest loss to come by any one group.
    """
    need, full, count, page = slot.need, slot.full, partial.members[now, s], partial.page[now, s]
    lower, upper, mask = layout.lower, layout.upper, layout.mask
    for word in range(len(need)):
        need[word] = full[word] = np.uint64(0)
    for g in range(len(lower)):
        need[g >> 6] |= np.uint64(count[g] < lower[g, k]) << np.uint64(g & 63)
        full[g >> 6] |= np.uint64(count[g] >= upper[g, k]) << np.uint64(g & 63)
    lost = partial.lost[now, s]
    for g in spaced:
        within = layout.run_within[g]
        near = 0
        for q in range(max(0, k - within + 1), k):
            near += is_member(mask, layout.pin[q] if page[q] < 0 else column[page[q]], g)
        if near >= layout.run_most[g]:
            full[g >> 6] |= np.uint64(1) << np.uint64(g & 63)
        if k - within + 1 >= 0:  # slack of the window that ends here, if no member is placed
            lost += prices.run[g, k - within + 1] * (layout.run_most[g] - near)
    rest = 0.0
    group, cap, least, stays, joins = to_come.group, to_come.cap, to_come.least, slot.stays, slot.joins
    for x in range(len(group)):
        c = np.int64(count[group[x]])
        lost += cap[x, k] * (upper[group[x], k] - c)
        stays[x], joins[x] = least[x, k + 1, c], least[x, k + 1, c + 1]
        rest = max(rest, min(stays[x], joins[x]))
    return lost, rest


@kernel
def penalty(
    groups_of: np.ndarray,
    item: int,
    run_within: np.ndarray,
    run: F64,
    which: np.ndarray,
    over: F64,
    cap: F64,
    members: np.ndarray,
    now: int,
    s: int,
    k: int,
) -> float:
    """What an item in slot k loses in slack of floors, less the slack of caps and windows that it takes up.

    s: the partial page, of half `now`; arrays as in `Layout`, `Prices`, `Ahead` and `Partial`
    """
    total = 0.0
    for d in range(groups_of.shape[1]):
        g = groups_of[item, d]
        if g < 0:
            break
        x = which[g]
        if x >= 0:
            total += over[x, members[now, s, g], k] - cap[x, k]
        if run_within[g] and k - run_within[g] + 1 >= 0:
            total -= run[g, k - run_within[g] + 1]
    return total


@kernel
def beam_search(
    layout: Instance,
    column: np.ndarray,
    twin: np.ndarray,
    prices: Prices,
    loss: F64,
    wage: F64,
    budget: float,
    width: int,
    pages: np.ndarray,
) -> tuple[int, float]:
    """Pages that lose at most `budget`, from the `width` best partial pages of each slot.

    loss [K, M], wage [M] of the columns; twin [M] the better column alike that must stand first, -1 = none
    pages [P, K]: filled with the best pages found, by loss (columns, -1 at pins); how many
    second result: no page that was dropped loses less than this; more than `budget` if none was dropped
    """
    slots, m, words = len(layout.pin), len(column), layout.mask.shape[1]
    listed, lists, beyond = np.empty((slots, LISTED), np.int64), np.zeros(slots, np.int64), np.zeros(slots)
    for k in range(slots):
        if layout.pin[k] < 0:
            lists[k], beyond[k] = in_order(loss, k, budget, listed[k])
    to_come = look_ahead(layout, column, prices, loss, listed, lists, beyond)
    known = len(to_come.group)
    wages = item_prices_of(layout, loss, wage)
    spaced = np.flatnonzero(layout.run_within > 0)
    reach = max(0, layout.run_within.max() - 1) if len(spaced) else 0
    back = np.zeros(slots)  # the most that an item takes back of what a slot is charged in advance
    for k in range(slots):
        back[k] = to_come.cap[:, k].sum()
        for g in spaced:
            if k - layout.run_within[g] + 1 >= 0:
                back[k] += prices.run[g, k - layout.run_within[g] + 1]
    partial = room_for(layout, m, width)
    count, used, page, lost_of, key_of, names, parent, placed, table, stamps = partial
    mask, groups_of, over, cap, run = layout.mask, layout.groups_of, to_come.over, to_come.cap, prices.run
    which, group, run_within = to_come.which, to_come.group, layout.run_within
    need, full = np.zeros(words, np.uint64), np.zeros(words, np.uint64)
    stays, joins = np.zeros(known), np.zeros(known)
    slot = SlotRooms(need, full, stays, joins)
    states, now, dropped, stamp = 1, 0, FAR, 0
    for k in range(slots):
        after, pinned = 1 - now, layout.pin[k] >= 0
        children, bar = 0, FAR  # bar: key of the worst child worth keeping
        stamp += 1
        for s in range(states):
            before = lost_of[now, s]
            base, rest = slot_demands(layout, column, prices, to_come, spaced, partial, now, s, k, slot)
            unpaid = 0.0
            for z in range(len(wages.column)):
                if not is_used(used, now, s, wages.column[z]):
                    unpaid += wages.late[k + 1, z]
            born, widened, y = 0, False, -1
            tries = 1 if pinned else lists[k]
            while True:
                y += 1
                if y >= tries:
                    if pinned or widened or born or beyond[k] > budget:
                        break
                    widened, y, tries = True, 0, m  # nothing listed fits: look at every column
                a, i, r = -1, layout.pin[k], 0.0
                if not pinned:
                    a = y if widened else listed[k, y]
                    i, r = column[a], loss[k, a]
                    if not widened:
                        lowest = max(before + r, base + r - back[k]) + rest
                        if lowest > budget:
                            break
                        if lowest >= bar:
                            dropped = min(dropped, lowest)
                            break
                    if is_used(used, now, s, a) or (twin[a] >= 0 and not is_used(used, now, s, twin[a])):
                        continue
                fits = True
                for word in range(words):
                    fits &= (need[word] & ~mask[i, word]) == 0 and (full[word] & mask[i, word]) == 0
                if not fits:
                    continue
                lost = base + r + penalty(groups_of, i, run_within, run, which, over, cap, count, now, s, k)
                if lost > budget:
                    continue
                ahead_of = unpaid
                if a >= 0 and wages.place[a] >= 0:
                    ahead_of -= wages.late[k + 1, wages.place[a]]
                for x in range(known):
                    ahead_of = max(ahead_of, joins[x] if is_member(mask, i, group[x]) else stays[x])
                key = lost + ahead_of
                if key > budget:
                    continue
                if key >= bar:
                    dropped = min(dropped, key)
                    continue
                born += 1
                # the same items in another order, with the same last ones: only the better goes on
                name = state_hash(names[now, s], page, now, s, a, k, reach)
                same, at = find(table, stamps, names, after, name, stamp)
                if same >= 0:
                    if lost < lost_of[after, same]:
                        lost_of[after, same], key_of[after, same] = lost, key
                        parent[same], placed[same] = s, a
                    continue
                if children == len(parent):
                    children, bar, dropped = prune(partial, after, children, width, dropped)
                    stamp += 1
                    for z in range(children):
                        _, at = find(table, stamps, names, after, names[after, z], stamp)
                        table[at], stamps[at] = z, stamp
                    if key >= bar:
                        dropped = min(dropped, key)
                        continue
                    _, at = find(table, stamps, names, after, name, stamp)
                table[at], stamps[at] = children, stamp
                lost_of[after, children], key_of[after, children] = lost, key
                names[after, children] = name
                parent[children], placed[children] = s, a
                children += 1
            if not pinned and not widened and before + beyond[k] <= budget:
                dropped = min(dropped, before + beyond[k])
        if children > width:
            children, bar, dropped = prune(partial, after, children, width, dropped)
        if children == 0:
            return 0, dropped
        commit(layout, column, partial, now, children, k)
        states, now = children, after
    for s in range(states):
        for z in range(len(wages.column)):
            if not is_used(used, now, s, wages.column[z]):
                lost_of[now, s] += wage[wages.column[z]]
    found = min(len(pages), states)
    by_loss = np.argsort(lost_of[now, :states])
    for p in range(found):
        pages[p] = page[now, by_loss[p]]
    return found, dropped
