"""`recsys-measure`: the measures of an event log as a table for people and, on the last line, one JSON object.

`recsys-measure --skew` compares the features logged when pages were served with those that the log gives, instead.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from features.embeddings.connect import with_content
from features.history.event_log import EventLog
from features.history.impressions import iter_impressions
from features.importers.catalogue import read_items
from features.measurement.skew import TOLERANCE, SkewReport, audit_skew
from features.settings import Settings
from recsys.domain.catalog import Catalog
from recsys.domain.errors import MainstayError
from recsys.metrics.report_card import PageView, control_metrics, report_table
from recsys.models.bundle import MANIFEST, TENSORS, unpack
from recsys.models.retriever import Retriever, load_retriever

DAY_S = 86_400.0
EXIT_INCONCLUSIVE = 3
FLAGS = ("home", "event_log", "encoder", "vectors", "viewer_ttl_days")
LOOK_BACK_S = 30 * DAY_S
GROUPS: Mapping[str, Callable[[PageView], str]] = {
    "placement": lambda page: page.placement,
    "outlet": lambda page: page.outlet,
    "region": lambda page: page.region,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Return 0 when there was something to measure, 1 with the reason on stderr otherwise.

    With `--skew`: 0 without skew, 1 with it, 3 when differences may come from viewers who were erased.
    """
    parser = argparse.ArgumentParser(prog="recsys-measure", description="Measures of the pages that a log remembers.")
    for name in FLAGS:
        parser.add_argument(f"--{name.replace('_', '-')}", help=Settings.help_of(name))
    parser.add_argument("--catalog", required=True, help="http://HOST:PORT of a running API, or a file of JSON lines")
    parser.add_argument(
        "--days", type=float, default=7.0, help="impressions of so many days, counted from now (default 7)"
    )
    parser.add_argument("--by", choices=GROUPS, default="placement", help="one row for each")
    parser.add_argument(
        "--skew", action="store_true", help="compare the features logged when pages were served with those of the log"
    )
    parser.add_argument(
        "--bundle",
        action="append",
        default=[],
        metavar="DIR",
        help="with --skew: the bundle of a model that served pages, for `affinity`; once for each model",
    )
    asked = parser.parse_args(argv)
    settings = Settings.read(os.environ, **{name: getattr(asked, name) for name in FLAGS})
    try:
        if asked.skew:
            catalog = with_content(Catalog.of(read_items(asked.catalog)), settings)
            since, log = time.time() - asked.days * DAY_S, EventLog(settings.event_log_dir)
            ttl_s = settings.viewer_ttl_days * DAY_S
            return _print_skew(audit_skew(log, catalog, _retrievers(asked.bundle), since=since, ttl_s=ttl_s))
        told = measure(EventLog(settings.event_log_dir), asked.catalog, asked.days, GROUPS[asked.by], time.time())
    except (MainstayError, OSError) as error:
        print(f"recsys-measure: {error}", file=sys.stderr)
        return 1
    _print_report(told)
    return 0


def measure(log: EventLog, catalog: str, days: float, by: Callable[[PageView], str], now: float) -> dict[str, object]:
    """`groups`: columns, one entry per group; `controls`: control -> figures. Raises Unavailable, ItemError."""
    items = Catalog.of(read_items(catalog))
    since = now - days * DAY_S
    events = (placed.event for placed in log.replay(since=since - LOOK_BACK_S))  # earlier ones make the histories
    pages = list(iter_impressions((e for e in events if e.kind != "impression" or e.at >= since), items))
    return {"groups": report_table(pages, items, by), "controls": control_metrics(pages)}


def _retrievers(directories: Sequence[str]) -> dict[str, Retriever]:
    """Retrievers of these bundles by model version. Raises BundleError, OSError."""
    found = {}
    for directory in directories:
        bundle = unpack({name: Path(directory, name).read_bytes() for name in (MANIFEST, TENSORS)})
        found[bundle.version] = load_retriever(bundle)
    return found


def _print_skew(report: SkewReport) -> int:
    """Print a line for each feature and the report as JSON; return the exit code."""
    print(f"{'feature':<24} {'compared':>10} {'differing':>10} {'largest':>10} {'lagging':>10}")
    for column in report.columns:
        print(f"{column.feature:<24} {column.compared:>10,} {column.differing:>10,} {column.largest:>10.2g} "
              f"{column.lagging:>10,}")  # fmt: skip
    print(f"\n{report.rows:,} items on {report.pages:,} pages: {report.differing:,} values differ by more than "
          f"{TOLERANCE:g} from what the log gives at the offsets that the pages record (skew)")  # fmt: skip
    print("lagging: values that differ from what all events before the page give, since the worker had not folded them")
    if report.unknown:
        print(f"not compared: {report.unknown:,} items that are no longer in the catalogue")
    if report.unmodelled:
        print(f"affinity not compared: {report.unmodelled:,} pages of models without --bundle")
    if report.differing and report.erased:
        print(
            f"inconclusive: {report.erased:,} viewers were erased since the oldest page, and their events are missing"
        )
    print(json.dumps(asdict(report)))
    if report.differing:
        return EXIT_INCONCLUSIVE if report.erased else 1
    return 0


def _print_report(told: dict[str, object]) -> None:
    groups, controls = told["groups"], told["controls"]
    assert isinstance(groups, dict)
    assert isinstance(controls, dict)
    for n, name in enumerate(groups["group"]):
        print(f"\n{name}")
        for column, figures in groups.items():
            if column != "group":
                print(f"  {column:<26} {_figure(figures[n]):>10}")
    for name, figures in controls.items():
        print(f"\n{name}: " + ", ".join(f"{what} {_figure(figure)}" for what, figure in figures.items()))
    if any(not math.isfinite(one) for column, some in groups.items() if column != "group" for one in some):
        print("\n-: nothing to measure it by (too few pages, viewers, or items that say it)")
    print(json.dumps(_finite(told)))


def _figure(figure: float) -> str:
    return f"{figure:.4f}" if math.isfinite(figure) else "-"


def _finite(said: object) -> object:
    """JSON knows no NaN: what could not be measured is null."""
    if isinstance(said, dict):
        return {name: _finite(entry) for name, entry in said.items()}
    if isinstance(said, list):
        return [_finite(entry) for entry in said]
    return None if isinstance(said, float) and not math.isfinite(said) else said


if __name__ == "__main__":
    sys.exit(main())
