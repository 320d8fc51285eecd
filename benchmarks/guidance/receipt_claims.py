"""What receipts claim, put to the test on many pages.

    python -m benchmarks.guidance.receipt_claims [--relaxations 1000] [--attributions 60] [--forged 10000]

Relaxations must be those of an exact lexicographic answer (HiGHS at every step). Controls named for an item that was
promoted or held back must be decisive: without them the item is gone, or back. Every forged receipt must be rejected.
The last line is one JSON object.
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
from recsys.domain.catalog import Catalog, Item
from recsys.domain.types import F64, I32, Placement, Query
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
    """Run all three and print what held."""
    parser = argparse.ArgumentParser(prog="bench-guidance-claims", description=__doc__)
    parser.add_argument("--relaxations", type=int, default=1000)
    parser.add_argument("--attributions", type=int, default=60)
    parser.add_argument("--forged", type=int, default=10_000)
    said = parser.parse_args()
    warm()
    told = {
        "relaxation": relaxations(said.relaxations),
        "attribution": attributions(said.attributions),
        "forged": forgeries(said.forged),
    }
    for name, figures in told.items():
        print(f"{name}: " + ", ".join(f"{key.replace('_', ' ')} {figure}" for key, figure in figures.items()))
    print(json.dumps({"benchmark": "guidance-claims", **told}))


def relaxations(count: int) -> dict[str, Any]:
    """The same controls give way by the same number of slots as when HiGHS answers every question of feasibility."""
    same, settled, looked, seed, took, exact_took = 0, 0, 0, 0, [], []
    while looked < count:
        instance = draw_from(SCARCE, seed)
        seed += 1
        began = time.thread_time()
        solution = solve(*instance)
        took.append(1e3 * (time.thread_time() - began))
        if not solution.relaxed.any():
            took.pop()
            continue
        looked += 1
        began = time.thread_time()
        by = lexicographic(*instance)
        exact_took.append(1e3 * (time.thread_time() - began))
        same += bool((by == solution.relaxed).all())
        settled += bool(solution.minimal_proven.all())
    return {
        "instances": looked,
        "same": same,
        "settled": settled,
        "median_ms": round(float(np.median(took)), 1),
        "exact_median_ms": round(float(np.median(exact_took)), 1),
    }


def lexicographic(value: F64, attention: F64, bounds: PageConstraints) -> I32:
    """[C] the least that each control gives way, in order of importance, by HiGHS alone."""
    by, accepted = np.zeros(bounds.controls, np.int32), np.zeros(bounds.controls, np.bool_)
    for c in np.flatnonzero(bounds.active):
        accepted[c] = True
        while any_page(presolve(value, attention, bounds.with_slack(by).only(accepted))).page is None:
            by[c] += 1
    return by


def attributions(count: int) -> dict[str, Any]:
    """Pages solved again without the controls that are named for an item; and, for comparison, without others."""
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
                other = rng.choice(priced, min(len(named), len(priced)), replace=False).tolist() if priced else []
                tally[kind][0] += 1
                tally[kind][1] += _decisive(instance, named, i, up)
                tally[kind][2] += _decisive(instance, other, i, up)
    return {
        f"{kind}_{what}": figure
        for kind, (items, named, others) in tally.items()
        for what, figure in (
            ("items", items),
            ("decisive_pct", round(100 * named / max(items, 1), 1)),
            ("others_pct", round(100 * others / max(items, 1), 1)),
        )
    }


def _decisive(instance: Instance, controls: list[int], item: int, up: bool) -> bool:
    keep = np.ones(instance.bounds.controls, np.bool_)
    keep[controls] = False
    without = solve(instance.value, instance.attention, instance.bounds.only(keep))
    return (item in without.chosen) != up


def forgeries(count: int) -> dict[str, Any]:
    """Honest receipts with one thing changed in the receipt or the page; and with estimates changed within limits.

    The latter nobody can tell without the solver: they are reported, and not counted among the forgeries.
    """
    rng, rejected, made, honest, halved, told = np.random.default_rng(0), 0, 0, 0, 0, 0
    while made < count:
        case = _case(int(rng.integers(2**31)))
        honest += not verify(*case, exact=False)
        receipt, chosen, *rest = case
        if any(price.play_equivalents for price in receipt.price):
            lower = [
                price.model_copy(update={"play_equivalents": price.play_equivalents / 2}) for price in receipt.price
            ]
            halved += 1
            told += bool(verify(receipt.model_copy(update={"price": lower}), chosen, *rest, exact=False))
        for _ in range(50):
            other, page = _forge(receipt, rng), chosen
            if other is None:
                page = chosen.copy()
                one = rng.integers(len(page))
                page[one] = rng.choice([i for i in range(len(rest[2])) if i != page[one]])
                other = receipt
            made += 1
            rejected += bool(verify(other, page, *rest, exact=False))
    return {
        "receipts_and_pages": made, "rejected": rejected, "honest_ones_accepted": honest, "of": made // 50,
        "all_estimates_halved": halved, "of_these_told": told,
    }  # fmt: skip


def _case(seed: int) -> Any:
    """A receipt with all that `verify` takes."""
    rng = np.random.default_rng(seed)
    catalog = Catalog.of(_item(n, rng) for n in range(60))
    policy = compile_policy(
        [
            parse_policy(
                f"""
