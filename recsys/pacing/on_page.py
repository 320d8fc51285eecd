"""Exposure targets on one page: price bonuses, frequency caps, last resorts and delivery."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from recsys.domain.query import Query
from recsys.domain.types import F64, I32, Bool
from recsys.domain.viewer import ViewerState
from recsys.guidance.compilation.compile import CompiledPolicy, SupplyRequest
from recsys.guidance.policy.controls import ExposureTarget
from recsys.guidance.policy.inheritance import SourcedControl
from recsys.guidance.receipt.target_effects import TargetPrice
from recsys.guidance.solver.page_constraints import PageConstraints

SESSION_S = 6 * 3600.0
"""Maximum age of an impression in the viewer's state that counts as an impression of the running session."""


@dataclass(frozen=True)
class ActivePrices:
    """The output of the control loop for every page.

    price         target -> price per unit of attention, >= 0, in play equivalents; for a target without `max_price`, in
                  units of the utility of an item on the page. A target without a price has no effect
    last_resorts  targets whose last resort is active
    stopped       targets stopped before their deadline: no price, no delivery, no frequency cap
    """

    price: Mapping[str, float] = field(default_factory=dict)
    last_resorts: frozenset[str] = frozenset()
    stopped: frozenset[str] = frozenset()


NO_PRICES = ActivePrices()
"""Prices without any target."""


class Delivery(NamedTuple):
    """The delivery of one page to one target.

    delivered    attention of the target's items
    available    attention of the whole page
    impressions  items that count towards the viewer's frequency cap; 0 without a cap
    """

    delivered: float
    available: float
    impressions: int


def target_key(origin: SourcedControl) -> str:
    """Return the key of a target outside its policy, `outlet/control`; the same next to a child's version of it."""
    return f"{origin.outlet}/{origin.alias}"


def targets(policy: CompiledPolicy, query: Query, prices: ActivePrices) -> Iterator[tuple[int, str, ExposureTarget]]:
    """Yield control index, key and definition of every target in force on this page."""
    if not query.guided:
        return
    for number, origin in enumerate(policy.controls):
        control = origin.control
        if isinstance(control, ExposureTarget) and control.holds(query) and control.runs(query.now):
            key = target_key(origin)
            if key not in prices.stopped:
                yield number, key, control


def target_prices(
    policy: CompiledPolicy, rows: I32, query: Query, prices: ActivePrices, item_utility: float
) -> tuple[TargetPrice, ...]:
    """Return the price of each target on this page, in play equivalents, with its bonus for each catalog row [N].

    item_utility  utility of an item on the page (`mean_utility`): the unit of the prices of targets without `max_price`
    """
    priced = []
    for number, key, target in targets(policy, query, prices):
        price = prices.price.get(key, 0.0) * (item_utility if target.max_price is None else 1.0)
        if price > 0:
            signed = price if target.bound == "at_least" else -price
            bonus = signed * policy.member(target.where, query.region)[rows].astype(np.float64)
            priced.append(TargetPrice(number, signed, bonus))
    return tuple(priced)


def mean_utility(utility: F64, attention: F64) -> float:
    """Return the mean size of the utility of the items on the best page without guidance, weighted by attention.

    utility    [N] utility of each candidate, in play equivalents
    attention  [K] attention of each slot

    >>> mean_utility(np.array([0.1, 0.4, 0.2]), np.array([1.0, 0.5]))
    0.3333333333333333
    """
    best = np.sort(utility)[::-1][: len(attention)]
    weight = attention[: len(best)]
    return float(weight @ np.abs(best)) / max(float(weight.sum()), 1e-9)  # utility can be negative


def target_needs(policy: CompiledPolicy, query: Query, prices: ActivePrices) -> Iterator[SupplyRequest]:
    """Yield the supply that retrieval must provide for targets with a price, since a price affects only candidates.

    Each request is for as many items as the page has slots, or for all items of a smaller target.
    """
    for _, key, target in targets(policy, query, prices):
        if target.bound == "at_least" and (prices.price.get(key, 0.0) > 0 or key in prices.last_resorts):
            yield SupplyRequest(target.id, policy.member(target.where, query.region), query.slots)


