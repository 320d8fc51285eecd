"""`make bench-faults`: every bench, or the ones named. A table for people; the last line is one JSON object."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.faults.harness.environment import KINDS, environments
from benchmarks.faults.registry import BENCHES
from benchmarks.faults.report import summary, table


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 1 when a goal was missed."""
    parser = argparse.ArgumentParser(prog="bench-faults", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHES)}; all when left out")
    parser.add_argument("--short", action="store_true", help="small counts, for a first look")
    parser.add_argument("--on", choices=[*KINDS, "both"], default="both", help="embedded, servers or both")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args(argv)
    if unknown := set(asked.names) - BENCHES.keys():
        parser.error(f"no bench {', '.join(sorted(unknown))}")
    began, lines = time.perf_counter(), []
    with tempfile.TemporaryDirectory(prefix="faults-") as root, environments(Path(root)) as ground:
        for name in asked.names or BENCHES:
            bench = BENCHES[name]
            print(f"{name}: {bench.description}", file=sys.stderr, flush=True)
            for kind in bench.kinds if asked.on == "both" else [k for k in bench.kinds if k == asked.on]:
                lines += bench.run(ground, kind, asked.short, asked.seed)
    print(table(lines))
    said = {"benchmark": "faults", "short": asked.short, "seed": asked.seed, **summary(lines)}
    print(json.dumps({**said, "seconds": round(time.perf_counter() - began, 1)}))
    return 1 if said["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
