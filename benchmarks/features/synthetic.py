"""Clicks made up by a seed, in the form of the Globo.com / G1 clicks: for whoever does not have those (see `clicks`).

Few articles are clicked by many and most by few, each is of interest for a day or so, most viewers come once and some
come all the time: what the speed of a fold depends on. They say nothing of what people like.
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
    """A Parquet file of `count` clicks in the order of time; its path."""
    chance = np.random.default_rng(seed)
    viewers, articles = max(count // 9, 1), max(count // 65, 1)
    at = np.sort(chance.integers(BEGIN_MS, BEGIN_MS + SPAN_MS, count))
    viewer = (viewers * chance.random(count) ** 1.7).astype(np.int64)
    age_ms = chance.exponential(HALF_DAY_MS, count)
    newest = (articles * np.clip((at - age_ms - BEGIN_MS) / SPAN_MS, 0, 1)).astype(np.int64)
    article = np.minimum(newest // 40 * 40 + (40 * chance.random(count) ** 3).astype(np.int64), articles - 1)
    region_of, device_of = chance.integers(1, REGIONS, viewers), chance.choice([1, 1, 3, 3, 4, 5], viewers)
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
