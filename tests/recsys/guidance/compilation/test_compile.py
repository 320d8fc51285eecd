"""Inheritance, masks of conditions, and the constraints of a page."""

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


def test_controls_are_ordered_by_importance_then_parents_first() -> None:
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
def test_a_child_may_tighten_any_control_and_weaken_only_controls_that_are_not_firm(
    enforcement: str, above: int, below: int
) -> None:
    parent = parse_policy(policy("cn", FLOOR % (above / 10, enforcement)))
    child = parse_policy(policy("cn.zj", FLOOR % (below / 10, enforcement)))
    controls = merge_policies([parent, child]).controls
    (effective,) = (o for o in controls if o.control.id == "floor")
    assert isinstance(effective.control, Quota)
    firm = enforcement in ("legal", "mandatory")
    wins = not firm or below >= above
    assert (effective.outlet, effective.control.at_least) == (("cn.zj", below / 10) if wins else ("cn", above / 10))
    parent_versions = [
        (o.outlet, o.control.id, o.control.at_least) for o in controls[:-1] if isinstance(o.control, Quota)
    ]
    assert parent_versions == ([("cn", "floor@cn", above / 10)] if firm and below > above else [])


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
def test_a_child_cannot_weaken_a_legal_control_in_any_way(child: str) -> None:
    parent = parse_policy(policy("cn", FLOOR % (0.3, "legal")))
    (effective,) = merge_policies([parent, parse_policy(policy("cn.zj", child))]).controls
    assert effective.outlet == "cn"


@pytest.mark.parametrize(
    "child",
    [
        "{id: none, action: quota, where: {label: public-service}, at_most: 0, enforcement: mandatory, priority: 1000}",
        "{id: off, action: block, where: {label: public-service}, enforcement: editorial}",
        "{id: pub, action: quota, where: {label: public-service}, at_least: 0.5, at_most: 0.0, enforcement: mandatory}",
    ],
)
def test_a_child_cannot_defeat_a_firm_control_of_a_parent_with_controls_that_are_no_stricter(
    make: Any, child: str
) -> None:
    parent = "{id: pub, action: quota, where: {label: public-service}, at_least: 0.5, enforcement: mandatory}"
    page = make(policy("cn", parent), policy("cn.zj", child))
    outcome = next(line for line in page.receipt.controls if (line.id, line.origin) == ("pub", "cn"))
    assert (outcome.slack, outcome.achieved) == (0, 6)


def test_a_block_is_relaxed_only_if_stricter_controls_lack_items(make: Any) -> None:
    floor = "{id: pub, action: quota, where: {label: public-service}, at_least: 0.5, enforcement: mandatory}"
    lead = "{id: lead, action: pin, item: i7, slot: 1, enforcement: legal}"
    block = "{id: some, action: block, where: {all: [{label: public-service}, {label: news}]}}"
    wide_block = "{id: most, action: block, where: {any: [{label: [sport, news]}, {item: i7}]}}"
    rows = np.arange(60, dtype=np.int32)

    def blocked(*texts: str, **options: Any) -> set[str]:
        page = make(*texts)
        return {f"i{row}" for row in rows[page.policy.blocked(rows, page.query, **options)]}

    public = {f"i{n}" for n in range(60) if n % 3 == 0}
    news = {f"i{n}" for n in range(60) if n % 4 in (0, 1)}
    sport = {f"i{n}" for n in range(60) if n % 4 == 3}
    assert blocked(policy("cn", floor), policy("cn.zj", block)) == public & news, (
        "ten of twenty items remain, six are required"
    )
    news_and_sport = (sport | news) - public - {"i7"}
    assert blocked(policy("cn", floor, lead), policy("cn.zj", wide_block)) == news_and_sport
    assert blocked(policy("cn", floor, lead, wide_block)) == news_and_sport, (
        "the outlet of the block makes no difference"
    )
    equal_block = wide_block.replace("}}", "}, enforcement: mandatory}")
    assert blocked(policy("cn", floor, lead), policy("cn.zj", equal_block)) == (sport | news) - {"i7"}, (
        "the block is as strict as the minimum"
    )
    weak_minimum = floor.replace("mandatory", "editorial")
    assert blocked(policy("cn", weak_minimum), policy("cn.zj", wide_block)) == sport | news | {"i7"}


def test_a_minimum_missed_on_earlier_pages_requires_more_items(make: Any) -> None:
    """Half of 24 slots are required and the first 12 had none, so this page requires more than six."""
    floor = "{id: cul, action: quota, where: {label: culture}, at_least: 0.5, enforcement: mandatory}"
    item_ids = ", ".join(f"i{n}" for n in range(26, 60) if n % 4 == 2)
    block = f"{{id: off, action: block, where: {{item: [{item_ids}]}}}}"
    rows = np.arange(60, dtype=np.int32)
    page = make(policy("cn", floor), policy("cn.zj", block))
    assert page.policy.blocked(rows, page.query).sum() == 9
    later_query = replace(page.query, shown=tuple(f"i{n}" for n in range(60) if n % 4 == 1)[:12])
    assert not page.policy.blocked(rows, later_query).any()


