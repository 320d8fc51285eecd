"""Compares the solver with an oracle that enumerates every page of small random instances.

    python -m benchmarks.guidance.exhaustive [--instances 100000] [--first SEED]

Feasibility, relaxation and optimum must agree for every instance, and exact prices for every tenth. The last line is
one JSON object. The oracle is compiled and shares no code with the solver.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from recsys.domain.types import F64, I32
from recsys.guidance.solver.page_constraints import PageConstraints
from recsys.guidance.solver.solve import solve

Instance = tuple[F64, F64, PageConstraints]
PRICE_CHECK_EVERY = 10  # exact prices are checked for every so many-th instance


class Draft:
    """Random controls on a page, collected as rows, spacings and pins."""

    def __init__(self, rng: np.random.Generator, n: int, k: int) -> None:
        self.rng, self.n, self.k = rng, n, k
        self.rows: list[tuple[int, NDArray[Any], NDArray[Any], NDArray[Any]]] = []
        self.spacings: list[tuple[int, NDArray[Any], int, int, NDArray[Any]]] = []
        self.pins: list[tuple[int, int, int]] = []

    def quota(self, c: int, has_minimum: bool, has_maximum: bool) -> None:
        rng, slots = self.rng, np.arange(1, self.k + 1)
        a = rng.random()
        b = min(1.0, a + rng.random() / 2) if has_minimum else rng.random()
        applies = (slots == self.k) | (rng.random() < 0.6)
        lower = np.where(slots == self.k, np.ceil(a * slots), np.floor(a * slots)) * (applies & has_minimum)
        upper = np.where(slots == self.k, np.floor(b * slots), np.ceil(b * slots))
        member = rng.random(self.n) < rng.choice([0.2, 0.4, 0.6])
        self.rows.append((c, member, lower, np.where(applies & has_maximum, upper, slots)))

    def attribute(self, c: int) -> None:
        codes, at_most = self.rng.integers(-1, 4, self.n), int(self.rng.integers(1, 3))
        for code in range(4):
            self.rows.append((c, codes == code, np.zeros(self.k), np.full(self.k, at_most)))

    def spacing(self, c: int) -> None:
        within = int(self.rng.integers(2, 5))
        codes, seam = self.rng.integers(-1, 4, self.n), self.rng.integers(-1, 4, 3)
        self.spacings.append((c, codes, int(self.rng.integers(1, within)), within, seam))

    def pin(self, c: int) -> None:
        item = -1 if self.rng.random() < 0.1 else int(self.rng.integers(self.n))
        self.pins.append((c, item, int(self.rng.integers(self.k + (self.rng.random() < 0.2)))))

    def bounds(self, controls: int) -> PageConstraints:
        def ints(numbers: list[int]) -> I32:
            return np.array(numbers, np.int32)

        n, k = self.n, self.k
        return PageConstraints(
            slots=k,
            active=np.ones(controls, np.bool_),
            tie=self.rng.permutation(n).astype(np.int64),
            member=np.array([row[1] for row in self.rows], np.bool_).reshape(-1, n),
            lower=np.array([row[2] for row in self.rows], np.int32).reshape(-1, k),
            upper=np.array([row[3] for row in self.rows], np.int32).reshape(-1, k),
            row_control=ints([row[0] for row in self.rows]),
            code=np.array([spacing[1] for spacing in self.spacings], np.int32).reshape(-1, n),
            at_most=ints([spacing[2] for spacing in self.spacings]),
            within=ints([spacing[3] for spacing in self.spacings]),
            before=np.array([spacing[4] for spacing in self.spacings], np.int32).reshape(-1, 3),
            spacing_control=ints([spacing[0] for spacing in self.spacings]),
            pin_item=ints([pin[1] for pin in self.pins]),
            pin_slot=ints([pin[2] for pin in self.pins]),
            pin_control=ints([pin[0] for pin in self.pins]),
        )


def random_instance(seed: int, n_max: int, k_max: int, n_min: int = 1) -> Instance:
    """Return value, attention and constraints; about half of the instances are infeasible."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(n_min, n_max + 1))
    k = min(n, int(rng.integers(1, k_max + 1)))
    draft, controls = Draft(rng, n, k), int(rng.integers(0, 6))
    for c in range(controls):
        kind = rng.choice(
            ["minimum", "maximum", "both", "attribute", "spacing", "pin"], p=[0.3, 0.15, 0.15, 0.15, 0.15, 0.1]
        )
        if kind in ("minimum", "maximum", "both"):
            draft.quota(c, kind != "maximum", kind != "minimum")
        else:
            getattr(draft, kind)(c)
    value = rng.normal(0.3, 0.3, n) if rng.random() < 0.7 else rng.integers(0, 3, n) / 2.0
    attention = np.sort(rng.random(k) + 0.05)[::-1] if rng.random() < 0.7 else np.ones(k)
    return value, attention, draft.bounds(controls)


def every_page(instance: Instance) -> tuple[tuple[int, ...], float]:
    """Return the lexicographically minimal relaxation over all pages, and the best value of a page with it."""
    value, attention, b = instance
    slack, best = _every_page(
        value, attention, b.controls, b.member, b.lower, b.upper, b.row_control, b.code, b.at_most, b.within, b.before,
        b.spacing_control, b.pin_item, b.pin_slot, b.pin_control,
    )  # fmt: skip
    return tuple(int(x) for x in slack), float(best)


