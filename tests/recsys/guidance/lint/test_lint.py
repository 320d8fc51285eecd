"""Lint reports each problem at its field, and nothing for a sound policy."""

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


def test_a_sound_policy_has_no_findings(shop: Catalog) -> None:
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
        ("{id: a, action: block, where: {kind: live}}", "controls[0].where", "no item of the catalog meets"),
        ("{id: a, action: pin, item: i999, slot: 2}", "controls[0].item", "not in the catalog"),
        ("{id: a, action: pin, item: i5, slot: 1, on: {screens: [tv]}}", "controls[0].slot", "taken by 'lead' of cn"),
        ("{id: a, action: pin, item: i3, slot: 2, on: {screens: [tv]}}", "controls[0].item", "by 'lead' of cn"),
        ("{id: a, action: quota, where: {label: sport}, at_least: 0.5, at_most: 0.2}",
         "controls[0].at_least", "above the maximum"),
        ("{id: a, action: quota, where: {label: sport}, at_least: 0.6, enforcement: preferred}",
         "controls[0].enforcement",
         "60% of every page goes to these items"),
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
         "leaves 0 of the 20 items for 'floor' of cn (legal), which requires 8 on tv home: the block is relaxed there"),
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
def test_each_problem_is_reported_at_its_field(shop: Catalog, control: str, where: str, word: str) -> None:
    reported = findings(shop, control)
    assert any(field == where and word in message for field, message in reported), reported


def test_a_minimum_above_the_page_size_is_reported_once_and_no_other_control_is_blamed(shop: Catalog) -> None:
    """A minimum of 20 instead of 20% causes no findings about the other caps, blocks and minimums."""
    reported = findings(
        shop,
        "{id: a, action: quota, where: {label: culture}, at_least: 20}",
        "{id: b, action: quota, where: {label: commercial}, at_most: 0.3}",
        "{id: c, action: cap, attribute: topic, at_most: 4}",
        "{id: d, action: boost, where: {label: sport}, bonus: 0.01}",
        "{id: e, action: block, where: {label: news/city}}",
    )
    words = "20 items do not fit into 12 slots on mobile home (nor on 4 other kinds of pages); did you mean '20%'?"
    assert reported == [("controls[0].at_least", words)]


def test_a_minimum_above_the_size_of_some_pages_is_reported_once(shop: Catalog) -> None:
    reported = findings(shop, "{id: a, action: quota, where: {label: culture}, at_least: 5}")
    assert len(reported) == 1
    assert "5 of 4 slots" in reported[0][1]


def test_a_weight_above_the_utility_of_an_item_is_reported(shop: Catalog) -> None:
    policy = parse_policy("outlet: cn.zj\nweights: {public_value: 0.2}\n")
    assert not lint([policy], shop, NOW)
    assert not lint([policy], shop, NOW, item_utility=0.21)
    [finding] = lint([policy], shop, NOW, item_utility=0.05)
    assert finding.where == "weights.public_value"
    assert (
        "adds up to 0.2 play equivalents to an item, and an item has a utility of about 0.05 play equivalents"
        in finding.message
    )


def test_a_mistyped_axis_is_reported_with_a_suggestion(shop: Catalog) -> None:
    [(field, message)] = findings(shop, weights="{publik_value: 0.01}")
    assert field == "weights.publik_value"
    assert "did you mean 'public_value'?" in message


def test_lint_findings_are_never_errors(shop: Catalog) -> None:
    """Controls without effect are hints, and controls that cannot be met are warnings."""
    reported = [
        ("{id: a, action: quota, where: {series: harvest}, at_least: 0.5}", "warning"),
        ("{id: a, action: quota, where: {label: sprot}, at_least: 0.1}", "warning"),
        ("{id: a, action: quota, where: {label: sport}, at_most: 40}", "hint"),
        ("{id: a, action: boost, where: {label: sport}, bonus: 0}", "hint"),
    ]
    for control, level in reported:
        result = lint([parse_policy(f"outlet: cn.zj\ncontrols: [{control}]"), parse_policy(PARENT)], shop, NOW)
        assert level in {finding.level for finding in result}, result
        assert "error" not in {finding.level for finding in result}


def test_a_block_of_an_item_that_a_parent_pins_is_reported(shop: Catalog) -> None:
    firm = PARENT.replace("slot: 1,", "slot: 1, enforcement: mandatory,")
    child = "outlet: cn.zj\ncontrols: [{id: a, action: block, where: {item: i3}}]"
    reported = [(f.where, f.message) for f in lint([parse_policy(firm), parse_policy(child)], shop, NOW)]
    assert reported == [
        ("controls[0].where", "removes i3, which 'lead' of cn (mandatory) pins: the block is relaxed there")
    ]  # fmt: skip
    lawful = parse_policy(child.replace("{item: i3}", "{item: i3}, enforcement: legal"))
    [message] = [f.message for f in lint([parse_policy(firm), lawful], shop, NOW) if f.where == "controls[0].where"]
    assert message.endswith("control is not stricter than the block's, so that control is relaxed")


def test_weights_without_effect_are_reported(shop: Catalog) -> None:
    reported = findings(shop, weights="{nobility: 0.2, public_value: 0}")
    assert [field for field, _ in reported] == ["weights.nobility", "weights.public_value"]


