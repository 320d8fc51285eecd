"""A block stands on every receipt, and where it had to let items in, the receipt says how many and for whose sake."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from recsys.guidance.receipt.receipt import Receipt
from recsys.guidance.receipt.verify import verify

PARENT = """
outlet: cn
controls:
  - {id: pub, action: quota, where: {label: public-service}, at_least: 0.5, enforcement: mandatory}
  - {id: city, action: quota, where: {label: news/city}, at_least: 0.25, enforcement: legal}
  - {id: lead, action: pin, item: i7, slot: 1, enforcement: legal}
  - {id: late, action: pin, item: i10, slot: 30, enforcement: legal}
"""
ASKED = {"pub": "public-service", "city": "news/city"}


def check(made: Any, receipt: Receipt | None = None, exact: bool = False) -> tuple[Any, ...]:
    receipt = receipt or made.receipt
    case = (made.solution.chosen, made.policy, made.bounds, made.batch, made.attention, made.catalog)
    return verify(receipt, *case, exact=exact)


def line_of(made: Any, name: str) -> Any:
    return next(line for line in made.receipt.controls if line.id == name)


def child(where: str, more: str = "") -> str:
    return f"outlet: cn.zj\ncontrols: [{{id: off, action: block, where: {where}{more}}}]"


@pytest.mark.parametrize("seed", range(12))
def test_a_block_says_what_stands_against_it_and_for_whose_sake(make: Any, seed: int) -> None:
    """Counted from the catalogue: its items on the page, and those that each rule named asks for."""
    rng = np.random.default_rng(seed)
    items = [f"i{n}" for n in rng.choice(60, int(rng.integers(1, 56)), replace=False)]
    made = make(PARENT, child(f"{{item: [{', '.join(items)}]}}"), seed=seed)
    page = [made.catalog.items[row] for row in made.batch.row[made.solution.chosen]]
    there = [item for item in page if item.id in items]
    line = line_of(made, "off")
    assert (line.achieved, line.slack, line.required.at_most) == (len(there), len(there), 0)
    assert line.status == ("relaxed" if there else "met")
    assert (line.cause is not None) == bool(there)
    for name in line.cause.control_ids if line.cause else ():
        assert any(item.id == "i7" if name == "lead" else ASKED[name] in item.labels for item in there), name
    served = set(line.cause.control_ids) if line.cause else set()
    for item in there:
        assert served & {"lead" * (item.id == "i7"), *(n for n, label in ASKED.items() if label in item.labels)}
    assert all(repr(name) in str(line.reason) for name in served)
    free = [made.catalog.items[row] for row in made.batch.row if made.catalog.ids[row] not in items]
    lacking = [{"pub": 6, "city": 3}[n] - sum(ASKED[n] in i.labels for i in free) for n in ASKED]
    assert line.minimal_proven
    assert line.slack <= ("i7" in items) + sum(max(one, 0) for one in lacking), "no more than is missing"
    assert check(made) == ()
    assert check(made, exact=True) == ()
    place = made.receipt.controls.index(line)
    for lie in (
        {"slack": line.slack + 1},
        {"slack": 0, "status": "met", "cause": None, "minimal_proven": True} if line.slack else {"slack": 1},
        {"minimal_proven": False} if not line.slack else {"achieved": line.slack - 1},
        {"cause": line.cause.model_copy(update={"control_ids": ("late",)}) if line.cause else None, "achieved": 9},
    ):
        controls = [one.model_copy(update=lie) if n == place else one for n, one in enumerate(made.receipt.controls)]
        assert check(made, made.receipt.model_copy(update={"controls": tuple(controls)})), lie
    dropped = tuple(one for one in made.receipt.controls if one.id != "off")
    assert check(made, made.receipt.model_copy(update={"controls": dropped}))


def test_a_block_that_held_is_met_and_one_that_had_to_yield_is_settled(make: Any) -> None:
    held = line_of(make(PARENT, child("{label: culture}")), "off")
    assert (held.status, held.slack, held.cause, str(held.reason)) == ("met", 0, None, "none of its items is on the page")
    lead = line_of(make(PARENT, child("{item: i7}")), "off")
    assert (lead.status, lead.slack, lead.minimal_proven, lead.cause.control_ids) == ("relaxed", 1, True, ("lead",))
    assert str(lead.reason) == "1 of its items on the page; relaxed for the stricter 'lead' of cn"
    bare = line_of(make(PARENT, child("{label: public-service}")), "off")
    assert bare.cause.kind == "controls"
    assert "pub" in bare.cause.control_ids


def test_a_block_does_not_give_way_to_a_pin_of_a_slot_that_the_page_has_not(make: Any) -> None:
    short, long = (make(PARENT, child("{item: i10}"), slots=slots) for slots in (12, 30))
    assert "i10" not in {short.catalog.ids[row] for row in short.batch.row}
    assert line_of(long, "off").cause.control_ids == ("late",)


def test_a_legal_block_yields_to_nothing_and_a_pin_of_its_item_does_not_stand(make: Any) -> None:
    made = make(PARENT, child("{item: i7}", ", enforcement: legal"))
    assert (line_of(made, "off").by, line_of(made, "lead").status, made.receipt.legal_kept) == (0, "infeasible", False)
    assert make(PARENT, child("{label: culture}", ", enforcement: legal")).receipt.legal_kept
    assert make(PARENT, child("{item: i7}")).receipt.legal_kept


def test_a_block_that_let_items_in_has_a_price_and_is_named_for_what_it_keeps_off(make: Any) -> None:
    """Its items are candidates of that page like others, and the page would have more of them without it."""
    made = make(PARENT, child("{label: public-service}"), effort="exact")
    line = line_of(made, "off")
    assert (line.slack, line.status) == (6, "relaxed")
    assert "off" in {price.control_id for price in made.receipt.price}
    assert check(made, exact=True) == ()
    kept = make(PARENT, child("{label: culture}"), effort="exact")
    assert "off" not in {price.control_id for price in kept.receipt.price}
