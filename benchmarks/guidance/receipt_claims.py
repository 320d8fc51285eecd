"""Checks the claims of receipts on many pages.

    python -m benchmarks.guidance.receipt_claims [--relaxations 1000] [--attributions 60] [--forged 10000]

Relaxations must equal those of an exact lexicographic solution (HiGHS at every step). Controls named for an item that
was promoted or held back should be decisive: without them, the item leaves the page or returns to it. Every forged
receipt must be rejected. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from datetime import UTC, datetime
from typing import Any

import numpy as np

from benchmarks.guidance.instances import Family, Instance, draw, draw_from
from recsys.batch import Candidates
from recsys.domain.catalog import Catalog
from recsys.domain.item import Item
from recsys.domain.placement import Placement
from recsys.domain.query import Query
from recsys.domain.types import F64, I32
from recsys.guidance.compilation.compile import compile_policy
from recsys.guidance.policy.policy import parse_policy
from recsys.guidance.receipt.receipt import Receipt, best_without, responsible_controls, write_receipt
from recsys.guidance.receipt.verify import verify
from recsys.guidance.solver.milp import any_page
from recsys.guidance.solver.page_constraints import PageConstraints, relative_gap
from recsys.guidance.solver.presolve import presolve
from recsys.guidance.solver.solve import solve, warm

SCARCE = Family(items=60, slots=12, tightness=1.6, labels=(4, 7))


def main() -> None:
    """Run all three checks and print their figures."""
    parser = argparse.ArgumentParser(prog="bench-guidance-claims", description=__doc__)
    parser.add_argument("--relaxations", type=int, default=1000)
    parser.add_argument("--attributions", type=int, default=60)
    parser.add_argument("--forged", type=int, default=10_000)
    args = parser.parse_args()
    warm()
    results = {
        "relaxation": relaxations(args.relaxations),
        "attribution": attributions(args.attributions),
        "forged": forgeries(args.forged),
    }
    for name, figures in results.items():
        print(f"{name}: " + ", ".join(f"{key.replace('_', ' ')} {figure}" for key, figure in figures.items()))
    print(json.dumps({"benchmark": "guidance-claims", **results}))


def relaxations(count: int) -> dict[str, Any]:
    """Count pages whose relaxations equal those found with HiGHS as the feasibility test."""
    n_equal, n_minimal, n_relaxed, seed, times_ms, exact_times_ms = 0, 0, 0, 0, [], []
    while n_relaxed < count:
        instance = draw_from(SCARCE, seed)
        seed += 1
        began = time.thread_time()
        solution = solve(*instance)
        times_ms.append(1e3 * (time.thread_time() - began))
        if not solution.relaxed.any():
            times_ms.pop()
            continue
        n_relaxed += 1
        began = time.thread_time()
        slack = lexicographic(*instance)
        exact_times_ms.append(1e3 * (time.thread_time() - began))
        n_equal += bool((slack == solution.relaxed).all())
        n_minimal += bool(solution.minimal_proven.all())
    return {
        "instances": n_relaxed,
        "equal": n_equal,
        "proven_minimal": n_minimal,
        "median_ms": round(float(np.median(times_ms)), 1),
        "exact_median_ms": round(float(np.median(exact_times_ms)), 1),
    }


def lexicographic(value: F64, attention: F64, bounds: PageConstraints) -> I32:
    """Return [C] the minimal relaxation of each control, in order of importance, by HiGHS alone."""
    by, accepted = np.zeros(bounds.controls, np.int32), np.zeros(bounds.controls, np.bool_)
    for c in np.flatnonzero(bounds.active):
        accepted[c] = True
        while any_page(presolve(value, attention, bounds.with_slack(by).restricted_to(accepted))).page is None:
            by[c] += 1
    return by


def attributions(count: int) -> dict[str, Any]:
    """Solve pages without the controls named for an item and, for comparison, without random other controls."""
    tally = {"promoted": [0, 0, 0], "held_back": [0, 0, 0]}
    for seed in range(count):
        instance = draw("typical", 5000 + seed)
        value, _, bounds = instance
        solution = solve(*instance)
        if solution.relaxed.any():
            continue
        page, plain = set(solution.chosen.tolist()), set(best_without(value, bounds).tolist())
        rng = np.random.default_rng(seed)
        for kind, items, up in (("promoted", page - plain, True), ("held_back", plain - page, False)):
            for i in sorted(items):
                named = responsible_controls(bounds, solution, i, up)
                if not named:
                    tally[kind][0] += 1
                    continue
                priced = [c for c in np.flatnonzero(solution.price > 0).tolist() if c not in named]
                random_controls = (
                    rng.choice(priced, min(len(named), len(priced)), replace=False).tolist() if priced else []
                )
                tally[kind][0] += 1
                tally[kind][1] += _decisive(instance, named, i, up)
                tally[kind][2] += _decisive(instance, random_controls, i, up)
    return {
        f"{kind}_{figure_name}": figure
        for kind, (items, by_named, by_random) in tally.items()
        for figure_name, figure in (
            ("items", items),
            ("decisive_pct", round(100 * by_named / max(items, 1), 1)),
            ("random_controls_pct", round(100 * by_random / max(items, 1), 1)),
        )
    }


def _decisive(instance: Instance, controls: list[int], item: int, up: bool) -> bool:
    keep = np.ones(instance.bounds.controls, np.bool_)
    keep[controls] = False
    solution = solve(instance.value, instance.attention, instance.bounds.restricted_to(keep))
    return (item in solution.chosen) != up


def forgeries(count: int) -> dict[str, Any]:
    """Verify genuine receipts, and receipts with one change in the receipt or the page.

    Halved price estimates cannot be detected without the solver: they are reported, but do not count as forgeries.
    """
    rng, n_rejected, n_forged, n_genuine, n_halved, n_halved_detected = np.random.default_rng(0), 0, 0, 0, 0, 0
    while n_forged < count:
        case = _case(int(rng.integers(2**31)))
        n_genuine += not verify(*case, exact=False)
        receipt, chosen, *rest = case
        if any(price.play_equivalents for price in receipt.price):
            lower = [
                price.model_copy(update={"play_equivalents": price.play_equivalents / 2}) for price in receipt.price
            ]
            n_halved += 1
            n_halved_detected += bool(verify(receipt.model_copy(update={"price": lower}), chosen, *rest, exact=False))
        for _ in range(50):
            forged, page = _forge(receipt, rng), chosen
            if forged is None:
                page = chosen.copy()
                slot = rng.integers(len(page))
                page[slot] = rng.choice([i for i in range(len(rest[2])) if i != page[slot]])
                forged = receipt
            n_forged += 1
            n_rejected += bool(verify(forged, page, *rest, exact=False))
    return {
        "forged": n_forged, "rejected": n_rejected, "genuine_accepted": n_genuine, "genuine": n_forged // 50,
        "halved_estimates": n_halved, "halved_estimates_rejected": n_halved_detected,
    }  # fmt: skip


def _case(seed: int) -> Any:
    """Return a receipt with all arguments of `verify`."""
    rng = np.random.default_rng(seed)
    catalog = Catalog.of(_item(n, rng) for n in range(60))
    policy = compile_policy(
        [
            parse_policy(
                f"""
