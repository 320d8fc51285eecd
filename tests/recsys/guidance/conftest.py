"""Small random pages and an oracle that looks at every one of them; a small catalogue with policies over it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pytest

from recsys.batch import Candidates
from recsys.catalog import Catalog, Item
from recsys.guidance.bounds import Bounds
from recsys.guidance.compile import CompiledPolicy, compile_policy
from recsys.guidance.policy import parse_policy
from recsys.guidance.receipt import Receipt, write_receipt
from recsys.guidance.solver import Solution, solve
from recsys.types import F64, I32, Placement, Query

Instance = tuple[F64, F64, Bounds]
NOW = datetime(2026, 3, 2, 4, tzinfo=UTC)  # a Monday, noon in +08:00


class Draft:
    """Random controls on a page, collected as rows, spacings and pins."""

    def __init__(self, rng: np.random.Generator, n: int, k: int) -> None:
        self.rng, self.n, self.k = rng, n, k
        self.rows: list[tuple[int, I32, I32, I32]] = []
        self.spaces: list[tuple[int, I32, int, int, I32]] = []
        self.pins: list[tuple[int, int, int]] = []

    def share(self, c: int, floor: bool, cap: bool) -> None:
        rng, slots = self.rng, np.arange(1, self.k + 1)
        a = rng.random()
        b = min(1.0, a + rng.random() / 2) if floor else rng.random()
        asked = (slots == self.k) | (rng.random() < 0.6)
        lower = np.where(slots == self.k, np.ceil(a * slots), np.floor(a * slots)) * (asked & floor)
        upper = np.where(slots == self.k, np.floor(b * slots), np.ceil(b * slots))
        member = rng.random(self.n) < rng.choice([0.2, 0.4, 0.6])
        self.rows.append((c, member, lower, np.where(asked & cap, upper, slots)))

    def attribute(self, c: int) -> None:
        codes, most = self.rng.integers(-1, 4, self.n), int(self.rng.integers(1, 3))
        for code in range(4):
            self.rows.append((c, codes == code, np.zeros(self.k), np.full(self.k, most)))

    def space(self, c: int) -> None:
        within = int(self.rng.integers(2, 5))
        codes, seam = self.rng.integers(-1, 4, self.n), self.rng.integers(-1, 4, 3)
        self.spaces.append((c, codes, int(self.rng.integers(1, within)), within, seam))

    def pin(self, c: int) -> None:
        item = -1 if self.rng.random() < 0.1 else int(self.rng.integers(self.n))
        self.pins.append((c, item, int(self.rng.integers(self.k + (self.rng.random() < 0.2)))))

    def bounds(self, controls: int) -> Bounds:
        def ints(numbers: list[int]) -> I32:
            return np.array(numbers, np.int32)

        n, k = self.n, self.k
        return Bounds(
            slots=k,
            active=np.ones(controls, np.bool_),
            tie=self.rng.permutation(n).astype(np.int64),
            member=np.array([row[1] for row in self.rows], np.bool_).reshape(-1, n),
            lower=np.array([row[2] for row in self.rows], np.int32).reshape(-1, k),
            upper=np.array([row[3] for row in self.rows], np.int32).reshape(-1, k),
            row_control=ints([row[0] for row in self.rows]),
            code=np.array([space[1] for space in self.spaces], np.int32).reshape(-1, n),
            at_most=ints([space[2] for space in self.spaces]),
            within=ints([space[3] for space in self.spaces]),
            before=np.array([space[4] for space in self.spaces], np.int32).reshape(-1, 3),
            space_control=ints([space[0] for space in self.spaces]),
            pin_item=ints([pin[1] for pin in self.pins]),
            pin_slot=ints([pin[2] for pin in self.pins]),
            pin_control=ints([pin[0] for pin in self.pins]),
        )


def random_instance(seed: int, n_max: int, k_max: int) -> Instance:
    """value, attention, bounds; about half of the instances have no page that keeps everything."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, n_max + 1))
    k = min(n, int(rng.integers(1, k_max + 1)))
    draft, controls = Draft(rng, n, k), int(rng.integers(0, 6))
    for c in range(controls):
        kind = rng.choice(["floor", "cap", "both", "attribute", "space", "pin"], p=[0.3, 0.15, 0.15, 0.15, 0.15, 0.1])
        if kind in ("floor", "cap", "both"):
            draft.share(c, kind != "cap", kind != "floor")
        else:
            getattr(draft, kind)(c)
    value = rng.normal(0.3, 0.3, n) if rng.random() < 0.7 else rng.integers(0, 3, n) / 2.0
    attention = np.sort(rng.random(k) + 0.05)[::-1] if rng.random() < 0.7 else np.ones(k)
    return value, attention, draft.bounds(controls)


