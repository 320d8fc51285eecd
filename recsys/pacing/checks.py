"""What editors should know about an exposure target before it is published."""

from __future__ import annotations

from collections.abc import Iterator

from recsys.distribution.layouts import LAYOUTS, screen_layout
from recsys.domain.catalog import Catalog
from recsys.domain.errors import Finding
from recsys.domain.placement import Screen
from recsys.guidance.policy.conditions import mask
from recsys.guidance.policy.controls import ExposureTarget
from recsys.guidance.policy.policy import Policy
from recsys.messages import message
from recsys.pacing.forecast import Forecast
from recsys.pacing.tracker import DeliveryCounts

NOTHING = DeliveryCounts()
SHORT_S = 900.0
"""A window shorter than this is over before a price has found its place."""


def check_target(here: str, target: ExposureTarget, policy: Policy, now: float) -> Iterator[Finding]:
    """What is odd about a target all by itself; `here` is its place in the policy."""
    end = target.until.timestamp()
    start = max(target.since.timestamp(), now) if target.since else now
    if end <= now:
        yield Finding(f"{here}.until", message("target_deadline_passed", id=target.id, at=target.until.isoformat()))
    elif end - start < SHORT_S:
        yield Finding(f"{here}.until", message("target_too_short", id=target.id, minutes=(end - start) / 60))
    until = target.active.until
    if until is not None and until.timestamp() < end:
        yield Finding(f"{here}.active.until", message("target_ends_early", id=target.id))
    if target.share == 1.0:
        at_least = target.bound == "at_least"
        whole = message("target_takes_all") if at_least else message("target_allows_all")
        yield Finding(f"{here}.share", whole)
    for other in policy.controls:
        if isinstance(other, ExposureTarget) and other.where == target.where and other.on == target.on:
            yield from _contradiction(here, target, other)


def _contradiction(here: str, floor: ExposureTarget, cap: ExposureTarget) -> Iterator[Finding]:
    if floor.bound != "at_least" or cap.bound != "at_most":
        return
    pairs = (("share", floor.share, cap.share), ("impressions", floor.impressions, cap.impressions))
    for field, least, most in pairs:
        if least is not None and most is not None and least > most:
            above = message("target_above_cap", minimum=least, id=cap.id, maximum=most)
            yield Finding(f"{here}.{field}", above)


def unreachable(
    here: str, target: ExposureTarget, catalog: Catalog, forecast: Forecast, now: float, count: DeliveryCounts = NOTHING
) -> Finding | None:
    """A finding when a target asks for more than its items could still win if they stood on top of every page.

    forecast  attention per second on the pages it would be in force for
    count     what it has won, if it is in force already
    """
    start = max(target.since.timestamp(), now) if target.since else now
    attention = forecast.mass(start, target.until.timestamp())
    items = int(mask(target.where, catalog, "").sum())
    most = max(_top(screen, items) for screen in target.on.screens or Screen)
    whole = float(target.impressions or 0) if target.share is None else target.share * (count.available + attention)
    asked = whole - count.delivered
    if target.bound == "at_most" or asked <= most * attention:
        return None
    field = "impressions" if target.impressions is not None else "share"
    figures = {"attention": attention, "items": items, "most": most * attention, "required": asked}
    won = count.delivered > 0
    unreachable = message("target_unreachable_now", **figures) if won else message("target_unreachable", **figures)
    return Finding(f"{here}.{field}", unreachable, "warning")


def _top(screen: Screen, items: int) -> float:
    """Part of a page's attention that so many items win on top of it."""
    attention = screen_layout(screen).attention(LAYOUTS[screen].slots)
    return float(attention[:items].sum() / attention.sum())
