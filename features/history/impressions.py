"""Impressions of the log as `recsys.metrics` takes them, each with what its viewer had done before."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator

import msgspec
import numpy as np

from features.events.schema import ViewerEvent, actions_of, is_engine_impression
from recsys.domain.catalog import Catalog
from recsys.metrics.report_card import ControlOutcome, PageView

HISTORY = 100
"""Actions of a viewer that count as history, the latest ones."""

WANTED = frozenset({"play", "complete", "like"})


class ImpressionContext(msgspec.Struct):
    """What the measures read of an impression's context; older engines wrote less."""

    controls: list[tuple[str, str, int, float]] = []
    engagement: float = float("nan")
    unguided: float = float("nan")
    guided: bool = True


def iter_impressions(events: Iterable[ViewerEvent], catalog: Catalog) -> Iterator[PageView]:
    """One entry for each guided page of the engine's, in order. `events` in time order, those of before the first
    impression of interest included: histories are made of them. Items that the catalogue does not know are left out."""
    history: dict[str, deque[int]] = defaultdict(lambda: deque(maxlen=HISTORY))
    for event in events:
        if event.kind == "impression":
            if (
                is_engine_impression(event)
                and (page := _page(event, history.get(event.viewer_id, ()), catalog)) is not None
            ):
                yield page
        elif (row := catalog.row_of.get(event.item_id or "")) is not None and WANTED & set(actions_of(event)):
            history[event.viewer_id].append(row)


def _page(event: ViewerEvent, history: Iterable[int], catalog: Catalog) -> PageView | None:
    try:
        context = msgspec.convert(event.context, ImpressionContext)
    except msgspec.ValidationError:
        return None  # a context of another engine
    known = [n for n, item_id in enumerate(event.items) if item_id in catalog.row_of]
    if not context.guided or not known:
        return None
    attention = np.array(event.attention or [1.0] * len(event.items))
    return PageView(
        viewer_id=event.viewer_id,
        outlet=event.placement.partition("-")[0],
        placement=event.placement,
        region=event.region,
        row=catalog.rows(event.items),
        attention=attention[known],
        history=np.array(list(history), np.int32),
        outcomes=tuple(ControlOutcome(*said) for said in context.controls),
        engagement=context.engagement,
        unguided=context.unguided,
    )
