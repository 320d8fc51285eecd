"""The votes of a viewer by day, item and kind, for actions that are no longer in `ViewerState.recent`.

When an action is dropped from `recent`, a record of eight bytes is kept: the day, a hash of the item, and the kinds of
that day. Most viewers never exceed RECENT_MAX actions and have no records. Records are sorted by day, oldest first.
Records older than WINDOW_D days before the newest action are dropped, and above RECORDS_MAX the oldest are. After that,
the history is saturated (`is_saturated`), since a dropped vote cannot be distinguished from a missing one: the
viewer has no votes until the oldest stored record is older than the window. Every dropped record is at least as old, so
nothing counts twice within WINDOW_D days.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from struct import Struct

from recsys.domain.decay import DAY_S
from recsys.domain.viewer import RECENT_MAX, Recent

WINDOW_D = 28
"""Days for which a vote is stored: two half-lives, after which it weighs a quarter."""

RECORDS_MAX = 2000
"""Maximum number of records of one viewer: over seventy new items a day for WINDOW_D days."""

RECORD_BYTES = 8
_DAY_AND_KINDS = Struct(">H4xH").unpack_from
_KINDS = ("click", "open", "play", "complete", "like", "dislike", "hide", "share", "comment", "favourite")
_BIT = {kind: 1 << n for n, kind in enumerate(_KINDS)}  # of sixteen; stored records depend on this order
_LATEST = 0xFFFF  # the year 2149


def day_of(at: float) -> int:
    """Return the day (UTC, days since 1970) of unix second `at`.

    >>> day_of(0.0), day_of(86_400.0)
    (0, 1)
    """
    return min(max(int(at // DAY_S), 0), _LATEST)


def append(history: bytearray, action: Recent, newest: float) -> None:
    """Record an action that left `recent`; `newest` is the unix second of the newest action in `recent`."""
    oldest = max(day_of(newest) - WINDOW_D + 1, 0).to_bytes(2)
    if history and history[:2] < oldest:
        del history[: RECORD_BYTES * _record_offset(history, oldest)]
    key = day_of(action.at).to_bytes(2) + _hash(action.item_id)
    if key[:2] < oldest or action.kind not in _BIT:
        return
    start, kinds = RECORD_BYTES * _record_offset(history, key), _BIT[action.kind]
    if history[start : start + 6] == key:
        kinds |= int.from_bytes(history[start + 6 : start + RECORD_BYTES])
        history[start + 6 : start + RECORD_BYTES] = kinds.to_bytes(2)
        return
    history[start:start] = key + kinds.to_bytes(2)
    if len(history) > RECORD_BYTES * RECORDS_MAX:
        del history[:RECORD_BYTES]


def is_saturated(history: bytes | bytearray, recent: Sequence[Recent], at: float) -> bool:
    """Return whether the history may have dropped a vote that matters for an event at unix second `at`.

    >>> is_saturated(b"", [], 0.0)
    False
    """
    oldest = day_of(at) - WINDOW_D + 1
    if len(history) >= RECORD_BYTES * RECORDS_MAX and int.from_bytes(history[:2]) >= oldest:
        return True
    return len(recent) >= RECENT_MAX and day_of(at) <= day_of(recent[-1].at) - WINDOW_D  # very late


def voted_days(history: bytes | bytearray, item_id: str, at: float) -> list[tuple[int, int]]:
    """Return (day, kind mask) of the viewer's actions on an item, from WINDOW_D days before unix second `at` on.

    Kind masks are those of `kind_mask`.
    """
    item_hash, oldest, days = _hash(item_id), day_of(at) - WINDOW_D + 1, []
    position = history.find(item_hash)
    while position >= 0:
        if position % RECORD_BYTES == 2:
            day, kinds = _DAY_AND_KINDS(history, position - 2)
            if day >= oldest:
                days.append((day, kinds))
        position = history.find(item_hash, position + 1)
    return days


def kind_mask(kinds: Iterable[str]) -> int:
    """Return a set of event kinds as the bit mask that a record stores.

    >>> kind_mask(["click", "play"])
    5
    """
    return sum(_BIT[kind] for kind in kinds)


def _hash(item_id: str) -> bytes:
    """Return a hash of four bytes. Two items of a viewer collide once in two million times and then share a vote."""
    return blake2b(item_id.encode("utf-8", "surrogatepass"), digest_size=4).digest()


def _record_offset(history: bytearray, prefix: bytes) -> int:
    """Return the index of the first record that does not sort before this prefix of a record."""
    size = len(prefix)
    return bisect_left(
        range(len(history) // RECORD_BYTES),
        prefix,
        key=lambda n: bytes(history[RECORD_BYTES * n : RECORD_BYTES * n + size]),
    )
