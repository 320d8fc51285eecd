"""`make bench-features`: every benchmark of events and features, or the ones named, each in a process of its own.

    python -m benchmarks.features [NAME ...] [--clicks FILE] [--titles FILE ...] [--short] [--seed S]

--clicks  clicks.parquet of the Globo.com / G1 news portal; without it, clicks are made up by the seed
--titles  files of titles with a category; without them, the demo's titles

Prints the table of each; the last line is one JSON object with all figures. Exit code 1 when one failed
or, but for --short, missed the speeds it asks for.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.features.synthetic import write_clicks

CLICKS = {False: 1_000_000, True: 60_000}
"""How many are made up, in full and in short."""

NEEDS_CLICKS = frozenset({"fold", "points", "rebuild"})
SHORT_FLAGS: dict[str, tuple[str, ...]] = {
    "fold": ("--events", "60000", "--kafka-events", "40000"),
    "ingest": ("--seconds", "1", "--single", "5"),
    "points": ("--events", "60000", "--rows", "5000", "--check", "50"),
    "rebuild": ("--events", "20000"),
    "served": ("--rows", "500"),
    "content": ("--short",),
    "regions": ("--items", "2000"),
}
"""Benchmark -> what makes it short."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs them one after the other."""
    parser = argparse.ArgumentParser(
        prog="bench-features", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SHORT_FLAGS)}; all when left out")
    parser.add_argument("--clicks", type=Path)
    parser.add_argument("--titles", type=Path, nargs="+", default=[])
    parser.add_argument("--short", action="store_true", help="small counts, for a first look")
    parser.add_argument("--seed", type=int, default=1)
    said = parser.parse_args(argv)
    if unknown := set(said.names) - SHORT_FLAGS.keys():
        parser.error(f"no benchmark {', '.join(sorted(unknown))}")
    if missing := [str(path) for path in (said.clicks, *said.titles) if path is not None and not path.is_file()]:
        parser.error(f"no file {', '.join(missing)}")
    names = said.names or list(SHORT_FLAGS)
    figures: dict[str, Any] = {"benchmark": "features", "short": said.short, "cores": os.cpu_count()}
    with tempfile.TemporaryDirectory(prefix="features-") as home:
        clicks = said.clicks
        if NEEDS_CLICKS.intersection(names):
            figures["clicks"] = str(clicks) if clicks else f"{CLICKS[said.short]:,} made up by seed {said.seed}"
            clicks = clicks or write_clicks(Path(home) / "clicks.parquet", CLICKS[said.short], said.seed)
        for name in names:
            figures[name] = _run(name, _arguments(name, clicks, said))
    print(json.dumps(figures))
    wrong = {"failed"} if said.short else {"failed", "missed"}
    return 1 if any(wrong & found.keys() for found in figures.values() if isinstance(found, dict)) else 0


def _arguments(name: str, clicks: Path | None, said: argparse.Namespace) -> list[str]:
    arguments = list(SHORT_FLAGS[name]) if said.short else []
    if name in NEEDS_CLICKS:
        arguments += ["--clicks", str(clicks)]
    if name in ("served", "regions"):
        arguments += ["--seed", str(said.seed)]
    if name == "content" and said.titles:
        arguments += ["--titles", *map(str, said.titles)]
    return arguments


def _run(name: str, arguments: Sequence[str]) -> dict[str, Any]:
    """The figures of one benchmark, whose table is printed; `failed` says why there are none, `missed` that it found
    its own floors missed."""
    print(f"\n== {name}", flush=True)
    began, last = time.perf_counter(), ""
    command = [sys.executable, "-m", f"benchmarks.features.{name}", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            if last:
                print(last, flush=True)
            last = line.rstrip("\n")
    took_s = round(time.perf_counter() - began, 1)
    try:
        figures = json.loads(last)
    except ValueError:
        print(last, flush=True)
        figures = {"failed": f"exit code {process.returncode}, no figures"}
    if "failed" in figures:
        print(f"{name} failed: {figures['failed']}", file=sys.stderr, flush=True)
    elif process.returncode:
        figures["missed"] = True
    return {**figures, "seconds_in_all": took_s}


if __name__ == "__main__":
    sys.exit(main())
