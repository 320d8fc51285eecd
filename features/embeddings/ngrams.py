"""The encoder that needs nothing: hashed character n-grams. It knows spelling, not meaning, and no second language.

Feature hashing with signs (Weinberger et al., "Feature Hashing for Large Scale Multitask Learning", ICML 2009) of the
n-grams of one to three characters, each counting 1 + log of how often it stands there.
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
    """512 dimensions, some ten thousand titles a second, the same on every machine."""

    name = "ngrams@1"
    dimensions = 512

    def encode(self, texts: Sequence[str]) -> F32:
        """[n, 512] rows of length one; zeros for a text without a character.

        >>> one, two, other = NgramEncoder().encode(["杭州龙井茶", "龙井茶园", "NBA finals"])
        >>> bool(one @ two > 0.3 > one @ other)
        True
        """
        out = np.zeros((len(texts), self.dimensions), np.float32)
        for row, text in enumerate(texts):
            for gram, count in _grams(text).items():
                code = zlib.crc32(gram.encode("utf-8", "replace"))
                out[row, code % self.dimensions] += (1 if code >> 31 else -1) * (1.0 + np.log(count))
        length = np.linalg.norm(out, axis=1, keepdims=True)
        unit: F32 = out / np.maximum(length, np.float32(1e-9))
        return unit

    def close(self) -> None:
        """Nothing to let go."""


def _grams(text: str) -> Counter[str]:
    """N-grams of the words of a text, letters folded; a space marks where a word begins and ends."""
    plain = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    if not plain:
        return Counter()
    padded = f" {plain} "
    grams = Counter(padded[k : k + size] for size in SIZES for k in range(len(padded) - size + 1))
    del grams[" "]
    return grams
