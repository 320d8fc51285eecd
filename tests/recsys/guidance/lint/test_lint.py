"""Lint: each fault at its field, in editors' words, and silence where nothing is wrong."""

from __future__ import annotations

import pytest

from recsys.domain.catalog import Catalog
from recsys.guidance.compilation.compile import compile_policy
from recsys.guidance.lint.lint import lint
from recsys.guidance.policy.conditions import Condition
from recsys.guidance.policy.policy import parse_policy

NOW = 1_772_424_000.0  # 2026-03-02T04:00:00Z, a Monday
PARENT = """
outlet: cn
controls:
  - {id: floor, action: quota, where: {label: public-service}, at_least: 0.3, prefixes: every, enforcement: legal}
  - {id: lead, action: pin, item: i3, slot: 1, on: {screens: [tv]}}
"""
TV = "on: {screens: [tv]}"


def findings(shop: Catalog, *controls: str, weights: str = "{}") -> list[tuple[str, str]]:
    child = f"outlet: cn.zj\nweights: {weights}\ncontrols: [{', '.join(controls)}]"
    return [(f.where, f.message) for f in lint([parse_policy(child), parse_policy(PARENT)], shop, NOW)]


def test_a_sound_policy_finds_nothing(shop: Catalog) -> None:
    sound = [
        "{id: sport, action: quota, where: {label: sport}, at_least: 0.1, at_most: 0.5}",
        "{id: near, action: quota, where: {locality: viewer}, at_least: 2, prefixes: [4], on: {screens: [tv, mobile]}}",
        "{id: topic, action: cap, attribute: topic, at_most: 6}",
        "{id: apart, action: spacing, attribute: provider, at_most: 2, within: 3}",
    ]
    assert findings(shop, *sound, weights="{public_value: 0.2}") == []


