"""Measures point-in-time features for many (viewer, item, time) rows, against a bare ASOF join of the same rows.

    python -m benchmarks.features.points --clicks FILE [--rows N] [--events N] [--check K]

Rows are taken just before clicks, half of them with the clicked item, half with a random item. The bare join is the
time of DuckDB alone for a single value: the number of earlier clicks on the item. `--check` rows are compared with a
brute-force replay of the whole log. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from benchmarks.features.clicklog import build_catalog, write_log
from features.columns import AT, FEATURES, columns
from features.history.event_log import EventLog
from features.point_in_time.query import EntityRows, get_historical_features
from features.state.item_columns import ItemColumns
from features.state.viewer_fold import ViewerFold
from features.state.votes import LoggedEvent
from recsys.domain.catalog import Catalog
from recsys.domain.types import F32
from recsys.domain.viewer import ViewerState


def main() -> None:
    """Prepare the log, measure, check and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clicks", type=Path, required=True, help="clicks.parquet of the Globo.com / G1 news portal")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--events", type=int, default=10**9, help="number of clicks from the start; default: all")
    parser.add_argument("--check", type=int, default=200, help="rows to compare with a brute-force replay")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        figures = measure(write_log(args.clicks, Path(home), args.events), args.rows, args.check)
    for name, figure in figures.items():
        print(f"{name.replace('_', ' '):<34} {figure:>14,.6g}")
    print(json.dumps(figures))


def measure(log: EventLog, rows: int, check: int) -> dict[str, Any]:
    """Return the times, and the largest difference of the checked rows."""
    catalog = build_catalog(log)
    entities = draw_entity_rows(log, catalog, rows)
    began, cpu = time.perf_counter(), time.process_time()
    features = get_historical_features(log, catalog, entities)
    took_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    began = time.perf_counter()
    bare = _bare_join(log, entities)
    bare_s = time.perf_counter() - began
    checked = np.sort(np.random.default_rng(7).choice(len(entities), min(check, len(entities)), replace=False))
    began = time.perf_counter()
    expected = replay_features(log, catalog, entities, checked)
    return {
        "events": int(log.query("SELECT count(*) AS n FROM log", {})["n"][0].as_py()),
        "viewers": len(set(entities.viewer_id)),
        "rows": len(entities),
        "features": len(FEATURES),
        "seconds": round(took_s, 2),
        "cpu_seconds": round(cpu_s, 2),
        "rows_per_second": round(len(entities) / took_s),
        "bare_asof_join_seconds": round(bare_s, 2),
        "times_the_bare_join": round(took_s / bare_s, 1),
        "peak_memory_mb": peak_mb,
        "rows_checked_by_brute_force": len(checked),
        "brute_force_seconds": round(time.perf_counter() - began, 1),
        "largest_difference": float(np.abs(features[checked] - expected).max(initial=0.0)),
        "rows_clicked_before": int((bare > 0).sum()),
        "rows_with_popularity": int((features[:, AT["log_popularity"]] > 0).sum()),
    }


def draw_entity_rows(log: EventLog, catalog: Catalog, rows: int) -> EntityRows:
    """Draw rows at random clicks of the whole log, with a fixed seed."""
    query = f"""
        SELECT viewer_id, item_id, "at", region, screen FROM log USING SAMPLE reservoir({rows} ROWS) REPEATABLE (11)
    """
    drawn = log.query(query, {})
    rng = np.random.default_rng(11)
    items = drawn["item_id"].to_pylist()
    items[::2] = [catalog.ids[n] for n in rng.integers(0, len(catalog), len(items[::2]))]
    return EntityRows(
        drawn["viewer_id"].to_pylist(),
        items,
        drawn["at"].to_numpy(),
        drawn["region"].to_pylist(),
        drawn["screen"].to_pylist(),
    )


def _bare_join(log: EventLog, entities: EntityRows) -> np.ndarray[Any, Any]:
    """Return [N] the clicks on the item strictly before the time of each row, by DuckDB alone."""
    with duckdb.connect() as database:
        database.register("entities", _table(entities))
        result = database.sql(
            """
            WITH click_counts AS (
              SELECT item_id, "at", row_number() OVER (PARTITION BY item_id ORDER BY "at") AS clicks
              FROM read_parquet($files))
            SELECT coalesce(c.clicks, 0) AS clicks FROM entities AS e ASOF LEFT JOIN click_counts AS c
            ON e.item_id = c.item_id AND e."at" > c."at" ORDER BY e.n
            """,
            params={"files": log.files()},
        )
        return np.asarray(result.to_arrow_table()["clicks"].to_numpy())


def _table(entities: EntityRows) -> Any:
    import pyarrow as pa  # type: ignore[import-untyped]

    return pa.table({"n": np.arange(len(entities)), "item_id": list(entities.item_id), "at": entities.at})


def replay_features(log: EventLog, catalog: Catalog, entities: EntityRows, checked: np.ndarray[Any, Any]) -> F32:
    """Return [N, F] features of the checked rows by a replay of all events in time order."""
    out = np.zeros((len(checked), len(FEATURES)), np.float32)
    rows, order = entities.rows(catalog), np.argsort(entities.at[checked], kind="stable")
    folds: dict[str, ViewerFold] = {}
    counts = ItemColumns(catalog)
    events = iter(log.replay())
    event: LoggedEvent | None = next(events, None)
    for index in order.tolist():
        n = int(checked[index])
        at = float(entities.at[n])
        while event is not None and event.event.at < at:
            fold = folds.setdefault(event.event.viewer_id, ViewerFold(ViewerState(event.event.viewer_id), float("inf")))
            if (weighted := fold.apply(event)) is not None:
                counts.add(weighted)
            event = next(events, None)
        viewer_fold = folds.get(entities.viewer_id[n])
        viewer = viewer_fold.state() if viewer_fold is not None else None
        out[index] = columns(rows[n : n + 1], np.zeros(1, np.float32), viewer, catalog, counts.at(at), at,
                             entities.region[n], entities.screen[n])[0]  # fmt: skip
    return out


if __name__ == "__main__":
    main()