def test_no_block_is_relaxed_because_retrieval_supplied_too_little(make: Any) -> None:
    """If the candidates lack items that the catalog has, because a source failed, blocks stay in force."""
    floor = "{id: pub, action: quota, where: {label: public-service}, at_least: 0.5, enforcement: mandatory}"
    block = "{id: some, action: block, where: {all: [{label: public-service}, {label: news}]}}"
    page = make(policy("cn", floor), policy("cn.zj", block))
    rows = np.arange(60, dtype=np.int32)
    news = page.policy.blocked(rows, page.query)
    candidates = np.flatnonzero(news | (rows % 3 > 0)).astype(np.int32)  # the only public-service items are blocked
    assert not page.policy.blocked(candidates, page.query).any()
    everything = np.ones(60, np.bool_)
    blocked = page.policy.blocked(candidates, page.query, catalog_showable=lambda: everything)
    assert candidates[blocked].tolist() == np.flatnonzero(news).tolist()
    blocked_when_short = page.policy.blocked(candidates, page.query, catalog_showable=lambda: news | (rows % 3 > 0))
    assert not blocked_when_short.any()


def test_policies_of_two_lines_of_outlets_are_rejected() -> None:
    with pytest.raises(PolicyError, match="do not belong to one line"):
        merge_policies([parse_policy("outlet: cn.zj"), parse_policy("outlet: cn.js")])


