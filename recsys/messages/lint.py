"""English texts of lint: problems of a policy with the current catalog and with the policies of its parents."""

from __future__ import annotations

from collections.abc import Mapping

TEXTS: Mapping[str, str] = {
    # names inside messages
    "did_you_mean": "; did you mean '{word}'?",
    "control": "'{id}'",
    "control_of_outlet": "'{id}' of {outlet}",
    "count_of_control": "{count} for {control}",
    "policy_of_outlet": "the policy of {outlet}",
    "profile_named": "the profile {name}",
    # weights and single controls
    "weight_axis_unknown": "no item has a value on this axis, so the weight has no effect{suggestion}",
    "weight_axis_constant": "every item has the same value on this axis, so the weight has no effect",
    "weight_zero": "a weight of 0 has no effect, except to cancel the weight of a parent",
    "weight_too_large": "adds up to {most:brief} play equivalents to an item, and an item has a utility of about "
    "{utility:brief} play equivalents to its viewer: the weight alone would decide what is shown; about a tenth of "
    "that ({usual:brief}) is usual",
    "control_ended": "'{id}' ended at {at}",
    "control_never_active": "'{id}' is never in force: its hours and days do not occur within its dates",
    "cap_blocks_all": "a maximum of 0% allows no such item at all",
    "cap_allows_all": "a maximum of 100% has no effect",
    "boost_zero": "a bonus of 0 has no effect",
    "minimum_above_cap": "the minimum {minimum} is above the maximum {maximum}",
    "minimum_zero": "a minimum of 0 has no effect",
    "preferred_minimum_large": "a preferred control is relaxed in favour of other controls, but not because of its "
    "cost: wherever other controls leave room, {share:percent} of every page goes to these items, whatever their "
    "utility to viewers; to limit the cost, use a boost",
    "condition_matches_nothing": "no item of the catalog meets this condition",
    "condition_matches_all": "every item meets this condition, so the bonus has no effect",
    "outlet_unknown": "no outlet '{outlet}' is known: it has no items, no policy and no name{suggestion}",
    "term_unknown": "no item has the {field:of} '{word}'{suggestion}",
    "item_unknown": "item '{item}' is not in the catalog",
    "lint_truncated": "not everything was checked, because of the time limit: check fewer controls at a time",
    # contradictions between controls
    "minimum_above_page": "{items:item does|items do} not fit into {slots:slot|slots} on {page}{others}{suggestion}",
    "minimum_above_other_pages": " (nor on {pages:other kind|other kinds} of pages)",
    "minimums_above_page": "the minimums together require {total} of {slots} slots on {page}: {own} here, {others}; no "
    "item counts towards two of them, so one of them is relaxed on every such page",
    "minimum_blocked": "every such item is blocked by {control}",
    "minimum_above_other_cap": "the minimum of {minimum} in the first {slots:slot|slots} on {page} is above the "
    "maximum of {maximum} that {control} sets for the same items",
    "cap_below_other_minimum": "the maximum of {maximum} in the first {slots:slot|slots} on {page} is below the "
    "minimum of {minimum} that {control} sets for the same items",
    "pin_slot_taken": "slot {slot} is also taken by {control}",
    "pin_item_elsewhere": "{item} is also pinned by {control}, to slot {slot}",
    "pin_item_blocked": "{item} is blocked by {control}, so it is never shown",
    "pin_breaks_cap": "with this pin the first {slots:slot|slots} on {page} hold {count} such items, and {control} "
    "allows {maximum}",
    # blocks against minimums and pins
    "block_relaxed_for_minimum": "leaves {left} of the {total:item|items} for {control} "
    "({enforcement:enforcement}), which requires {minimum} on {page}: the block is relaxed there, by at most "
    "{by:item|items}",
    "block_defeats_minimum": "leaves {left} of the {total:item|items} for {control} ({enforcement:enforcement}), "
    "which requires {minimum} on {page}: the enforcement of that control is not stricter than the block's, so that "
    "control is relaxed",
    "block_relaxed_for_pin": "removes {item}, which {control} ({enforcement:enforcement}) pins: the block is "
    "relaxed there",
    "block_defeats_pin": "removes {item}, which {control} ({enforcement:enforcement}) pins: the enforcement of that "
    "control is not stricter than the block's, so that control is relaxed",
    # parents
    "policies_not_in_line": "the policies of {above} and {below} do not belong to one line of outlets",
    "target_beside_parent": "{policy} has a {enforcement:enforcement} target '{id}': it continues here as {key}, "
    "and this target is counted and priced separately",
    "control_loosened": "'{id}' is {enforcement:enforcement} in {policy}: {reason}; the control of {outlet} stays in "
    "force{suggestion}",
    "must_keep_action": "it must remain a {parent:action}, not become a {child:action}",
    "must_keep_enforcement": "its enforcement must not be lowered to {enforcement:enforcement}",
    "must_keep_priority": "its priority must not be below {priority}",
    "must_keep_scope": "where and when it is in force must not change",
    "must_keep_attribute": "its attribute must remain {attribute:of}",
    "must_keep_within": "within must not be below {within}",
    "must_keep_pin": "its item and slot must not change",
    "must_keep_bonus": "its bonus must not change",
    "must_keep_condition": "its condition must not change",
    "must_widen_condition": "its condition may only be widened: any: [the parent's condition, ...]",
    "must_keep_rounding": "its rounding must remain strict",
    "must_keep_every_prefix": "it must keep prefixes: every",
    "must_keep_prefixes": "it must keep all prefixes of the parent",
    "must_keep_minimum": "its minimum must not be removed",
    "must_keep_cap": "its maximum must not be removed",
    "must_keep_unit": "a share must remain a share, and a number of items a number of items",
    "must_not_lower_minimum": "a child may raise the minimum of {parent}, not lower it to {child}",
    "must_not_raise_cap": "a child may lower {field} from {parent}, not raise it to {child}",
    "must_keep_cap_above_minimum": "its maximum of {maximum} is below its own minimum of {minimum}",
    "target_must_keep_rest": "only amount, tolerance and price of an exposure target may change",
    "target_must_keep_unit": "a share must remain a share, and a number of impressions a number of impressions",
    "target_must_not_be_eased": "a child may only tighten the amount of {amount}",
    "target_must_keep_price": "max_price must not be below {price}",
    "target_must_keep_default_price": "max_price must be omitted, as in the target that it replaces",
}
