"""Goal E8 in short: the log reproduces the features of a page, however far the page lagged behind it."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path

import msgspec
import numpy as np
import pytest

from benchmarks.features.served import run
from features.columns import FEATURES
from features.events.schema import ViewerEvent
from features.history.event_log import EventLog
from features.item_counts import MEASURES
from features.lineage import FeatureLineage
from features.point_in_time.skew_audit import recompute_features, served_pages
from features.state.votes import LoggedEvent
from recsys.domain.catalog import Catalog
from recsys.domain.item import Item


@pytest.mark.parametrize("seed", [1, 2])
def test_recomputed_features_equal_served_features(tmp_path: Path, seed: int) -> None:
    summary = run(tmp_path, rows=1_000, seed=seed)
    assert summary["rows"] >= 750
    assert summary["pages_of_known_viewers"] >= 50
    assert summary["largest_difference"] <= 1e-6
    assert set(summary["constant_features"]) <= {"content_match", "label_skipped", "skip_rate", "progress"}, (
        "no encoder here, and rare features may be constant; all others must vary"
    )
    assert summary["rows_that_differ_from_plain_point_in_time"] > 0  # there was a lag


def test_pages_with_fewer_features_are_audited_and_with_more_are_skipped(tmp_path: Path) -> None:
    """A page with more features comes from a newer engine, whose columns are unknown here."""
    log, lineage, n_older = (
        EventLog(tmp_path),
        FeatureLineage({}, ["t/0"], [[-1]], 9.0, [1.0] * len(MEASURES), 1),
        len(FEATURES) - 3,
    )
    for offset, width in enumerate((n_older, len(FEATURES), len(FEATURES) + 1)):
        context = {
            "features": b64encode(np.zeros((1, width), np.float32).tobytes()).decode(),
            "feature_shape": [1, width],
            "as_of": msgspec.to_builtins(lineage),
        }
        page = ViewerEvent(
            id=f"p{offset}", kind="impression", viewer_id="v", at=10.0 + offset, items=("a",),
            placement="cn-tv-home", context=context,
        )  # fmt: skip
        log.append("t/0", offset, offset, [LoggedEvent("t/0", offset, page)])
    pages = list(served_pages(log))
    assert [page.features.shape for page in pages] == [(1, n_older), (1, len(FEATURES))]
    item = {"id": "a", "title": {"en": "a"}, "outlet": "cn", "published_at": "2026-01-01T00:00:00Z"}
    recomputed = recompute_features(log, Catalog.of([Item.model_validate(item)]), pages, {})
    assert [table.shape for table in recomputed] == [(1, len(FEATURES))] * 2
    assert np.isfinite(recomputed).all()
    assert np.isnan(recompute_features(log, Catalog.empty(), pages, {})).all(), "items outside the catalog have NaN"
