"""Every receipt has a line for each block; if a block is relaxed, the line counts the items and names the controls."""

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
REQUIRED = {"pub": "public-service", "city": "news/city"}


def check(case: Any, receipt: Receipt | None = None, exact: bool = False) -> tuple[Any, ...]:
    receipt = receipt or case.receipt
    arguments = (case.solution.chosen, case.policy, case.bounds, case.batch, case.attention, case.catalog)
    return verify(receipt, *arguments, exact=exact)


def line_of(case: Any, name: str) -> Any:
    return next(line for line in case.receipt.controls if line.id == name)


def child(target: str, fields: str = "") -> str:
    return f"outlet: cn.zj\ncontrols: [{{id: off, action: block, where: {target}{fields}}}]"


@pytest.mark.parametrize("seed", range(12))
def test_block_line_counts_blocked_items_and_names_the_stronger_controls(make: Any, seed: int) -> None:
    """The oracle counts blocked items and the items required by each named control from the catalog."""
    rng = np.random.default_rng(seed)
    items = [f"i{n}" for n in rng.choice(60, int(rng.integers(1, 56)), replace=False)]
    case = make(PARENT, child(f"{{item: [{', '.join(items)}]}}"), seed=seed)
    page = [case.catalog.items[row] for row in case.batch.row[case.solution.chosen]]
    blocked_on_page = [item for item in page if item.id in items]
    line = line_of(case, "off")
    assert (line.achieved, line.slack, line.required.at_most) == (len(blocked_on_page), len(blocked_on_page), 0)
    assert line.status == ("relaxed" if blocked_on_page else "met")
    assert (line.cause is not None) == bool(blocked_on_page)
    for name in line.cause.control_ids if line.cause else ():
        assert any(item.id == "i7" if name == "lead" else REQUIRED[name] in item.labels for item in blocked_on_page), (
            name
        )
    served = set(line.cause.control_ids) if line.cause else set()
    for item in blocked_on_page:
        assert served & {"lead" * (item.id == "i7"), *(n for n, label in REQUIRED.items() if label in item.labels)}
    assert all(repr(name) in str(line.reason) for name in served)
    unblocked = [case.catalog.items[row] for row in case.batch.row if case.catalog.ids[row] not in items]
    lacking = [{"pub": 6, "city": 3}[n] - sum(REQUIRED[n] in i.labels for i in unblocked) for n in REQUIRED]
    assert line.minimal_proven
    assert line.slack <= ("i7" in items) + sum(max(number, 0) for number in lacking), "no more items than are missing"
    assert check(case) == ()
    assert check(case, exact=True) == ()
    index = case.receipt.controls.index(line)
    for forgery in (
        {"slack": line.slack + 1},
        {"slack": 0, "status": "met", "cause": None, "minimal_proven": True} if line.slack else {"slack": 1},
        {"minimal_proven": False} if not line.slack else {"achieved": line.slack - 1},
        {"cause": line.cause.model_copy(update={"control_ids": ("late",)}) if line.cause else None, "achieved": 9},
    ):
        controls = [
            number.model_copy(update=forgery) if n == index else number
            for n, number in enumerate(case.receipt.controls)
        ]
        assert check(case, case.receipt.model_copy(update={"controls": tuple(controls)})), forgery
    dropped = tuple(number for number in case.receipt.controls if number.id != "off")
    assert check(case, case.receipt.model_copy(update={"controls": dropped}))


def test_a_block_that_held_is_met_and_one_that_had_to_yield_is_settled(make: Any) -> None:
    met = line_of(make(PARENT, child("{label: culture}")), "off")
    assert (met.status, met.slack, met.cause, str(met.reason)) == (
        "met",
        0,
        None,
        "none of its items is on the page",
    )
    lead = line_of(make(PARENT, child("{item: i7}")), "off")
    assert (lead.status, lead.slack, lead.minimal_proven, lead.cause.control_ids) == ("relaxed", 1, True, ("lead",))
    assert str(lead.reason) == "1 of its items on the page; relaxed for the stricter 'lead' of cn"
    bare = line_of(make(PARENT, child("{label: public-service}")), "off")
    assert bare.cause.kind == "controls"
    assert "pub" in bare.cause.control_ids


def test_pin_beyond_the_page_does_not_relax_a_block(make: Any) -> None:
    short, long = (make(PARENT, child("{item: i10}"), slots=slots) for slots in (12, 30))
    assert "i10" not in {short.catalog.ids[row] for row in short.batch.row}
    assert line_of(long, "off").cause.control_ids == ("late",)


def test_legal_block_is_never_relaxed_for_a_pin(make: Any) -> None:
    case = make(PARENT, child("{item: i7}", ", enforcement: legal"))
    assert (line_of(case, "off").slack, line_of(case, "lead").status, case.receipt.legal_met) == (
        0,
        "infeasible",
        False,
    )
    assert make(PARENT, child("{label: culture}", ", enforcement: legal")).receipt.legal_met
    assert make(PARENT, child("{item: i7}")).receipt.legal_met


def test_only_a_relaxed_block_has_a_price(make: Any) -> None:
    """The items of a relaxed block are candidates, and without the block the page would show more of them."""
    case = make(PARENT, child("{label: public-service}"), effort="exact")
    line = line_of(case, "off")
    assert (line.slack, line.status) == (6, "relaxed")
    assert "off" in {price.control_id for price in case.receipt.price}
    assert check(case, exact=True) == ()
    met = make(PARENT, child("{label: culture}"), effort="exact")
    assert "off" not in {price.control_id for price in met.receipt.price}
