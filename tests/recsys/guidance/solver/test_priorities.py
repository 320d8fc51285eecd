"""Which control gives way to which, where a page cannot keep them all."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recsys.guidance.policy.controls import ENFORCEMENT_ORDER


@given(seed=st.integers(0, 2**32))
def test_of_one_outlet_what_is_harder_gives_way_last_then_what_has_priority(make: Any, seed: int) -> None:
    """Against every way to fill twelve slots with items of three kinds, of which there are enough of each."""
    rng = np.random.default_rng(seed)
    kinds, slots = ("public-service", "commercial", "plain"), 12
    asked = [
        (str(rng.choice(ENFORCEMENT_ORDER)), int(priority), tuple(rng.permutation(3)[: rng.integers(1, 3)].tolist()),
         str(rng.choice(["at_least", "at_most"])), int(rng.integers(0, slots + 1)))
        for priority in rng.permutation(1001)[: rng.integers(2, 7)]
    ]  # fmt: skip
    said = [
        f"{{id: c{n}, action: quota, where: {{label: [{', '.join(kinds[kind] for kind in among)}]}}, "
        f"{bound}: {amount}, enforcement: {enforcement}, priority: {priority}}}"
        for n, (enforcement, priority, among, bound, amount) in enumerate(asked)
    ]
    ranked = sorted(range(len(asked)), key=lambda n: (ENFORCEMENT_ORDER.index(asked[n][0]), -asked[n][1]))

    def broken(page: tuple[int, ...]) -> list[int]:
        by = []
        for n in ranked:
            _, _, among, bound, amount = asked[n]
            count = sum(page[kind] for kind in among)
            by.append(max(0, amount - count if bound == "at_least" else count - amount))
        return by

    made = make(f"outlet: cn\ncontrols: [{', '.join(said)}]", slots=slots, seed=seed)
    pages = [(a, b, slots - a - b) for a in range(slots + 1) for b in range(slots + 1 - a)]
    assert [origin.control.id for origin in made.policy.controls] == [f"c{n}" for n in ranked]
    assert made.solution.relaxed.tolist() == min(map(broken, pages))
    assert [line.slack for line in made.receipt.controls] == made.solution.relaxed.tolist()
