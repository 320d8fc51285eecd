"""Reports over the event log: metrics of pages, and training-serving skew."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from features.embeddings.connect import with_content
from features.history.event_log import EventLog
from features.history.foreign_files import check_event_log
from features.history.impressions import iter_impressions
from features.importers.catalog import read_items
from features.measurement.skew import TOLERANCE, SkewReport, audit_skew
from features.settings import Settings
from recsys.domain.catalog import Catalog
from recsys.domain.decay import DAY_S
from recsys.domain.errors import BundleError
from recsys.metrics.report_card import PageView, control_metrics, report_table
from recsys.models.bundle import FILES, unpack
from recsys.models.retriever import Retriever, load_retriever

EXIT_INCONCLUSIVE = 3
LOOK_BACK_S = 30 * DAY_S
"""Seconds of events before the oldest measured impression that viewers' histories are made of."""

GROUPS: Mapping[str, Callable[[PageView], str]] = {
    "placement": lambda page: page.placement,
    "outlet": lambda page: page.outlet,
    "region": lambda page: page.region,
}


def print_metrics(settings: Settings, catalog: str, days: float, by: str, progress: bool = False) -> int:
    """Print the metrics of the pages of the last `days` days, and one JSON object on the last line.

    Raises Unavailable, ItemError, OSError.
    """
    check_event_log(settings.event_log_dir)
    _print_report(measure(EventLog(settings.event_log_dir), catalog, days, GROUPS[by], time.time(), progress))
    return 0


def print_skew(settings: Settings, catalog: str, bundles: Sequence[Path], days: float) -> int:
    """Print how far logged features differ from those of the event log, and one JSON object on the last line.

    Return 0 without skew, 1 with skew, EXIT_INCONCLUSIVE when differences may stem from erased viewers.
    Raises InvalidInput when no page records its features, Unavailable, ItemError, BundleError, OSError.
    """
    check_event_log(settings.event_log_dir)
    items = with_content(Catalog.of(read_items(catalog)), settings)
    since, log = time.time() - days * DAY_S, EventLog(settings.event_log_dir)
    ttl_s = settings.viewer_ttl_days * DAY_S
    return _print_skew(audit_skew(log, items, _retrievers(bundles), since=since, ttl_s=ttl_s))


def measure(
    log: EventLog, catalog: str, days: float, by: Callable[[PageView], str], now: float, progress: bool = False
) -> dict[str, object]:
    """Return `groups` (columns with one entry per group) and `controls` (control -> figures).

    Raises Unavailable, ItemError, OSError.
    """
    items = Catalog.of(read_items(catalog))
    since = now - days * DAY_S
    replay = tqdm(log.replay(since=since - LOOK_BACK_S), "event log", unit=" events", leave=False, disable=not progress)
    events = (logged.event for logged in replay)
    pages = list(iter_impressions((e for e in events if e.kind != "impression" or e.at >= since), items))
    return {"groups": report_table(pages, items, by), "controls": control_metrics(pages)}


def _retrievers(directories: Sequence[Path]) -> dict[str, Retriever]:
    """Return the retrievers of these bundles by model version. Raises BundleError."""
    retrievers = {}
    for directory in directories:
        try:
            bundle = unpack({name: Path(directory, name).read_bytes() for name in FILES})
            retrievers[bundle.version] = load_retriever(bundle)
        except (BundleError, OSError) as error:
            cause = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else error
            accepted = f"a bundle is a directory with {', '.join(FILES)}: the artifact `bundle` of a model version"
            raise BundleError(f"--bundle {directory}: {cause}; {accepted}") from error
    return retrievers


def _print_skew(report: SkewReport) -> int:
    """Print one line per feature and the report as JSON; return the exit code."""
    print(f"{'feature':<24} {'compared':>10} {'differing':>10} {'largest':>10} {'lagging':>10}")
    for column in report.columns:
        print(f"{column.feature:<24} {column.compared:>10,} {column.differing:>10,} {column.largest:>10.2g} "
              f"{column.lagging:>10,}")  # fmt: skip
    print(f"\n{report.rows:,} items on {report.pages:,} pages: {report.differing:,} values differ by more than "
          f"{TOLERANCE:g} from those of the log at the offsets that the pages record (skew)")  # fmt: skip
    print("lagging: values that differ from those of all events before the page, which the worker had not folded yet")
    if report.unknown:
        print(f"not compared: {report.unknown:,} items that are no longer in the catalog")
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


def _print_report(metrics: dict[str, object]) -> None:
    groups, controls = metrics["groups"], metrics["controls"]
    assert isinstance(groups, dict)
    assert isinstance(controls, dict)
    for n, name in enumerate(groups["group"]):
        print(f"\n{name}")
        for column, figures in groups.items():
            if column != "group":
                print(f"  {column:<26} {_figure(figures[n]):>10}")
    for name, figures in controls.items():
        print(f"\n{name}: " + ", ".join(f"{metric} {_figure(figure)}" for metric, figure in figures.items()))
    if any(not math.isfinite(x) for column, figures in groups.items() if column != "group" for x in figures):
        print("\n-: too few pages, viewers or items to compute this metric")
    print(json.dumps(_finite(metrics)))


def _figure(figure: float) -> str:
    return f"{figure:.4f}" if math.isfinite(figure) else "-"


def _finite(value: object) -> object:
    """Replace NaN and infinity, which JSON lacks, by None, in nested dicts and lists too."""
    if isinstance(value, dict):
        return {name: _finite(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