def broken_by(bounds: Bounds, page: tuple[int, ...]) -> tuple[int, ...]:
    """By how many slots a page breaks each control, counted by hand."""
    by = [0] * bounds.controls
    for row, c in enumerate(bounds.row_control.tolist()):
        for k in range(len(page)):
            count = sum(bool(bounds.member[row, i]) for i in page[: k + 1])
            by[c] = max(by[c], int(bounds.lower[row, k]) - count, count - int(bounds.upper[row, k]))
    for s, c in enumerate(bounds.space_control.tolist()):
        line = [*bounds.before[s].tolist(), *(int(bounds.code[s, i]) for i in page)]
        for end in range(len(line) - len(page), len(line)):
            near = line[max(0, end + 1 - int(bounds.within[s])) : end + 1]
            by[c] = max(by[c], near.count(line[end]) - int(bounds.at_most[s]) if line[end] >= 0 else 0)
    for i, k, c in zip(bounds.pin_item.tolist(), bounds.pin_slot.tolist(), bounds.pin_control.tolist(), strict=True):
        if i < 0 or k >= len(page) or page[k] != i:
            by[c] = max(by[c], 1)
    return tuple(by)


def every_page(instance: Instance) -> tuple[tuple[int, ...], float]:
    """The lexicographically least relaxation over all pages, and the best value among pages that need no more."""
    value, attention, bounds = instance
    pages = itertools.permutations(range(len(bounds)), bounds.slots)
    by, loss = min((broken_by(bounds, page), -float(attention @ value[list(page)])) for page in pages)
    return by, -loss


@pytest.fixture(scope="session")
def instance_of() -> Callable[[int, int, int], Instance]:
    return random_instance


@pytest.fixture(scope="session")
def oracle() -> Callable[[Instance], tuple[tuple[int, ...], float]]:
    return every_page


@pytest.fixture(scope="session")
def count_broken() -> Callable[[Bounds, tuple[int, ...]], tuple[int, ...]]:
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
    """Sixty items; every third is public service, every fourth is about Hangzhou."""
    return Catalog.of(map(_item, range(60)))


@dataclass(frozen=True)
class Made:
    """All that belongs to one guided page."""

    policy: CompiledPolicy
    query: Query
    bounds: Bounds
    batch: Candidates
    attention: F64
    solution: Solution
    receipt: Receipt
    catalog: Catalog


@pytest.fixture(scope="session")
def make(shop: Catalog) -> Callable[..., Made]:
    """A page of twelve slots (or `slots`) over the shop under policies given as text."""

    def made(
        *texts: str, seed: int = 0, slots: int = 12, effort: str = "adaptive", shown: int = 0, **query: object
    ) -> Made:
        policy = compile_policy([parse_policy(text) for text in texts], shop)
        asked = {"region": "cn.zj.hz", "now": NOW.timestamp(), "slots": slots} | query
        q = Query("r", "v", Placement.parse("cn.zj.hz-tv-home"), **asked)  # type: ignore[arg-type]
        rows = np.arange(shown, len(shop), dtype=np.int32)
        utility = np.random.default_rng(seed).random(len(rows))
        batch = Candidates.of(rows, np.ones(len(rows), np.uint32)).with_columns(utility=utility)
        batch = batch.with_columns(bonus=policy.bonus(rows, q))
        batch = batch.take(~policy.blocked(rows, q))
        bounds = policy.bounds(q, batch.row, slots, np.arange(shown, dtype=np.int32))
        attention = 0.9 ** np.arange(slots)
        solution = solve(batch.utility + batch.bonus, attention, bounds, effort=effort)  # type: ignore[arg-type]
        receipt = write_receipt(policy, bounds, solution, batch, attention, shop)
        return Made(policy, q, bounds, batch, attention, solution, receipt, shop)

    return made
