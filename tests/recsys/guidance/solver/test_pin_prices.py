"""What a pin costs: near what solving again without it wins, and never told as nothing where it costs something."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.guidance.instances import FAMILIES, draw_from
from benchmarks.guidance.pins import compare_prices
from recsys.guidance.receipt.verify import verify
from recsys.guidance.solver.page_constraints import PageConstraints
from recsys.guidance.solver.pin_prices import pins_alone
from recsys.guidance.solver.solve import solve

PINNED = "outlet: cn\ncontrols: [{id: lead, action: pin, item: i7, slot: 2}, {id: few, %s}]"


def test_the_price_of_a_pin_is_near_what_solving_again_wins() -> None:
    told, won = compare_prices(FAMILIES["small"], 25, "adaptive")
    off = np.abs(told - won) / np.maximum(won, 1e-9)
    assert np.median(off) < 0.25
    assert np.corrcoef(told, won)[0, 1] > 0.85


def test_where_nothing_but_one_pin_is_asked_its_price_is_exact() -> None:
    rng = np.random.default_rng(5)
    for _ in range(20):
        value, attention = rng.normal(size=12), 0.8 ** np.arange(4)
        bounds = replace(
            PageConstraints.free(np.arange(12, dtype=np.int64), 4),
            active=np.ones(1, np.bool_),
            pin_item=rng.integers(0, 12, 1).astype(np.int32),
            pin_slot=rng.integers(0, 4, 1).astype(np.int32),
            pin_control=np.zeros(1, np.int32),
        )
        pinned = solve(value, attention, bounds)
        free = solve(value, attention, PageConstraints.free(bounds.tie, 4))
        assert abs(pinned.price[0] - (free.value - pinned.value)) < 1e-9
        assert [(0, round(free.value - pinned.value, 9))] == [
            (c, round(price, 9)) for c, price in pins_alone(value, attention, bounds)
        ]


def test_a_receipt_prices_its_pins_at_every_effort(make: Any) -> None:
    text = PINNED % "action: quota, where: {label: commercial}, at_most: 0.1"
    for effort in ("fast", "adaptive", "exact"):
        for seed in range(4):
            made = make(text, effort=effort, seed=seed)
            prices = {price.control_id: price.play_equivalents for price in made.receipt.price}
            assert prices["lead"] > 0, (effort, seed)
            case = (made.solution.chosen, made.policy, made.bounds, made.batch, made.attention, made.catalog)
            assert verify(made.receipt, *case, exact=effort == "exact") == ()
            left = tuple(price for price in made.receipt.price if price.control_id != "lead")
            assert verify(made.receipt.model_copy(update={"price": left}), *case, exact=False)


def test_a_pin_that_gave_way_costs_nothing() -> None:
    """One unit looser, nothing changes."""
    family = replace(FAMILIES["small"], pins=1.0, tightness=1.7)
    gone = 0
    for seed in range(12):
        case = draw_from(family, seed)
        solution = solve(case.value, case.attention, case.bounds)
        relaxed = [c for c in case.bounds.pin_control.tolist() if solution.relaxed[c]]
        gone += len(relaxed)
        assert not solution.price[relaxed].any()
    assert gone, "no page tells"
