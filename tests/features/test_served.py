"""Goal E8 in short: what a page was made from comes out of the log again, however far the page lagged behind it."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.features.served import run


@pytest.mark.parametrize("seed", [1, 2])
def test_features_of_served_pages_are_those_that_the_log_gives(tmp_path: Path, seed: int) -> None:
    found = run(tmp_path, rows=2_000, seed=seed)
    assert found["rows"] >= 1_500
    assert found["pages_of_known_viewers"] >= 100
    assert found["largest_difference"] <= 1e-6
    assert found["constant_features"] == ["content_match"]  # no encoder here; all others are put to the test
    assert found["rows_plain_points_in_time_see_otherwise"] > 0  # there was a lag