outlet: cn.zj
weights: {{worth: {rng.choice([0.0, 0.1])}}}
controls:
  - {{id: floor, action: quota, where: {{label: a}}, at_least: {rng.integers(1, 6) * 10}%, prefixes: every}}
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
        axes={"worth": float(rng.random())},
        published_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


def _forge(receipt: Receipt, rng: np.random.Generator) -> Receipt | None:
    """The receipt with one number, word or flag changed, that is no estimate; None: forge the page instead."""
    said = receipt.model_dump()
    fields = ["value", "utility", "utility_without", "gap", "proven", "legal_kept", "policy_version", "page", "bound"]
    if rng.random() < 0.4:
        what = str(rng.choice(fields))
        if what == "page":
            return None
        if what == "bound":  # a proof of nothing, in itself consistent
            said["bound"] = max(said["value"], said["utility_without"]) * float(rng.choice([2.0, 100.0]))
            said["gap"], said["proven"] = relative_gap(said["bound"], said["value"]), False
        else:
            said[what] = _alter(said[what], rng)
    elif rng.random() < 0.2 and _forge_prices(said, rng):
        pass
    elif rng.random() < 0.7 or not said["moved"]:
        line = said["controls"][rng.integers(len(said["controls"]))]
        if line["by"] and rng.random() < 0.5:
            _forge_cause(line["why"], [one["id"] for one in said["controls"] if one["id"] != line["id"]], rng)
            return Receipt.model_validate(copy.deepcopy(said))
        what = str(
            rng.choice(
                ["id", "origin", "achieved", "by", "missing", "priority", "reason", "status", "required", "settled"]
            )
        )
        if what == "settled" and line["by"]:
            what = "by"  # how sure the solver was of what gave way, only solving again can tell
        if what == "required":
            which = str(rng.choice(["at_least", "at_most", "within", "slot", "first_slots"]))
            line["required"][which] = (line["required"][which] or 0) + int(rng.integers(1, 4))
        elif what == "status":
            line["status"] = str(
                rng.choice([s for s in ("met", "active", "relaxed", "infeasible") if s != line["status"]])
            )
        else:
            line[what] = _alter(line[what], rng)
    else:
        move = said["moved"][rng.integers(len(said["moved"]))]
        what = str(rng.choice(["item_id", "slot", "control_ids"]))
        if what == "control_ids":
            move["control_ids"] = [*move["control_ids"], "nobody"]
        else:
            move[what] = _alter(move[what] or 0, rng)
    return Receipt.model_validate(copy.deepcopy(said))


def _forge_cause(why: dict[str, Any], others: list[str], rng: np.random.Generator) -> None:
    """Another cause for a control that gave way."""
    what = str(rng.choice(["kind", "alone", "narrowed", "control_ids"]))
    if what == "kind":
        kinds = ["supply", "slots", "itself", "controls", "unknown"]
        why["kind"] = str(rng.choice([kind for kind in kinds if kind != why["kind"]]))
    elif what == "control_ids":
        one = str(rng.choice(others))
        ids = why["control_ids"]
        why["control_ids"] = [i for i in ids if i != one] if one in ids else [*ids, one]
    else:
        why[what] = _alter(why[what], rng)


def _forge_prices(said: dict[str, Any], rng: np.random.Generator) -> bool:
    """One price, or all, beyond what can be; some left out, or none told. False: there are no prices to forge."""
    prices = said["price"]
    free = not any(line["action"] == "pin" and not line["by"] for line in said["controls"])
    ways = ["all gone", "one gone", "order", "all huge", "one huge", "one below", "one resolved"]
    way = str(
        rng.choice([*ways, "all nothing"] if free and any(price["play_equivalents"] for price in prices) else ways)
    )
    if len(prices) < 2:
        return False
    one = int(rng.integers(len(prices)))
    if way.endswith("gone"):
        said["price"] = [] if way == "all gone" else prices[:one] + prices[one + 1 :]
    elif way == "order":
        said["price"] = prices[::-1]
    elif way == "one resolved":
        prices[one]["how"] = "resolved"
    else:
        for price in prices if way.startswith("all") else [prices[one]]:
            price["play_equivalents"] = {"huge": 1e9, "nothing": 0.0, "below": -1e-3}[way.split()[1]]
    return True


def _alter(one: Any, rng: np.random.Generator) -> Any:
    if isinstance(one, bool):
        return not one
    if isinstance(one, str):
        return one + "x"
    if isinstance(one, int):
        return one + int(rng.integers(1, 5))
    return one + float(rng.choice([-1, 1]) * (0.001 + rng.random()))


if __name__ == "__main__":
    main()
