"""Follows the catalogue with text vectors: a new item has its own within a second or two, and no page waits for it."""

from __future__ import annotations

import time
from collections.abc import Callable

from features.embeddings.refresh import EmbeddingRefresher
from recsys.domain.embeddings import Content
from serving.snapshot.holders import SnapshotHolder

PUBLISH_EVERY_S = 2.0
"""While many items wait, pages see the new vectors no more often: each time, all are copied."""


class EmbeddingPoller:
    """Hands vectors to the holders. `step` is for one follower."""

    def __init__(
        self, vectors: EmbeddingRefresher, holders: SnapshotHolder, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.vectors = vectors
        self._holders, self._clock = holders, clock
        self._ready: Content | None = None
        self._published = float("-inf")

    def step(self) -> None:
        """Find or make some vectors. Raises Unavailable, NoEncoder."""
        try:
            while (content := self.vectors.step(self._holders.current.catalog)) is not None:
                self._ready = content
                if self.vectors.n_pending and self._clock() - self._published >= PUBLISH_EVERY_S:
                    self._publish()
        finally:
            self._publish()

    def close(self) -> None:
        """Let the encoder's process and the kept vectors go."""
        self.vectors.close()

    def _publish(self) -> None:
        if self._ready is not None:
            self._holders.set_embeddings(self._ready)
            self._ready, self._published = None, self._clock()
