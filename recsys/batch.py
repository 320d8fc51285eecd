"""The candidates of one request as columns that travel together."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from recsys.domain.types import ACTIONS, F32, F64, I32, U32, Bool


@dataclass(frozen=True)
class Candidates:
    """N candidates of one request.

    row       [N]     int32    catalogue row
    source    [N]     uint32   bit s set: source s proposed it
    affinity  [N]     float32  retrieval's match of viewer and item; 0 where there is none
    features  [N, F]  float32  columns of `features.columns`
    p         [N, A]  float32  calibrated probability of each action of `recsys.domain.types.ACTIONS`
    utility   [N]     float64  expected utility for the viewer, in play equivalents
    bonus     [N]     float64  what the policy adds, in play equivalents
    """

    row: I32
    source: U32
    affinity: F32
    features: F32
    p: F32
    utility: F64
    bonus: F64

    @classmethod
    def of(cls, row: I32, source: U32, affinity: F32 | None = None) -> Candidates:
        """Freshly proposed candidates: nothing computed yet."""
        n = len(row)
        return cls(
            row,
            source,
            np.zeros(n, np.float32) if affinity is None else affinity,
            np.zeros((n, 0), np.float32),
            np.zeros((n, len(ACTIONS)), np.float32),
            np.zeros(n),
            np.zeros(n),
        )

    def __len__(self) -> int:
        return len(self.row)

    def take(self, keep: Bool | I32) -> Candidates:
        """The same columns for some candidates: a mask [N] or indices [M]."""
        return Candidates(
            self.row[keep],
            self.source[keep],
            self.affinity[keep],
            self.features[keep],
            self.p[keep],
            self.utility[keep],
            self.bonus[keep],
        )

    def with_columns(self, **columns: F32 | F64) -> Candidates:
        """The same candidates with some columns computed."""
        return replace(self, **columns)  # type: ignore[arg-type]
