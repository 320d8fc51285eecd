"""`mainstay measure`: metrics of the logged pages, and training-serving skew."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from features.commands.flags import Switch, with_settings
from features.settings import Settings


@with_settings("home", "event_log", "encoder", "vectors", "viewer_ttl_days")
def measure(
    settings: Settings,
    *,
    catalog: Annotated[str, Parameter(help="http://HOST:PORT of a running API, or a file of JSON lines")],
    days: Annotated[float, Parameter(help="days of impressions, counted back from now", validator=Number(gt=0))] = 7.0,
    by: Annotated[Literal["placement", "outlet", "region"], Parameter(help="what to group pages by")] = "placement",
    skew: Annotated[
        Switch, Parameter(help="compare the features logged with served pages with those of the event log")
    ] = False,
    bundle: Annotated[
        tuple[Path, ...],
        Parameter(
            name="--bundle",
            negative="",
            show_default=False,
            help="with --skew: the bundle directory of a model that served pages, for `affinity`; once per model",
        ),
    ] = (),
) -> int:
    """Report metrics of the logged pages, or skew.

    Metrics: calibration, exposure, diversity, concentration, outcomes of controls. Prints a table and, on the last
    line, one JSON object.

    Exit codes: 0 measured or no skew, 1 nothing to measure or skew, 2 usage, 3 inconclusive: differences may stem from
    erased viewers.
    """
    from features.measurement import report

    if skew:
        return report.print_skew(settings, catalog, bundle, days)
    return report.print_metrics(settings, catalog, days, by, progress=sys.stderr.isatty())
