"""English texts about the test pages that lint solves under a policy."""

from __future__ import annotations

from collections.abc import Mapping

TEXTS: Mapping[str, str] = {
    "page": "{screen:screen} {surface:surface}",
    "page_in_region": "{screen:screen} {surface:surface} in {region}",
    "page_of_outlet": "{screen:screen} {surface:surface} of {outlet} in {region}",
    "control_infeasible": "{control}cannot be met on {page}: {reason}{others}",
    "about_control": "{control}: ",
    "nor_on_pages": "; nor on {pages}{more}",
    "page_amiss": "{page} ({amiss})",
    "and_more_pages": " and on {count:more kind|more kinds} of pages",
    "pin_not_possible": "the item cannot be placed there",
    "items_missing": "{count} too few",
    "items_excess": "{count} too many",
    "items_excess_of_value": "{count} too many of one {attribute:of}",
    "items_excess_nearby": "{count} too many of one {attribute:of} close together",
    "minimum_short_of_items": "it requires {minimum} of {slots} slots, and only {supply} may be shown there: "
    "{missing:more such item is|more such items are} needed",
    "minimum_above_slots": "it requires {minimum} of {slots} slots",
    "control_never_binds": "has no effect: no page of the items that may be shown now, on any screen, could violate it",
    "dry_run_pages_truncated": "tested on {tried:kind|kinds} of pages only, because of the time limit",
    "dry_run_regions_truncated": "tested in {tried} of {total} regions only, not in {left}",
    "dry_run_outlets_truncated": "tested in {tried} of {total} outlets only, not in {left}",
    "outlets_out_of_reach": "none of them is {outlet} or lies below it",
}