def test_minimums_that_together_exceed_the_page_are_reported(shop: Catalog) -> None:
    """Three disjoint kinds of items at 30 % (a parent's), 40 % and 40 %: the last of them is relaxed."""
    reported = findings(
        shop,
        "{id: a, action: quota, where: {label: plain}, at_least: 0.4}",
        "{id: b, action: quota, where: {label: commercial}, at_least: 0.4}",
    )
    assert [field for field, _ in reported] == ["controls[1].at_least", "controls[1]"]
    assert "the minimums together require 28 of 24 slots on tv home: 10 here" in reported[0][1]
    assert "'floor' of cn" in reported[0][1]
    assert (
        "no page that meets the more important 'floor' of cn, 'a' can hold more of these candidates" in reported[1][1]
    )


def test_minimums_that_share_items_or_never_share_a_page_are_fine(shop: Catalog) -> None:
    assert not findings(
        shop,
        "{id: a, action: quota, where: {label: plain}, at_least: 0.4, on: {screens: [tv]}}",
        "{id: b, action: quota, where: {label: commercial}, at_least: 0.4, on: {screens: [mobile]}}",
        "{id: c, action: quota, where: {label: culture}, at_least: 0.3}",
    )


def test_a_minimum_beyond_the_supply_of_a_region_names_supply_and_shortfall(shop: Catalog) -> None:
    """40 % of every page must come from a series of six items, of which Jiangsu has only three."""
    own = "{id: a, action: quota, where: {all: [{series: harvest}, {region: cn.js}]}, at_least: 0.4}"
    [(field, message)] = findings(shop, own)
    size = int(compile_policy([], shop).member(Condition.model_validate({"series": "harvest"}), "cn").sum())
    assert size == 6
    assert field == "controls[0]"
    assert "on tv home in cn.zj: it requires 10 of 24 slots, and only 3 may be shown there" in message
    assert "7 more such items are needed" in message
    assert "nor on mobile home in cn.zj (2 too few)" in message


def test_controls_for_a_lower_outlet_are_tested_on_its_pages(shop: Catalog) -> None:
    text = "outlet: cn\ncontrols: [{id: a, action: quota, where: {item: [i3, i7]}, at_least: 0.5, on: {outlets: [%s]}}]"

    def reported(outlets: str) -> list[tuple[str, str]]:
        return [(f.where, f.message) for f in lint([parse_policy(text % outlets)], shop, NOW)]

    [(field, message)] = reported("cn.zj")
    assert field == "controls[0]"
    assert "on tv home of cn.zj in cn.zj: it requires 12 of 24 slots, and only 2 may be shown there" in message
    assert reported("us, eu") == [("controls[0].on.outlets", "none of them is cn or lies below it")]
    many = reported(", ".join(f"cn.p{n}" for n in range(20)))
    assert ("controls", "tested in 12 of 21 outlets only, not in cn.p11, cn.p12, cn.p13, cn.p14, ...") in many


def test_untested_regions_are_named(shop: Catalog) -> None:
    """Several regions are tested only if the viewer's region can affect pages."""
    wide = Catalog.of([item.model_copy(update={"region": f"cn.p{n:02}"}) for n, item in enumerate(shop.items)])
    near = "outlet: cn\ncontrols: [{id: a, action: quota, where: {locality: viewer}, at_most: 0.9}]"
    reported = [(f.where, f.message) for f in lint([parse_policy(near)], wide, NOW)]
    assert ("controls", "tested in 12 of 61 regions only, not in cn.p11, cn.p12, cn.p13, cn.p14, ...") in reported
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
def test_further_pages_are_listed_with_the_direction_of_the_deviation(shop: Catalog, control: str, word: str) -> None:
    reported = findings(shop, f"{{id: a, {control}}}")
    assert any(word in message for field, message in reported if field == "controls[0]"), reported


def test_pins_of_different_pages_do_not_collide(shop: Catalog) -> None:
    apart = [
        "{id: a, action: pin, item: i3, slot: 1, on: {screens: [tv], regions: [cn.zj.hz]}}",
        "{id: b, action: pin, item: i5, slot: 1, on: {screens: [tv], regions: [cn.zj.nb]}}",
    ]
    assert not [f for f in findings(shop, *apart) if "'b'" in f[1] or "'a'" in f[1]]


def test_a_weight_on_a_constant_axis_is_reported(shop: Catalog) -> None:
    same = Catalog.of([item.model_copy(update={"axes": {"public_value": 0.5}}) for item in shop.items])
    assert findings(same, weights="{public_value: 0.2}")[0][0] == "weights.public_value"


def test_a_dry_run_that_exceeds_its_time_limit_is_reported(shop: Catalog) -> None:
    line = [parse_policy(PARENT)]
    ticks = iter(range(0, 10**6, 3))
    reported = [
        f for f in lint(line, shop, NOW, clock=lambda: float(next(ticks))) if f.code == "dry_run_pages_truncated"
    ]
    assert [f.level for f in reported] == ["hint"]
    calm = lint(line, shop, NOW)
    assert lint(line, shop, NOW, clock=lambda: 0.0) == calm