@pytest.mark.parametrize(
    ("control", "where", "word"),
    [
        ("{id: floor, action: quota, where: {label: public-service}, at_least: 0.2, prefixes: every, "
         "enforcement: legal}",
         "controls[0]", "not lower it to 0.2"),
        ("{id: a, action: quota, where: {label: sprot}, at_least: 0.1}", "controls[0].where.label", "mean 'sport'"),
        ("{id: a, action: block, where: {axis: {nobility: 0.5}}}", "controls[0].where.axis", "no item has the axis"),
        ("{id: a, action: block, where: {region: cn.gd}}", "controls[0].where.region", "no item has the region"),
        ("{id: a, action: block, where: {all: [{kind: film}, {item: i999}]}}", "controls[0].where.item", "not in"),
        ("{id: a, action: block, where: {kind: live}}", "controls[0].where", "no item of the catalogue meets"),
        ("{id: a, action: pin, item: i999, slot: 2}", "controls[0].item", "not in the catalogue"),
        ("{id: a, action: pin, item: i5, slot: 1, on: {screens: [tv]}}", "controls[0].slot", "taken by 'lead' of cn"),
        ("{id: a, action: pin, item: i3, slot: 2, on: {screens: [tv]}}", "controls[0].item", "by 'lead' of cn"),
        ("{id: a, action: quota, where: {label: sport}, at_least: 0.5, at_most: 0.2}",
         "controls[0].at_least", "above the maximum"),
        ("{id: a, action: quota, where: {label: sport}, at_least: 0.6, enforcement: preferred}",
         "controls[0].enforcement",
         "but not to cost: 60% of every page goes to these items"),
        ("{id: a, action: quota, where: {label: sport}, at_most: 1.0}", "controls[0].at_most", "has no effect"),
        ("{id: a, action: quota, where: {label: sport}, at_most: 40}", "controls[0]", "has no effect: no page"),
        ("{id: a, action: boost, where: {label: sport}, bonus: 0}", "controls[0].bonus", "no effect"),
        ("{id: a, action: boost, where: {kind: [film, article]}, bonus: 0.1}",
         "controls[0].where", "the bonus has no effect"),
        ("{id: a, action: quota, where: {kind: [film, article]}, at_least: 0.9}",
         "controls[0]", "has no effect: no page"),
        ("{id: a, action: cap, attribute: topic, at_most: 30}", "controls[0]", "has no effect: no page"),
        ("{id: a, action: spacing, attribute: series, at_most: 6, within: 7}", "controls[0]", "has no effect: no page"),
        ("{id: a, action: quota, where: {label: public-service}, at_most: 0.1}",
         "controls[0].at_most", "is below the minimum of 8 that 'floor' of cn sets"),
        ("{id: a, action: block, where: {label: public-service}}", "controls[0].where",
         "leaves 0 of the 20 items of which 'floor' of cn (legal) requires 8 on tv home: the block is relaxed there"),
        ("{id: a, action: block, where: {item: i3}, enforcement: legal, priority: 1000}, "
         "{id: floor, action: quota, where: {label: public-service}, at_least: 0.3, at_most: 0.1, prefixes: every, "
         "enforcement: legal}", "controls[1]", "its maximum of 0.1 is below its own minimum of 0.3"),
        ("{id: a, action: quota, where: {label: public-service}, at_most: 0, enforcement: legal, priority: 1000}",
         "controls[0].at_most", "is below the minimum of 8 that 'floor' of cn sets"),
        ("{id: a, action: pin, item: i3, slot: 3, on: {screens: [web]}}, "
         "{id: b, action: cap, attribute: topic, at_most: 1}, {id: c, action: pin, item: i10, slot: 4}",
         "controls[2].slot", "with this pin the first 4 slots on tv home hold 2 such items, and 'b' allows 1"),
        ("{id: a, action: pin, item: i3, slot: 5}, {id: b, action: block, where: {item: i3}}",
         "controls[0].item", "is blocked by 'b'"),
        ("{id: a, action: pin, item: i1, slot: 1, on: {screens: [car]}}, "
         "{id: b, action: quota, where: {label: commercial}, at_most: 0.1, prefixes: every, rounding: strict}",
         "controls[0].slot", "'b' allows 0"),
        ("{id: a, action: quota, where: {label: news/city}, at_least: 0.4}, "
         "{id: b, action: quota, where: {label: news}, at_most: 0.2}",
         "controls[0].at_least", "the minimum of 10 in the first 24 slots on tv home is above the maximum of 4"),
        ("{id: a, action: quota, where: {provider: p1}, at_least: 0.5}, "
         "{id: b, action: cap, attribute: provider, at_most: 3}", "controls[0].at_least", "above the maximum of 3"),
        ("{id: a, action: quota, where: {label: sport}, at_least: 0.2}, {id: b, action: block, where: {label: sport}}",
         "controls[0].where", "every such item is blocked by 'b'"),
        ("{id: a, action: block, where: {kind: film}, active: {until: 2026-01-01T00:00:00Z}}",
         "controls[0].active.until", "ended at"),
        ("{id: a, action: block, where: {kind: film}, active: {from: 2026-03-02T00:00:00Z, "
         "until: 2026-03-04T00:00:00Z, days: [sun]}}", "controls[0].active", "never in force"),
        ("{id: a, action: quota, where: {label: plain}, at_least: 0.8}", "controls[0]", "relaxed by"),
        ("{id: a, action: quota, where: {series: harvest}, at_least: 0.5}", "controls[0]", "only 6 may be shown"),
        ("{id: a, action: quota, where: {series: harvest}, at_least: 0.5, active: {from: 2026-06-01T00:00:00Z}}",
         "controls[0]", "only 6 may be shown"),
    ],
)  # fmt: skip
def test_each_fault_is_told_at_its_field(shop: Catalog, control: str, where: str, word: str) -> None:
    told = findings(shop, control)
    assert any(place == where and word in message for place, message in told), told


def test_a_floor_that_no_page_holds_is_told_once_and_nobody_else_is_blamed(shop: Catalog) -> None:
    """20 for 20%: not the caps, blocks and floors beside it, and none of those is said to be short of slots."""
    told = findings(
        shop,
        "{id: a, action: quota, where: {label: culture}, at_least: 20}",
        "{id: b, action: quota, where: {label: commercial}, at_most: 0.3}",
        "{id: c, action: cap, attribute: topic, at_most: 4}",
        "{id: d, action: boost, where: {label: sport}, bonus: 0.01}",
        "{id: e, action: block, where: {label: news/city}}",
    )
    words = "20 items do not fit into 12 slots on mobile home (nor on 4 other kinds of pages); did you mean '20%'?"
    assert told == [("controls[0].at_least", words)]


def test_a_floor_above_some_pages_only_blames_nobody_either(shop: Catalog) -> None:
    told = findings(shop, "{id: a, action: quota, where: {label: culture}, at_least: 5}")
    assert len(told) == 1
    assert "5 of 4 slots" in told[0][1]