outlet: cn.zj
weights: {{quality: {rng.choice([0.0, 0.1])}}}
controls:
  - {{id: minimum, action: quota, where: {{label: a}}, at_least: {rng.integers(1, 6) * 10}%, prefixes: every}}
  - {{id: top, action: quota, where: {{label: b}}, at_least: {rng.integers(1, 3)}, prefixes: [4]}}
  - {{id: ads, action: quota, where: {{label: c}}, at_most: {rng.integers(1, 4) * 10}%, enforcement: legal}}
  - {{id: topics, action: cap, attribute: topic, at_most: {rng.integers(2, 5)}}}
  - {{id: apart, action: spacing, attribute: provider, at_most: 1, within: {rng.integers(2, 4)}}}
  - {{id: lead, action: pin, item: i{rng.integers(60)}, slot: {rng.integers(1, 4)}}}
"""
            )
        ],
        catalog,
    )
    query = Query("r", "v", Placement.parse("cn.zj-tv-home"), "cn.zj", 1_790_000_000.0, 10)
    rows = np.arange(60, dtype=np.int32)
    batch = Candidates.of(rows, np.ones(60, np.uint32)).with_columns(utility=rng.random(60))
    batch = batch.with_columns(bonus=policy.bonus(rows, query))
    bounds = policy.bounds(query, rows, 10, np.zeros(0, np.int32))
    attention: F64 = np.asarray(0.9 ** np.arange(10), np.float64)
    solution = solve(batch.utility + batch.bonus, attention, bounds)
    receipt = write_receipt(policy, bounds, solution, batch, attention, catalog)
    return receipt, solution.chosen, policy, bounds, batch, attention, catalog


def _item(n: int, rng: np.random.Generator) -> Item:
    labels = tuple(label for label, share in (("a", 0.3), ("b", 0.15), ("c", 0.3)) if rng.random() < share)
    return Item(
        id=f"i{n}",
        title={"en": f"Item {n}"},
        outlet="cn.zj",
        provider=f"p{rng.integers(6)}",
        labels=labels,
        topic=f"t{rng.integers(7)}",
        axes={"quality": float(rng.random())},
        published_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


def _forge(receipt: Receipt, rng: np.random.Generator) -> Receipt | None:
    """Return the receipt with a changed number, word or flag other than an estimate; None: forge the page instead."""
    receipt_fields = receipt.model_dump()
    names = ["value", "utility", "utility_without", "gap", "proven", "legal_met", "policy_version", "page", "bound"]
    if rng.random() < 0.4:
        name = str(rng.choice(names))
        if name == "page":
            return None
        if name == "bound":  # consistent with the gap, but not a valid bound
            receipt_fields["bound"] = max(receipt_fields["value"], receipt_fields["utility_without"]) * float(
                rng.choice([2.0, 100.0])
            )
            receipt_fields["gap"], receipt_fields["proven"] = (
                relative_gap(receipt_fields["bound"], receipt_fields["value"]),
                False,
            )
        else:
            receipt_fields[name] = _alter(receipt_fields[name], rng)
    elif rng.random() < 0.2 and _forge_prices(receipt_fields, rng):
        pass
    elif rng.random() < 0.7 or not receipt_fields["moved"]:
        line = receipt_fields["controls"][rng.integers(len(receipt_fields["controls"]))]
        if line["slack"] and rng.random() < 0.5:
            _forge_cause(
                line["cause"], [wrong["id"] for wrong in receipt_fields["controls"] if wrong["id"] != line["id"]], rng
            )
            return Receipt.model_validate(copy.deepcopy(receipt_fields))
        name = str(
            rng.choice(
                [
                    "id",
                    "origin",
                    "achieved",
                    "slack",
                    "shortfall",
                    "priority",
                    "reason",
                    "status",
                    "required",
                    "minimal_proven",
                ]
            )
        )
        if name == "minimal_proven" and line["slack"]:
            name = "slack"  # only solving again can verify that a relaxation is proven minimal
        if name == "required":
            amount = str(rng.choice(["at_least", "at_most", "within", "slot", "first_slots"]))
            line["required"][amount] = (line["required"][amount] or 0) + int(rng.integers(1, 4))
        elif name == "status":
            line["status"] = str(
                rng.choice([s for s in ("met", "active", "relaxed", "infeasible") if s != line["status"]])
            )
        else:
            line[name] = _alter(line[name], rng)
    else:
        move = receipt_fields["moved"][rng.integers(len(receipt_fields["moved"]))]
        name = str(rng.choice(["item_id", "slot", "control_ids"]))
        if name == "control_ids":
            move["control_ids"] = [*move["control_ids"], "unknown-control"]
        else:
            move[name] = _alter(move[name] or 0, rng)
    return Receipt.model_validate(copy.deepcopy(receipt_fields))


def _forge_cause(cause: dict[str, Any], control_ids: list[str], rng: np.random.Generator) -> None:
    """Change the cause of a relaxation in place. `control_ids`: the other controls of the receipt."""
    name = str(rng.choice(["kind", "violated_alone_by", "irreducible", "control_ids"]))
    if name == "kind":
        kinds = ["supply", "slots", "itself", "controls", "unknown"]
        cause["kind"] = str(rng.choice([kind for kind in kinds if kind != cause["kind"]]))
    elif name == "control_ids":
        control_id = str(rng.choice(control_ids))
        ids = cause["control_ids"]
        cause["control_ids"] = [i for i in ids if i != control_id] if control_id in ids else [*ids, control_id]
    else:
        cause[name] = _alter(cause[name], rng)


def _forge_prices(receipt_fields: dict[str, Any], rng: np.random.Generator) -> bool:
    """Change, reorder or remove prices in place. Returns False if there are no prices to forge."""
    prices = receipt_fields["price"]
    free = not any(line["action"] == "pin" and not line["slack"] for line in receipt_fields["controls"])
    changes = ["remove all", "remove one", "reorder", "all huge", "one huge", "one negative", "one resolved"]
    has_price = free and any(price["play_equivalents"] for price in prices)
    change = str(rng.choice([*changes, "all zero"] if has_price else changes))
    if len(prices) < 2:
        return False
    index = int(rng.integers(len(prices)))
    if change.startswith("remove"):
        receipt_fields["price"] = [] if change == "remove all" else prices[:index] + prices[index + 1 :]
    elif change == "reorder":
        receipt_fields["price"] = prices[::-1]
    elif change == "one resolved":
        prices[index]["how"] = "resolved"
    else:
        for price in prices if change.startswith("all") else [prices[index]]:
            price["play_equivalents"] = {"huge": 1e9, "zero": 0.0, "negative": -1e-3}[change.split()[1]]
    return True


def _alter(value: Any, rng: np.random.Generator) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, int):
        return value + int(rng.integers(1, 5))
    return value + float(rng.choice([-1, 1]) * (0.001 + rng.random()))


if __name__ == "__main__":
    main()
