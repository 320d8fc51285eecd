"""Counts by place of which most are nought: for each place only the rows that have one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from recsys.domain.types import F32, I32


class RegionCounts(Mapping[str, F32]):
    """Place -> [N] counts, float32, not to be written to. A column is made when it is asked for; one is kept only where
    most rows have a count, so that all takes at most twice the eight bytes of each count that is not nought.

    >>> row, count = np.array([0, 2, 1], np.int32), np.array([5, 1, 4], np.float32)
    >>> places = RegionCounts(3, {"cn": (0, 2), "us": (2, 3)}, row, count)
    >>> places["cn"], places.get("fr")
    (array([5., 0., 1.], dtype=float32), None)
    """

    def __init__(self, items: int, span: Mapping[str, tuple[int, int]], row: I32, count: F32) -> None:
        """A place with the span (first, end) has `count[first:end]` in the rows `row[first:end]`, each of which comes
        once and is below `items`."""
        self._items, self._span, self._row, self._count = items, span, row, count
        self._kept: dict[str, F32] = {}

    def __getitem__(self, place: str) -> F32:
        if (column := self._kept.get(place)) is not None:
            return column
        first, end = self._span[place]
        column = np.zeros(self._items, np.float32)
        column[self._row[first:end]] = self._count[first:end]
        if 2 * (end - first) > self._items:
            self._kept[place] = column
        return column

    def __iter__(self) -> Iterator[str]:
        return iter(self._span)

    def __len__(self) -> int:
        return len(self._span)

    def resized(self, items: int) -> RegionCounts:
        """The same counts among `items` rows, as many or more; new rows have none."""
        return RegionCounts(items, self._span, self._row, self._count)

    @property
    def nbytes(self) -> int:
        """Bytes of all numbers that are held."""
        return self._row.nbytes + self._count.nbytes + sum(column.nbytes for column in self._kept.values())
