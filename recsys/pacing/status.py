"""The status of a target, with a text for editors."""

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
"""Seconds without counter updates, while traffic is expected, after which the counters are reported as silent."""


MIN_PROGRESS = 0.005
"""Progress below which the status of a target without delivery is unknown."""


def status(delivery: DeliveryStatus) -> Status:
    """Return the status of a target; if several apply, the most urgent one.

    Only a number of impressions can be reached before the deadline; a share may still fall in the rest of the window.
    """
    s = delivery
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
    if not _has_evidence(s):
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


def projected(delivery: DeliveryStatus) -> Projection | None:
    """Return the projection at the deadline; None before the first delivery and once the target has ended."""
    s = delivery
    return s.outlook if s.started and _has_evidence(s) and not s.stopped and not s.ended else None


def _has_evidence(s: DeliveryStatus) -> bool:
    return s.delivered > 0 or s.progress >= MIN_PROGRESS


def describe(delivery: DeliveryStatus) -> Message:
    """Return the status with its figures, as a text for editors."""
    s, word = delivery, status(delivery)
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
        return message("target_price_at_limit")
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
    deviation = (share - 1.0) if s.cap else (1.0 - share)
    if deviation <= s.tolerance:
        return message("target_over_met", share=share) if s.cap else message("target_over_reached", share=share)
    return (
        message("target_over_exceeded", missed=deviation) if s.cap else message("target_over_short", missed=deviation)
    )


def _misses_target(s: DeliveryStatus) -> bool:
    return s.outlook.expected > 1.0 + s.tolerance if s.cap else s.outlook.expected < 1.0 - s.tolerance
