"""How long point-in-time features take for many (viewer, item, time), beside a bare ASOF join of the same rows.

    python -m benchmarks.features.points --clicks FILE [--rows N] [--events N] [--check K]

Questions are asked at moments just before real clicks, half of them of the item that was clicked, half of another one.
The bare join is what DuckDB alone needs for one number a row: how often the item had been clicked before. As many rows
as `--check` says are compared with a brute-force replay of the whole log. The last line is one JSON object.
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
from features.state.fold import LoggedEvent, ViewerFold
from features.state.item_columns import ItemColumns
from recsys.domain.catalog import Catalog
from recsys.domain.types import F32
from recsys.domain.viewer import ViewerState


def main() -> None:
    """Prepares the log, measures, checks, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clicks", type=Path, required=True, help="clicks.parquet of the Globo.com / G1 news portal")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--events", type=int, default=10**9, help="the first so many clicks; all when left out")
    parser.add_argument("--check", type=int, default=200, help="rows that are replayed by brute force")
    said = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        figures = measure(write_log(said.clicks, Path(home), said.events), said.rows, said.check)
    for name, figure in figures.items():
        print(f"{name.replace('_', ' '):<34} {figure:>14,.6g}")
    print(json.dumps(figures))


def measure(log: EventLog, rows: int, check: int) -> dict[str, Any]:
    """Seconds of each, and how far the checked rows are off at most."""
    catalog = build_catalog(log)
    asked = draw_entity_rows(log, catalog, rows)
    began, cpu = time.perf_counter(), time.process_time()
    found = get_historical_features(log, catalog, asked)
    took_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    began = time.perf_counter()
    bare = _bare_join(log, asked)
    bare_s = time.perf_counter() - began
    chosen = np.sort(np.random.default_rng(7).choice(len(asked), min(check, len(asked)), replace=False))
    began = time.perf_counter()
    expected = replay_features(log, catalog, asked, chosen)
    return {
        "events": int(log.query("SELECT count(*) AS n FROM log", {})["n"][0].as_py()),
        "viewers_asked": len(set(asked.viewer_id)),
        "rows": len(asked),
        "features": len(FEATURES),
        "seconds": round(took_s, 2),
        "cpu_seconds": round(cpu_s, 2),
        "rows_per_second": round(len(asked) / took_s),
        "bare_asof_join_seconds": round(bare_s, 2),
        "times_the_bare_join": round(took_s / bare_s, 1),
        "peak_memory_mb": peak_mb,
        "rows_checked_by_brute_force": len(chosen),
        "brute_force_seconds": round(time.perf_counter() - began, 1),
        "largest_difference": float(np.abs(found[chosen] - expected).max(initial=0.0)),
        "rows_clicked_before": int((bare > 0).sum()),
        "rows_with_popularity": int((found[:, AT["log_popularity"]] > 0).sum()),
    }


def draw_entity_rows(log: EventLog, catalog: Catalog, rows: int) -> EntityRows:
    """At clicks drawn from the whole log, by a seed."""
    query = f"""
        SELECT viewer_id, item_id, "at", region, screen FROM log USING SAMPLE reservoir({rows} ROWS) REPEATABLE (11)
    """
    drawn = log.query(query, {})
    chance = np.random.default_rng(11)
    items = drawn["item_id"].to_pylist()
    items[::2] = [catalog.ids[n] for n in chance.integers(0, len(catalog), len(items[::2]))]
    return EntityRows(
        drawn["viewer_id"].to_pylist(),
        items,
        drawn["at"].to_numpy(),
        drawn["region"].to_pylist(),
        drawn["screen"].to_pylist(),
    )


def _bare_join(log: EventLog, asked: EntityRows) -> np.ndarray[Any, Any]:
    """DuckDB alone: clicks of the item strictly before the time asked, for each row."""
    with duckdb.connect() as database:
        database.register("asked", _table(asked))
        found = database.sql(
            """
            WITH counted AS (
              SELECT item_id, "at", row_number() OVER (PARTITION BY item_id ORDER BY "at") AS clicks
              FROM read_parquet($files))
            SELECT coalesce(counted.clicks, 0) AS clicks FROM asked ASOF LEFT JOIN counted
            ON asked.item_id = counted.item_id AND asked."at" > counted."at" ORDER BY asked.n
            """,
            params={"files": log.files()},
        )
        return np.asarray(found.to_arrow_table()["clicks"].to_numpy())


def _table(asked: EntityRows) -> Any:
    import pyarrow as pa  # type: ignore[import-untyped]

    return pa.table({"n": np.arange(len(asked)), "item_id": list(asked.item_id), "at": asked.at})


def replay_features(log: EventLog, catalog: Catalog, asked: EntityRows, chosen: np.ndarray[Any, Any]) -> F32:
    """The features of some rows by a replay of all events in the order of time, every viewer folded."""
    out = np.zeros((len(chosen), len(FEATURES)), np.float32)
    rows, order = asked.rows(catalog), np.argsort(asked.at[chosen], kind="stable")
    folds: dict[str, ViewerFold] = {}
    counts = ItemColumns(catalog)
    events = iter(log.replay())
    one: LoggedEvent | None = next(events, None)
    for place in order.tolist():
        n = int(chosen[place])
        at = float(asked.at[n])
        while one is not None and one.event.at < at:
            fold = folds.setdefault(one.event.viewer_id, ViewerFold(ViewerState(one.event.viewer_id), float("inf")))
            if (counted := fold.apply(one)) is not None:
                counts.add(counted)
            one = next(events, None)
        mine = folds.get(asked.viewer_id[n])
        viewer = mine.state() if mine is not None else None
        out[place] = columns(rows[n : n + 1], np.zeros(1, np.float32), viewer, catalog, counts.at(at), at,
                             asked.region[n], asked.screen[n])[0]  # fmt: skip
    return out


if __name__ == "__main__":
    main()