def frequency_capped(
    policy: CompiledPolicy, rows: I32, query: Query, viewer: ViewerState | None, prices: ActivePrices
) -> Bool:
    """Return [N] whether each row belongs to a target whose frequency cap the viewer has reached."""
    capped = np.zeros(len(rows), np.bool_)
    for _, key, target in targets(policy, query, prices):
        if target.frequency_cap is not None and impressions_left(policy, key, target, query, viewer) <= 0:
            capped |= policy.member(target.where, query.region)[rows]
    return capped


def impressions_left(
    policy: CompiledPolicy, key: str, target: ExposureTarget, query: Query, viewer: ViewerState | None
) -> int:
    """Return the number of impressions left under a target's frequency cap; may be negative.

    Impressions reach the viewer's state through the stream with a delay of some seconds. Impressions of the running
    session that are missing from the state are taken from the last items of the query and count as current.
    Simultaneous pages on two screens may exceed the cap; the report of the target counts such impressions. A page
    without personalisation counts its session only.
    """
    assert target.frequency_cap is not None
    since = query.now - target.frequency_cap.period_s
    times: tuple[float, ...] = ()
    if viewer is None:
        pending = query.shown_rows(policy.catalog)
    else:
        times, since_session = viewer.target_impressions.get(key, ()), query.now - SESSION_S
        pending = policy.catalog.rows(i for i in query.shown if not viewer.impressions_since(i, since_session))
    member = policy.member(target.where, query.region)
    return target.frequency_cap.impressions - sum(at > since for at in times) - int(member[pending].sum())


def with_targets(
    constraints: PageConstraints,
    policy: CompiledPolicy,
    rows: I32,
    query: Query,
    viewer: ViewerState | None,
    prices: ActivePrices,
) -> PageConstraints:
    """Return the constraints of a page with the rows of its targets: frequency caps and last resorts."""
    member, lower, upper, owner = [], [], [], []
    k = constraints.slots
    nothing, all_slots = np.zeros(k, np.int32), np.arange(1, k + 1, dtype=np.int32)
    for number, key, target in targets(policy, query, prices):
        members = policy.member(target.where, query.region)[rows]
        minimum = guaranteed_quota(target, k) if key in prices.last_resorts else 0
        maximum = k
        if target.frequency_cap is not None:
            maximum = max(impressions_left(policy, key, target, query, viewer), 0)
        minimum = min(minimum, maximum)
        if not k or (minimum == 0 and min(int(members.sum()), k) <= maximum):
            continue
        lower_row = nothing.copy()
        lower_row[-1] = minimum
        member.append(members)
        lower.append(lower_row)
        upper.append(np.minimum(all_slots, maximum).astype(np.int32))
        owner.append(number)
    if not owner:
        return constraints
    active = constraints.active.copy()
    active[owner] = True
    return replace(
        constraints,
        active=active,
        member=np.vstack([constraints.member, np.array(member)]),
        lower=np.vstack([constraints.lower, np.array(lower)]),
        upper=np.vstack([constraints.upper, np.array(upper)]),
        row_control=np.concatenate([constraints.row_control, np.array(owner, np.int32)]),
    )


def guaranteed_quota(target: ExposureTarget, slots: int) -> int:
    """Return the minimum number of the target's items on a page once its last resort is active.

    A share is rounded up.
    """
    amount = target.last_resort
    if amount is None:
        return 0
    return min(amount if isinstance(amount, int) else int(np.ceil(amount * slots - 1e-9)), slots)


def deliveries(
    policy: CompiledPolicy, rows: I32, attention: F64, query: Query, prices: ActivePrices
) -> dict[str, Delivery]:
    """Return the delivery of a page to each target in force on it.

    rows       [K] catalog rows in slot order
    attention  [>= K] attention of each slot
    """
    attention = attention[: len(rows)]
    available = float(attention.sum())
    result = {}
    for _, key, target in targets(policy, query, prices):
        members = policy.member(target.where, query.region)[rows]
        counted = int(members.sum()) if target.frequency_cap is not None else 0
        result[key] = Delivery(float(attention @ members), available, counted)
    return result
