"""The order in which controls are relaxed if a page cannot satisfy them all."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recsys.guidance.policy.controls import ENFORCEMENT_ORDER


@given(seed=st.integers(0, 2**32))
def test_controls_of_an_outlet_are_relaxed_by_enforcement_then_priority(make: Any, seed: int) -> None:
    """Compare with every way to fill twelve slots with items of three kinds, each in sufficient supply."""
    rng = np.random.default_rng(seed)
    kinds, slots = ("public-service", "commercial", "plain"), 12
    quotas = [
        (str(rng.choice(ENFORCEMENT_ORDER)), int(priority), tuple(rng.permutation(3)[: rng.integers(1, 3)].tolist()),
         str(rng.choice(["at_least", "at_most"])), int(rng.integers(0, slots + 1)))
        for priority in rng.permutation(1001)[: rng.integers(2, 7)]
    ]  # fmt: skip
    controls = [
        f"{{id: c{n}, action: quota, where: {{label: [{', '.join(kinds[kind] for kind in kinds_in)}]}}, "
        f"{bound}: {amount}, enforcement: {enforcement}, priority: {priority}}}"
        for n, (enforcement, priority, kinds_in, bound, amount) in enumerate(quotas)
    ]
    ranked = sorted(range(len(quotas)), key=lambda n: (ENFORCEMENT_ORDER.index(quotas[n][0]), -quotas[n][1]))

    def broken(page: tuple[int, ...]) -> list[int]:
        violation = []
        for n in ranked:
            _, _, kinds_in, bound, amount = quotas[n]
            count = sum(page[kind] for kind in kinds_in)
            violation.append(max(0, amount - count if bound == "at_least" else count - amount))
        return violation

    guided = make(f"outlet: cn\ncontrols: [{', '.join(controls)}]", slots=slots, seed=seed)
    pages = [(a, b, slots - a - b) for a in range(slots + 1) for b in range(slots + 1 - a)]
    assert [origin.control.id for origin in guided.policy.controls] == [f"c{n}" for n in ranked]
    assert guided.solution.relaxed.tolist() == min(map(broken, pages))
    assert [line.slack for line in guided.receipt.controls] == guided.solution.relaxed.tolist()