@njit(cache=True)
def _relax(  # type: ignore[no-untyped-def]
    slack, page, k, member, lower, upper, row_control, code, at_most, within, before, spacing_control,
    pin_item, pin_slot, pin_control,
):  # fmt: skip
    """Set `slack` to the amount by which the page violates each control."""
    slack[:] = 0
    for r in range(len(member)):
        count = 0
        for s in range(k):
            count += member[r, page[s]]
            slack[row_control[r]] = max(slack[row_control[r]], lower[r, s] - count, count - upper[r, s])
    seam = before.shape[1]
    for x in range(len(code)):
        for s in range(k):
            value_code, count_near = code[x, page[s]], 0
            if value_code < 0:
                continue
            for distance in range(within[x]):
                neighbour = s - distance
                if neighbour >= 0:
                    count_near += code[x, page[neighbour]] == value_code
                elif seam + neighbour >= 0:
                    count_near += before[x, seam + neighbour] == value_code
            slack[spacing_control[x]] = max(slack[spacing_control[x]], count_near - at_most[x])
    for p in range(len(pin_item)):
        if pin_item[p] < 0 or pin_slot[p] >= k or page[pin_slot[p]] != pin_item[p]:
            slack[pin_control[p]] = max(slack[pin_control[p]], 1)


@njit(cache=True)
def _every_page(  # type: ignore[no-untyped-def]
    value, attention, controls, member, lower, upper, row_control, code, at_most, within, before, spacing_control,
    pin_item, pin_slot, pin_control,
):  # fmt: skip
    n, k = len(value), len(attention)
    best_slack, best = np.full(controls, 1 << 30, np.int64), -np.inf
    slack = np.zeros(controls, np.int64)
    page, used, depth = np.zeros(max(k, 1), np.int64), np.zeros(n, np.bool_), 0
    if k == 0:
        return slack, 0.0
    page[0] = -1
    while depth >= 0:  # all sequences of k different items, in order
        if page[depth] >= 0:
            used[page[depth]] = False
        page[depth] += 1
        while page[depth] < n and used[page[depth]]:
            page[depth] += 1
        if page[depth] == n:
            depth -= 1
            continue
        used[page[depth]] = True
        if depth < k - 1:
            depth += 1
            page[depth] = -1
            continue
        _relax(
            slack, page, k, member, lower, upper, row_control, code, at_most, within, before, spacing_control,
            pin_item, pin_slot, pin_control,
        )  # fmt: skip
        order = 0
        for c in range(controls):
            if slack[c] != best_slack[c]:
                order = -1 if slack[c] < best_slack[c] else 1
                break
        if order > 0:
            continue
        page_value = 0.0
        for s in range(k):
            page_value += attention[s] * value[page[s]]
        if order < 0 or page_value > best:
            best_slack[:] = slack
            best = page_value
    return best_slack, best


def disagreement(seed: int) -> str:
    """Solve one instance and compare with the oracle; returns the difference, or an empty string."""
    size = (12, 6) if seed % 50 == 0 else (9, 5) if seed % 5 == 0 else (8, 4)
    instance = random_instance(seed, *size)
    value, attention, bounds = instance
    slack, best = every_page(instance)
    solution = solve(value, attention, bounds, effort="exact" if seed % PRICE_CHECK_EVERY == 0 else "adaptive")
    if tuple(solution.relaxed.tolist()) != slack:
        return f"relaxed {solution.relaxed.tolist()}, minimum {slack}"
    if tuple(bounds.violated_by(solution.chosen).tolist()) != slack:
        return f"the page breaks {bounds.violated_by(solution.chosen).tolist()}, not {slack}"
    if abs(solution.value - best) > 1e-9 and (solution.proven or solution.bound < best - 1e-9):
        return f"value {solution.value}, best {best}, bound {solution.bound}, proven {solution.proven}"
    if solution.value < best - 1e-9:
        return f"value {solution.value} below the best {best}, unproven"
    if seed % PRICE_CHECK_EVERY == 0:
        for c in np.flatnonzero(bounds.active).tolist():
            looser = solution.relaxed.copy()
            looser[c] += 1
            _, best_without = every_page((value, attention, bounds.with_slack(looser)))
            if abs(solution.price[c] - (best_without - best)) > 1e-8:
                return f"price {solution.price[c]} of control {c}, by enumeration {best_without - best}"
    return ""


def main() -> int:
    """Check all instances; returns 1 if any disagrees."""
    parser = argparse.ArgumentParser(prog="bench-guidance-exhaustive", description=__doc__)
    parser.add_argument("--instances", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=1_000_000)
    args = parser.parse_args()
    began, disagreements = time.perf_counter(), []
    for seed in range(args.first, args.first + args.instances):
        if problem := disagreement(seed):
            disagreements.append((seed, problem))
            print(f"{seed}: {problem}", flush=True)
    took_s = round(time.perf_counter() - began, 1)
    print(f"{args.instances} instances, {len(disagreements)} disagree with the enumeration of all pages")
    print(
        json.dumps(
            {
                "benchmark": "guidance-exhaustive",
                "instances": args.instances,
                "wrong": len(disagreements),
                "seconds": took_s,
            }
        )
    )
    return 1 if disagreements else 0


if __name__ == "__main__":
    sys.exit(main())
