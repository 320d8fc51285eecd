"""Pin prices: close to the gain of solving again without the pin, and positive if the pin has a cost."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.guidance.instances import FAMILIES, draw_from
from benchmarks.guidance.pins import compare_prices
from recsys.guidance.receipt.verify import verify
from recsys.guidance.solver.page_constraints import PageConstraints
from recsys.guidance.solver.pin_prices import standalone_pin_prices
from recsys.guidance.solver.solve import solve

PINNED_POLICY = "outlet: cn\ncontrols: [{id: lead, action: pin, item: i7, slot: 2}, {id: limit, %s}]"


def test_the_price_of_a_pin_is_near_what_solving_again_wins() -> None:
    report, won = compare_prices(FAMILIES["small"], 25, "adaptive")
    off = np.abs(report - won) / np.maximum(won, 1e-9)
    assert np.median(off) < 0.25
    assert np.corrcoef(report, won)[0, 1] > 0.85


def test_the_price_of_a_single_pin_without_other_limits_is_exact() -> None:
    rng = np.random.default_rng(5)
    for _ in range(20):
        value, attention = rng.normal(size=12), 0.8 ** np.arange(4)
        constraints = replace(
            PageConstraints.free(np.arange(12, dtype=np.int64), 4),
            active=np.ones(1, np.bool_),
            pin_item=rng.integers(0, 12, 1).astype(np.int32),
            pin_slot=rng.integers(0, 4, 1).astype(np.int32),
            pin_control=np.zeros(1, np.int32),
        )
        pinned = solve(value, attention, constraints)
        free = solve(value, attention, PageConstraints.free(constraints.tie, 4))
        assert abs(pinned.price[0] - (free.value - pinned.value)) < 1e-9
        assert [(0, round(free.value - pinned.value, 9))] == [
            (c, round(price, 9)) for c, price in standalone_pin_prices(value, attention, constraints)
        ]


def test_receipts_report_pin_prices_at_every_effort(make: Any) -> None:
    text = PINNED_POLICY % "action: quota, where: {label: commercial}, at_most: 0.1"
    for effort in ("fast", "adaptive", "exact"):
        for seed in range(4):
            guided = make(text, effort=effort, seed=seed)
            prices = {price.control_id: price.play_equivalents for price in guided.receipt.price}
            assert prices["lead"] > 0, (effort, seed)
            case = (
                guided.solution.chosen,
                guided.policy,
                guided.bounds,
                guided.batch,
                guided.attention,
                guided.catalog,
            )
            assert verify(guided.receipt, *case, exact=effort == "exact") == ()
            remaining = tuple(price for price in guided.receipt.price if price.control_id != "lead")
            assert verify(guided.receipt.model_copy(update={"price": remaining}), *case, exact=False)


def test_a_relaxed_pin_has_price_zero() -> None:
    """One more unit of slack changes nothing."""
    family = replace(FAMILIES["small"], pins=1.0, tightness=1.7)
    relaxed_pins = 0
    for seed in range(12):
        case = draw_from(family, seed)
        solution = solve(case.value, case.attention, case.bounds)
        relaxed = [c for c in case.bounds.pin_control.tolist() if solution.relaxed[c]]
        relaxed_pins += len(relaxed)
        assert not solution.price[relaxed].any()
    assert relaxed_pins, "no instance relaxed a pin"
