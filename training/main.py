"""`recsys-train`: read event log and catalogue, train, evaluate, register the bundle and move the alias."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from features.embeddings.connect import with_content
from features.history.event_log import EventLog
from features.importers.catalogue import read_items
from features.settings import Settings
from recsys.domain.catalog import Catalog
from recsys.domain.decay import DAY_S
from recsys.domain.errors import MainstayError, SettingsError
from training.config import Config, ConfigError, read_config
from training.registry import Registry
from training.run import TrainingResult, run
from training.timeline import read_timeline

FLAGS = ("home", "event_log", "registry", "model", "alias", "encoder", "vectors", "viewer_ttl_days")


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0 when a version was registered, 1 when there is no way to train, 2 for a wrong command line,
    setting or training configuration, 130 when interrupted."""
    args = _parser().parse_args(argv)
    try:
        return _train(args)
    except KeyboardInterrupt:
        return 130
    except (SettingsError, ConfigError) as error:
        print(f"recsys-train: {error}", file=sys.stderr)
        return 2
    except (MainstayError, OSError) as error:
        print(f"recsys-train: {error}", file=sys.stderr)
        return 1


def _train(args: argparse.Namespace) -> int:
    began = time.monotonic()
    flags = {name: getattr(args, name) for name in FLAGS}
    settings, config, progress = Settings.read(os.environ, **flags), read_config(args.config), not args.quiet
    catalog = with_content(Catalog.of(read_items(args.catalog)), settings)
    timeline = read_timeline(
        EventLog(Path(settings.event_log_dir)), args.until, progress, settings.viewer_ttl_days * DAY_S
    )
    print(f"{len(timeline.events):,} events, {len(catalog):,} items", flush=True)
    outcome = run(timeline, catalog, config, time.time(), lambda line: print(line, flush=True), progress)
    registry = Registry(settings.registry_uri, Path(settings.home, "artifacts"))
    params = _flat(config.model_dump()) | {"events": len(timeline.events), "items": len(catalog)}
    version = registry.register(outcome.bundle, params, settings.model, settings.alias)
    print(f"\n{table(outcome, config)}\n")
    print(
        f"registered {settings.model} version {version} (bundle {outcome.bundle.version}); "
        f"{settings.alias} now points there"
    )
    print(
        json.dumps(
            summary(outcome, config)
            | {
                "events": len(timeline.events),
                "items": len(catalog),
                "model": settings.model,
                "model_version": version,
                "alias": settings.alias,
                "seconds": round(time.monotonic() - began, 1),
            }
        )
    )
    return 0


def table(outcome: TrainingResult, config: Config) -> str:
    """The models side by side, for people."""
    k, deep = config.evaluation.ndcg_at, config.evaluation.recall_at
    head = ("model", f"nDCG@{k}", f"recall@{deep}", f"coverage@{k}", f"nDCG@{k} over popularity, 95 % interval")
    lines = [head] + [
        (
            result.name,
            f"{result.ndcg.mean():.4f}",
            f"{result.recall.mean():.4f}",
            f"{result.coverage:.4f}",
            "" if result is outcome.results[0] else str(over),
        )
        for result, over in zip(outcome.results, outcome.gains, strict=True)
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    rows = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([rows[0], "-" * len(rows[0]), *rows[1:]])


def summary(outcome: TrainingResult, config: Config) -> dict[str, object]:
    """The same figures, for programs."""
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
    """Nested tables -> `table.field` names."""
    flat: dict[str, object] = {}
    for name, said in sections.items():
        flat |= _flat(said, f"{prefix}{name}.") if isinstance(said, dict) else {f"{prefix}{name}": said}
    return flat


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="recsys-train", description=__doc__)
    parser.add_argument("--catalog", required=True, help="http://HOST:PORT of a running API, or a .jsonl file of items")
    parser.add_argument("--config", default="base", help="a TOML file, or one of the package's own: base, demo")
    parser.add_argument("--until", type=float, help="unix seconds: train on the log as of then")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    for name in FLAGS:
        parser.add_argument(f"--{name.replace('_', '-')}", help=Settings.help_of(name))
    return parser


if __name__ == "__main__":
    sys.exit(main())
