"""Clicks of a news portal as encoded viewer events.

Reads the Parquet form of the Globo.com / G1 clicks (columns user_id, session_id, click_article_id, click_timestamp in
milliseconds, click_deviceGroup, click_country, click_region). The data is for academic use and not part of this
project.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from features.events.decode import decode, encode
from features.events.schema import SCHEMA, SOURCE, TYPE_PREFIX
from features.events.stream.port import Record

_SCREENS = {1: "web", 3: "mobile", 4: "tablet", 5: "tv"}
_COLUMNS = ["user_id", "session_id", "click_article_id", "click_timestamp", "click_deviceGroup", "click_country",
            "click_region"]  # fmt: skip


def records(file: Path, count: int | None) -> Iterator[list[Record]]:
    """Yield the first `count` clicks in order, in lists of up to 5,000 records, encoded as the engine does."""
    number = 0
    for batch in pq.ParquetFile(file).iter_batches(5000, columns=_COLUMNS):
        rows = list(zip(*(batch.column(name).to_pylist() for name in _COLUMNS), strict=True))
        if count is not None:
            rows = rows[: count - number]
        if not rows:
            return
        yield [_record(number + n, row) for n, row in enumerate(rows)]
        number += len(rows)


def _record(number: int, row: tuple[int, ...]) -> Record:
    viewer, session, article, at_ms, device, country, region = row
    screen = _SCREENS.get(device, "web")
    received = datetime.fromtimestamp(at_ms / 1000, UTC).isoformat().replace("+00:00", "Z")
    data = {"session_id": str(session), "screen": screen, "region": f"c{country}.r{region}"}
    data |= {"placement": f"g1-{screen}-home", "item_id": f"a{article}"}
    envelope = {
        "specversion": "1.0",
        "id": f"{number:x}",
        "source": SOURCE,
        "type": TYPE_PREFIX + "click",
        "subject": f"u{viewer}",
        "receivedat": received,
        "dataschema": SCHEMA,
        "datacontenttype": "application/json",
        "data": data,
    }
    value = msgspec.json.encode(envelope)
    if number % 100_000 == 0:
        assert encode(decode(value)) == value, "the encoding differs from the engine's"
    return Record(f"u{viewer}", value)
