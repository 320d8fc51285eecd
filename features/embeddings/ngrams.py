"""The built-in encoder: hashed character n-grams. It matches spelling, not meaning, and does not work across languages.

It uses signed feature hashing (Weinberger et al., "Feature Hashing for Large Scale Multitask Learning", ICML 2009) of
n-grams of one to three characters, each weighted 1 + log(count).
"""

from __future__ import annotations

import unicodedata
import zlib
from collections import Counter
from collections.abc import Sequence

import numpy as np

from recsys.domain.types import F32

SIZES = (1, 2, 3)


class NgramEncoder:
    """An encoder with 512 dimensions. It encodes about ten thousand titles per second, identically on every machine."""

    name = "ngrams@1"
    dimensions = 512

    def encode(self, texts: Sequence[str]) -> F32:
        """Return [n, 512] rows of length one; zeros for an empty text.

        >>> tea, garden, sport = NgramEncoder().encode(["杭州龙井茶", "龙井茶园", "NBA finals"])
        >>> bool(tea @ garden > 0.3 > tea @ sport)
        True
        """
        out = np.zeros((len(texts), self.dimensions), np.float32)
        for row, text in enumerate(texts):
            for gram, count in _ngrams(text).items():
                code = zlib.crc32(gram.encode("utf-8", "replace"))
                out[row, code % self.dimensions] += (1 if code >> 31 else -1) * (1.0 + np.log(count))
        length = np.linalg.norm(out, axis=1, keepdims=True)
        unit: F32 = out / np.maximum(length, np.float32(1e-9))
        return unit

    def close(self) -> None:
        """Do nothing: there are no resources to release."""


def _ngrams(text: str) -> Counter[str]:
    """Count the n-grams of a case-folded text; a space marks the start and end of a word."""
    plain = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    if not plain:
        return Counter()
    padded = f" {plain} "
    grams = Counter(padded[k : k + size] for size in SIZES for k in range(len(padded) - size + 1))
    del grams[" "]
    return grams
