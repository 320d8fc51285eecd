"""The candidates of one request, as columns that are sliced together."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from recsys.domain.types import ACTIONS, F32, F64, I32, U32, Bool


@dataclass(frozen=True)
class Candidates:
    """The N candidates of one request.

    row       [N]     int32    catalog row
    source    [N]     uint32   bit s set: source s found it
    affinity  [N]     float32  retrieval's score of viewer and item; 0 without a score
    features  [N, F]  float32  columns of `features.columns`
    p         [N, A]  float32  calibrated probability of each action of `recsys.domain.types.ACTIONS`
    utility   [N]     float64  expected utility for the viewer, in play equivalents
    bonus     [N]     float64  what the policy adds to utility, in play equivalents
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
        """Build candidates from retrieved rows; every other column is zero."""
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
        """Return a subset of the candidates, selected by a mask [N] or by indices [M]."""
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
        """Return the same candidates with these columns replaced."""
        return replace(self, **columns)  # type: ignore[arg-type]
