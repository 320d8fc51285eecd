"""Runs all benchmarks of events and features, or those named, each in its own process.

    python -m benchmarks.features [NAME ...] [--clicks FILE] [--titles FILE ...] [--short] [--seed S]

--clicks  clicks.parquet of the Globo.com / G1 news portal; default: synthetic clicks by the seed
--titles  files of titles with a category; default: the demo's titles

Prints the table of each; the last line is one JSON object with all figures. The exit code is 1 if a benchmark fails or,
without --short, misses its speed goals.
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
"""Number of synthetic clicks, by `--short`."""

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
"""Benchmark -> its flags for a short run."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmarks one after the other."""
    parser = argparse.ArgumentParser(
        prog="bench-features", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(SHORT_FLAGS)}; default: all")
    parser.add_argument("--clicks", type=Path)
    parser.add_argument("--titles", type=Path, nargs="+", default=[])
    parser.add_argument("--short", action="store_true", help="small counts, for a quick check")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args(argv)
    if unknown := set(args.names) - SHORT_FLAGS.keys():
        parser.error(f"unknown benchmark: {', '.join(sorted(unknown))}")
    if missing := [str(path) for path in (args.clicks, *args.titles) if path is not None and not path.is_file()]:
        parser.error(f"file not found: {', '.join(missing)}")
    names = args.names or list(SHORT_FLAGS)
    figures: dict[str, Any] = {"benchmark": "features", "short": args.short, "cores": os.cpu_count()}
    with tempfile.TemporaryDirectory(prefix="features-") as home:
        clicks = args.clicks
        if NEEDS_CLICKS.intersection(names):
            figures["clicks"] = str(clicks) if clicks else f"{CLICKS[args.short]:,} synthetic, seed {args.seed}"
            clicks = clicks or write_clicks(Path(home) / "clicks.parquet", CLICKS[args.short], args.seed)
        for name in names:
            figures[name] = _run(name, _arguments(name, clicks, args))
    print(json.dumps(figures))
    failures = {"failed"} if args.short else {"failed", "missed"}
    return 1 if any(failures & result.keys() for result in figures.values() if isinstance(result, dict)) else 0


def _arguments(name: str, clicks: Path | None, args: argparse.Namespace) -> list[str]:
    arguments = list(SHORT_FLAGS[name]) if args.short else []
    if name in NEEDS_CLICKS:
        arguments += ["--clicks", str(clicks)]
    if name in ("served", "regions"):
        arguments += ["--seed", str(args.seed)]
    if name == "content" and args.titles:
        arguments += ["--titles", *map(str, args.titles)]
    return arguments


def _run(name: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Run one benchmark and print its table; returns its figures.

    `failed` gives the reason if there are no figures; `missed` is set if the benchmark missed its goals.
    """
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
    return {**figures, "total_seconds": took_s}


if __name__ == "__main__":
    sys.exit(main())
