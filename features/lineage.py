"""What a page knew: from which events its features were made, written into the page's impression as `as_of`.

A page reads states that lag behind the log by what the worker has not folded yet, and statistics of items that are read
every second or so while they change. So "everything before the time of the page" is not what the page knew, but nearly.
The impression says exactly what it was: the offset up to which the viewer was folded and each item of the page counted,
the moment at which the counts were weighed, and their sums over the catalogue (these are taken while shards of items
change one by one, so no offset would say which they were). From it the log gives the same features again
(`features.point_in_time.skew_audit`), to the last digits.
"""

from __future__ import annotations

import msgspec
from pydantic import JsonValue

from recsys.domain.item_statistics import ItemStats
from recsys.domain.viewer import ViewerState
from recsys.page import Page


class FeatureLineage(msgspec.Struct, frozen=True):
    """viewer       source -> last offset folded; empty for a stranger
    sources, upto   for each item of the page, the last offset of each source that was counted for it, -1 for none
    at              unix second at which counts were weighed
    total, items    sums of `features.item_counts.MEASURES` over the catalogue, and its size
    """

    viewer: dict[str, int]
    sources: list[str]
    until_offset: list[list[int]]
    at: float
    total: list[float]
    items: int

    def to_json(self) -> JsonValue:
        """As JSON."""
        said: JsonValue = msgspec.to_builtins(self)
        return said


def lineage_of(page: Page, viewer: ViewerState | None, stats: ItemStats) -> FeatureLineage:
    """What this page was made from."""
    sources = sorted(stats.offsets)
    rows = [item.row for item in page.items]
    return FeatureLineage(
        viewer=dict(viewer.offsets) if viewer is not None else {},
        sources=sources,
        until_offset=[[int(stats.offsets[source][row]) for source in sources] for row in rows],
        at=stats.at,
        total=stats.totals.tolist(),
        items=len(stats.impressions),
    )
