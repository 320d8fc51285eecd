"""Cache of relaxations, keyed by limits and supply.

Feasibility depends on the limits and on the number of candidates of each kind, not on their values or ids, so the
result for one page applies to every page with the same limits and supply. If the supply differs, the last slack under
the same limits is a warm start for pages with little time.
"""

from __future__ import annotations

from hashlib import blake2b

import numpy as np

from recsys.domain.types import I32, Bool
from recsys.guidance.solver.page_constraints import PageConstraints

CachedRelaxation = tuple[I32, Bool]
"""slack [C] in slots, and minimal_proven [C]: whether the slack is proven to be minimal."""


class RelaxationCache:
    """A bounded cache of relaxations and hints, safe to share between threads: entries are never modified."""

    def __init__(self, max_entries: int = 4096) -> None:
        self._max_entries = max_entries
        self._entries: dict[bytes, CachedRelaxation] = {}
        self._hints: dict[bytes, I32] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes) -> CachedRelaxation | None:
        """Return the entry stored under a `cache_key`, or None."""
        return self._entries.get(key)

    def put(self, key: bytes, slack: I32, minimal_proven: Bool) -> None:
        """Store an entry. If the cache is full, it is cleared first."""
        if len(self._entries) >= self._max_entries:
            self._entries = {}
        self._entries[key] = (slack, minimal_proven)

    def hint(self, limits: bytes) -> I32 | None:
        """Return the last slack [C] under these limits (see `limits_of`), or None."""
        return self._hints.get(limits)

    def suggest(self, limits: bytes, slack: I32) -> None:
        """Store the slack as the hint for pages under these limits."""
        if len(self._hints) >= self._max_entries:
            self._hints = {}
        self._hints[limits] = slack


def limits_of(constraints: PageConstraints) -> bytes:
    """Return a digest of the limits, independent of the candidates.

    Identical rows count once, because the number of values that a cap restricts depends on the candidates.
    """
    rows = np.concatenate([constraints.row_control[:, None], constraints.lower, constraints.upper], axis=1)
    digest = blake2b(digest_size=20)
    for part in (
        np.array([constraints.slots, constraints.controls]),
        constraints.active,
        np.unique(rows, axis=0),
        constraints.at_most,
        constraints.within,
        constraints.spacing_control,
        constraints.pin_slot,
        constraints.pin_control,
    ):
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest.digest()


def cache_key(constraints: PageConstraints) -> bytes:
    """Return a digest of everything that decides feasibility: limits, pins, and the number of candidates of each kind.

    Counts of a kind are capped at the number that can matter, slots plus pins.
    """
    kinds, kind, count = np.unique(
        np.concatenate([constraints.member.T.astype(np.int32), constraints.code.T], axis=1),
        axis=0,
        return_inverse=True,
        return_counts=True,
    )
    available = constraints.pin_item >= 0
    pinned = (
        np.where(available, kind.reshape(-1)[constraints.pin_item], -1) if len(constraints) else constraints.pin_item
    )
    items = constraints.pin_item.tolist()
    first_pin = np.array(
        [items.index(item) for item in items], np.int64
    )  # pins of the same item share the index of the first
    digest = blake2b(digest_size=20)
    for part in (
        np.array([constraints.slots, *kinds.shape]),
        constraints.active,
        constraints.lower,
        constraints.upper,
        constraints.row_control,
        constraints.at_most,
        constraints.within,
        constraints.before,
        constraints.spacing_control,
        constraints.pin_slot,
        constraints.pin_control,
        first_pin,
        pinned,
        kinds,
        np.minimum(count, constraints.slots + len(constraints.pin_item)),
    ):
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest.digest()
