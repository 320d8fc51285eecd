"""What receipts say that a pin costs, against what solving again without it wins.

python -m benchmarks.guidance.pins [--pages 100]
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from typing import Literal

import numpy as np

from benchmarks.guidance.instances import FAMILIES, Family, draw_from
from recsys.domain.types import F64
from recsys.guidance.solver.solve import solve

CASES: tuple[tuple[str, Literal["fast", "adaptive"]], ...] = (
    ("small", "fast"), ("small", "adaptive"), ("typical", "fast"), ("typical", "adaptive"),
)  # fmt: skip


def compare_prices(family: Family, pages: int, effort: Literal["fast", "adaptive"]) -> tuple[F64, F64]:
    """Prices told and play equivalents won ([P] each) of the pins of so many pages on which all pins stand."""
    told, won, seed, seen = list[float](), list[float](), 0, 0
    while seen < pages:
        case = draw_from(replace(family, pins=1.0), seed)
        seed += 1
        page = solve(case.value, case.attention, case.bounds, effort=effort)
        pins = case.bounds.pin_control
        if page.relaxed.any():
            continue
        seen += 1
        for c in pins.tolist():
            without = (np.arange(case.bounds.controls) == c).astype(np.int32)
            free = solve(case.value, case.attention, case.bounds.with_slack(without))
            told.append(float(page.price[c]))
            won.append(max(0.0, free.value - page.value))
    return np.array(told), np.array(won)


def main() -> None:
    """The table, and the same as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--pages", type=int, default=100, help="pages of each family and effort")
    pages = parser.parse_args().pages
    rows = []
    for name, effort in CASES:
        told, won = compare_prices(FAMILIES[name], pages, effort)
        off = np.abs(told - won) / np.maximum(won, 1e-9)
        row = {"family": name, "effort": effort, "pins": len(told), "won_median": float(np.median(won)),
               "off_median": float(np.median(off)), "off_p90": float(np.quantile(off, 0.9)),
               "below": float((told < won - 1e-9).mean()),
               "correlation": float(np.corrcoef(told, won)[0, 1])}  # fmt: skip
        rows.append(row)
        print(f"{name:8} {effort:9} {row['pins']:4} pins worth {row['won_median']:.3f} play equivalents: told off by "
              f"{row['off_median']:.1%} (p90 {row['off_p90']:.0%}), too low for {row['below']:.0%}, "
              f"correlation {row['correlation']:.3f}")  # fmt: skip
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
