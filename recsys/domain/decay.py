"""How counts fade and states expire: forward-decayed counts (Cormode et al. 2009) and the time to live."""

from __future__ import annotations

HALF_LIFE_S = 14 * 86_400.0
"""After this long an action counts half in an item's popularity."""

FAST_HALF_LIFE_S = 6 * 3600.0
"""The same for what an item does lately, against which its trend is told."""

LANDMARK = 1_767_225_600.0
"""2026-01-01T00:00:00Z, where forward decay weighs 1; doubles hold it 39 years either way."""

DAY_S = 86_400.0

TTL_S = 180 * DAY_S
"""An idle viewer is forgotten after this long, where the settings say nothing else."""


def forward_weight(at: float) -> float:
    """What an event at unix second `at` adds to a forward-decayed count.

    >>> forward_weight(LANDMARK + HALF_LIFE_S)
    2.0
    """
    return 2.0 ** ((at - LANDMARK) / HALF_LIFE_S)  # type: ignore[no-any-return]


def is_expired(at: float, now: float, ttl_s: float) -> bool:
    """Whether a viewer or an item whose newest event was at unix second `at` has been idle too long to be remembered at
    `now`.

    The one rule of forgetting: the fold applies it between two events, a reader between the state and its own moment,
    a replay at the moment it replays. The online store lets go of the bytes later than this, never earlier.

    >>> forgotten(0.0, 100.0, ttl_s=100.0), forgotten(0.0, 101.0, ttl_s=100.0)
    (False, True)
    """
    return now - at > ttl_s
