"""E7: rebuilds a wiped online store from the event log and from the stream; checks equality and measures speed.

    python -m benchmarks.features.rebuild --clicks FILE [--events N]

A worker folds clicks from an SQLite stream into an SQLite store. The store is then rebuilt from the Parquet log and,
with an empty log, from the stream. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.features import clicks
from features.events.stream.sqlite import SqliteStream
from features.history.event_log import EventLog
from features.state.online.port import OnlineStore
from features.state.online.sqlite import SqliteStore
from features.worker.rebuild import STATE_PREFIXES, from_log, from_stream, rebuild
from features.worker.worker import Worker

TOPIC, TTL_S = "clicks", 180 * 86_400.0


def main() -> None:
    """Fold, rebuild twice, compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clicks", type=Path, required=True, help="clicks.parquet of the Globo.com / G1 news portal")
    parser.add_argument("--events", type=int, default=500_000, help="number of clicks from the start")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        figures = run(Path(home), args.clicks, args.events)
    for name, figure in figures.items():
        print(f"{name.replace('_', ' '):<36} {figure!s:>14}")
    print(json.dumps(figures))


def run(home: Path, file: Path, events: int) -> dict[str, Any]:
    """Return events per second of the worker and of each rebuild, and whether the store is equal byte for byte."""
    figures: dict[str, Any] = {"events": events}
    with (
        closing(SqliteStream(f"{home}/stream.db", 4)) as stream,
        closing(SqliteStore(f"{home}/online.db", 10.0)) as online,
    ):
        for records in clicks.records(file, events):
            stream.publish(TOPIC, records)
        log = EventLog(home / "events")
        began = time.perf_counter()
        with closing(_worker(stream, online, log)) as worker:
            while worker.step(wait_s=0):
                pass
        figures["folded_by_the_worker_per_second"] = round(events / (time.perf_counter() - began))
        expected_digest, now = _digest(online), 1_507_000_000.0  # the time of these clicks
        for name, directory in (("log", "events"), ("stream", "lost")):
            log = EventLog(home / directory)
            sources = from_log(log) if name == "log" else from_stream(stream, log, TOPIC, lambda dead_letter: None)
            began = time.perf_counter()
            done = rebuild(_worker(stream, online, log), online, sources, now, TTL_S)
            figures[f"rebuilt_from_{name}_per_second"] = round(done / (time.perf_counter() - began))
            figures[f"rebuilt_from_{name}_byte_equal"] = done == events and _digest(online) == expected_digest
    return figures


def _worker(stream: SqliteStream, online: OnlineStore, log: EventLog) -> Worker:
    return Worker(stream, online, log, topic=TOPIC, group="g", viewer_ttl_s=TTL_S)


def _digest(online: OnlineStore) -> str:
    digest = hashlib.sha256()
    for prefix in STATE_PREFIXES:
        for key, raw in sorted(online.scan(prefix)):
            digest.update(key.encode() + b"\0" + raw)
    return digest.hexdigest()


if __name__ == "__main__":
    main()
