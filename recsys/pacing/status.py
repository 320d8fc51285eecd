"""How a target stands, in editors' words."""

from __future__ import annotations

from typing import Literal

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


def describe(standing: DeliveryStatus) -> str:
    """The status with its figures, as a sentence."""
    s, word = standing, status(standing)
    share = s.delivered / max(s.amount, 1e-9)
    if word == "cannot deliver":
        if s.cap:
            return f"cannot be held: expected {s.outlook.expected:.0%} of the cap, the price is at its limit"
        resort = "; the last resort is in force" if s.last_resort else ""
        return f"cannot deliver: expected {s.outlook.expected:.0%}, the price is at its limit{resort}"
    if word == "over":
        return _ended(s, share)
    if word == "counters silent":
        return f"counters silent for {s.silent_s / 60:.0f} min: the price moves towards its forecast"
    if word in ("behind", "ahead"):
        side = "above" if word == "behind" else "below"
        so_far = "" if s.share_so_far is None else f"; {s.share_so_far:.1%} of all attention so far"
        if s.cap:
            return f"{side} its plan by {abs(s.lag):.1%} of the amount{so_far}"
        return f"{word}: {abs(s.lag):.1%} of the amount {'ahead of' if word == 'ahead' else word} its plan{so_far}"
    if word == "price at limit":
        return f"on course, but the price is at its limit of {s.price_limit:g} play equivalents"
    if word == "reached":
        return f"reached: {share:.0%} delivered before the deadline"
    if word == "unknown yet":
        return "unknown yet: hardly any of its traffic was seen, so plan and forecast say nothing"
    if word == "on plan" and s.share is not None and s.share_so_far is not None:
        asked = f"{'at most' if s.cap else 'at least'} {s.share:.1%}"
        return f"on plan: {s.share_so_far:.1%} of all attention so far, {asked} asked by the deadline"
    if word == "on plan":
        return f"on plan: {share:.0%} delivered, {s.planned / max(s.amount, 1e-9):.0%} planned by now"
    return {"paused": "paused: not pushed until it is resumed", "stopped": f"stopped at {share:.0%}"}.get(word, word)


def _ended(s: DeliveryStatus, share: float) -> str:
    missed = (share - 1.0) if s.cap else (1.0 - share)
    if missed <= s.tolerance:
        return f"over: {'kept' if s.cap else 'reached'}, {share:.1%}"
    return f"over: {missed:.1%} {'above the cap' if s.cap else 'short'}"


def _misses_target(s: DeliveryStatus) -> bool:
    return s.outlook.expected > 1.0 + s.tolerance if s.cap else s.outlook.expected < 1.0 - s.tolerance
