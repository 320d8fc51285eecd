"""Logged impressions in the form that `recsys.metrics` takes, each with its viewer's earlier actions."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator

import msgspec
import numpy as np

from features.events.schema import ViewerEvent, actions_of, is_engine_impression
from recsys.domain.catalog import Catalog
from recsys.metrics.report_card import ControlOutcome, PageView

HISTORY = 100
"""Number of a viewer's latest actions that form the history."""

POSITIVE_ACTIONS = frozenset({"play", "complete", "like"})


class ImpressionContext(msgspec.Struct):
    """The part of an impression's context that the metrics read; older engines wrote fewer fields."""

    controls: list[tuple[str, str, int, float]] = []
    engagement: float = float("nan")
    unguided: float = float("nan")
    guided: bool = True


def iter_impressions(events: Iterable[ViewerEvent], catalog: Catalog) -> Iterator[PageView]:
    """Yield a `PageView` for each guided page of the engine, in order.

    `events` are in time order and include those before the first impression of interest, since they form the
    histories. Items outside the catalog are left out.
    """
    history: dict[str, deque[int]] = defaultdict(lambda: deque(maxlen=HISTORY))
    for event in events:
        if event.kind == "impression":
            if (
                is_engine_impression(event)
                and (page := _page(event, history.get(event.viewer_id, ()), catalog)) is not None
            ):
                yield page
        elif (row := catalog.row_of.get(event.item_id or "")) is not None and POSITIVE_ACTIONS & set(actions_of(event)):
            history[event.viewer_id].append(row)


def _page(event: ViewerEvent, history: Iterable[int], catalog: Catalog) -> PageView | None:
    try:
        context = msgspec.convert(event.context, ImpressionContext)
    except msgspec.ValidationError:
        return None  # a context of another engine
    in_catalog = [n for n, item_id in enumerate(event.items) if item_id in catalog.row_of]
    if not context.guided or not in_catalog:
        return None
    attention = np.array(event.attention or [1.0] * len(event.items))
    return PageView(
        viewer_id=event.viewer_id,
        outlet=event.placement.partition("-")[0],
        placement=event.placement,
        region=event.region,
        row=catalog.rows(event.items),
        attention=attention[in_catalog],
        history=np.array(list(history), np.int32),
        outcomes=tuple(ControlOutcome(*values) for values in context.controls),
        engagement=context.engagement,
        unguided=context.unguided,
    )
