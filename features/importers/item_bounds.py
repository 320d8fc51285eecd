"""Bounds of an item and of the names in a catalog, so that no item can take the memory of the service.

They are checked before an item is validated, which takes time in proportion to its size. Items that are already stored
are not checked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from recsys.domain.catalog import Catalog
from recsys.domain.errors import Finding
from recsys.domain.item import Item
from recsys.messages import message

FIELDS_MAX = 50
"""Maximum number of fields of an item or of a rights window."""

ENTRIES_MAX: Mapping[str, int] = {
    "title": 50, "summary": 50, "labels": 100, "axes": 100, "rights": 100, "formats": 10, "regions": 500, "screens": 10,
}  # fmt: skip
"""Maximum number of entries of each list or mapping of an item and of its rights windows."""

REGIONS_MAX = 1000
"""Maximum number of regions in all rights windows of an item."""

TEXT_MAX: Mapping[str, int] = {
    "title": 1000, "summary": 20_000, "provider": 200, "topic": 200, "series": 200, "language": 100, "link": 4000,
    "image": 4000,
}  # fmt: skip
"""Maximum number of characters of each text. Ids, labels and codes have limits of their own in `Item`."""

NAME_MAX = 100
"""Maximum number of characters of the name of an axis or a language."""

AXES_MAX, LABELS_MAX = 1000, 20_000
"""Maximum number of different axes and labels in a catalog, each of which is a column with a value for every item."""


def exceeded_bounds(raw: object) -> Iterator[Finding]:
    """Yield a finding for each bound that an item exceeds, before it is validated.

    >>> [str(finding) for finding in exceeded_bounds({"labels": ["a"] * 101, "topic": "t" * 201})]
    ['labels: must have at most 100 entries', 'topic: must have at most 200 characters']
    """
    if not isinstance(raw, dict):
        return
    yield from _exceeded(raw, "")
    windows = raw.get("rights")
    if isinstance(windows, list):
        regions = 0
        for index, window in enumerate(windows[: ENTRIES_MAX["rights"]]):
            if isinstance(window, dict):
                yield from _exceeded(window, f"rights.{index}.")
                listed = window.get("regions")
                regions += min(len(listed), ENTRIES_MAX["regions"]) if isinstance(listed, list) else 0
        if regions > REGIONS_MAX:
            yield Finding("rights", message("regions_too_many", regions=regions, maximum=REGIONS_MAX))


def _exceeded(fields: Mapping[str, Any], path: str) -> Iterator[Finding]:
    if len(fields) > FIELDS_MAX:
        yield Finding(path.rstrip("."), message("fields_too_many", fields=len(fields), maximum=FIELDS_MAX))
        return
    for name, value in fields.items():
        if isinstance(value, list | dict) and len(value) > (maximum := ENTRIES_MAX.get(name, FIELDS_MAX)):
            yield Finding(path + name, message("too_long", maximum=maximum))
        elif isinstance(value, dict):
            yield from _exceeded_in_mapping(value, path + name, TEXT_MAX.get(name))
        elif isinstance(value, str) and (limit := TEXT_MAX.get(name)) and len(value) > limit:
            yield Finding(path + name, message("text_too_long", maximum=limit))


def _exceeded_in_mapping(values: Mapping[str, object], path: str, limit: int | None) -> Iterator[Finding]:
    for name, value in values.items():
        if len(name) > NAME_MAX:
            yield Finding(path, message("entry_name_too_long", length=len(name), maximum=NAME_MAX))
        elif limit and isinstance(value, str) and len(value) > limit:
            yield Finding(f"{path}.{name}", message("text_too_long", maximum=limit))


@dataclass
class NewNames:
    """The axes and labels that a batch of items adds to a catalog."""

    catalog: Catalog
    axes: set[str] = field(default_factory=set)
    labels: set[str] = field(default_factory=set)

    def add(self, item: Item) -> Finding | None:
        """Add the names of an item. Return a finding instead if the catalog would have too many."""
        axes = {name for name in item.axes if name not in self.catalog.axes.code} - self.axes
        labels = {name for name in item.labels if name not in self.catalog.labels.code} - self.labels
        if axes and len(self.catalog.axes.names) + len(self.axes) + len(axes) > AXES_MAX:
            return Finding("axes", message("catalog_axes_full", name=min(axes), maximum=AXES_MAX))
        if labels and len(self.catalog.labels.names) + len(self.labels) + len(labels) > LABELS_MAX:
            return Finding("labels", message("catalog_labels_full", name=min(labels), maximum=LABELS_MAX))
        self.axes |= axes
        self.labels |= labels
        return None
