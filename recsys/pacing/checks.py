"""Checks of an exposure target before it is published."""

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

NO_COUNTS = DeliveryCounts()
SHORT_S = 900.0
"""A window shorter than this ends before a price can settle."""


def check_target(path: str, target: ExposureTarget, policy: Policy, now: float) -> Iterator[Finding]:
    """Yield findings on a target and its policy; `path` is the field path of the target in the policy."""
    end = target.until.timestamp()
    start = max(target.since.timestamp(), now) if target.since else now
    if end <= now:
        yield Finding(f"{path}.until", message("target_deadline_passed", id=target.id, at=target.until.isoformat()))
    elif end - start < SHORT_S:
        yield Finding(f"{path}.until", message("target_too_short", id=target.id, minutes=(end - start) / 60))
    until = target.active.until
    if until is not None and until.timestamp() < end:
        yield Finding(f"{path}.active.until", message("target_ends_early", id=target.id))
    if target.share == 1.0:
        at_least = target.bound == "at_least"
        text = message("target_takes_all") if at_least else message("target_allows_all")
        yield Finding(f"{path}.share", text)
    for control in policy.controls:
        if isinstance(control, ExposureTarget) and control.where == target.where and control.on == target.on:
            yield from _contradiction(path, target, control)


def _contradiction(path: str, minimum: ExposureTarget, maximum: ExposureTarget) -> Iterator[Finding]:
    if minimum.bound != "at_least" or maximum.bound != "at_most":
        return
    pairs = (("share", minimum.share, maximum.share), ("impressions", minimum.impressions, maximum.impressions))
    for field, lower, upper in pairs:
        if lower is not None and upper is not None and lower > upper:
            text = message("target_above_cap", minimum=lower, id=maximum.id, maximum=upper)
            yield Finding(f"{path}.{field}", text)


def unreachable(
    path: str,
    target: ExposureTarget,
    catalog: Catalog,
    forecast: Forecast,
    now: float,
    count: DeliveryCounts = NO_COUNTS,
) -> Finding | None:
    """Return a finding if a target requires more than its items can win at the top of every page, else None.

    forecast  attention per second on the pages to which the target applies
    count     delivery so far, if the target is already running
    """
    start = max(target.since.timestamp(), now) if target.since else now
    attention = forecast.mass(start, target.until.timestamp())
    items = int(mask(target.where, catalog, "").sum())
    top_share = max(_top(screen, items) for screen in target.on.screens or Screen)
    total = float(target.impressions or 0) if target.share is None else target.share * (count.available + attention)
    required = total - count.delivered
    if target.bound == "at_most" or required <= top_share * attention:
        return None
    field = "impressions" if target.impressions is not None else "share"
    figures = {"attention": attention, "items": items, "most": top_share * attention, "required": required}
    started = count.delivered > 0
    text = message("target_unreachable_now", **figures) if started else message("target_unreachable", **figures)
    return Finding(f"{path}.{field}", text, "warning")


def _top(screen: Screen, items: int) -> float:
    """Return the fraction of a page's attention that falls on its first `items` slots."""
    attention = screen_layout(screen).attention(LAYOUTS[screen].slots)
    return float(attention[:items].sum() / attention.sum())
