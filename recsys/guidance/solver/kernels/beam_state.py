"""Partial pages side by side: where they lie, how they are found again by what they hold, and which of them go on."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from recsys.domain.types import F64
from recsys.guidance.solver.kernels import kernel
from recsys.guidance.solver.kernels.instance import Instance


class Beam(NamedTuple):
    """Partial pages in two halves, this slot's and the next's, which change places from slot to slot; room for B each.

    members [2, B, G] count of each group; used [2, B, U] bits of the columns used; page [2, B, K] columns, -1 at pins
    lost [2, B] so far; key [2, B] lost and what is still to be lost at least; name [2, B] hash of the columns used
    parent, placed [B]  of the next slot's pages: the page they continue and the column they add
    table, stamp [T]    where the next slot's pages lie by name; an entry is valid under the present stamp
    """

    members: np.ndarray
    used: np.ndarray
    page: np.ndarray
    lost: F64
    key: F64
    name: np.ndarray
    parent: np.ndarray
    placed: np.ndarray
    table: np.ndarray
    stamp: np.ndarray


class SlotRooms(NamedTuple):
    """What one partial page meets in the slot that it comes to: `demands` fills it in.

    need, full [W]    bits of groups that must, or must not, get a member here
    stays, joins [X]  least loss to come by each priced group, without and with a member here
    """

    need: np.ndarray
    full: np.ndarray
    stays: F64
    joins: F64


class ItemPrices(NamedTuple):
    """Columns whose wage is lost if they are not on the page: column [Z], place [M] of a column among them (-1 = none),
    late [K + 1, Z] the least that each still loses, unused before slot k."""

    column: np.ndarray
    place: np.ndarray
    late: F64


@kernel
def room_for(layout: Instance, columns: int, width: int) -> Beam:
    """Room for `width` partial pages, and half as many again while they are made; one page is there, the empty one."""
    groups, slots = layout.lower.shape
    room, size = width + width // 2 + 8, 16
    while size < 4 * room:
        size *= 2
    partial = Beam(
        np.empty((2, room, groups), np.int16),
        np.empty((2, room, (columns + 63) // 64), np.uint64),
        np.empty((2, room, slots), np.int16),
        np.empty((2, room)),
        np.empty((2, room)),
        np.empty((2, room), np.uint64),
        np.empty(room, np.int64),
        np.empty(room, np.int64),
        np.empty(size, np.int32),
        np.zeros(size, np.int32),
    )
    partial.members[0, 0] = 0
    partial.used[0, 0] = 0
    partial.lost[0, 0], partial.key[0, 0], partial.name[0, 0] = 0.0, 0.0, 0
    return partial


@kernel
def item_prices_of(layout: Instance, loss: F64, wage: F64) -> ItemPrices:
    slots = len(layout.pin)
    column, place = np.flatnonzero(wage > 1e-12), np.full(len(wage), -1, np.int64)
    late = np.empty((slots + 1, len(column)))
    for z in range(len(column)):
        place[column[z]] = z
        late[slots, z] = wage[column[z]]
        for k in range(slots - 1, -1, -1):
            late[k, z] = late[k + 1, z]
            if layout.pin[k] < 0:
                late[k, z] = min(late[k, z], loss[k, column[z]])
    return ItemPrices(column, place, late)


@kernel
def is_used(used: np.ndarray, now: int, s: int, a: int) -> bool:
    """Whether partial page s of half `now` holds column a; used as in `Partial`."""
    return bool((used[now, s, a >> 6] >> np.uint64(a & 63)) & np.uint64(1))


@kernel
def state_hash(before: np.uint64, page: np.ndarray, now: int, s: int, a: int, k: int, reach: int) -> np.uint64:
    """Hash of the columns named `before` and column a, and of the order of the last `reach` of partial page s."""
    name = before
    if a >= 0:
        name = name ^ _mixed(np.uint64(a + 1))
    name += _mixed(np.uint64(1_000_003 * (a + 2)))
    for j in range(max(0, k + 1 - reach), k):
        name += _mixed(np.uint64(7_919 * (k - j) * (page[now, s, j] + 2) + 13))
    return np.uint64(name)


@kernel
def find(
    table: np.ndarray, stamps: np.ndarray, names: np.ndarray, half: int, name: np.uint64, stamp: int
) -> tuple[int, int]:
    """The page of that name, -1 = none, and its place in the table; arrays as in `Partial`."""
    last = np.uint64(len(table) - 1)
    at = name & last
    while stamps[at] == stamp:
        if names[half, table[at]] == name:
            return int(table[at]), int(at)
        at = (at + np.uint64(1)) & last
    return -1, int(at)


@kernel
def commit(layout: Instance, column: np.ndarray, partial: Beam, now: int, children: int, k: int) -> None:
    """Writes out the next half: each child is its parent and one more column."""
    after, groups, words = 1 - now, partial.members.shape[2], partial.used.shape[2]
    members, used, page, name = partial.members, partial.used, partial.page, partial.name
    for z in range(children):
        s, a = partial.parent[z], partial.placed[z]
        for g in range(groups):  # loops: slices of arrays cost more than what they copy
            members[after, z, g] = members[now, s, g]
        i = layout.pin[k] if a < 0 else column[a]
        for d in range(layout.groups_of.shape[1]):
            g = layout.groups_of[i, d]
            if g < 0:
                break
            members[after, z, g] += 1
        for word in range(words):
            used[after, z, word] = used[now, s, word]
        name[after, z] = name[now, s]
        if a >= 0:
            used[after, z, a >> 6] |= np.uint64(1) << np.uint64(a & 63)
            name[after, z] = name[now, s] ^ _mixed(np.uint64(a + 1))
        for j in range(k):
            page[after, z, j] = page[now, s, j]
        page[after, z, k] = a


@kernel
def prune(partial: Beam, half: int, children: int, width: int, dropped: float) -> tuple[int, float, float]:
    """Keep the `width` children with the least key; how many there are then, the largest key, the least dropped.

    An earlier `dropped` is kept if it is less.
    """
    bar = np.partition(partial.key[half, :children], width - 1)[width - 1]
    kept, below = 0, 0
    for z in range(children):
        below += partial.key[half, z] < bar
    equals = width - below  # so many of those at the bar may stay
    for z in range(children):
        stays = partial.key[half, z] < bar
        if partial.key[half, z] == bar and equals > 0:
            stays, equals = True, equals - 1
        if stays:
            partial.lost[half, kept], partial.key[half, kept] = partial.lost[half, z], partial.key[half, z]
            partial.name[half, kept] = partial.name[half, z]
            partial.parent[kept], partial.placed[kept] = partial.parent[z], partial.placed[z]
            kept += 1
        else:
            dropped = min(dropped, partial.key[half, z])
    return kept, bar, dropped


@kernel
def _mixed(number: np.uint64) -> np.uint64:
    """splitmix64: a 64-bit hash of a number."""
    z = number * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
