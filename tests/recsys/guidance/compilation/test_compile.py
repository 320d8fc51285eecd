"""Inheritance, conditions as columns, and bounds of one page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.domain.catalog import Catalog
from recsys.domain.errors import PolicyError
from recsys.domain.regions import within
from recsys.guidance.compilation.compile import MASKS_MAX, compile_policy
from recsys.guidance.policy.conditions import Condition, mask
from recsys.guidance.policy.controls import Quota
from recsys.guidance.policy.inheritance import merge_policies
from recsys.guidance.policy.policy import parse_policy

FLOOR = "{id: floor, action: quota, where: {label: news}, at_least: %s, prefixes: every, enforcement: %s}"


def policy(outlet: str, *controls: str, weights: str = "{}", version: int = 1) -> str:
    return f"outlet: {outlet}\nversion: {version}\nweights: {weights}\ncontrols: [{', '.join(controls)}]"


def test_parents_come_first_and_importance_decides() -> None:
    line = [
        parse_policy(policy("cn.zj", "{id: b, action: block, where: {label: x}, priority: 5}", FLOOR % (0.1, "legal"))),
        parse_policy(policy("cn", "{id: a, action: block, where: {label: x}}", weights="{q: 0.1, r: 0.3}", version=3)),
        parse_policy(policy("cn.zj.hz", "{id: c, action: block, where: {label: x}}", weights="{q: 0.2}")),
    ]
    folded = merge_policies(line)
    assert folded.version == "cn@3+cn.zj@1+cn.zj.hz@1"
    assert folded.weights == {"q": 0.2, "r": 0.3}
    assert [(o.control.id, o.outlet) for o in folded.controls] == [
        ("floor", "cn.zj"),
        ("a", "cn"),
        ("b", "cn.zj"),
        ("c", "cn.zj.hz"),
    ]


@pytest.mark.parametrize("enforcement", ["legal", "mandatory", "editorial", "preferred"])
@given(above=st.integers(1, 9), below=st.integers(1, 9))
def test_a_child_tightens_always_and_loosens_only_what_is_not_firm(enforcement: str, above: int, below: int) -> None:
    parent = parse_policy(policy("cn", FLOOR % (above / 10, enforcement)))
    child = parse_policy(policy("cn.zj", FLOOR % (below / 10, enforcement)))
    controls = merge_policies([parent, child]).controls
    (kept,) = (o for o in controls if o.control.id == "floor")
    assert isinstance(kept.control, Quota)
    firm = enforcement in ("legal", "mandatory")
    wins = not firm or below >= above
    assert (kept.outlet, kept.control.at_least) == (("cn.zj", below / 10) if wins else ("cn", above / 10))
    beside = [(o.outlet, o.control.id, o.control.at_least) for o in controls[:-1] if isinstance(o.control, Quota)]
    assert beside == ([("cn", "floor@cn", above / 10)] if firm and below > above else [])


@pytest.mark.parametrize(
    "child",
    [
        FLOOR % (0.9, "mandatory"),
        FLOOR.replace("label: news", "label: sport") % (0.9, "legal"),
        FLOOR.replace("prefixes: every", "prefixes: [3]") % (0.9, "legal"),
        FLOOR.replace("enforcement", "on: {screens: [tv]}, enforcement") % (0.9, "legal"),
        FLOOR.replace("enforcement", "active: {days: [mon]}, enforcement") % (0.9, "legal"),
        "{id: floor, action: quota, where: {label: news}, at_least: 2, prefixes: [3], enforcement: legal}",
        "{id: floor, action: block, where: {label: news}}",
        FLOOR.replace("enforcement", "at_most: 0.0, enforcement") % (0.9, "legal"),
        FLOOR.replace("enforcement", "at_most: 0, enforcement") % (0.9, "legal"),
    ],
)
def test_every_road_around_a_legal_control_is_closed(child: str) -> None:
    parent = parse_policy(policy("cn", FLOOR % (0.3, "legal")))
    (kept,) = merge_policies([parent, parse_policy(policy("cn.zj", child))]).controls
    assert kept.outlet == "cn"


@pytest.mark.parametrize(
    "child",
    [
        "{id: none, action: quota, where: {label: public-service}, at_most: 0, enforcement: mandatory, priority: 1000}",
        "{id: off, action: block, where: {label: public-service}, enforcement: editorial}",
        "{id: pub, action: quota, where: {label: public-service}, at_least: 0.5, at_most: 0.0, enforcement: mandatory}",
    ],
)
def test_a_child_cannot_undo_what_a_parent_holds_firm_by_what_is_no_harder(make: Any, child: str) -> None:
    parent = "{id: pub, action: quota, where: {label: public-service}, at_least: 0.5, enforcement: mandatory}"
    made = make(policy("cn", parent), policy("cn.zj", child))
    kept = next(line for line in made.receipt.controls if (line.id, line.origin) == ("pub", "cn"))
    assert (kept.by, kept.achieved) == (0, 6)


def test_a_block_yields_only_where_too_little_is_left_for_what_is_harder(make: Any) -> None:
    floor = "{id: pub, action: quota, where: {label: public-service}, at_least: 0.5, enforcement: mandatory}"
    lead = "{id: lead, action: pin, item: i7, slot: 1, enforcement: legal}"
    some = "{id: some, action: block, where: {all: [{label: public-service}, {label: news}]}}"
    most = "{id: most, action: block, where: {any: [{label: [sport, news]}, {item: i7}]}}"
    rows = np.arange(60, dtype=np.int32)

    def blocked(*texts: str, **how: Any) -> set[str]:
        made = make(*texts)
        return {f"i{row}" for row in rows[made.policy.blocked(rows, made.query, **how)]}

    served = {f"i{n}" for n in range(60) if n % 3 == 0}
    news = {f"i{n}" for n in range(60) if n % 4 in (0, 1)}
    sport = {f"i{n}" for n in range(60) if n % 4 == 3}
    assert blocked(policy("cn", floor), policy("cn.zj", some)) == served & news, (
        "ten of twenty are left: enough for six"
    )
    five_left = (sport | news) - served - {"i7"}
    assert blocked(policy("cn", floor, lead), policy("cn.zj", most)) == five_left
    assert blocked(policy("cn", floor, lead, most)) == five_left, "whoever says it"
    binding = most.replace("}}", "}, enforcement: mandatory}")
    assert blocked(policy("cn", floor, lead), policy("cn.zj", binding)) == (sport | news) - {"i7"}, (
        "as hard as the floor"
    )
    soft = floor.replace("mandatory", "editorial")
    assert blocked(policy("cn", soft), policy("cn.zj", most)) == sport | news | {"i7"}


def test_a_floor_that_the_session_has_starved_is_owed_more(make: Any) -> None:
    """Half of 24 slots, of which the first 12 had none: six are enough of a first page, and not of this one."""
    floor = "{id: cul, action: quota, where: {label: culture}, at_least: 0.5, enforcement: mandatory}"
    left = ", ".join(f"i{n}" for n in range(26, 60) if n % 4 == 2)
    block = f"{{id: off, action: block, where: {{item: [{left}]}}}}"
    rows = np.arange(60, dtype=np.int32)
    made = make(policy("cn", floor), policy("cn.zj", block))
    assert made.policy.blocked(rows, made.query).sum() == 9
    starved = replace(made.query, shown=tuple(f"i{n}" for n in range(60) if n % 4 == 1)[:12])
    assert not made.policy.blocked(rows, starved).any()


def test_no_block_gives_way_for_want_of_retrieval(make: Any) -> None:
    """What was retrieved may lack what the catalogue has plenty of: a source failed. Then blocks stay."""
    floor = "{id: pub, action: quota, where: {label: public-service}, at_least: 0.5, enforcement: mandatory}"
    some = "{id: some, action: block, where: {all: [{label: public-service}, {label: news}]}}"
    made = make(policy("cn", floor), policy("cn.zj", some))
    every = np.arange(60, dtype=np.int32)
    news = made.policy.blocked(every, made.query)
    poor = np.flatnonzero(news | (every % 3 > 0)).astype(np.int32)  # of public service only what is blocked
    assert not made.policy.blocked(poor, made.query).any()
    everything = np.ones(60, np.bool_)
    held = made.policy.blocked(poor, made.query, catalog_showable=lambda: everything)
    assert poor[held].tolist() == np.flatnonzero(news).tolist()
    too_few = made.policy.blocked(poor, made.query, catalog_showable=lambda: news | (every % 3 > 0))
    assert not too_few.any()


def test_policies_of_two_lines_are_refused() -> None:
    with pytest.raises(PolicyError, match="do not belong to one line"):
        merge_policies([parse_policy("outlet: cn.zj"), parse_policy("outlet: cn.js")])


@pytest.mark.parametrize(
    ("said", "holds"),
    [
        ({"label": "news"}, lambda i: any(label.startswith("news/") for label in i.labels)),
        ({"label": ["news/city", "sport"]}, lambda i: {"news/city", "sport"} & set(i.labels)),
        ({"outlet": "cn.zj"}, lambda i: within(i.outlet, "cn.zj")),
        ({"region": "cn.zj"}, lambda i: i.region and within(i.region, "cn.zj")),
        ({"locality": "viewer"}, lambda i: i.region and within(i.region, "cn.zj")),
        ({"axis": {"public_value": 0.5}}, lambda i: i.axes["public_value"] >= 0.5),
        ({"axis": {"unheard": 0.5}}, lambda i: False),
        ({"kind": "film", "language": "no"}, lambda i: i.kind == "film" and i.language == "no"),
        ({"series": "harvest"}, lambda i: i.series == "harvest"),
        ({"provider": ["p1", "p9"]}, lambda i: i.provider == "p1"),
        ({"item": ["i3", "nobody"]}, lambda i: i.id == "i3"),
        ({"age_rating": {"at_least": 12, "at_most": 17}}, lambda i: i.age_rating == 12),
        ({"all": [{"kind": "film"}, {"label": "sport"}]}, lambda i: i.kind == "film" and "sport" in i.labels),
        ({"any": [{"kind": "film"}, {"label": "sport"}]}, lambda i: i.kind == "film" or "sport" in i.labels),
        ({"not": {"kind": "film"}}, lambda i: i.kind != "film"),
    ],
)
def test_a_condition_holds_for_the_items_it_describes(shop: Catalog, said: Any, holds: Callable[[Any], bool]) -> None:
    got = mask(Condition.model_validate(said), shop, "cn.zj.hz.xh")
    assert got.tolist() == [bool(holds(item)) for item in shop.items]


def test_what_clients_write_as_their_region_costs_no_memory(shop: Catalog, make: Any) -> None:
    near = "{id: near, action: quota, where: {locality: viewer}, at_least: 2}"
    text = policy("cn", near, "{id: boo, action: boost, where: {label: news}, bonus: 0.1}")
    policy_, query = compile_policy([parse_policy(text)], shop), make("outlet: cn").query
    condition = Condition.model_validate({"locality": "viewer"})
    for n in range(300):
        place = f"q{n}.z{n}" if n % 2 else f"cn.q{n}"
        assert not policy_.member(condition, place).any()
        policy_.bounds(replace(query, region=place), np.arange(60, dtype=np.int32), 12, np.zeros(0, np.int32))
    for region in ("cn", "cn.zj", "cn.zj.hz.xh", "cn.js.nj"):
        assert policy_.member(condition, region).tolist() == mask(condition, shop, region).tolist()
    assert len(policy_.masks) == 1 + 4, "one for the label; cn, cn.zj, cn.js and all else for the locality"


def test_of_many_provinces_the_masks_of_the_latest_are_kept(shop: Catalog) -> None:
    items = enumerate(shop.items * 2)
    wide = Catalog.of([item.model_copy(update={"id": f"w{n}", "region": f"r.p{n}"}) for n, item in items])
    text = policy("r", "{id: boo, action: boost, where: {label: news}, bonus: 0.1}")
    policy_ = compile_policy([parse_policy(text)], wide)
    condition = Condition.model_validate({"locality": "viewer"})
    for n in (*range(100), 3, 99):
        assert np.flatnonzero(policy_.member(condition, f"r.p{n}.x")).tolist() == [n]
    kept = [region for _, region in policy_.masks if region]
    assert len(kept) == MASKS_MAX
    assert kept[-2:] == ["r.p3", "r.p99"]
    assert ("", len(policy_.masks)) == (next(r for _, r in policy_.masks), MASKS_MAX + 1), "those of all viewers stay"


@given(share=st.integers(0, 100), slots=st.integers(1, 30), strict=st.booleans())
def test_floors_round_up_on_the_page_and_down_on_prefixes(make: Any, share: int, slots: int, strict: bool) -> None:
    rounding = "strict" if strict else "lenient"
    control = (
        "{id: a, action: quota, where: {label: sport}, at_least: %d%%, at_most: %d%%, prefixes: every, rounding: %s}"
    )
    bounds = _bounds(make, policy("cn", control % (share, share, rounding)), slots)
    for k in range(1, slots + 1):
        exact = share * k  # in hundredths of an item
        down, up = exact // 100, -(-exact // 100)
        whole = k == slots or strict
        assert bounds.lower[0, k - 1] == (up if whole else down)
        assert bounds.upper[0, k - 1] == (down if whole else up)


def _bounds(make: Any, text: str, slots: int, shown: int = 0) -> Any:
    catalog = Catalog.of(make("outlet: cn", slots=1).catalog.items)
    compiled = compile_policy([parse_policy(text)], catalog)
    query = make("outlet: cn", slots=1).query
    return compiled.bounds(query, np.arange(shown, 60, dtype=np.int32), slots, np.arange(shown, dtype=np.int32))


def test_shares_hold_over_the_session_too(make: Any) -> None:
    """Of twelve items shown three were sport, so this page of twelve owes nine less three to a share of 36 %."""
    text = policy("cn", "{id: a, action: quota, where: {label: sport}, at_least: 0.36}")
    assert _bounds(make, text, 12).lower[0, -1] == 5
    assert _bounds(make, text, 12, shown=12).lower[0, -1] == 9 - 3
    cap = policy("cn", "{id: a, action: quota, where: {label: sport}, at_most: 0.17}")
    assert _bounds(make, cap, 12).upper[0, -1] == 2
    assert _bounds(make, cap, 12, shown=12).upper[0, -1] == 4 - 3


@given(
    at_most=st.integers(0, 8) | st.sampled_from([0.0, 0.1, 0.25, 0.4, 1.0]),
    attribute=st.sampled_from(["topic", "provider", "series", "region", "kind"]),
    slots=st.integers(0, 30),
    shown=st.integers(0, 40),
)
def test_a_cap_has_a_row_for_each_value_that_could_exceed_it(
    make: Any, at_most: float, attribute: str, slots: int, shown: int
) -> None:
    """Against a look at each value in turn: how many the page may have, and how many with the session's pages."""
    made = make("outlet: cn", slots=1)
    text = policy("cn", f"{{id: a, action: cap, attribute: {attribute}, at_most: {at_most}}}")
    bounds = _bounds(make, text, slots, shown)
    values = [str(getattr(item, attribute) or "") for item in made.catalog.items]
    expected = {}
    for value in {*values[shown:]} - {""}:
        k, counted = bounds.slots, values[:shown].count(value)
        most = min(at_most, k)
        if isinstance(at_most, float):
            most = int(at_most * k + 1e-9)
            most = max(0, min(most, int(at_most * (shown + k) + 1e-9) - counted))
        if values[shown:].count(value) > most:
            expected[frozenset(i for i, v in enumerate(values[shown:]) if v == value)] = most
    got = {
        frozenset(np.flatnonzero(row).tolist()): set(upper.tolist())
        for row, upper in zip(bounds.member, bounds.upper, strict=True)
    }
    assert got == {members: {most} if bounds.slots else set() for members, most in expected.items()}
    assert len(bounds.member) == len(expected)
    assert not bounds.lower.any()