@pytest.mark.parametrize(
    ("fields", "holds"),
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
def test_a_condition_holds_for_the_items_it_describes(shop: Catalog, fields: Any, holds: Callable[[Any], bool]) -> None:
    got = mask(Condition.model_validate(fields), shop, "cn.zj.hz.xh")
    assert got.tolist() == [bool(holds(item)) for item in shop.items]


def test_unknown_regions_in_requests_use_no_memory(shop: Catalog, make: Any) -> None:
    near = "{id: near, action: quota, where: {locality: viewer}, at_least: 2}"
    text = policy("cn", near, "{id: boo, action: boost, where: {label: news}, bonus: 0.1}")
    policy_, query = compile_policy([parse_policy(text)], shop), make("outlet: cn").query
    condition = Condition.model_validate({"locality": "viewer"})
    for n in range(300):
        unknown_region = f"q{n}.z{n}" if n % 2 else f"cn.q{n}"
        assert not policy_.member(condition, unknown_region).any()
        policy_.bounds(replace(query, region=unknown_region), np.arange(60, dtype=np.int32), 12, np.zeros(0, np.int32))
    for region in ("cn", "cn.zj", "cn.zj.hz.xh", "cn.js.nj"):
        assert policy_.member(condition, region).tolist() == mask(condition, shop, region).tolist()
    assert len(policy_.masks) == 1 + 4, (
        "one mask for the label; cn, cn.zj, cn.js and all other regions for the locality"
    )


def test_the_masks_of_the_most_recent_provinces_are_cached(shop: Catalog) -> None:
    items = enumerate(shop.items * 2)
    wide = Catalog.of([item.model_copy(update={"id": f"w{n}", "region": f"r.p{n}"}) for n, item in items])
    text = policy("r", "{id: boo, action: boost, where: {label: news}, bonus: 0.1}")
    policy_ = compile_policy([parse_policy(text)], wide)
    condition = Condition.model_validate({"locality": "viewer"})
    for n in (*range(100), 3, 99):
        assert np.flatnonzero(policy_.member(condition, f"r.p{n}.x")).tolist() == [n]
    cached = [region for _, region in policy_.masks if region]
    assert len(cached) == MASKS_MAX
    assert cached[-2:] == ["r.p3", "r.p99"]
    assert ("", len(policy_.masks)) == (next(r for _, r in policy_.masks), MASKS_MAX + 1), (
        "masks for all viewers are never evicted"
    )


@given(share=st.integers(0, 100), slots=st.integers(1, 30), strict=st.booleans())
def test_minimums_round_up_on_the_page_and_down_on_prefixes(make: Any, share: int, slots: int, strict: bool) -> None:
    rounding = "strict" if strict else "lenient"
    control = (
        "{id: a, action: quota, where: {label: sport}, at_least: %d%%, at_most: %d%%, prefixes: every, rounding: %s}"
    )
    constraints = _bounds(make, policy("cn", control % (share, share, rounding)), slots)
    for k in range(1, slots + 1):
        exact = share * k  # in hundredths of an item
        down, up = exact // 100, -(-exact // 100)
        whole = k == slots or strict
        assert constraints.lower[0, k - 1] == (up if whole else down)
        assert constraints.upper[0, k - 1] == (down if whole else up)


def _bounds(make: Any, text: str, slots: int, shown: int = 0) -> Any:
    catalog = Catalog.of(make("outlet: cn", slots=1).catalog.items)
    compiled = compile_policy([parse_policy(text)], catalog)
    query = make("outlet: cn", slots=1).query
    return compiled.bounds(query, np.arange(shown, 60, dtype=np.int32), slots, np.arange(shown, dtype=np.int32))


def test_quotas_also_hold_over_the_session(make: Any) -> None:
    """Three of twelve shown items were sport, so a share of 36 % requires nine minus three on this page of twelve."""
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
    """Compares with the maximum of each value on the page and over the session."""
    page = make("outlet: cn", slots=1)
    text = policy("cn", f"{{id: a, action: cap, attribute: {attribute}, at_most: {at_most}}}")
    constraints = _bounds(make, text, slots, shown)
    values = [str(getattr(item, attribute) or "") for item in page.catalog.items]
    expected = {}
    for value in {*values[shown:]} - {""}:
        k, n_shown = constraints.slots, values[:shown].count(value)
        maximum = min(at_most, k)
        if isinstance(at_most, float):
            maximum = int(at_most * k + 1e-9)
            maximum = max(0, min(maximum, int(at_most * (shown + k) + 1e-9) - n_shown))
        if values[shown:].count(value) > maximum:
            expected[frozenset(i for i, v in enumerate(values[shown:]) if v == value)] = maximum
    got = {
        frozenset(np.flatnonzero(row).tolist()): set(upper.tolist())
        for row, upper in zip(constraints.member, constraints.upper, strict=True)
    }
    assert got == {members: {maximum} if constraints.slots else set() for members, maximum in expected.items()}
    assert len(constraints.member) == len(expected)
    assert not constraints.lower.any()


def test_a_preferred_control_is_relaxed_for_other_controls_but_not_for_its_cost(make: Any) -> None:
    """Even at a malus of a whole play equivalent per item, the page still holds as many of them as it can."""
    soft = "{id: soft, action: quota, where: {label: sport}, at_least: 1.0, enforcement: preferred}"
    against = "{id: off, action: boost, where: {label: sport}, bonus: -1}"
    rival = "{id: own, action: quota, where: {label: culture}, at_least: 0.5}"
    alone = make(policy("cn", soft, against)).receipt.controls[0]
    assert (alone.slack, alone.achieved) == (0, 12)
    together = {
        line.id: (line.slack, line.achieved) for line in make(policy("cn", soft, against, rival)).receipt.controls
    }
    assert together == {"own": (0, 6), "soft": (6, 6)}


def test_the_slot_of_a_pin_counts_from_the_start_of_the_session(make: Any) -> None:
    text = policy("cn", "{id: first, action: pin, item: i3, slot: 1}", "{id: later, action: pin, item: i20, slot: 15}")
    page_one, page_two = _bounds(make, text, 12), _bounds(make, text, 12, shown=12)
    assert page_one.active.tolist() == [True, False]
    assert page_two.active.tolist() == [False, True]
    assert page_two.pin_slot.tolist() == [2]
    assert page_two.tie[page_two.pin_item].tolist() == [20]


def test_shown_items_count_even_if_they_are_not_in_this_catalog(make: Any) -> None:
    """Another process showed newer items on page one: the lead is not repeated, and later pins keep their slots."""
    page = make(
        policy("cn", "{id: lead, action: pin, item: i3, slot: 2}", "{id: later, action: pin, item: i20, slot: 9}")
    )
    shown = ("i1", "i3", "of-another-process", "i5", "newer-still", "i6")
    query, shown_rows = replace(page.query, shown=shown), page.catalog.rows(shown)
    assert len(shown_rows) == 4
    constraints = page.policy.bounds(query, np.arange(60, dtype=np.int32), 12, shown_rows)
    assert constraints.active.tolist() == [False, True]
    assert constraints.pin_slot.tolist() == [2]
    assert page.policy.pinned_rows(query).tolist() == [20]


def test_controls_out_of_scope_or_schedule_require_nothing(make: Any) -> None:
    rule = "{id: a, action: quota, where: {label: sport}, at_least: 0.9, %s}"
    for scope in ("on: {screens: [car]}", "on: {surfaces: [hot]}", "on: {regions: [cn.js]}", "active: {days: [sun]}"):
        assert not make(policy("cn", rule % scope)).bounds.active.any()
    assert make(policy("cn", rule % "on: {screens: [tv], regions: [cn.zj]}, active: {days: [mon]}")).bounds.active.all()
    assert not make(policy("cn", rule % "priority: 1"), guided=False).bounds.active.any()


def test_bonus_blocks_supply_requests_and_pins(make: Any) -> None:
    page = make(
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
    items = page.catalog.items
    expected = [0.5 * item.axes["public_value"] + 0.25 * (item.kind == "film") for item in items]
    assert page.policy.bonus(rows, page.query) == pytest.approx(expected)
    assert page.policy.blocked(rows, page.query).tolist() == ["commercial" in item.labels for item in items]
    (need,) = page.policy.needs(page.query, 12)
    assert (need.control_id, need.count, need.member.sum()) == ("floor", 12, 15)
    assert page.policy.pinned_rows(page.query).tolist() == [3]
    lead = int(page.solution.chosen[0])
    assert page.batch.row[lead] == 3
    assert page.policy.serving(page.bounds, page.solution.chosen, 0) == ("floor", "lead")
