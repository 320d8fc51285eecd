"""Feature lineage: records which events a page's features were computed from, in the page's impression (`as_of`).

A page reads states that lag behind the log, and item statistics that are refreshed about once a second. "All events
before the page" is therefore only an approximation of its input. The lineage records the exact input: the offsets up to
which the viewer and each item of the page were folded, the time at which the counts were decayed, and the sums over the
catalog. The sums are stored as values, because shards of items change independently and no offset identifies them.
From the lineage, `features.point_in_time.skew_audit` recomputes the same features to the last digit.
"""

from __future__ import annotations

import msgspec
from pydantic import JsonValue

from recsys.domain.item_statistics import ItemStats
from recsys.domain.viewer import ViewerState
from recsys.page import Page


class FeatureLineage(msgspec.Struct, frozen=True):
    """The exact input of a page's features.

    viewer        source -> last offset folded into the viewer's state; empty for a new viewer
    sources       names of the sources, in the order of `until_offset[i]`
    until_offset  for each item of the page, the last offset of each source that was counted; -1 for none
    at            unix second to which the counts were decayed
    total, items  sums of `features.item_counts.MEASURES` over the catalog, and its size
    """

    viewer: dict[str, int]
    sources: list[str]
    until_offset: list[list[int]]
    at: float
    total: list[float]
    items: int

    def to_json(self) -> JsonValue:
        """Return the lineage as a JSON value."""
        value: JsonValue = msgspec.to_builtins(self)
        return value


def lineage_of(page: Page, viewer: ViewerState | None, stats: ItemStats) -> FeatureLineage:
    """Return the lineage of a page's features."""
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