def test_what_is_soft_yields_to_other_controls_and_not_to_its_cost(make: Any) -> None:
    """Whatever the items are worth: at a whole play equivalent less each, the page still holds all it can."""
    soft = "{id: soft, action: quota, where: {label: sport}, at_least: 1.0, enforcement: preferred}"
    against = "{id: off, action: boost, where: {label: sport}, bonus: -1}"
    other = "{id: own, action: quota, where: {label: culture}, at_least: 0.5}"
    alone = make(policy("cn", soft, against)).receipt.controls[0]
    assert (alone.by, alone.achieved) == (0, 12)
    beside = {
        line.id: (line.slack, line.achieved) for line in make(policy("cn", soft, against, other)).receipt.controls
    }
    assert beside == {"own": (0, 6), "soft": (6, 6)}


def test_a_pin_counts_from_the_first_slot_of_the_session(make: Any) -> None:
    text = policy("cn", "{id: first, action: pin, item: i3, slot: 1}", "{id: later, action: pin, item: i20, slot: 15}")
    page_one, page_two = _bounds(make, text, 12), _bounds(make, text, 12, shown=12)
    assert page_one.active.tolist() == [True, False]
    assert page_two.active.tolist() == [False, True]
    assert page_two.pin_slot.tolist() == [2]
    assert page_two.tie[page_two.pin_item].tolist() == [20]


