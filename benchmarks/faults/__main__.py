"""Run all fault benchmarks or those named. Prints a table, then one JSON object as the last line."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.faults.harness.environment import KINDS, open_environments
from benchmarks.faults.registry import BENCHES
from benchmarks.faults.report import summary, table


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmarks; the exit code is 1 if a criterion is not met."""
    parser = argparse.ArgumentParser(prog="bench-faults", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(BENCHES)}; default: all")
    parser.add_argument("--short", action="store_true", help="small counts, for a quick check")
    parser.add_argument("--on", choices=[*KINDS, "both"], default="both", help="environment: embedded, servers or both")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args(argv)
    if unknown := set(args.names) - BENCHES.keys():
        parser.error(f"unknown benchmark: {', '.join(sorted(unknown))}")
    began, results = time.perf_counter(), []
    with tempfile.TemporaryDirectory(prefix="faults-") as root, open_environments(Path(root)) as environments:
        for name in args.names or BENCHES:
            bench = BENCHES[name]
            print(f"{name}: {bench.description}", file=sys.stderr, flush=True)
            for kind in bench.kinds if args.on == "both" else [k for k in bench.kinds if k == args.on]:
                results += bench.run(environments, kind, args.short, args.seed)
    print(table(results))
    report = {"benchmark": "faults", "short": args.short, "seed": args.seed, **summary(results)}
    print(json.dumps({**report, "seconds": round(time.perf_counter() - began, 1)}))
    return 1 if report["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
