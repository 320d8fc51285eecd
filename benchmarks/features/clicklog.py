"""Clicks of a news portal as an event log and a catalog, for benchmarks that read the log (data: see `clicks`)."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from features.history import files
from features.history.arrow_schema import with_all_columns
from features.history.event_log import EventLog
from recsys.domain.catalog import Catalog
from recsys.domain.item import Item

PARTITIONS = 4
TOPIC = "clicks"
_CLICKS = f"""
    SELECT *, row_number() OVER (PARTITION BY source ORDER BY "at", id) - 1 AS "offset" FROM (
      SELECT click_timestamp / 1000.0 AS "at", '{TOPIC}/' || (user_id % {PARTITIONS}) AS source,
        'e' || row_number() OVER (ORDER BY click_timestamp, user_id, click_article_id) AS id, 'click' AS kind,
        'u' || user_id AS viewer_id, session_id::VARCHAR AS session_id, 'a' || click_article_id AS item_id,
        CASE click_deviceGroup WHEN 3 THEN 'mobile' WHEN 4 THEN 'tablet' WHEN 5 THEN 'tv' ELSE 'web' END AS screen,
        'c' || click_country || '.r' || click_region AS region, 'g1-' || screen || '-home' AS placement,
        '' AS device_id, '' AS request_id, '' AS context
      FROM read_parquet($file) ORDER BY click_timestamp LIMIT $max_clicks
    )
"""


def write_log(file: Path, home: Path, max_clicks: int) -> EventLog:
    """Write the first `max_clicks` clicks by time as a compacted event log of four partitions, one file a day."""
    with duckdb.connect() as database:
        database.sql(_CLICKS, params={"file": str(file), "max_clicks": max_clicks}).create("clicks")
        for (day,) in database.sql('SELECT DISTINCT floor("at" / 86400)::BIGINT FROM clicks ORDER BY 1').fetchall():
            rows = database.sql(
                'SELECT * FROM clicks WHERE floor("at" / 86400)::BIGINT = $day ORDER BY "at", source, "offset"',
                params={"day": day},
            ).to_arrow_table()
            date = files.day_of(day * 86_400.0)
            name = f"{files.COMPACTED_PREFIX}clicks{files.UNTIL}{date}.parquet"
            table = with_all_columns(rows)
            files.write(
                files.folder_of(home, date) / name,
                lambda out, table=table: pq.write_table(table, out, compression="zstd"),  # type: ignore[misc]
            )
    return EventLog(home)


def build_catalog(log: EventLog) -> Catalog:
    """Return a catalog with an item for each article of the log.

    The data has no article metadata: labels derive from article numbers, and the publication time is the first click.
    """
    articles = log.query('SELECT item_id, min("at") AS first_click FROM log GROUP BY item_id ORDER BY item_id', {})
    return Catalog.of(
        Item(
            id=item_id,
            title={"pt": item_id},
            outlet="g1",
            labels=(f"topic/{int(item_id[1:]) % 40}",),
            published_at=datetime.fromtimestamp(first_click, UTC),
        )
        for item_id, first_click in zip(
            articles["item_id"].to_pylist(), articles["first_click"].to_pylist(), strict=True
        )
    )
