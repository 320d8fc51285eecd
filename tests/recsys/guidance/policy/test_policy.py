"""Parsing of policies, and the findings about text that cannot be parsed."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest

from recsys.domain.errors import PolicyError
from recsys.guidance.policy.controls import Quota
from recsys.guidance.policy.inheritance import weakening_findings
from recsys.guidance.policy.policy import Policy, parse_policy
from recsys.guidance.policy.schedule import Active

YAML = """
outlet: cn.zj.hz
version: 3
weights: {public_value: 0.35}
controls:
  - id: public-floor
    action: quota
    where: {label: public-service}
    at_least: 30%
    prefixes: every
    enforcement: legal
    on: {screens: [tv, mobile], regions: [cn.zj]}
    active: {from: 2026-10-01T00:00:00+08:00, daily: ["06:00-24:00"], days: [mon, tue]}
  - {id: near, action: quota, where: {locality: viewer}, at_least: 2, prefixes: [5]}
  - {id: odd, action: block, where: {not: {language: no}, any: [{label: [a, b]}, {axis: {q: 0.3}}]}}
"""


def test_json_and_yaml_give_the_same_policy() -> None:
    policy = parse_policy(YAML)
    assert parse_policy(policy.model_dump_json(by_alias=True, exclude_defaults=True)) == policy
    floor, near, odd = policy.controls
    assert isinstance(floor, Quota)
    assert floor.at_least == 0.3
    assert isinstance(near, Quota)
    assert type(near.at_least) is int
    assert odd.where.none_of.language == ("no",)  # type: ignore[union-attr]


CONTROL = "outlet: cn\ncontrols: [{id: a, %s}]"


@pytest.mark.parametrize(
    ("text", "where", "word"),
    [
        ("outlet: cn\noutlet: cn", "line 2", "defined twice"),
        ('{"outlet": "cn", "outlet": "cn"}', "outlet", "defined twice"),
        ("outlet: cn\nweights: {a: 0.1, a: 0.2}", "line 2", "defined twice"),
        ("a: &x [1]\nb: *x", "line 2", "aliases"),
        ("outlet: [", "line 1", "is not closed"),
        ('{"outlet": "cn",}', "line 1", "property name"),
        ("outlet: cn\nweights: {a: 0.1\n\n\n", "line 2", "the { opened here is not closed"),
        ("outlet: cn\ncontrols: [{id: a}\n\n", "line 2", "the [ opened here is not closed"),
        ("outlet: cn\nweights: {a: 0,01}", "weights", "written with a point: 0.01"),
        ("outlet: cn\nweights:\n  a: 0,01", "weights.a", "written with a point: 0.01, not 0,01"),
        (CONTROL % "action: quota, where: {label: x}, at_least: 0,2", "controls[0]", "written with a point"),
        (CONTROL % "action: exposure_target, where: {label: x}, share: nan%, until: 2030-01-01T00:00:00Z",
         "controls[0].share", "number"),
        ("", "", "outlet and controls"),
        ("outlet: CN", "outlet", "lower-case"),
        ("outlet: cn\nprofil: x", "profil", "unknown field"),
        ("outlet: cn\nweights: {x: 3}", "weights.x", "at most 1"),
        (CONTROL % "action: exposure_target, impressions: 5", "controls[0].until", "is missing"),
        (CONTROL % "action: shout", "controls[0]", "there is no action 'shout'"),
        (CONTROL % "where: {label: x}", "controls[0]", "an action is missing"),
        (CONTROL % "action: quota, where: {label: x}", "controls[0]", "needs at_least, at_most or both"),
        (CONTROL % "action: quota, where: {label: x}, at_least: 1.3", "controls[0].at_least", "between 0 and 1"),
        (CONTROL % "action: quota, where: {label: x}, at_least: true", "controls[0].at_least", "must be a share"),
        (CONTROL % "action: quota, where: {label: x}, at_least: many", "controls[0].at_least", "must be a share"),
        (
            CONTROL % "action: quota, where: {label: x}, at_least: 2, prefixes: every",
            "controls[0]",
            "list the prefixes",
        ),
        (CONTROL % "action: quota, where: {label: x}, at_least: 3000000000", "controls[0].at_least", "at most 200"),
        (CONTROL % "action: quota, where: {label: x}, at_most: 201", "controls[0].at_most", "at most 200"),
        (CONTROL % "action: cap, attribute: topic, at_most: 9999999999", "controls[0].at_most", "at most 200"),
        ('{"outlet": "cn", "note": "\\ud800"}', "note", "U+D800"),
        ('outlet: cn\ncontrols: [{id: "a\\0", action: pin, item: i1, slot: 1}]', "controls[0].id", "U+0000"),
        ('{"outlet": "cn", "weights": {"a\\u0000": 0.1}}', "weights", "U+0000"),
        ("outlet: cn\ncontrols: [{id: x@cn, action: pin, item: i, slot: 1}]", "controls[0].id", "spaces or @"),
        (CONTROL % "action: quota, where: {}, at_least: 2", "controls[0].where", "at least one test"),
        (CONTROL % "action: quota, where: {labl: x}, at_least: 2", "controls[0].where.labl", "unknown field"),
        (CONTROL % "action: pin, item: i1, slot: 0", "controls[0].slot", "at least 1"),
        (CONTROL % "action: spacing, attribute: topic, at_most: 3, within: 3", "controls[0]", "has no effect"),
        (CONTROL % "action: cap, attribute: mood, at_most: 3", "controls[0].attribute", "not 'mood'"),
        (
            CONTROL % 'action: block, where: {label: x}, active: {daily: ["6-24"]}',
            "controls[0].active.daily",
            "HH:MM-HH:MM",
        ),
    ],
)  # fmt: skip
def test_each_invalid_field_is_named(text: str, where: str, word: str) -> None:
    with pytest.raises(PolicyError) as error:
        parse_policy(text)
    reported = [(finding.where, finding.message) for finding in error.value.findings]
    assert any(field == where and word in message for field, message in reported), reported


@pytest.mark.parametrize("value", ["20%", "20 %", "20.0 %", "20％", "0.2"])
def test_quotas_and_targets_accept_the_same_notations_of_a_share(value: str) -> None:
    share = "{id: a, action: quota, where: {label: x}, at_least: AMOUNT}".replace("AMOUNT", value)
    target = "{id: b, action: exposure_target, where: {label: x}, share: AMOUNT, until: 2030-01-01T00:00:00Z}"
    target = target.replace("AMOUNT", value)
    page, audience = parse_policy(f"outlet: cn\ncontrols: [{share}, {target}]").controls
    assert page.at_least == audience.share == 0.2  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "odd", ["010", "1:30", "1_0", "0x10", "0b1", "true", "2.0", '"3"', "+010", ".inf", "yes", "1e1"]
)
def test_only_plain_decimals_are_numbers(odd: str) -> None:
    """YAML 1.1 or a lenient schema would read these as numbers: 8, 90, 10, 16, 1 ..."""
    for control in ("action: pin, item: i1, slot: %s", "action: cap, attribute: topic, at_most: 1, priority: %s"):
        with pytest.raises(PolicyError) as error:
            parse_policy(CONTROL % (control % odd))
        (finding,) = error.value.findings
        assert "must be a whole number, such as 3, not" in finding.message
    for field in ("outlet: cn\nweights: {x: %s}", CONTROL % "action: boost, where: {label: x}, bonus: %s"):
        if odd not in ("2.0", "1e1"):
            with pytest.raises(PolicyError, match=r"must be a number, such as 0\.3"):
                parse_policy(field % odd)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0.30", 0.3), (".5", 0.5), ("1", 1.0), ("5e-1", 0.5), ("0.", 0.0), ("+0.25", 0.25), ("2.5e-1", 0.25)],
)
def test_plain_decimals_are_numbers(text: str, expected: float) -> None:
    assert parse_policy(f"outlet: cn\nweights: {{x: {text}}}").weights == {"x": expected}


@pytest.mark.parametrize("offset", ["+08:00", "+10:00", "-03:30", "+00:00"])
def test_an_offset_needs_no_quotes(offset: str) -> None:
    text = CONTROL % f"action: block, where: {{label: x}}, active: {{daily: [22:00-06:00], offset: {offset}}}"
    assert parse_policy(text).controls[0].active.offset == offset


@pytest.mark.parametrize(
    ("text", "where", "word"),
    [
        ("action: block, where: {region: 330100}", "controls[0].where.region", "write it in quotes, '330100'"),
        ("action: block, where: {label: [x, 2024]}", "controls[0].where.label[1]", "quotes, '2024'"),
        ("action: pin, item: 42, slot: 1", "controls[0].item", "write it in quotes, '42'"),
        ("action: block, where: {label: x}, on: {screens: tv}", "controls[0].on.screens", "must be a list"),
        ("action: block, where: {label: x}, note: true", "controls[0].note", "write it in quotes, 'true'"),
        ("action: block, where: {label: x}, active: {from: 20261001}", "controls[0].active.from", "write a time"),
        ('action: exposure_target, where: {label: x}, impressions: 5, until: "1790000000"', "controls[0].until",
         "a time"),
        ("action: exposure_target, where: {label: x}, impressions: 1_000, until: 2027-01-01T00:00:00Z",
         "controls[0].impressions", "a whole number"),
    ],
)  # fmt: skip
def test_type_errors_name_the_expected_type(text: str, where: str, word: str) -> None:
    with pytest.raises(PolicyError) as error:
        parse_policy(CONTROL % text)
    (finding,) = error.value.findings
    assert finding.where == where
    assert word in finding.message


def test_numeric_codes_are_accepted_in_quotes() -> None:
    (block,) = parse_policy(CONTROL % "action: block, where: {region: '330100'}").controls
    assert block.where.region == ("330100",)  # type: ignore[union-attr]


def test_all_errors_are_reported_not_only_the_first() -> None:
    with pytest.raises(PolicyError) as error:
        parse_policy("outlet: CN\nweights: {x: 3}\ncontrols: [{id: a, action: pin, item: i1}]")
    assert {finding.where for finding in error.value.findings} == {"outlet", "weights.x", "controls[0].slot"}


def test_a_policy_with_too_many_controls_is_rejected() -> None:
    value = [f"{{id: c{n}, action: cap, attribute: topic, at_most: 3}}" for n in range(301)]
    with pytest.raises(PolicyError, match="at most 300 controls: 301") as error:
        parse_policy(f"outlet: cn\ncontrols: [{', '.join(value)}]")
    assert [finding.where for finding in error.value.findings] == ["controls"]
    assert len(parse_policy(f"outlet: cn\ncontrols: [{', '.join(value[:300])}]").controls) == 300


def test_control_ids_are_unique() -> None:
    block = {"id": "a", "action": "block", "where": {"label": "x"}}
    with pytest.raises(ValueError, match="also the id of"):
        Policy.model_validate({"outlet": "cn", "controls": [block, block]})


def at(day: int, hour: int, minute: int = 0) -> float:
    """Return a time in March 2026, UTC; the 2nd is a Monday."""
    return datetime(2026, 3, day, hour, minute, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("active", "now", "holds"),
    [
        ({}, at(2, 0), True),
        ({"from": "2026-03-02T08:00:00+08:00"}, at(2, 0), True),
        ({"from": "2026-03-02T08:00:01+08:00"}, at(2, 0), False),
        ({"until": "2026-03-02T08:00:00+08:00"}, at(2, 0), False),
        ({"days": ["mon"]}, at(2, 23, 59), True),
        ({"days": ["mon"]}, at(3, 0), False),
        ({"days": ["mon"], "offset": "+08:00"}, at(1, 16), True),
        ({"days": ["mon"], "offset": "+08:00"}, at(2, 16), False),
        ({"daily": ["06:00-24:00"]}, at(2, 5, 59), False),
        ({"daily": ["06:00-24:00"]}, at(2, 23, 59), True),
        ({"daily": ["22:00-06:00"], "days": ["mon"]}, at(2, 23), True),
        ({"daily": ["22:00-06:00"], "days": ["mon"]}, at(3, 5), True),
        ({"daily": ["22:00-06:00"], "days": ["mon"]}, at(2, 5), False),
    ],
)
def test_when_a_control_is_in_force(active: dict[str, object], now: float, holds: bool) -> None:
    assert Active.model_validate(active).holds(now) is holds


def test_the_next_moment_in_force_is_in_force_and_nothing_before_it() -> None:
    friday_night = Active.model_validate({"days": ["fri"], "daily": ["20:00-22:00"], "offset": "+08:00"})
    assert friday_night.next(at(2, 0)) == at(6, 12)
    over = Active.model_validate({"from": "2026-03-02T00:00:00Z", "until": "2026-03-04T00:00:00Z", "days": ["sun"]})
    assert over.next(at(1, 0)) is None


FIRM = "{{id: floor, action: quota, where: {{label: x}}, at_least: {}, enforcement: {}{}}}"
SCOPE = ", on: {surfaces: [home, hot]}, active: {daily: ['06:00-24:00']}"


def weakened(parent: str, child: str) -> list[str]:
    """Return the findings about a child's version of a parent's control."""
    line = [f"outlet: cn\ncontrols: [{parent}]", f"outlet: cn.zj\ncontrols: [{child}]"]
    return [finding.message for finding in weakening_findings([parse_policy(text) for text in line])]


def test_every_way_in_which_a_child_weakens_a_control_is_reported() -> None:
    reported = weakened(FIRM.format("15%", "mandatory", ""), FIRM.format("5%", "editorial", ""))
    assert len(reported) == 2
    assert "its enforcement must not be lowered to editorial" in reported[0]
    assert "a child may raise the minimum of 0.15, not lower it to 0.05" in reported[1]


def test_a_child_that_omits_the_scope_gets_a_suggestion_to_repeat_it() -> None:
    parent = FIRM.format("15%", "mandatory", SCOPE)
    (reported,) = weakened(parent, FIRM.format("40%", "mandatory", ""))
    suggestion = re.search(r"did you mean '(.*)'\?$", reported)
    assert suggestion is not None, reported
    assert suggestion[1].startswith("on: {surfaces: [home, hot]}, active: {daily: [")
    assert not weakened(parent, FIRM.format("40%", "mandatory", ", " + suggestion[1])), "the suggestion can be pasted"
    (wider,) = weakened(FIRM.format("15%", "mandatory", ""), FIRM.format("40%", "mandatory", ", on: {screens: [tv]}"))
    assert "did you mean 'on: {}'?" in wider


@pytest.mark.parametrize("levels", [30, 39, 50, 70, 400, 20_000])
@pytest.mark.parametrize("form", ["json", "yaml"])
def test_conditions_nested_too_deep_are_rejected_at_their_field(levels: int, form: str) -> None:
    deep = '{"not": ' * levels + '{"label": "x"}' + "}" * levels
    text = f'{{"outlet": "cn",\n "controls": [{{"id": "a", "action": "block", "where": {deep}}}]}}'
    if form == "yaml":
        text = f"outlet: cn\ncontrols: [{{id: a, action: block, where: {deep}}}]"
    if levels < 39:
        assert parse_policy(text).controls
        return
    with pytest.raises(PolicyError) as error:
        parse_policy(text)
    (finding,) = error.value.findings
    assert finding.where == ("controls[0].where" if levels <= 50 else "line 2")
    assert "levels deep" in finding.message


def test_brackets_in_texts_do_not_count_as_levels() -> None:
    note = "[{" * 99 + '\\"]'
    assert parse_policy(f'{{"outlet": "cn", "note": "{note}"}}').note.count("[") == 99
