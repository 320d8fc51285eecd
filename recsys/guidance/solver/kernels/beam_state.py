"""State of the beam search: partial pages, their hash table for duplicate detection, and pruning."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from recsys.domain.types import F64
from recsys.guidance.solver.kernels import kernel
from recsys.guidance.solver.kernels.instance import Instance


class Beam(NamedTuple):
    """Partial pages in two halves, for the current and the next slot, which alternate; capacity B each.

    members [2, B, G]   member count of each group
    used [2, B, U]      bits of the columns used
    page [2, B, K]      columns, -1 at pins
    loss [2, B]         loss so far
    key [2, B]          loss plus the lookahead bound
    digest [2, B]       hash of the columns used
    parent, column [B]  parent page and added column of each page in the next half
    table, stamp [T]    hash table of the next half by digest; an entry is valid if its stamp equals the current one
    """

    members: np.ndarray
    used: np.ndarray
    page: np.ndarray
    loss: F64
    key: F64
    digest: np.ndarray
    parent: np.ndarray
    column: np.ndarray
    table: np.ndarray
    stamp: np.ndarray


class SlotDemands(NamedTuple):
    """Requirements of one partial page at the next slot; `slot_demands` fills them.

    required, forbidden [W]       bits of groups that must, or must not, get a member in this slot
    loss_without, loss_with [X]   lookahead bound by each priced group, without and with a member in this slot
    """

    required: np.ndarray
    forbidden: np.ndarray
    loss_without: F64
    loss_with: F64


class ItemPrices(NamedTuple):
    """Columns with a positive item price, which a page loses if it does not use them.

    column [Z]            these columns
    position [M]          index of each column in this list, -1 = not in it
    future_loss [K + 1, Z]  minimum loss of each column if it is not used before slot k
    """

    column: np.ndarray
    position: np.ndarray
    future_loss: F64


@kernel
def new_beam(instance: Instance, columns: int, width: int) -> Beam:
    """Allocate a beam for `width` partial pages, plus half as many before pruning; it holds the empty page."""
    groups, slots = instance.lower.shape
    capacity, size = width + width // 2 + 8, 16
    while size < 4 * capacity:
        size *= 2
    beam = Beam(
        np.empty((2, capacity, groups), np.int16),
        np.empty((2, capacity, (columns + 63) // 64), np.uint64),
        np.empty((2, capacity, slots), np.int16),
        np.empty((2, capacity)),
        np.empty((2, capacity)),
        np.empty((2, capacity), np.uint64),
        np.empty(capacity, np.int64),
        np.empty(capacity, np.int64),
        np.empty(size, np.int32),
        np.zeros(size, np.int32),
    )
    beam.members[0, 0] = 0
    beam.used[0, 0] = 0
    beam.loss[0, 0], beam.key[0, 0], beam.digest[0, 0] = 0.0, 0.0, 0
    return beam


@kernel
def item_prices_of(instance: Instance, loss: F64, item_price: F64) -> ItemPrices:
    """Collect the columns with a positive item price; loss [K, M] of all columns."""
    slots = len(instance.pin)
    column, position = np.flatnonzero(item_price > 1e-12), np.full(len(item_price), -1, np.int64)
    future_loss = np.empty((slots + 1, len(column)))
    for z in range(len(column)):
        position[column[z]] = z
        future_loss[slots, z] = item_price[column[z]]
        for k in range(slots - 1, -1, -1):
            future_loss[k, z] = future_loss[k + 1, z]
            if instance.pin[k] < 0:
                future_loss[k, z] = min(future_loss[k, z], loss[k, column[z]])
    return ItemPrices(column, position, future_loss)


@kernel
def is_used(used: np.ndarray, half: int, s: int, a: int) -> bool:
    """Return whether partial page s of the given half uses column a; `used` as in `Beam`."""
    return bool((used[half, s, a >> 6] >> np.uint64(a & 63)) & np.uint64(1))


@kernel
def state_hash(
    parent_digest: np.uint64, page: np.ndarray, half: int, s: int, a: int, k: int, order_depth: int
) -> np.uint64:
    """Hash the columns of `parent_digest`, column a, and the order of the last `order_depth` columns of page s."""
    digest = parent_digest
    if a >= 0:
        digest = digest ^ _mix64(np.uint64(a + 1))
    digest += _mix64(np.uint64(1_000_003 * (a + 2)))
    for j in range(max(0, k + 1 - order_depth), k):
        digest += _mix64(np.uint64(7_919 * (k - j) * (page[half, s, j] + 2) + 13))
    return np.uint64(digest)


@kernel
def find_entry(
    table: np.ndarray, stamps: np.ndarray, digests: np.ndarray, half: int, digest: np.uint64, stamp: int
) -> tuple[int, int]:
    """Return the page with this digest (-1 = none) and its table index; arrays as in `Beam`."""
    index_mask = np.uint64(len(table) - 1)
    entry = digest & index_mask
    while stamps[entry] == stamp:
        if digests[half, table[entry]] == digest:
            return int(table[entry]), int(entry)
        entry = (entry + np.uint64(1)) & index_mask
    return -1, int(entry)


@kernel
def commit(instance: Instance, working_set: np.ndarray, beam: Beam, half: int, children: int, k: int) -> None:
    """Write the next half: each child is its parent plus one column."""
    next_half, groups, words = 1 - half, beam.members.shape[2], beam.used.shape[2]
    members, used, page, digest = beam.members, beam.used, beam.page, beam.digest
    for z in range(children):
        s, a = beam.parent[z], beam.column[z]
        for g in range(groups):  # explicit loops: array slices cost more than the copies
            members[next_half, z, g] = members[half, s, g]
        i = instance.pin[k] if a < 0 else working_set[a]
        for d in range(instance.groups_of.shape[1]):
            g = instance.groups_of[i, d]
            if g < 0:
                break
            members[next_half, z, g] += 1
        for word in range(words):
            used[next_half, z, word] = used[half, s, word]
        digest[next_half, z] = digest[half, s]
        if a >= 0:
            used[next_half, z, a >> 6] |= np.uint64(1) << np.uint64(a & 63)
            digest[next_half, z] = digest[half, s] ^ _mix64(np.uint64(a + 1))
        for j in range(k):
            page[next_half, z, j] = page[half, s, j]
        page[next_half, z, k] = a


@kernel
def prune(beam: Beam, half: int, children: int, width: int, dropped_loss: float) -> tuple[int, float, float]:
    """Keep the `width` children with the smallest keys.

    Returns their number, the largest key kept, and the minimum of `dropped_loss` and the keys pruned.
    """
    cutoff = np.partition(beam.key[half, :children], width - 1)[width - 1]
    n_retained, below = 0, 0
    for z in range(children):
        below += beam.key[half, z] < cutoff
    ties = width - below  # number of children at the cutoff to keep
    for z in range(children):
        keep = beam.key[half, z] < cutoff
        if beam.key[half, z] == cutoff and ties > 0:
            keep, ties = True, ties - 1
        if keep:
            beam.loss[half, n_retained], beam.key[half, n_retained] = beam.loss[half, z], beam.key[half, z]
            beam.digest[half, n_retained] = beam.digest[half, z]
            beam.parent[n_retained], beam.column[n_retained] = beam.parent[z], beam.column[z]
            n_retained += 1
        else:
            dropped_loss = min(dropped_loss, beam.key[half, z])
    return n_retained, cutoff, dropped_loss


@kernel
def _mix64(number: np.uint64) -> np.uint64:
    """Return the splitmix64 hash of a 64-bit number."""
    z = number * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
