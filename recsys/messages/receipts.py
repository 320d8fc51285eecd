"""English texts of receipts and previews: what a control required of a page, the outcome, and its cause."""

from __future__ import annotations

from collections.abc import Mapping

TEXTS: Mapping[str, str] = {
    # outcome of one control
    "nothing_required": "requires nothing of this page alone; {achieved} on the page",
    "pin_met": "in slot {slot}; it would have been there anyway",
    "pin_active": "in slot {slot}",
    "pin_infeasible": "slot {slot}: {cause}",
    "pin_relaxed": "slot {slot}; relaxed: {conflict}",
    "pin_relaxed_unexplained": "slot {slot}; relaxed; there was no time to determine whether this was necessary",
    "control_met": "{counted}; it would have been met anyway",
    "control_active": "{counted}; it shaped this page",
    "control_lacks": "{counted}; {cause}{beyond}",
    "beyond_that": "; beyond that: {conflict}",
    "control_relaxed": "{counted}; relaxed by {by}: {conflict}",
    "control_relaxed_unexplained": "{counted}; relaxed by {by}; there was no time to determine whether this was "
    "necessary",
    "block_met": "none of its items is on the page",
    "block_relaxed": "{items} of its items on the page; relaxed for the stricter {controls}",
    "block_relaxed_for_some": "{items} of its items on the page; relaxed for some of the stricter {controls}",
    "block_relaxed_unexplained": "{items} of its items on the page; the cause of its relaxation was not found",
    # conflict with more important controls
    "no_room_for_more": "no page that meets {controls} can hold more of these candidates",
    "no_page_with_fewer": "no page that meets {controls} can hold fewer of these candidates",
    "no_other_page": "no page of these candidates meets both this control and {controls}",
    "more_important_controls": "the more important {controls}",
    "some_more_important_controls": "more important controls among {controls}",
    # required and counted
    "page_empty": "nothing may be shown here now, so the page has no slots",
    "counted_nearby": "{limits} in any {within} neighbouring slots: {achieved}",
    "counted_first": "{limits} in the first {first:slot|slots}{session}: {early} there, {achieved} on the page",
    "counted_on_page": "{limits} on the page{session}: {achieved}",
    "counted_prefixes_only": "required of the first slots only{session}; on the page: {achieved}",
    "at_least": "at least {minimum}",
    "at_most": "at most {maximum}",
    "at_least_and_at_most": "at least {minimum} and at most {maximum}",
    "after_session": " (earlier pages of this session: {counted} in {shown} slots)",
    "after_session_of_value": " (earlier pages of this session: {counted} of the same value in {shown} slots)",
    # too few items or slots
    "pin_slot_beyond_page": "this page has {slots:slot|slots}",
    "pin_item_unavailable": "the item may not be shown here now",
    "spacing_lacks_values": "{values:value|values} of {attribute:of}{others}: too few for at most {maximum} of one "
    "value in any {within} of {slots} neighbouring slots",
    "cap_lacks_values": "{values:value|values} of {attribute:of} x {maximum} = {room} of {slots} slots: "
    "{missing:more item|more items} of other values needed",
    "cap_lacks_items": "{values:value|values} of {attribute:of}{others} fill {room} of {slots} slots: {missing:more "
    "item|more items} of other values needed",
    "items_without_value": " and {items:item|items} without a value",
    "supply_short": "{missing} more would have to be available: only {supply} may be shown here now",
    "other_supply_short": "{missing} more other items would have to be available: only {supply} may be shown here now",
    "prefix_too_short": "{minimum} do not fit into the first {slots:slot|slots}",
    "limits_contradict": "at least {minimum} and at most {maximum} of {slots} slots contradict each other",
    "prefixes_contradict": "its limits for the first slots and for the whole page contradict each other",
    # previews
    "target_without_price": "a new target has no price before it runs, so no page changes because of it yet; its cost "
    "later depends on its price",
    "off_policy_weighted": "inverse-propensity weighted by item and slot; slots that the log could never have shown "
    "in this way count as zero",
    "off_policy_as_logged": "nearly every slot is as it was logged, so the logged outcome is the estimate",
    "off_policy_low_support": "the log could have shown about {support:percent} of the draft's attention in the same "
    "slots; it does not show how the rest would have performed, so no estimate is given",
    "off_policy_deterministic": "the logged pages were deterministic (propensity 1) and hold {support:percent} of "
    "the draft's attention in the same slots; the log does not show how the rest would have performed, so no "
    "estimate is given",
}
