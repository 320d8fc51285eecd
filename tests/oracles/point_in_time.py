"""Point-in-time features by brute force: fold the whole log for each row. The oracle of `get_historical_features`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from features.columns import FEATURES, columns
from features.point_in_time.query import EntityRows
from features.state.item_columns import ItemColumns
from features.state.viewer_fold import ViewerFold
from features.state.votes import LoggedEvent, WeightedEvent
from recsys.domain.catalog import Catalog
from recsys.domain.decay import TTL_S
from recsys.domain.types import F32
from recsys.domain.viewer import ViewerState, unexpired
from recsys.models.retriever import Retriever


def replay_features(
    events: Sequence[LoggedEvent],
    catalog: Catalog,
    entities: EntityRows,
    *,
    ttl_s: float = TTL_S,
    retriever: Retriever | None = None,
) -> F32:
    """Return [N, F] as `get_historical_features`, from events in offset order per source, each offset once."""
    rows = entities.rows(catalog)
    out = np.zeros((len(entities), len(FEATURES)), np.float32)
    weighted_events = _folded(events, ttl_s)[1]
    for n, at in enumerate(entities.at.tolist()):
        folds, _ = _folded([event for event in events if event.event.at < at], ttl_s)
        counts = ItemColumns(catalog)
        for weighted in weighted_events:
            if weighted.event.at < at:
                counts.add(weighted)
        fold = folds.get(entities.viewer_id[n])
        viewer = unexpired(fold.state() if fold is not None else None, at, ttl_s)
        row, affinity = rows[n : n + 1], np.zeros(1, np.float32)
        vector = retriever.viewer_vector(viewer) if retriever is not None and viewer is not None else None
        if retriever is not None and vector is not None and entities.item_id[n] in retriever.position_of:
            affinity[0] = retriever.vectors[retriever.position_of[entities.item_id[n]]] @ vector
        out[n] = columns(row, affinity, viewer, catalog, counts.at(at), at, entities.region[n], entities.screen[n])[0]
    return out


def _folded(events: Sequence[LoggedEvent], ttl_s: float) -> tuple[dict[str, ViewerFold], list[WeightedEvent]]:
    """Return the folds of all viewers after these events, and the counted events with their votes."""
    folds: dict[str, ViewerFold] = {}
    weighted_events = []
    for event in events:
        viewer_id = event.event.viewer_id
        fold = folds.setdefault(viewer_id, ViewerFold(ViewerState(viewer_id), ttl_s))
        if (weighted := fold.apply(event)) is not None:
            weighted_events.append(weighted)
    return folds, weighted_events
