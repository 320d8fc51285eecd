"""The catalog: all items as columns.

Rows never move: a changed item keeps its row, a new item is appended, and a withdrawn item stays and is dropped by
eligibility. A page can therefore be finished on the catalog it started with while a newer catalog is built.

Rows differ between processes, which read the items in the order of their last change. The number of an item is the
same everywhere and never changes; what leaves the process refers to items by id or by number.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from recsys.domain.embeddings import NO_CONTENT, Content
from recsys.domain.item import FORMATS, KINDS, STATUSES, Item, Window
from recsys.domain.rights import RightsColumns
from recsys.domain.types import F32, F64, I16, I32, Bool

T = TypeVar("T", bound=np.generic)

NO_RIGHTS = RightsColumns()
"""Rights of a catalog in which every item has at most one window, for all regions and screens."""


@dataclass(frozen=True)
class Vocabulary:
    """A growing list of names with codes 0..n-1. Codes never change.

    >>> vocabulary, codes = Vocabulary().add(["news", "film", "news"])
    >>> codes, vocabulary.code["film"]
    ([0, 1, 0], 1)
    """

    names: tuple[str, ...] = ()
    code: Mapping[str, int] = field(default_factory=dict)

    def add(self, names: Iterable[str]) -> tuple[Vocabulary, list[int]]:
        """Return a vocabulary that includes these names, and the codes of the names."""
        code = dict(self.code)
        codes = [code.setdefault(name, len(code)) for name in names]
        return (self, codes) if len(code) == len(self.code) else (Vocabulary(tuple(code), code), codes)

    def subtree(self, root: str, separator: str) -> I32:
        """Return the codes of `root` and of every name below it."""
        below = root + separator
        return np.array([c for c, n in enumerate(self.names) if n == root or n.startswith(below)], np.int32)


@dataclass(frozen=True)
class Catalog:
    """The items as columns, with N rows, L labels and V axes. The code -1 means no value.

    label         [N, L]  bool     item carries the label itself, not only a label below it
    axis          [N, V]  float32  editorial value in [0, 1]; 0 where the item has none
    number        [N]     int32    the item's number in the control plane, 0-based and without gaps
    published_at  [N]     float64  unix seconds
    start, until  [N]     float64  unix seconds: the hull of all rights windows; see `windows` for the exact ones
    content               text vectors; a changed text keeps its old vector until the new text is encoded
    """

    revision: int
    ids: tuple[str, ...]
    row_of: Mapping[str, int]
    items: tuple[Item, ...]
    labels: Vocabulary
    axes: Vocabulary
    outlets: Vocabulary
    providers: Vocabulary
    topics: Vocabulary
    series_names: Vocabulary
    regions: Vocabulary
    number: I32
    label: Bool
    axis: F32
    outlet: I32
    provider: I32
    topic: I32
    series: I32
    region: I32
    kind: I16
    status: I16
    age_rating: I16
    format: Bool  # [N, len(FORMATS)]
    duration_s: F32
    published_at: F64
    start: F64
    until: F64
    windows: Mapping[int, tuple[Window, ...]]  # rows with several windows, or with windows limited by region or screen
    rights: RightsColumns = NO_RIGHTS  # the same windows as columns
    content: Content = NO_CONTENT

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"Catalog({len(self)} items, revision {self.revision})"

    @classmethod
    def empty(cls) -> Catalog:
        """Return a catalog without items."""
        none, vocabulary = np.zeros(0), Vocabulary()
        code, small = none.astype(np.int32), none.astype(np.int16)
        return cls(
            revision=0,
            ids=(),
            row_of={},
            items=(),
            labels=vocabulary,
            axes=vocabulary,
            outlets=vocabulary,
            providers=vocabulary,
            topics=vocabulary,
            series_names=vocabulary,
            regions=vocabulary,
            number=code,
            label=np.zeros((0, 0), np.bool_),
            axis=np.zeros((0, 0), np.float32),
            outlet=code,
            provider=code,
            topic=code,
            series=code,
            region=code,
            kind=small,
            status=small,
            age_rating=small,
            format=np.zeros((0, len(FORMATS)), np.bool_),
            duration_s=none.astype(np.float32),
            published_at=none,
            start=none,
            until=none,
            windows={},
        )

    @classmethod
    def of(cls, items: Iterable[Item], revision: int = 0) -> Catalog:
        """Build a catalog with rows in the order of the items. The last item of a repeated id wins."""
        return cls.empty().patched(tuple(items), revision)

    def patched(self, changed: Sequence[Item], revision: int, numbers: Sequence[int] | None = None) -> Catalog:
        """Return a new catalog with these items added or replaced; existing ids keep their row, others are appended.

        numbers  the number of each item; default: a known item keeps its number, new items get the next numbers
        """
        if not changed:
            return replace(self, revision=revision)
        last = {item.id: n for n, item in enumerate(changed)}.values()
        changed, numbers = [changed[n] for n in last], numbers and [numbers[n] for n in last]
        row_of = dict(self.row_of)
        rows = np.array([row_of.setdefault(item.id, len(row_of)) for item in changed], np.int64)
        n = len(row_of)
        labels, label = self._put_labels(rows, changed, n)
        axes, axis = self._put_axes(rows, changed, n)
        outlets, outlet = self.outlets.add(item.outlet for item in changed)
        providers, provider = self.providers.add(item.provider or item.outlet for item in changed)
        topics, topic = _encode_column(self.topics, [item.topic or _root(item.labels) for item in changed])
        series_names, series = _encode_column(self.series_names, [item.series for item in changed])
        regions, region = _encode_column(self.regions, [item.region or "" for item in changed])
        windows = dict(zip(rows.tolist(), map(_exact_windows, changed), strict=True))
        hulls = [_time_bounds(item.rights) for item in changed]

        def put(column: npt.NDArray[T], entries: Sequence[object]) -> npt.NDArray[T]:
            grown = _extend_column(column, (n, *column.shape[1:]))
            grown[rows] = np.asarray(entries, column.dtype)
            return grown

        return Catalog(
            revision=revision,
            ids=tuple(row_of),
            row_of=row_of,
            items=self._put_items(rows, changed, n),
            labels=labels,
            axes=axes,
            outlets=outlets,
            providers=providers,
            topics=topics,
            series_names=series_names,
            regions=regions,
            number=self._put_numbers(rows, numbers, n),
            label=label,
            axis=axis,
            outlet=put(self.outlet, outlet),
            provider=put(self.provider, provider),
            topic=put(self.topic, topic),
            series=put(self.series, series),
            region=put(self.region, region),
            kind=put(self.kind, [KINDS.index(item.kind) for item in changed]),
            status=put(self.status, [STATUSES.index(item.status) for item in changed]),
            age_rating=put(self.age_rating, [item.age_rating for item in changed]),
            format=put(self.format, [[f in item.formats for f in FORMATS] for item in changed]),
            duration_s=put(self.duration_s, [item.duration_s for item in changed]),
            published_at=put(self.published_at, [item.published_at.timestamp() for item in changed]),
            start=put(self.start, [start for start, _ in hulls]),
            until=put(self.until, [until for _, until in hulls]),
            windows={row: w for row, w in {**self.windows, **windows}.items() if w},
            rights=self.rights.patched(windows),
            content=self.content,
        )

    def _put_items(self, rows: npt.NDArray[np.int64], changed: Sequence[Item], n: int) -> tuple[Item, ...]:
        items = list(self.items) + [changed[0]] * (n - len(self.items))
        for row, item in zip(rows, changed, strict=True):
            items[row] = item
        return tuple(items)

    def _put_numbers(self, rows: npt.NDArray[np.int64], numbers: Sequence[int] | None, n: int) -> I32:
        """Return the column [n] of numbers. New items get these numbers, by default the next ones."""
        column = _extend_column(self.number, (n,))
        column[len(self) :] = len(self.row_of_number) + np.arange(n - len(self))
        if numbers is not None:
            column[rows] = numbers
        return column

    def _put_labels(self, rows: npt.NDArray[np.int64], changed: Sequence[Item], n: int) -> tuple[Vocabulary, Bool]:
        """Return the label vocabulary and the label column [n, L], with the changed items written to `rows`."""
        labels, _ = self.labels.add(label for item in changed for label in item.labels)
        column = _extend_column(self.label, (n, len(labels.names)))
        column[rows] = False
        for row, item in zip(rows, changed, strict=True):
            column[row, [labels.code[name] for name in item.labels]] = True
        return labels, column

    def _put_axes(self, rows: npt.NDArray[np.int64], changed: Sequence[Item], n: int) -> tuple[Vocabulary, F32]:
        """Return the axis vocabulary and the axis column [n, V], with the changed items written to `rows`."""
        axes, _ = self.axes.add(axis for item in changed for axis in item.axes)
        column = _extend_column(self.axis, (n, len(axes.names)))
        column[rows] = 0.0
        for row, item in zip(rows, changed, strict=True):
            for name, value in item.axes.items():
                column[row, axes.code[name]] = value
        return axes, column

    @cached_property
    def row_of_number(self) -> I32:
        """Return [highest number + 1] the row of each number; -1 for numbers that this catalog lacks."""
        rows = np.full(int(self.number.max(initial=-1)) + 1, -1, np.int32)
        rows[self.number] = np.arange(len(self.number), dtype=np.int32)
        return rows

    def rows(self, item_ids: Iterable[str]) -> I32:
        """Return [M] rows of these ids, in their order, without unknown ids."""
        row_of = self.row_of
        return np.array([row for row in map(row_of.get, item_ids) if row is not None], np.int32)

    def label_subtree(self, root: str) -> Bool:
        """Return [N] whether an item carries the label `root` or a label below it."""
        return np.asarray(self.label[:, self.labels.subtree(root, "/")].any(axis=1))

    def outlet_subtree(self, root: str) -> Bool:
        """Return [N] whether an item belongs to outlet `root` or to an outlet below it."""
        return np.isin(self.outlet, self.outlets.subtree(root, "."))

    def region_subtree(self, root: str) -> Bool:
        """Return [N] whether an item is about region `root` or a region inside it."""
        return np.isin(self.region, self.regions.subtree(root, "."))


def _root(labels: Sequence[str]) -> str:
    return labels[0].partition("/")[0] if labels else ""


def _encode_column(vocabulary: Vocabulary, names: Sequence[str]) -> tuple[Vocabulary, list[int]]:
    """Return a vocabulary that includes the names, and their codes; -1 for the empty name."""
    vocabulary, _ = vocabulary.add(name for name in names if name)
    return vocabulary, [vocabulary.code[name] if name else -1 for name in names]


def _extend_column(column: npt.NDArray[T], shape: tuple[int, ...]) -> npt.NDArray[T]:
    """Return a copy, padded with zeros to a larger shape."""
    grown = np.zeros(shape, column.dtype)
    grown[tuple(slice(size) for size in column.shape)] = column
    return grown


def _exact_windows(item: Item) -> tuple[Window, ...]:
    """Return the windows of an item, or none if their hull describes them exactly."""
    return item.rights if len(item.rights) > 1 or any(w.regions or w.screens for w in item.rights) else ()


def _time_bounds(rights: Sequence[Window]) -> tuple[float, float]:
    """Return the earliest start and the latest end of all windows in unix seconds; infinite where open."""

    def seconds(at: datetime | None, open_end: float) -> float:
        return at.timestamp() if at else open_end

    if not rights:
        return -np.inf, np.inf
    return min(seconds(w.start, -np.inf) for w in rights), max(seconds(w.until, np.inf) for w in rights)
