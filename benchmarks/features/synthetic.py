"""Synthetic clicks in the format of the Globo.com / G1 clicks, for use without that data set (see `clicks`).

Popularity of articles and activity of viewers are skewed, and articles are popular for about a day, as the speed of a
fold depends on this. Preferences are not modelled.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

BEGIN_MS = 1_506_816_000_000  # 1 October 2017
SPAN_MS = 16 * 86_400_000
HALF_DAY_MS = 43_200_000
REGIONS = 28


def write_clicks(file: Path, count: int, seed: int) -> Path:
    """Write `count` clicks in time order to a Parquet file; returns its path."""
    rng = np.random.default_rng(seed)
    viewers, articles = max(count // 9, 1), max(count // 65, 1)
    at = np.sort(rng.integers(BEGIN_MS, BEGIN_MS + SPAN_MS, count))
    viewer = (viewers * rng.random(count) ** 1.7).astype(np.int64)
    age_ms = rng.exponential(HALF_DAY_MS, count)
    newest = (articles * np.clip((at - age_ms - BEGIN_MS) / SPAN_MS, 0, 1)).astype(np.int64)
    article = np.minimum(newest // 40 * 40 + (40 * rng.random(count) ** 3).astype(np.int64), articles - 1)
    region_of, device_of = rng.integers(1, REGIONS, viewers), rng.choice([1, 1, 3, 3, 4, 5], viewers)
    columns = {
        "user_id": viewer,
        "session_id": at // 1_800_000 * viewers + viewer,
        "click_article_id": article,
        "click_timestamp": at,
        "click_deviceGroup": device_of[viewer],
        "click_country": np.ones(count, np.int64),
        "click_region": region_of[viewer],
    }
    pq.write_table(pa.table(columns), file)
    return file
