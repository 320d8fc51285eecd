"""Relaxations remembered: what gave way once gives way again wherever limits and supply are the same.

Whether a page exists depends on the limits and on how many candidates there are of each kind, not on their values or
ids, so the answer of one viewer's page serves every page that lacks the same things. Where viewers' candidates differ,
what gave way last under the same limits is where the search begins on a page that has little time.
"""

from __future__ import annotations

from hashlib import blake2b

import numpy as np

from recsys.domain.types import I32, Bool
from recsys.guidance.solver.page_constraints import PageConstraints

Given = tuple[I32, Bool]
"""by [C] slots that each control gives way, settled [C] where that is proven to be the least."""


class RelaxationCache:
    """A bounded memory, safe to share between threads: an entry is written once and never changed."""

    def __init__(self, most: int = 4096) -> None:
        self._most = most
        self._given: dict[bytes, Given] = {}
        self._hints: dict[bytes, I32] = {}

    def __len__(self) -> int:
        return len(self._given)

    def get(self, key: bytes) -> Given | None:
        """What was remembered under `key_of` of some bounds."""
        return self._given.get(key)

    def put(self, key: bytes, by: I32, settled: Bool) -> None:
        """Keep an answer; when the memory is full, it begins anew."""
        if len(self._given) >= self._most:
            self._given = {}
        self._given[key] = (by, settled)

    def hint(self, limits: bytes) -> I32 | None:
        """By [C] slots that each control gave way last under these limits (`limits_of`)."""
        return self._hints.get(limits)

    def suggest(self, limits: bytes, by: I32) -> None:
        """Let this be the hint for pages under these limits."""
        if len(self._hints) >= self._most:
            self._hints = {}
        self._hints[limits] = by


def limits_of(bounds: PageConstraints) -> bytes:
    """Digest of what a page is asked, whoever the candidates are (how many values a cap holds down depends on them)."""
    rows = np.concatenate([bounds.row_control[:, None], bounds.lower, bounds.upper], axis=1)
    digest = blake2b(digest_size=20)
    for part in (
        np.array([bounds.slots, bounds.controls]),
        bounds.active,
        np.unique(rows, axis=0),
        bounds.at_most,
        bounds.within,
        bounds.space_control,
        bounds.pin_slot,
        bounds.pin_control,
    ):
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest.digest()


def cache_key(bounds: PageConstraints) -> bytes:
    """Digest of all that decides whether a page exists: limits, pins, and the number of candidates of each kind.

    More candidates of a kind than there are slots count as so many.
    """
    kinds, kind, count = np.unique(
        np.concatenate([bounds.member.T.astype(np.int32), bounds.code.T], axis=1),
        axis=0,
        return_inverse=True,
        return_counts=True,
    )
    there = bounds.pin_item >= 0
    pinned = np.where(there, kind.reshape(-1)[bounds.pin_item], -1) if len(bounds) else bounds.pin_item
    items = bounds.pin_item.tolist()
    same = np.array([items.index(item) for item in items], np.int64)  # which pins are of one item
    digest = blake2b(digest_size=20)
    for part in (
        np.array([bounds.slots, *kinds.shape]),
        bounds.active,
        bounds.lower,
        bounds.upper,
        bounds.row_control,
        bounds.at_most,
        bounds.within,
        bounds.before,
        bounds.space_control,
        bounds.pin_slot,
        bounds.pin_control,
        same,
        pinned,
        kinds,
        np.minimum(count, bounds.slots + len(bounds.pin_item)),
    ):
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest.digest()
