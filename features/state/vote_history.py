"""On which days a viewer voted for what, beyond the actions that are remembered in full (`ViewerState.recent`).

An action that leaves `recent` leaves a record of eight bytes: the day, a hash of the item, the kinds of that day. So
most viewers, who never did RECENT_MAX things, have none. Records are sorted, oldest day first; those older than
WINDOW_D days before the newest action leave, and beyond VOTED_MAX the oldest do. What left so can no longer be told
from what never was: then (`blind`) the viewer votes for nothing, until a record that is still held grows too old. All
that was pushed out is as old as that one, so nothing is ever counted twice within WINDOW_D days.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from struct import Struct

from recsys.domain.decay import DAY_S
from recsys.domain.viewer import RECENT_MAX, Recent

WINDOW_D = 28
"""Days for which a vote is remembered: two half-lives, so what is forgotten weighs a quarter."""

VOTED_MAX = 2000
"""Records of one viewer: over seventy a day for WINDOW_D days, for ever new items."""

RECORD = 8
_DAY_AND_KINDS = Struct(">H4xH").unpack_from
_KINDS = ("click", "open", "play", "complete", "like", "dislike", "hide", "share", "comment", "favourite")
_BIT = {kind: 1 << n for n, kind in enumerate(_KINDS)}  # of sixteen; what is stored says where each stands
_LATEST = 0xFFFF  # the year 2149


def day_of(at: float) -> int:
    """The window, a day in UTC, in which unix second `at` lies.

    >>> day_of(0.0), day_of(86_400.0)
    (0, 1)
    """
    return min(max(int(at // DAY_S), 0), _LATEST)


def append(history: bytearray, left: Recent, newest: float) -> None:
    """Remember an action that left `recent`, whose newest is of unix second `newest`."""
    oldest = max(day_of(newest) - WINDOW_D + 1, 0).to_bytes(2)
    if history and history[:2] < oldest:
        del history[: RECORD * _record_offset(history, oldest)]
    mark = day_of(left.at).to_bytes(2) + _hash(left.item_id)
    if mark[:2] < oldest or left.kind not in _BIT:
        return
    at, kinds = RECORD * _record_offset(history, mark), _BIT[left.kind]
    if history[at : at + 6] == mark:
        kinds |= int.from_bytes(history[at + 6 : at + RECORD])
        history[at + 6 : at + RECORD] = kinds.to_bytes(2)
        return
    history[at:at] = mark + kinds.to_bytes(2)
    if len(history) > RECORD * VOTED_MAX:
        del history[:RECORD]


def is_saturated(voted: bytes | bytearray, recent: Sequence[Recent], at: float) -> bool:
    """Whether a vote at unix second `at` may be one that is no longer remembered.

    >>> is_saturated(b"", [], 0.0)
    False
    """
    oldest = day_of(at) - WINDOW_D + 1
    if len(voted) >= RECORD * VOTED_MAX and int.from_bytes(voted[:2]) >= oldest:
        return True
    return len(recent) >= RECENT_MAX and day_of(at) <= day_of(recent[-1].at) - WINDOW_D  # very late


def voted_days(voted: bytes | bytearray, item_id: str, at: float) -> list[tuple[int, int]]:
    """(day, set of kinds as `bits` has it) of what the viewer did with an item in the WINDOW_D days up to unix second
    `at`, and later."""
    mark, oldest, days = _hash(item_id), day_of(at) - WINDOW_D + 1, []
    found = voted.find(mark)
    while found >= 0:
        if found % RECORD == 2:
            day, kinds = _DAY_AND_KINDS(voted, found - 2)
            if day >= oldest:
                days.append((day, kinds))
        found = voted.find(mark, found + 1)
    return days


def kind_mask(kinds: Iterable[str]) -> int:
    """A set of event kinds as a record holds it.

    >>> kind_mask(["click", "play"])
    5
    """
    return sum(_BIT[kind] for kind in kinds)


def _hash(item_id: str) -> bytes:
    """Four bytes; two of a viewer's items share them once in two million times, and then share a vote."""
    return blake2b(item_id.encode("utf-8", "surrogatepass"), digest_size=4).digest()


def _record_offset(voted: bytearray, mark: bytes) -> int:
    """Number of the first record that is not before this beginning of one."""
    size = len(mark)
    return bisect_left(range(len(voted) // RECORD), mark, key=lambda n: bytes(voted[RECORD * n : RECORD * n + size]))
