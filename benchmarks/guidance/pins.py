"""Compares the price of a pin in the receipt with the value gained by solving the page without the pin.

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
    """Return reported prices and actual gains ([P] each, in play equivalents) of all pins on `pages` feasible pages."""
    reported, gained, seed, n_pages = list[float](), list[float](), 0, 0
    while n_pages < pages:
        case = draw_from(replace(family, pins=1.0), seed)
        seed += 1
        page = solve(case.value, case.attention, case.bounds, effort=effort)
        pins = case.bounds.pin_control
        if page.relaxed.any():
            continue
        n_pages += 1
        for c in pins.tolist():
            without_pin = (np.arange(case.bounds.controls) == c).astype(np.int32)
            free = solve(case.value, case.attention, case.bounds.with_slack(without_pin))
            reported.append(float(page.price[c]))
            gained.append(max(0.0, free.value - page.value))
    return np.array(reported), np.array(gained)


def main() -> None:
    """Print a table and, as the last line, a JSON list of its rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--pages", type=int, default=100, help="pages of each family and effort")
    pages = parser.parse_args().pages
    rows = []
    for name, effort in CASES:
        reported, gained = compare_prices(FAMILIES[name], pages, effort)
        error = np.abs(reported - gained) / np.maximum(gained, 1e-9)
        row = {"family": name, "effort": effort, "pins": len(reported), "gain_median": float(np.median(gained)),
               "off_median": float(np.median(error)), "off_p90": float(np.quantile(error, 0.9)),
               "below": float((reported < gained - 1e-9).mean()),
               "correlation": float(np.corrcoef(reported, gained)[0, 1])}  # fmt: skip
        rows.append(row)
        print(f"{name:8} {effort:9} {row['pins']:4} pins cost {row['gain_median']:.3f} play equivalents: price off by "
              f"{row['off_median']:.1%} (p90 {row['off_p90']:.0%}), too low for {row['below']:.0%}, "
              f"correlation {row['correlation']:.3f}")  # fmt: skip
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
