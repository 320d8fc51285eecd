"""Background poller of text vectors. A new item has a vector within about two seconds, and no page waits for it."""

from __future__ import annotations

import time
from collections.abc import Callable

from features.embeddings.refresh import EmbeddingRefresher
from recsys.domain.embeddings import Content
from serving.snapshot.holders import SnapshotHolder

PUBLISH_EVERY_S = 2.0
"""Minimum interval of snapshot updates while many items wait, because each update copies all vectors."""


class EmbeddingPoller:
    """A component that adds new text vectors to the snapshot. `step` is a task for one poller."""

    def __init__(
        self, refresher: EmbeddingRefresher, holders: SnapshotHolder, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.refresher = refresher
        self._holders, self._clock = holders, clock
        self._ready: Content | None = None
        self._published = float("-inf")

    def step(self) -> None:
        """Load or compute missing vectors and publish them. Raises Unavailable and NoEncoder."""
        try:
            while (content := self.refresher.step(self._holders.current.catalog)) is not None:
                self._ready = content
                if self.refresher.n_pending and self._clock() - self._published >= PUBLISH_EVERY_S:
                    self._publish()
        finally:
            self._publish()

    def close(self) -> None:
        """Stop the encoder process and close the store of vectors."""
        self.refresher.close()

    def _publish(self) -> None:
        if self._ready is not None:
            self._holders.set_embeddings(self._ready)
            self._ready, self._published = None, self._clock()
