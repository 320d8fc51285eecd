"""Random instances of the page problem, in families: overlapping labels with minimums and maximums on prefixes, caps on
topics and sources, spacing, and pins. An instance is a function of its family and seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, floor
from typing import NamedTuple

import numpy as np

from recsys.domain.types import F64, I32, I64, Bool
from recsys.guidance.solver.page_constraints import PageConstraints


class Instance(NamedTuple):
    """A page to solve: [N] value of the items, [K] attention of the slots, and the constraints."""

    value: F64
    attention: F64
    bounds: PageConstraints


class Rule(NamedTuple):
    """A quota of a label: fractions of every prefix from slot `from_slot` on, and a minimum count on the page."""

    label: int
    minimum: float = 0.0
    maximum: float = 1.0
    from_slot: int = 1
    count_on_page: int = 0
    one_within: int = 0  # the first so many slots hold at least one


@dataclass(frozen=True)
class Family:
    """Parameters of a family. `tightness`: 1 = typical; from 1.6 on, many instances are infeasible."""

    items: int = 500
    slots: int = 30
    tightness: float = 1.0
    labels: tuple[int, int] = (4, 8)
    pins: float = 0.4
    rows: int = 0  # slots in a row of a TV page, whose attention falls from row to row and along each row; 0: a list


FAMILIES: dict[str, Family] = {
    "small": Family(items=300, slots=12),
    "typical": Family(),
    "tight": Family(tightness=1.25),
    "conflicting": Family(tightness=1.7),
    "long": Family(items=1000, slots=50),
    "many labels": Family(labels=(14, 20), tightness=0.8),
    "tv rows": Family(items=400, slots=24, rows=6),
}

PREVALENCE = (0.25, 0.07, 0.35, 0.30, 0.12, 0.05, 0.18, 0.22)
CLICK_LOG_ODDS = (
    -0.35,
    -0.50,
    0.45,
    0.0,
    -0.20,
    -0.60,
    -0.10,
    0.10,
)  # effect of each label on the log-odds of a click


def draw(name: str, seed: int) -> Instance:
    """Return the instance of a named family for a seed."""
    return _draw(FAMILIES[name], np.random.default_rng([seed, *name.encode()]))


def draw_from(family: Family, seed: int) -> Instance:
    """Return the instance of any family for a seed."""
    return _draw(family, np.random.default_rng(seed))


def _draw(family: Family, rng: np.random.Generator) -> Instance:
    n, k = family.items, family.slots
    labels, topics, sources = (
        int(rng.integers(*family.labels, endpoint=True)),
        int(rng.integers(10, 16)),
        int(rng.integers(18, 40)),
    )
    topic = rng.choice(topics, n, p=_zipf(topics, 0.8))
    source = rng.choice(sources, n, p=_zipf(sources, 0.9))
    taste = rng.normal(0, 0.8, topics)[topic] + rng.normal(0, 0.4, sources)[source]
    log_odds = rng.normal(-2.0, 0.8, n) + taste
    topic_affinity, source_affinity = rng.normal(0, 0.6, (labels, topics)), rng.normal(0, 0.6, (labels, sources))
    member = np.zeros((labels, n), np.bool_)
    for label in range(labels):
        share = PREVALENCE[label % 8]
        odds = np.log(share / (1 - share)) + topic_affinity[label][topic] + source_affinity[label][source]
        if label % 8 == 2:
            odds = odds - 2.0 * member[0]  # commercial items are rarely public service
        if label % 8 == 1:
            odds = odds + 0.8 * member[0]
        member[label] = rng.random(n) < 1 / (1 + np.exp(-odds))
        log_odds += CLICK_LOG_ODDS[label % 8] * member[label]
    value = 1 / (1 + np.exp(-log_odds)) + 0.05 * rng.random(n)
    rules = [_rule(label, family.tightness, k, rng) for label in range(labels)]
    return Instance(value, _attention(family), _bounds(family, rules, member, topic, source, rng))


def _zipf(count: int, power: float) -> F64:
    weight = np.arange(1, count + 1) ** -power
    return np.asarray(weight / weight.sum())


def _attention(family: Family) -> F64:
    slot = np.arange(family.slots)
    if not family.rows:
        return np.asarray(1 / np.log2(slot + 2))
    row, column = np.divmod(slot, family.rows)
    return np.asarray(np.sort(0.85**row * 0.93**column)[::-1])


def _rule(label: int, tight: float, k: int, rng: np.random.Generator) -> Rule:
    """Return the quota of a label; its kind depends on the label's number."""
    match label % 8:
        case 0:
            return Rule(label, min(0.9, rng.uniform(0.25, 0.40) * tight), from_slot=10, one_within=3)
        case 1:
            return Rule(
                label, count_on_page=round(rng.integers(2, 4) * tight), one_within=10 if rng.random() < 0.7 else 0
            )
        case 2:
            return Rule(label, maximum=rng.uniform(0.15, 0.30) / tight, from_slot=5)
        case 3:
            return Rule(
                label,
                min(0.9, rng.uniform(0.15, 0.30) * tight),
                rng.uniform(0.45, 0.6),
                8,
                one_within=5 if rng.random() < 0.5 else 0,
            )
        case 4:
            return Rule(label, rng.uniform(0.08, 0.16) * tight, from_slot=15)
        case 5:
            return Rule(label, count_on_page=round(rng.integers(1, 4) * tight))
        case 6:
            return Rule(label, rng.uniform(0.10, 0.30) * tight, from_slot=10)
        case _:
            return Rule(label, rng.uniform(0.15, 0.30) * tight, 0.6 if rng.random() < 0.3 else 1.0, 20, one_within=5)