def test_a_weight_above_the_worth_of_an_item_is_told(shop: Catalog) -> None:
    policy = parse_policy("outlet: cn.zj\nweights: {public_value: 0.2}\n")
    assert not lint([policy], shop, NOW)
    assert not lint([policy], shop, NOW, item_utility=0.21)
    [finding] = lint([policy], shop, NOW, item_utility=0.05)
    assert finding.where == "weights.public_value"
    assert (
        "adds up to 0.2 play equivalents to an item, and an item has a utility of about 0.05 play equivalents"
        in finding.message
    )


def test_a_mistyped_axis_is_told_with_the_one_that_was_meant(shop: Catalog) -> None:
    [(place, message)] = findings(shop, weights="{publik_value: 0.01}")
    assert place == "weights.publik_value"
    assert "did you mean 'public_value'?" in message


def test_nothing_that_lint_says_keeps_a_policy_from_being_saved(shop: Catalog) -> None:
    """Errors are for what cannot be read; rules without effect are hints, rules that will not be kept warnings."""
    told = [
        ("{id: a, action: quota, where: {series: harvest}, at_least: 0.5}", "warning"),
        ("{id: a, action: quota, where: {label: sprot}, at_least: 0.1}", "warning"),
        ("{id: a, action: quota, where: {label: sport}, at_most: 40}", "hint"),
        ("{id: a, action: boost, where: {label: sport}, bonus: 0}", "hint"),
    ]
    for control, level in told:
        found = lint([parse_policy(f"outlet: cn.zj\ncontrols: [{control}]"), parse_policy(PARENT)], shop, NOW)
        assert level in {finding.level for finding in found}, found
        assert "error" not in {finding.level for finding in found}


def test_a_block_of_what_a_parent_pins_is_told(shop: Catalog) -> None:
    firm = PARENT.replace("slot: 1,", "slot: 1, enforcement: mandatory,")
    child = "outlet: cn.zj\ncontrols: [{id: a, action: block, where: {item: i3}}]"
    told = [(f.where, f.message) for f in lint([parse_policy(firm), parse_policy(child)], shop, NOW)]
    assert told == [
        ("controls[0].where", "removes i3, which 'lead' of cn (mandatory) pins: the block is relaxed there")
    ]  # fmt: skip
    lawful = parse_policy(child.replace("{item: i3}", "{item: i3}, enforcement: legal"))
    [said] = [f.message for f in lint([parse_policy(firm), lawful], shop, NOW) if f.where == "controls[0].where"]
    assert said.endswith("pins: that control is not harder than the block, so it is relaxed")


def test_weights_without_effect(shop: Catalog) -> None:
    told = findings(shop, weights="{nobility: 0.2, public_value: 0}")
    assert [place for place, _ in told] == ["weights.nobility", "weights.public_value"]


def test_floors_that_together_exceed_the_page(shop: Catalog) -> None:
    """Three disjoint kinds of items at 30 % (a parent's), 40 % and 40 %: the last one said gives way."""
    told = findings(
        shop,
        "{id: a, action: quota, where: {label: plain}, at_least: 0.4}",
        "{id: b, action: quota, where: {label: commercial}, at_least: 0.4}",
    )
    assert [place for place, _ in told] == ["controls[1].at_least", "controls[1]"]
    assert "the minimums together require 28 of 24 slots on tv home: 10 here" in told[0][1]
    assert "'floor' of cn" in told[0][1]
    assert "beside the more important 'floor' of cn, 'a' there is no room for more among the candidates" in told[1][1]


def test_floors_that_items_can_serve_together_or_that_never_meet_are_fine(shop: Catalog) -> None:
    assert not findings(
        shop,
        "{id: a, action: quota, where: {label: plain}, at_least: 0.4, on: {screens: [tv]}}",
        "{id: b, action: quota, where: {label: commercial}, at_least: 0.4, on: {screens: [mobile]}}",
        "{id: c, action: quota, where: {label: culture}, at_least: 0.3}",
    )


