"""E8 and D1, which are programs of their own: run in a process each, and their last line read."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from benchmarks.faults.harness.worker_process import ROOT
from benchmarks.faults.scenarios.online_store import GOALS
from benchmarks.faults.report import Line

TOLERANCE = 1e-6


def serving_skew(kind: str, rows: int, seed: int) -> list[Line]:
    """E8: features as logged when serving against those that the log gives."""
    more = rows + rows // 10 + 20  # some pages are an editors' list, made without features
    found = _run_module("benchmarks.features.served", "--rows", str(more), "--seed", str(seed))
    return [
        Line(
            "E8",
            kind,
            f"features of {found['rows']:,} rows of {found['pages']:,} served pages made again from the log, "
            f"{found['events']:,} events",
            f"{found['rows_that_differ']} rows differ; largest difference {found['largest_difference']:.1e}",
            f"equal to {TOLERANCE:.0e}",
            found["rows"] >= rows and not found["rows_that_differ"] and found["largest_difference"] <= TOLERANCE,
        )
    ]


def online_store_outage(kind: str, seconds: float, rate: float) -> list[Line]:
    """D1: the online store killed, stopped, full and read-only, under pages at a steady rate."""
    found = _run_module("benchmarks.faults.scenarios.online_store", "--seconds", str(seconds), "--rate", str(rate))
    return [
        Line(
            "D1",
            kind,
            f"online store {one['fault'] if one['fault'] != 'none' else 'well'} for {seconds:.0f} s, "
            f"{one['pages']:,} pages at {rate:.0f} a second",
            f"{one['ok_share']:.2%} 2xx, p99 {one['p99_ms']:.0f} ms, {one['broken']} break the policy, personal again "
            f"after {one['personal_again_s']:.1f} s; at least {one['waited_for_a_core_s']:.1f} s waited for a core",
            f"at least {GOALS['ok_share']:.1%} 2xx, p99 {GOALS['p99_ms']:.0f} ms, none breaks it, within "
            f"{GOALS['personal_again_s']:.0f} s",
            not found["missed"][one["fault"]],
        )
        for one in found["faults"]
    ]


def _run_module(module: str, *said: str) -> Any:
    """The JSON object of a program's last line. Raises RuntimeError when it printed none."""
    done = subprocess.run([sys.executable, "-m", module, *said], capture_output=True, text=True, cwd=ROOT, check=False)
    lines = done.stdout.strip().splitlines()
    if not lines or not lines[-1].startswith("{"):
        raise RuntimeError(f"{module} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads(lines[-1])
