"""A request for a page."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from recsys.domain.catalog import Catalog
from recsys.domain.placement import Placement
from recsys.domain.types import I32, I64

MAX_RECENT_ITEMS = 200
"""Number of items of a session that are kept by id and in slot order; of the items before them, only the set is kept.

A spacing across pages looks at fewer items than this, and impressions reach the viewer's state long before."""


@dataclass(frozen=True, slots=True)
class Query:
    """A request for a page.

    now           time of the request by the server's clock, unix seconds
    seed          the only source of randomness
    shown         ids of the items that the session showed last, in slot order
    shown_before  the items that the session showed before those: a bitmap over item numbers, the lowest bit first.
                  No page repeats an item of the session, and quotas hold over the whole session
    """

    request_id: str
    viewer_id: str
    placement: Placement
    region: str
    now: float
    slots: int
    seed: int = 0
    age: int | None = None
    personalised: bool = True
    guided: bool = True
    shown: tuple[str, ...] = ()
    shown_before: bytes = b""

    @property
    def n_shown(self) -> int:
        """Return the number of items that the session showed, in this catalog or not."""
        return len(self.shown) + int.from_bytes(self.shown_before).bit_count()

    def shown_rows(self, catalog: Catalog) -> I32:
        """Return [M] the catalog rows of the items that the session showed. The last of them are in slot order."""
        recent = catalog.rows(self.shown)
        if not self.shown_before:
            return recent
        rows = catalog.row_of_number[_numbers(self.shown_before, len(catalog.row_of_number))]
        return np.concatenate([rows[rows >= 0], recent])

    def after(self, item_ids: Iterable[str], catalog: Catalog) -> tuple[tuple[str, ...], bytes]:
        """Return `shown` and `shown_before` of the next page of the session, after a page with these items.

        The last MAX_RECENT_ITEMS ids stay in `shown`, and before them those that this catalog lacks.
        """
        shown = (*self.shown, *item_ids)
        older, recent = shown[:-MAX_RECENT_ITEMS], shown[-MAX_RECENT_ITEMS:]
        rows = catalog.rows(older)
        if not len(rows):
            return shown, self.shown_before
        numbers = np.concatenate([_numbers(self.shown_before), catalog.number[rows]])
        bits = np.zeros(int(numbers.max()) + 1, np.bool_)
        bits[numbers] = True
        unknown = tuple(item_id for item_id in older if item_id not in catalog.row_of)
        return (*unknown, *recent), np.packbits(bits, bitorder="little").tobytes()


def _numbers(bitmap: bytes, count: int | None = None) -> I64:
    """Return the numbers whose bits are set, in ascending order, only those below `count`."""
    return np.flatnonzero(np.unpackbits(np.frombuffer(bitmap, np.uint8), bitorder="little")[:count])
