"""Exposure targets on one page: what prices add, what viewers have had enough of, what each target is credited."""

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
from recsys.guidance.solver.page_constraints import PageConstraints

SESSION_S = 6 * 3600.0
"""An item of the running session of which the viewer's state has an impression that is no older has arrived there."""


@dataclass(frozen=True)
class ActivePrices:
    """What the control loop says to every page.

    price    target -> play equivalents per unit of attention, >= 0; a target without one is not pushed
    resorts  targets whose last resort is in force
    stopped  targets that are over before their time: not pushed, not counted, no frequency cap
    """

    price: Mapping[str, float] = field(default_factory=dict)
    last_resorts: frozenset[str] = frozenset()
    stopped: frozenset[str] = frozenset()


NO_PRICES = ActivePrices()
"""No target is pushed."""


class Delivery(NamedTuple):
    """What one page did for one target: attention its items won, attention of the whole page, and how many of its items
    count towards a viewer's frequency cap (0 where there is no cap)."""

    delivered: float
    available: float
    impressions: int


def target_key(origin: SourcedControl) -> str:
    """The id of a target outside its policy: `outlet/control`, also where it stands beside a child's form."""
    return f"{origin.outlet}/{origin.alias}"


def targets(policy: CompiledPolicy, query: Query, steered: ActivePrices) -> Iterator[tuple[int, str, ExposureTarget]]:
    """Number of the control, id and definition of the targets in force on this page."""
    if not query.guided:
        return
    for number, origin in enumerate(policy.controls):
        control = origin.control
        if isinstance(control, ExposureTarget) and control.holds(query) and control.runs(query.now):
            key = target_key(origin)
            if key not in steered.stopped:
                yield number, key, control


def price_bonus(policy: CompiledPolicy, rows: I32, query: Query, steered: ActivePrices) -> F64:
    """[N] what the prices of all targets add to catalogue rows, in play equivalents: an item of several targets
    gets the sum."""
    bonus = np.zeros(len(rows))
    for _, key, target in targets(policy, query, steered):
        price = steered.price.get(key, 0.0)
        if price > 0:
            sign = 1.0 if target.bound == "at_least" else -1.0
            bonus += sign * price * policy.member(target.where, query.region)[rows]
    return bonus


def target_needs(policy: CompiledPolicy, query: Query, steered: ActivePrices) -> Iterator[SupplyRequest]:
    """What retrieval must supply for targets that are pushed: a price moves nothing that is not a candidate.

    As many items as the page has slots; of targets on few items, all.
    """
    for _, key, target in targets(policy, query, steered):
        if target.bound == "at_least" and (steered.price.get(key, 0.0) > 0 or key in steered.last_resorts):
            yield SupplyRequest(target.id, policy.member(target.where, query.region), query.slots)


def frequency_capped(
    policy: CompiledPolicy, rows: I32, query: Query, viewer: ViewerState | None, steered: ActivePrices
) -> Bool:
    """[N] rows of targets whose frequency cap the viewer has reached."""
    enough = np.zeros(len(rows), np.bool_)
    for _, key, target in targets(policy, query, steered):
        if target.frequency_cap is not None and impressions_left(policy, key, target, query, viewer) <= 0:
            enough |= policy.member(target.where, query.region)[rows]
    return enough


def impressions_left(
    policy: CompiledPolicy, key: str, target: ExposureTarget, query: Query, viewer: ViewerState | None
) -> int:
    """How often the viewer may still see items of a target with a frequency cap; a stranger has seen nothing.

    Impressions reach the viewer's state through the stream, some seconds late. Those of the running session are known
    from the query: what of them the state has not yet is added, as of this moment. What two screens show at the same
    moment may exceed the cap, and the target's report counts it. Of a page that is not personalised only its session is
    known.
    """
    assert target.frequency_cap is not None
    since = query.now - target.frequency_cap.period_s
    times: tuple[float, ...] = ()
    coming = list(query.shown)
    if viewer is not None:
        times = viewer.target_impressions.get(key, ())
        coming = [one for one in coming if not viewer.impressions_since(one, query.now - SESSION_S)]
    member = policy.member(target.where, query.region)
    return (
        target.frequency_cap.impressions
        - sum(at > since for at in times)
        - int(member[policy.catalog.rows(coming)].sum())
    )


def with_targets(
    bounds: PageConstraints,
    policy: CompiledPolicy,
    rows: I32,
    query: Query,
    viewer: ViewerState | None,
    steered: ActivePrices,
) -> PageConstraints:
    """The bounds of a page with the rows that targets add: what frequency caps leave, and last resorts."""
    member, lower, upper, owner = [], [], [], []
    k = bounds.slots
    nothing, all_slots = np.zeros(k, np.int32), np.arange(1, k + 1, dtype=np.int32)
    for number, key, target in targets(policy, query, steered):
        mine = policy.member(target.where, query.region)[rows]
        least = guaranteed_quota(target, k) if key in steered.last_resorts else 0
        most = k
        if target.frequency_cap is not None:
            most = max(impressions_left(policy, key, target, query, viewer), 0)
        least = min(least, most)
        if not k or (least == 0 and min(int(mine.sum()), k) <= most):
            continue
        floor = nothing.copy()
        floor[-1] = least
        member.append(mine)
        lower.append(floor)
        upper.append(np.minimum(all_slots, most).astype(np.int32))
        owner.append(number)
    if not owner:
        return bounds
    active = bounds.active.copy()
    active[owner] = True
    return replace(
        bounds,
        active=active,
        member=np.vstack([bounds.member, np.array(member)]),
        lower=np.vstack([bounds.lower, np.array(lower)]),
        upper=np.vstack([bounds.upper, np.array(upper)]),
        row_control=np.concatenate([bounds.row_control, np.array(owner, np.int32)]),
    )


def guaranteed_quota(target: ExposureTarget, slots: int) -> int:
    """Least number of the target's items on a page of so many slots, once its last resort is in force.

    A share is rounded up.
    """
    amount = target.last_resort
    if amount is None:
        return 0
    return min(amount if isinstance(amount, int) else int(np.ceil(amount * slots - 1e-9)), slots)


def deliveries(
    policy: CompiledPolicy, rows: I32, attention: F64, query: Query, steered: ActivePrices
) -> dict[str, Delivery]:
    """What a page of these catalogue rows ([K], in slot order) is credited to each target in force on it.

    attention  [>= K] of each slot
    """
    attention = attention[: len(rows)]
    served = float(attention.sum())
    answer = {}
    for _, key, target in targets(policy, query, steered):
        mine = policy.member(target.where, query.region)[rows]
        counted = int(mine.sum()) if target.frequency_cap is not None else 0
        answer[key] = Delivery(float(attention @ mine), served, counted)
    return answer
