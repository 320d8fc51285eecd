"""E8 and D1, which run as separate processes; results are read from the last line of their output."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from benchmarks.faults.harness.worker_process import ROOT
from benchmarks.faults.report import Line
from benchmarks.faults.scenarios.online_store import GOALS

TOLERANCE = 1e-6


def serving_skew(kind: str, rows: int, seed: int) -> list[Line]:
    """E8: compare features logged while serving with features recomputed from the event log."""
    requested_rows = rows + rows // 10 + 20  # some pages are editorial lists, made without features
    report = _run_module("benchmarks.features.served", "--rows", str(requested_rows), "--seed", str(seed))
    return [
        Line(
            "E8",
            kind,
            f"features of {report['rows']:,} rows of {report['pages']:,} served pages recomputed from the log, "
            f"{report['events']:,} events",
            f"{report['rows_that_differ']} rows differ; largest difference {report['largest_difference']:.1e}",
            f"equal to {TOLERANCE:.0e}",
            report["rows"] >= rows and not report["rows_that_differ"] and report["largest_difference"] <= TOLERANCE,
        )
    ]


def online_store_outage(kind: str, seconds: float, rate: float) -> list[Line]:
    """D1: kill, stop, fill and make read-only the online store while pages are requested at a steady rate."""
    report = _run_module("benchmarks.faults.scenarios.online_store", "--seconds", str(seconds), "--rate", str(rate))
    return [
        Line(
            "D1",
            kind,
            f"online store {row['fault'] if row['fault'] != 'none' else 'healthy'} for {seconds:.0f} s, "
            f"{row['pages']:,} pages at {rate:.0f} a second",
            f"{row['ok_share']:.2%} 2xx, p99 {row['p99_ms']:.0f} ms, {row['violating_pages']} violate the policy, "
            f"personal again after {row['recovery_s']:.1f} s; waited at least {row['cpu_wait_s']:.1f} s for a core",
            f"at least {GOALS['ok_share']:.1%} 2xx, p99 {GOALS['p99_ms']:.0f} ms, no violation, personal within "
            f"{GOALS['recovery_s']:.0f} s",
            not report["missed"][row["fault"]],
        )
        for row in report["faults"]
    ]


def _run_module(module: str, *arguments: str) -> Any:
    """Run a module; returns the JSON object of its last line. Raises RuntimeError if it prints none."""
    completed = subprocess.run(
        [sys.executable, "-m", module, *arguments], capture_output=True, text=True, cwd=ROOT, check=False
    )
    lines = completed.stdout.strip().splitlines()
    if not lines or not lines[-1].startswith("{"):
        raise RuntimeError(f"{module} failed with exit code {completed.returncode}:\n{completed.stderr[-2000:]}")
    return json.loads(lines[-1])