def test_a_floor_that_the_region_cannot_supply_names_what_is_there_and_what_is_needed(shop: Catalog) -> None:
    """40 % of every page about one series of six items, which the province of Jiangsu has only two of."""
    own = "{id: a, action: quota, where: {all: [{series: harvest}, {region: cn.js}]}, at_least: 0.4}"
    [(place, message)] = findings(shop, own)
    size = int(compile_policy([], shop).member(Condition.model_validate({"series": "harvest"}), "cn").sum())
    assert size == 6
    assert place == "controls[0]"
    assert "on tv home in cn.zj: it requires 10 of 24 slots, and only 3 may be shown there" in message
    assert "7 more such items are needed" in message
    assert "nor on mobile home in cn.zj (2 too few)" in message


def test_controls_of_an_outlet_below_are_put_to_the_test_there(shop: Catalog) -> None:
    text = "outlet: cn\ncontrols: [{id: a, action: quota, where: {item: [i3, i7]}, at_least: 0.5, on: {outlets: [%s]}}]"

    def told(outlets: str) -> list[tuple[str, str]]:
        return [(f.where, f.message) for f in lint([parse_policy(text % outlets)], shop, NOW)]

    [(place, message)] = told("cn.zj")
    assert place == "controls[0]"
    assert "on tv home of cn.zj in cn.zj: it requires 12 of 24 slots, and only 2 may be shown there" in message
    assert told("us, eu") == [("controls[0].on.outlets", "none of them is cn or lies below it")]
    many = told(", ".join(f"cn.p{n}" for n in range(20)))
    assert ("controls", "tried in 12 of 21 outlets only, not in cn.p11, cn.p12, cn.p13, cn.p14, ...") in many


def test_regions_that_are_not_tried_are_named(shop: Catalog) -> None:
    """Only where the viewer's place makes a difference to pages are there several regions to try."""
    wide = Catalog.of([item.model_copy(update={"region": f"cn.p{n:02}"}) for n, item in enumerate(shop.items)])
    near = "outlet: cn\ncontrols: [{id: a, action: quota, where: {locality: viewer}, at_most: 0.9}]"
    told = [(f.where, f.message) for f in lint([parse_policy(near)], wide, NOW)]
    assert ("controls", "tried in 12 of 61 regions only, not in cn.p11, cn.p12, cn.p13, cn.p14, ...") in told
    far = near.replace("locality: viewer", "label: sport").replace("0.9", "0.1")
    assert lint([parse_policy(far)], wide, NOW) == ()


@pytest.mark.parametrize(
    ("control", "word"),
    [
        ("action: cap, attribute: kind, at_most: 2", "nor on mobile home in cn.zj (4 too many of one kind)"),
        ("action: spacing, attribute: kind, at_most: 1, within: 4", "in cn.zj (1 too many of one kind close together)"),
        ("action: quota, where: {label: [plain, public-service, commercial]}, at_most: 5", "in cn.zj (7 too many)"),
        ("action: quota, where: {series: harvest}, at_least: 0.9", "in cn.zj (5 too few)"),
        ("action: pin, item: i999, slot: 2", "in cn.zj (the item cannot be placed there)"),
    ],
)
def test_what_cannot_be_kept_elsewhere_is_too_much_or_too_little(shop: Catalog, control: str, word: str) -> None:
    told = findings(shop, f"{{id: a, {control}}}")
    assert any(word in message for place, message in told if place == "controls[0]"), told


def test_pins_of_other_pages_do_not_collide(shop: Catalog) -> None:
    apart = [
        "{id: a, action: pin, item: i3, slot: 1, on: {screens: [tv], regions: [cn.zj.hz]}}",
        "{id: b, action: pin, item: i5, slot: 1, on: {screens: [tv], regions: [cn.zj.nb]}}",
    ]
    assert not [f for f in findings(shop, *apart) if "'b'" in f[1] or "'a'" in f[1]]


def test_a_constant_axis_moves_nothing(shop: Catalog) -> None:
    same = Catalog.of([item.model_copy(update={"axes": {"public_value": 0.5}}) for item in shop.items])
    assert findings(same, weights="{public_value: 0.2}")[0][0] == "weights.public_value"


def test_a_rehearsal_that_takes_too_long_says_where_it_stopped(shop: Catalog) -> None:
    line = [parse_policy(PARENT)]
    ticks = iter(range(0, 10**6, 3))
    told = [f for f in lint(line, shop, NOW, clock=lambda: float(next(ticks))) if f.code == "dry_run_pages_truncated"]
    assert [f.level for f in told] == ["hint"]
    calm = lint(line, shop, NOW)
    assert lint(line, shop, NOW, clock=lambda: 0.0) == calm
