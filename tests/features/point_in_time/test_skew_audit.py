"""Goal E8 in short: what a page was made from comes out of the log again, however far the page lagged behind it."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path

import msgspec
import numpy as np
import pytest

from benchmarks.features.served import run
from features.columns import FEATURES
from features.events.decode import ViewerEvent
from features.history.event_log import EventLog
from features.item_counts import MEASURES
from features.lineage import FeatureLineage
from features.point_in_time.skew_audit import recompute_features, served_pages
from features.state.fold import LoggedEvent
from recsys.domain.catalog import Catalog, Item


@pytest.mark.parametrize("seed", [1, 2])
def test_features_of_served_pages_are_those_that_the_log_gives(tmp_path: Path, seed: int) -> None:
    found = run(tmp_path, rows=1_000, seed=seed)
    assert found["rows"] >= 750
    assert found["pages_of_known_viewers"] >= 50
    assert found["largest_difference"] <= 1e-6
    assert set(found["constant_features"]) <= {"content_match", "label_skipped", "skip_rate", "progress"}, (
        "no encoder here, and what is rare may not come up; all others are put to the test"
    )
    assert found["rows_that_differ_from_plain_point_in_time"] > 0  # there was a lag


def test_a_page_of_an_engine_with_fewer_features_is_read(tmp_path: Path) -> None:
    """And of one that knows more than this, not: what its columns say is not known here."""
    log, knew, short = (
        EventLog(tmp_path),
        FeatureLineage({}, ["t/0"], [[-1]], 9.0, [1.0] * len(MEASURES), 1),
        len(FEATURES) - 3,
    )
    for offset, width in enumerate((short, len(FEATURES), len(FEATURES) + 1)):
        context = {
            "features": b64encode(np.zeros((1, width), np.float32).tobytes()).decode(),
            "feature_shape": [1, width],
            "as_of": msgspec.to_builtins(knew),
        }
        page = ViewerEvent(
            id=f"p{offset}", kind="impression", viewer_id="v", at=10.0 + offset, items=("a",),
            placement="cn-tv-home", context=context,
        )  # fmt: skip
        log.append("t/0", offset, offset, [LoggedEvent("t/0", offset, page)])
    pages = list(served_pages(log))
    assert [page.features.shape for page in pages] == [(1, short), (1, len(FEATURES))]
    item = {"id": "a", "title": {"en": "a"}, "outlet": "cn", "published_at": "2026-01-01T00:00:00Z"}
    again = recompute_features(log, Catalog.of([Item.model_validate(item)]), pages, {})
    assert [table.shape for table in again] == [(1, len(FEATURES))] * 2
    assert np.isfinite(again).all()
    assert np.isnan(recompute_features(log, Catalog.empty(), pages, {})).all(), "of an item that has left the catalogue"
