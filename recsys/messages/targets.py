"""English texts about exposure targets: findings of lint, delivery status and requests."""

from __future__ import annotations

from collections.abc import Mapping

TEXTS: Mapping[str, str] = {
    # lint
    "target_deadline_passed": "the deadline of '{id}' has passed: {at}",
    "target_too_short": "'{id}' runs for {minutes:count} min: too short for pacing",
    "target_ends_early": "'{id}' ends before its deadline, so it will fall short",
    "target_takes_all": "100% of all attention: nothing else could be shown",
    "target_allows_all": "a maximum of 100% of all attention has no effect",
    "target_above_cap": "requires {minimum}, and '{id}' allows at most {maximum} of the same items",
    "target_unreachable": "cannot be reached: its pages are expected to receive {attention:count} of attention until "
    "the deadline, of which {items:item|items} at the top of every page would receive {most:count}; "
    "{required:count} are required",
    "target_unreachable_now": "cannot be reached: its pages are expected to receive {attention:count} of attention "
    "until the deadline, of which {items:item|items} at the top of every page would receive {most:count}; "
    "{required:count} are still missing",
    # status
    "target_stopped": "stopped at {share:percent}",
    "target_over_met": "ended: within the maximum, {share:percent1} of it delivered",
    "target_over_reached": "ended: reached, {share:percent1}",
    "target_over_exceeded": "ended: {missed:percent1} above the maximum",
    "target_over_short": "ended: {missed:percent1} short",
    "target_not_begun": "not started",
    "target_paused": "paused: it does not affect pages until it is resumed",
    "target_counters_silent": "no new counts for {minutes:count} min: the price moves towards its forecast",
    "target_unknown_yet": "unknown yet: too little of its traffic has been counted for a plan or a forecast",
    "target_reached": "reached: {share:percent} delivered before the deadline",
    "target_exceeds_cap": "expected to exceed the maximum: {expected:percent} of it at the deadline, the "
    "price is at its limit",
    "target_cannot_deliver": "cannot deliver: expected {expected:percent}, the price is at its limit",
    "target_cannot_deliver_last_resort": "cannot deliver: expected {expected:percent}, the price is at its limit; "
    "the last resort is in force",
    "target_price_at_limit": "on course, but the price is at its limit",
    "target_behind": "behind: {lag:percent1} of the amount behind its plan{so_far}",
    "target_ahead": "ahead: {lag:percent1} of the amount ahead of its plan{so_far}",
    "target_above_plan": "above its plan by {lag:percent1} of the amount{so_far}",
    "target_below_plan": "below its plan by {lag:percent1} of the amount{so_far}",
    "target_so_far": "; {share:percent1} of all attention so far",
    "target_on_plan": "on plan: {share:percent} delivered, {planned:percent} planned by now",
    "target_on_plan_at_least": "on plan: {so_far:percent1} of all attention so far, at least {share:percent1} "
    "required by the deadline",
    "target_on_plan_at_most": "on plan: {so_far:percent1} of all attention so far, at most {share:percent1} allowed "
    "by the deadline",
    # requests about targets
    "target_not_found": "no exposure target '{id}' in force in the policy of '{outlet}'",
    "target_was_stopped": "target {key} was stopped permanently: clone it to continue",
    "target_not_clonable": "the target cannot be cloned with these values",
    "target_text_rewritten": "the new target could not be added to the text: the policy was rewritten as JSON "
    "without the comments",
    "amount_unusable": "the amount cannot be used",
    "amount_share_above_one": "a share must be at most 1",
    "amount_not_whole": "must be a whole number of impressions, not {amount}",
}
