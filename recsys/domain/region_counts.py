"""Sparse counts by region: most items have no visits from most regions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from recsys.domain.types import F32, I32


class RegionCounts(Mapping[str, F32]):
    """A read-only mapping from a region to its counts [N], float32.

    A column is built on access and cached only if most rows have a count, so that the whole mapping takes at most twice
    the eight bytes per count that is not zero.

    >>> row, count = np.array([0, 2, 1], np.int32), np.array([5, 1, 4], np.float32)
    >>> counts = RegionCounts(3, {"cn": (0, 2), "us": (2, 3)}, row, count)
    >>> counts["cn"], counts.get("fr")
    (array([5., 0., 1.], dtype=float32), None)
    """

    def __init__(self, items: int, span: Mapping[str, tuple[int, int]], row: I32, count: F32) -> None:
        """Store the counts. A region with the span (first, end) has `count[first:end]` in the rows `row[first:end]`.

        The rows of a region are distinct and below `items`.
        """
        self._items, self._span, self._row, self._count = items, span, row, count
        self._dense: dict[str, F32] = {}

    def __getitem__(self, region: str) -> F32:
        if (column := self._dense.get(region)) is not None:
            return column
        first, end = self._span[region]
        column = np.zeros(self._items, np.float32)
        column[self._row[first:end]] = self._count[first:end]
        if 2 * (end - first) > self._items:
            self._dense[region] = column
        return column

    def __iter__(self) -> Iterator[str]:
        return iter(self._span)

    def __len__(self) -> int:
        return len(self._span)

    def resized(self, items: int) -> RegionCounts:
        """Return the same counts for `items` rows, at least as many as before; new rows have no counts."""
        return RegionCounts(items, self._span, self._row, self._count)

    @property
    def nbytes(self) -> int:
        """The number of bytes of all arrays."""
        return self._row.nbytes + self._count.nbytes + sum(column.nbytes for column in self._dense.values())