def _bounds(
    family: Family, rules: list[Rule], label: Bool, topic: I64, source: I64, rng: np.random.Generator
) -> PageConstraints:
    n, k = family.items, family.slots
    members, lowers, uppers, owners = [], [], [], []
    order = rng.permutation(len(rules))
    for c, rule in enumerate(rules):
        low, high = np.zeros(k, np.int32), np.arange(1, k + 1, dtype=np.int32)
        for slots in range(1, k + 1):
            if slots >= min(rule.from_slot, k):
                low[slots - 1] = ceil(rule.minimum * slots - 1e-9)
                high[slots - 1] = min(slots, floor(rule.maximum * slots + 1e-9))
            if rule.one_within and slots >= min(rule.one_within, k):
                low[slots - 1] = max(low[slots - 1], 1)
        low[-1] = max(low[-1], rule.count_on_page)
        members.append(label[rule.label])
        lowers.append(low)
        uppers.append(high)
        owners.append(int(order[c]))
    control = len(rules)
    first_ten = int(rng.integers(3, 5))
    for values, share, first_ten_max in (
        (topic, rng.uniform(0.2, 0.3), first_ten),
        (source, rng.uniform(0.12, 0.2), 0),
    ):
        for code in range(int(values.max()) + 1):
            high = np.full(k, ceil(k * share), np.int32)
            if first_ten_max and k >= 10:
                high[:10] = np.minimum(high[:10], first_ten_max)
            members.append(values == code)
            lowers.append(np.zeros(k, np.int32))
            uppers.append(high)
            owners.append(control)
        control += 1
    pins = list[tuple[int, int]]()
    if rng.random() < family.pins:
        pin_slots = rng.choice(min(8, k), int(rng.integers(1, 3)), replace=False)
        pinned = rng.choice(n, len(pin_slots), replace=False)
        pins = [(int(item), int(slot)) for item, slot in zip(pinned, pin_slots, strict=True)]

    def ints(numbers: Sequence[int] | I64) -> I32:
        return np.array(numbers, np.int32)

    return replace(
        PageConstraints.free(np.arange(n), k),
        active=np.ones(control + 1 + len(pins), np.bool_),
        member=np.array(members),
        lower=np.array(lowers, np.int32),
        upper=np.array(uppers, np.int32),
        row_control=ints(owners),
        code=np.array([topic], np.int32),
        at_most=ints([2]),
        within=ints([3]),
        before=np.full((1, 2), -1, np.int32),
        spacing_control=ints([control]),
        pin_item=ints([item for item, _ in pins]),
        pin_slot=ints([slot for _, slot in pins]),
        pin_control=ints([control + 1 + number for number in range(len(pins))]),
    )
