"""Small random pages with an oracle that enumerates them, and a small catalog with policies over it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pytest

from benchmarks.guidance.exhaustive import Instance, every_page, random_instance
from recsys.batch import Candidates
from recsys.domain.catalog import Catalog
from recsys.domain.item import Item
from recsys.domain.placement import Placement
from recsys.domain.query import Query
from recsys.domain.types import ACTIONS, F64
from recsys.guidance.compilation.compile import CompiledPolicy, compile_policy
from recsys.guidance.policy.policy import parse_policy
from recsys.guidance.receipt.receipt import Receipt, write_receipt
from recsys.guidance.solver.page_constraints import PageConstraints, Solution
from recsys.guidance.solver.solve import solve

NOW = datetime(2026, 3, 2, 4, tzinfo=UTC)  # a Monday, noon in +08:00


def broken_by(constraints: PageConstraints, page: tuple[int, ...]) -> tuple[int, ...]:
    """Return by how many slots a page violates each control, computed independently of the solver."""
    by = [0] * constraints.controls
    for row, c in enumerate(constraints.row_control.tolist()):
        for k in range(len(page)):
            count = sum(bool(constraints.member[row, i]) for i in page[: k + 1])
            by[c] = max(by[c], int(constraints.lower[row, k]) - count, count - int(constraints.upper[row, k]))
    for s, c in enumerate(constraints.spacing_control.tolist()):
        codes = [*constraints.before[s].tolist(), *(int(constraints.code[s, i]) for i in page)]
        for end in range(len(codes) - len(page), len(codes)):
            window = codes[max(0, end + 1 - int(constraints.within[s])) : end + 1]
            by[c] = max(by[c], window.count(codes[end]) - int(constraints.at_most[s]) if codes[end] >= 0 else 0)
    for i, k, c in zip(
        constraints.pin_item.tolist(), constraints.pin_slot.tolist(), constraints.pin_control.tolist(), strict=True
    ):
        if i < 0 or k >= len(page) or page[k] != i:
            by[c] = max(by[c], 1)
    return tuple(by)


@pytest.fixture(scope="session")
def instance_of() -> Callable[..., Instance]:
    return random_instance


@pytest.fixture(scope="session")
def oracle() -> Callable[[Instance], tuple[tuple[int, ...], float]]:
    return every_page


@pytest.fixture(scope="session")
def count_broken() -> Callable[[PageConstraints, tuple[int, ...]], tuple[int, ...]]:
    return broken_by


def _item(n: int) -> Item:
    labels = [
        ("public-service", "commercial", "plain")[n % 3],
        ("news/politics", "news/city", "culture", "sport")[n % 4],
    ]
    return Item.model_validate(
        {
            "id": f"i{n}",
            "title": {"en": f"Item {n}"},
            "outlet": ("cn", "cn.zj", "cn.zj.hz")[n % 3],
            "provider": f"p{n % 5}",
            "labels": labels,
            "topic": f"t{n % 7}",
            "series": "harvest" if n % 10 == 0 else "",
            "axes": {"public_value": (n % 5) / 4},
            "region": ("cn.zj.hz", "cn.zj", "cn.js", None)[n % 4],
            "kind": ("film", "article")[n % 2],
            "language": ("zh", "en", "no")[n % 3],
            "age_rating": (0, 12, 18)[n % 3],
            "published_at": datetime(2026, 1, 1, tzinfo=UTC),
        }
    )


@pytest.fixture(scope="session")
def shop() -> Catalog:
    """A catalog of sixty items; every third is public service, every fourth is about Hangzhou."""
    return Catalog.of(map(_item, range(60)))


@dataclass(frozen=True)
class GuidedPage:
    """A page that was solved under policies, with its inputs and its receipt."""

    policy: CompiledPolicy
    query: Query
    bounds: PageConstraints
    batch: Candidates
    attention: F64
    solution: Solution
    receipt: Receipt
    catalog: Catalog


@pytest.fixture(scope="session")
def make(shop: Catalog) -> Callable[..., GuidedPage]:
    """Return a function that solves a page of twelve slots (or `slots`) over the shop under policies given as text."""

    def solve_page(
        *texts: str, seed: int = 0, slots: int = 12, effort: str = "adaptive", shown: int = 0, **query: object
    ) -> GuidedPage:
        policy = compile_policy([parse_policy(text) for text in texts], shop)
        fields = {"region": "cn.zj.hz", "now": NOW.timestamp(), "slots": slots} | query
        request = Query("r", "v", Placement.parse("cn.zj.hz-tv-home"), **fields)  # type: ignore[arg-type]
        rows = np.arange(shown, len(shop), dtype=np.int32)
        utility = np.random.default_rng(seed).random(len(rows))
        p = np.random.default_rng([seed, 1]).random((len(rows), len(ACTIONS)), np.float32)
        batch = Candidates.of(rows, np.ones(len(rows), np.uint32)).with_columns(utility=utility, p=p)
        batch = batch.with_columns(bonus=policy.bonus(rows, request))
        batch = batch.take(~policy.blocked(rows, request))
        constraints = policy.bounds(request, batch.row, slots, np.arange(shown, dtype=np.int32))
        attention = 0.9 ** np.arange(slots)
        solution = solve(batch.utility + batch.bonus, attention, constraints, effort=effort)  # type: ignore[arg-type]
        receipt = write_receipt(policy, constraints, solution, batch, attention, shop)
        return GuidedPage(policy, request, constraints, batch, attention, solution, receipt, shop)

    return solve_page
