"""`mainstay train`: train a model on the event log and put it into service."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter

from features.commands.flags import Switch, with_settings
from features.settings import Settings


@with_settings("home", "event_log", "registry", "model", "alias", "encoder", "vectors", "viewer_ttl_days")
def train(
    settings: Settings,
    *,
    catalog: Annotated[str, Parameter(help="http://HOST:PORT of a running API, or a .jsonl file of items")],
    training_config: Annotated[str, Parameter(help="a TOML file, or one of the package: base, demo")] = "base",
    until: Annotated[float | None, Parameter(help="unix seconds: train on the event log as of this time")] = None,
    quiet: Annotated[Switch, Parameter(help="show no progress bars")] = False,
) -> int:
    """Train a model and put it into service.

    Reads the event log and the catalog, trains, evaluates, registers the model and moves the alias to it. Prints a
    table and, on the last line, one JSON object.

    Exit codes: 0 registered, 1 too little data, or the catalog or the registry is unavailable, 2 wrong command line,
    settings or training configuration, 130 interrupted.
    """
    from training.job import run_job

    return run_job(settings, catalog, training_config, until, not quiet and sys.stderr.isatty())
