"""The training job: read event log and catalog, train, evaluate, register the bundle and move the alias."""

from __future__ import annotations

import json
import time
from pathlib import Path

from features.embeddings.connect import with_content
from features.history.event_log import EventLog
from features.history.foreign_files import check_event_log
from features.importers.catalog import read_items
from features.settings import Settings
from recsys.domain.catalog import Catalog
from recsys.domain.decay import DAY_S
from training.config import Config, read_config
from training.registry import Registry
from training.run import TrainingResult, run
from training.timeline import read_timeline


def run_job(settings: Settings, catalog: str, config_name: str, until: float | None, progress: bool) -> int:
    """Train on the event log and register the result; print its figures, the last line as one JSON object.

    catalog      http://HOST:PORT of a running API, or a .jsonl file of items
    config_name  a TOML file, or the name of a configuration of the package
    until        unix seconds: train on the log as of this time; None for now
    Raises ConfigError, InvalidInput when there is too little to train on, Unavailable, OSError.
    """
    start = time.monotonic()
    config = read_config(config_name)
    items = with_content(Catalog.of(read_items(catalog)), settings)
    check_event_log(settings.event_log_dir)
    timeline = read_timeline(EventLog(Path(settings.event_log_dir)), until, progress, settings.viewer_ttl_days * DAY_S)
    print(f"{len(timeline.events):,} events, {len(items):,} items", flush=True)
    outcome = run(timeline, items, config, time.time(), lambda line: print(line, flush=True), progress)
    registry = Registry(settings.registry_uri, Path(settings.home, "artifacts"))
    params = _flat(config.model_dump()) | {"events": len(timeline.events), "items": len(items)}
    version = registry.register(outcome.bundle, params, settings.model, settings.alias)
    print(f"\n{table(outcome, config)}\n")
    print(
        f"registered {settings.model} version {version} (bundle {outcome.bundle.version}); "
        f"{settings.alias} now points to it"
    )
    figures = summary(outcome, config) | {
        "events": len(timeline.events),
        "items": len(items),
        "model": settings.model,
        "model_version": version,
        "alias": settings.alias,
        "seconds": round(time.monotonic() - start, 1),
    }
    print(json.dumps(figures))
    return 0


def table(outcome: TrainingResult, config: Config) -> str:
    """Return a table of the models, one line each."""
    k, deep = config.evaluation.ndcg_at, config.evaluation.recall_at
    head = ("model", f"nDCG@{k}", f"recall@{deep}", f"coverage@{k}", f"nDCG@{k} over popularity, 95 % interval")
    lines = [head] + [
        (
            result.name,
            f"{result.ndcg.mean():.4f}",
            f"{result.recall.mean():.4f}",
            f"{result.coverage:.4f}",
            "" if result is outcome.results[0] else str(gain),
        )
        for result, gain in zip(outcome.results, outcome.gains, strict=True)
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    rows = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([rows[0], "-" * len(rows[0]), *rows[1:]])


def summary(outcome: TrainingResult, config: Config) -> dict[str, object]:
    """Return the figures of the table and the metrics of the bundle, ready for JSON."""
    k, deep = config.evaluation.ndcg_at, config.evaluation.recall_at
    models = {
        result.name: {f"ndcg_at_{k}": float(result.ndcg.mean()), f"recall_at_{deep}": float(result.recall.mean())}
        for result in outcome.results
    }
    return {
        "models": models,
        "metrics": dict(outcome.bundle.metrics),
        "test_viewers": outcome.viewers,
        "bundle": outcome.bundle.version,
    }


def _flat(sections: dict[str, object], prefix: str = "") -> dict[str, object]:
    """Return nested tables as one, with names such as `table.field`."""
    flat: dict[str, object] = {}
    for name, value in sections.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
