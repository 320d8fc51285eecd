"""What a serving process keeps for long is left out of the search for circles, so that no page waits for one.

Now and then CPython looks at every object there is and holds everything else up meanwhile: with the libraries, a
catalogue and a model in memory that took 0.2 to 0.3 s of processor time, and as long every page that was due then. What
has come to stay is frozen (`gc.freeze`): it is freed as before once nobody refers to it, but not looked at any more. A
full search has then only what pages left behind.
"""

from __future__ import annotations

import gc
from collections.abc import Callable

from serving.snapshot.holders import SnapshotHolder

ITEMS = 10_000
"""A catalogue that grew or shrank by about so many items is frozen anew."""


class GcFreezer:
    """Freezes what is in memory whenever much has come. `step` is for one follower of a process that has one app."""

    def __init__(self, holders: SnapshotHolder, warm: Callable[[], bool]) -> None:
        """`warm`: whether what is loaded once, when the process begins, is loaded."""
        self._holders, self._warm = holders, warm
        self._kept: tuple[bool, str, int] | None = None

    def step(self) -> None:
        """Freeze, if there is a reason to. Circles that nobody needs are found first and not kept."""
        snapshot = self._holders.current
        version = snapshot.model.bundle.version if snapshot.model else ""
        now = self._warm(), version, len(snapshot.catalog) // ITEMS
        if now != self._kept:
            gc.collect()
            gc.freeze()
            self._kept = now
