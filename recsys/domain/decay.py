"""Forward decay of counts (Cormode et al. 2009), and the expiry of idle states."""

from __future__ import annotations

HALF_LIFE_S = 14 * 86_400.0
"""Half-life of an action in the popularity of an item."""

FAST_HALF_LIFE_S = 6 * 3600.0
"""Half-life of a visit in an item's recent visits, from which its trend is computed."""

LANDMARK = 1_767_225_600.0
"""2026-01-01T00:00:00Z, where the forward weight is 1. Doubles hold the weight for 39 years before and after."""

DAY_S = 86_400.0

TTL_S = 180 * DAY_S
"""Default time after which the state of an idle viewer expires."""


def forward_weight(at: float) -> float:
    """Return the weight that an event at unix second `at` adds to a forward-decayed count.

    >>> forward_weight(LANDMARK + HALF_LIFE_S)
    2.0
    """
    return 2.0 ** ((at - LANDMARK) / HALF_LIFE_S)  # type: ignore[no-any-return]


def is_expired(at: float, now: float, ttl_s: float) -> bool:
    """Return whether a viewer or item with its newest event at unix second `at` has expired at `now`.

    This is the only rule of expiry. The fold applies it between two events, a reader at the time of reading, and a
    replay at the time that it replays. The online store deletes the bytes later than this, never earlier.

    >>> is_expired(0.0, 100.0, ttl_s=100.0), is_expired(0.0, 101.0, ttl_s=100.0)
    (False, True)
    """
    return now - at > ttl_s