def test_slots_are_counted_though_an_item_that_was_shown_is_not_known_here(make: Any) -> None:
    """Another process had newer items on page one: the lead does not come back, and later pins stand in their slots."""
    made = make(
        policy("cn", "{id: lead, action: pin, item: i3, slot: 2}", "{id: later, action: pin, item: i20, slot: 9}")
    )
    shown = ("i1", "i3", "of-another-process", "i5", "newer-still", "i6")
    query, known = replace(made.query, shown=shown), made.catalog.rows(shown)
    assert len(known) == 4
    bounds = made.policy.bounds(query, np.arange(60, dtype=np.int32), 12, known)
    assert bounds.active.tolist() == [False, True]
    assert bounds.pin_slot.tolist() == [2]
    assert made.policy.pinned_rows(query).tolist() == [20]


def test_controls_out_of_scope_or_out_of_time_ask_nothing(make: Any) -> None:
    rule = "{id: a, action: quota, where: {label: sport}, at_least: 0.9, %s}"
    for scope in ("on: {screens: [car]}", "on: {surfaces: [hot]}", "on: {regions: [cn.js]}", "active: {days: [sun]}"):
        assert not make(policy("cn", rule % scope)).bounds.active.any()
    assert make(policy("cn", rule % "on: {screens: [tv], regions: [cn.zj]}, active: {days: [mon]}")).bounds.active.all()
    assert not make(policy("cn", rule % "priority: 1"), guided=False).bounds.active.any()


