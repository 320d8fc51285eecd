"""Spacing across the boundary between two pages of a session."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recsys.guidance.compilation.compile import compile_policy
from recsys.guidance.policy.policy import parse_policy
from recsys.guidance.solver.solve import solve


@given(seed=st.integers(0, 2**32))
def test_spacing_holds_across_the_boundary_of_two_pages(make: Any, seed: int) -> None:
    """The values shown last have the highest utility; the oracle counts windows over both pages."""
    rng, base = np.random.default_rng(seed), make("outlet: cn", slots=1)
    catalog = base.catalog
    attributes = rng.permutation(["topic", "provider", "region", "kind"])[: rng.integers(1, 3)].tolist()
    spacings = [(attribute, int(rng.integers(1, 3)), int(rng.integers(2, 6))) for attribute in attributes]
    spacings = [(attribute, at_most, max(reach, at_most + 1)) for attribute, at_most, reach in spacings]
    controls = [
        f"{{id: s{n}, action: spacing, attribute: {attribute}, at_most: {at_most}, within: {reach}}}"
        for n, (attribute, at_most, reach) in enumerate(spacings)
    ]
    policy_ = compile_policy([parse_policy(f"outlet: cn\ncontrols: [{', '.join(controls)}]")], catalog)
    order = rng.permutation(len(catalog)).astype(np.int32)
    shown, rows = order[: rng.integers(1, 20)], np.sort(order[20:])
    slots = int(rng.integers(1, 13))
    bounds = policy_.bounds(base.query, rows, slots, shown)

    def values(attribute: str, items: Any) -> list[str]:
        return [str(getattr(catalog.items[row], attribute) or "") for row in items]

    crowded_values = [np.isin(values(attribute, rows), values(attribute, shown[-2:])) for attribute, _, _ in spacings]
    solution = solve(rng.random(len(rows)) + np.sum(crowded_values, axis=0), 0.9 ** np.arange(slots), bounds)
    for (attribute, at_most, reach), origin, slack in zip(spacings, policy_.controls, solution.relaxed, strict=True):
        assert origin.control.attribute == attribute
        line = [*values(attribute, shown), *values(attribute, rows[solution.chosen])]
        windows = [line[max(0, end - reach + 1) : end + 1] for end in range(len(shown), len(line))]
        largest = max(window.count(window[-1]) if window[-1] else 0 for window in windows)
        assert max(0, largest - at_most) == slack, line
