"""How a target stands, in editors' words."""

from __future__ import annotations

from typing import Literal

from recsys.messages import Message, message
from recsys.pacing.projection import Projection
from recsys.pacing.tracker import DeliveryStatus

Status = Literal[
    "not begun", "unknown yet", "on plan", "behind", "ahead", "reached", "price at limit", "cannot deliver",
    "counters silent", "paused", "stopped", "over",
]  # fmt: skip

SILENT_S = 600.0
"""Counters that have not moved for so long, although pages are expected, are reported."""


MIN_PACING_ERROR = 0.005
"""Part of the window's traffic before which nothing can be said of a target that has won nothing."""


def status(standing: DeliveryStatus) -> Status:
    """One word for a target; of several that fit, the one an editor must know first.

    Only a number of impressions is reached before the deadline: the rest of the window may still undo a share.
    """
    s = standing
    if s.stopped:
        return "stopped"
    if s.ended:
        return "over"
    if not s.started:
        return "not begun"
    if s.paused:
        return "paused"
    if s.silent_s > SILENT_S:
        return "counters silent"
    if not _delivered_text(s):
        return "unknown yet"
    if not s.cap and s.share is None and s.delivered >= s.amount:
        return "reached"
    if s.outlook.limited and _misses_target(s):
        return "cannot deliver"
    if s.outlook.limited:
        return "price at limit"
    if s.lag > s.tolerance:
        return "behind"
    if s.lag < -s.tolerance:
        return "ahead"
    return "on plan"


def projected(standing: DeliveryStatus) -> Projection | None:
    """Where it will stand at the deadline; None before anything of it was seen, and once it has ended."""
    s = standing
    return s.outlook if s.started and _delivered_text(s) and not s.stopped and not s.ended else None


def _delivered_text(s: DeliveryStatus) -> bool:
    return s.delivered > 0 or s.progress >= MIN_PACING_ERROR


def describe(standing: DeliveryStatus) -> Message:
    """The status with its figures."""
    s, word = standing, status(standing)
    share = s.delivered / max(s.amount, 1e-9)
    if word == "stopped":
        return message("target_stopped", share=share)
    if word == "over":
        return _ended(s, share)
    if word == "not begun":
        return message("target_not_begun")
    if word == "paused":
        return message("target_paused")
    if word == "counters silent":
        return message("target_counters_silent", minutes=s.silent_s / 60)
    if word == "unknown yet":
        return message("target_unknown_yet")
    if word == "reached":
        return message("target_reached", share=share)
    if word == "cannot deliver":
        return _missed(s)
    if word == "price at limit":
        return message("target_price_at_limit", price=s.price_limit)
    if word in ("behind", "ahead"):
        return _off_plan(s)
    if s.share is not None and s.share_so_far is not None:
        course = {"so_far": s.share_so_far, "share": s.share}
        return message("target_on_plan_at_most", **course) if s.cap else message("target_on_plan_at_least", **course)
    return message("target_on_plan", share=share, planned=s.planned / max(s.amount, 1e-9))


def _missed(s: DeliveryStatus) -> Message:
    if s.cap:
        return message("target_exceeds_cap", expected=s.outlook.expected)
    if s.last_resort:
        return message("target_cannot_deliver_last_resort", expected=s.outlook.expected)
    return message("target_cannot_deliver", expected=s.outlook.expected)


def _off_plan(s: DeliveryStatus) -> Message:
    so_far = None if s.share_so_far is None else message("target_so_far", share=s.share_so_far)
    figures = {"lag": abs(s.lag), "so_far": so_far}
    if s.lag > 0:
        return message("target_above_plan", **figures) if s.cap else message("target_behind", **figures)
    return message("target_below_plan", **figures) if s.cap else message("target_ahead", **figures)


def _ended(s: DeliveryStatus, share: float) -> Message:
    missed = (share - 1.0) if s.cap else (1.0 - share)
    if missed <= s.tolerance:
        return message("target_over_met", share=share) if s.cap else message("target_over_reached", share=share)
    return message("target_over_exceeded", missed=missed) if s.cap else message("target_over_short", missed=missed)


def _misses_target(s: DeliveryStatus) -> bool:
    return s.outlook.expected > 1.0 + s.tolerance if s.cap else s.outlook.expected < 1.0 - s.tolerance