def test_bonus_blocks_needs_and_pins(make: Any) -> None:
    made = make(
        policy(
            "cn",
            "{id: lean, action: boost, where: {kind: film}, bonus: 0.25}",
            "{id: off, action: block, where: {label: commercial}}",
            "{id: floor, action: quota, where: {label: sport}, at_least: 0.3}",
            "{id: lead, action: pin, item: i3, slot: 1}",
            "{id: lost, action: pin, item: nobody, slot: 2}",
            weights="{public_value: 0.5, unheard: 1}",
        )
    )
    rows = np.arange(60, dtype=np.int32)
    items = made.catalog.items
    expected = [0.5 * item.axes["public_value"] + 0.25 * (item.kind == "film") for item in items]
    assert made.policy.bonus(rows, made.query) == pytest.approx(expected)
    assert made.policy.blocked(rows, made.query).tolist() == ["commercial" in item.labels for item in items]
    (need,) = made.policy.needs(made.query, 12)
    assert (need.control_id, need.count, need.member.sum()) == ("floor", 12, 15)
    assert made.policy.pinned_rows(made.query).tolist() == [3]
    lead = int(made.solution.chosen[0])
    assert made.batch.row[lead] == 3
    assert made.policy.serving(made.bounds, made.solution.chosen, 0) == ("floor", "lead")
