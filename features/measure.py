"""`recsys-measure`: the measures of an event log as a table for people and, on the last line, one JSON object."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from features.catalogue import read_items
from features.offline.log import EventLog
from features.offline.seen import seen
from recsys.catalog import Catalog
from recsys.errors import MainstayError
from recsys.measures.table import Seen, control_measures, table
from recsys.settings import Settings

DAY_S = 86_400.0
LOOK_BACK_S = 30 * DAY_S
GROUPS: Mapping[str, Callable[[Seen], str]] = {
    "placement": lambda page: page.placement,
    "outlet": lambda page: page.outlet,
    "region": lambda page: page.region,
}


def main(argv: Sequence[str] | None = None) -> int:
    """0 when there was something to measure, 1 with the reason on stderr otherwise."""
    parser = argparse.ArgumentParser(prog="recsys-measure", description="Measures of the pages that a log remembers.")
    parser.add_argument("--home", help=Settings.help_of("home"))
    parser.add_argument("--event-log", help=Settings.help_of("event_log"))
    parser.add_argument("--catalog", required=True, help="http://HOST:PORT of a running API, or a file of JSON lines")
    parser.add_argument(
        "--days", type=float, default=7.0, help="impressions of so many days, counted from now (default 7)"
    )
    parser.add_argument("--by", choices=GROUPS, default="placement", help="one row for each")
    asked = parser.parse_args(argv)
    settings = Settings.read(os.environ, home=asked.home, event_log=asked.event_log)
    try:
        told = measure(EventLog(settings.event_log_dir), asked.catalog, asked.days, GROUPS[asked.by], time.time())
    except (MainstayError, OSError) as error:
        print(f"recsys-measure: {error}", file=sys.stderr)
        return 1
    _print(told)
    return 0


def measure(log: EventLog, catalog: str, days: float, by: Callable[[Seen], str], now: float) -> dict[str, object]:
    """`groups`: columns, one entry per group; `controls`: control -> figures. Raises Unavailable, ItemError."""
    items = Catalog.of(read_items(catalog))
    since = now - days * DAY_S
    events = (placed.event for placed in log.replay(since=since - LOOK_BACK_S))  # earlier ones make the histories
    pages = list(seen((e for e in events if e.kind != "impression" or e.at >= since), items))
    return {"groups": table(pages, items, by), "controls": control_measures(pages)}


def _print(told: dict[str, object]) -> None:
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
