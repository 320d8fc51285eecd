"""Invalid targets are rejected at their field, and suspicious ones are reported before they are published."""

from __future__ import annotations

import json

import pytest

from recsys.domain.catalog import Catalog
from recsys.domain.errors import PolicyError
from recsys.domain.item import Item
from recsys.guidance.lint.lint import lint
from recsys.guidance.policy.controls import ExposureTarget
from recsys.guidance.policy.inheritance import merge_policies, weakens
from recsys.guidance.policy.policy import Policy, parse_policy
from recsys.pacing.checks import unreachable
from recsys.pacing.forecast import Forecast
from recsys.pacing.tracker import DeliveryCounts

NOW = 1_790_000_000.0  # 2026-09-21T13:33:20Z
BY = "until: 2026-10-08T00:00:00+08:00"


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    fields = {"title": {"en": "x"}, "outlet": "cn", "published_at": "2026-09-01T00:00:00Z", "formats": ["landscape"]}
    return Catalog.of(Item.model_validate({"id": f"i{n}", "labels": ["news"], **fields}) for n in range(12))


def policy(target: str, rest: str = "") -> Policy:
    return parse_policy(f"outlet: cn\ncontrols:\n  - {{id: t, action: exposure_target, {target}}}\n{rest}")


def target_of(target: str) -> ExposureTarget:
    (control,) = policy(target).controls
    assert isinstance(control, ExposureTarget)
    return control


@pytest.mark.parametrize(
    ("text", "field", "word"),
    [
        (f"where: {{label: news}}, share: 1.5, {BY}", "controls[0].share", "more than all attention"),
        (f"where: {{label: news}}, share: 150%, {BY}", "controls[0].share", "more than all attention"),
        (f"where: {{label: news}}, {BY}", "controls[0]", "impressions or share"),
        (f"where: {{label: news}}, impressions: 5, share: 0.1, {BY}", "controls[0]", "impressions or share"),
        (f"where: {{label: news}}, impressions: 0, {BY}", "controls[0].impressions", "greater than 0"),
        ("where: {label: news}, impressions: 5", "controls[0].until", "is missing"),
        ("where: {label: news}, impressions: 5, until: 2026-10-08", "controls[0].until", "offset from UTC"),
        (
            f"where: {{label: news}}, impressions: 5, from: 2026-11-01T00:00:00Z, {BY}",
            "controls[0]",
            "not after the start",
        ),
        (f"where: {{locality: viewer}}, impressions: 5, {BY}", "controls[0]", "same items for all viewers"),
        (f"where: {{label: news}}, impressions: 5, pacing: someday, {BY}", "controls[0].pacing", "someday"),
        (f"where: {{label: news}}, impressions: 5, pacing: by_day_part, {BY}", "controls[0]", "day_parts"),
        (
            f'where: {{label: news}}, impressions: 5, pacing: by_day_part, day_parts: {{"06:00-09:00": 0.5}}, {BY}',
            "controls[0].day_parts",
            "add up to 50%",
        ),
        (f"where: {{label: news}}, impressions: 5, last_resort: 0.1, {BY}", "controls[0]", "guaranteed"),
        (
            f"where: {{label: news}}, impressions: 5, frequency_cap: {{impressions: 0}}, {BY}",
            "controls[0].frequency_cap.impressions",
            "at least 1",
        ),
    ],
)
def test_invalid_target_is_rejected_at_its_field(text: str, field: str, word: str) -> None:
    with pytest.raises(PolicyError) as error:
        policy(text)
    findings = [(finding.where, finding.message) for finding in error.value.findings]
    assert any(path == field and word in message for path, message in findings), findings


def test_json_and_yaml_targets_are_equal() -> None:
    original = policy(
        f"where: {{label: news}}, share: 20%, bound: at_most, {BY}, frequency_cap: {{impressions: 3, per: week}}"
    )
    parsed = parse_policy(json.dumps(original.model_dump(mode="json", by_alias=True, exclude_defaults=True)))
    assert parsed == original


@pytest.mark.parametrize(
    ("text", "field", "word"),
    [
        ("where: {label: news}, impressions: 5, until: 2026-09-01T00:00:00Z", "controls[0].until", "has passed"),
        ("where: {label: news}, impressions: 5, until: 2026-09-21T14:20:00Z", "controls[0].until", "too short"),
        (f"where: {{label: nonsense}}, impressions: 5, {BY}", "controls[0].where", "no item"),
        (f"where: {{label: news}}, share: 1.0, {BY}", "controls[0].share", "nothing else"),
        (
            f"where: {{label: news}}, impressions: 5, {BY}, active: {{until: 2026-10-01T00:00:00Z}}",
            "controls[0].active.until",
            "before its deadline",
        ),
    ],
)
def test_suspicious_target_is_reported(catalog: Catalog, text: str, field: str, word: str) -> None:
    findings = lint([policy(text)], catalog, NOW)
    assert any(target_of.where == field and word in target_of.message for target_of in findings), findings


def test_minimum_above_a_maximum_of_the_same_items_is_reported(catalog: Catalog) -> None:
    cap = f"  - {{id: c, action: exposure_target, where: {{label: news}}, share: 0.2, bound: at_most, {BY}}}\n"
    (finding,) = lint([policy(f"where: {{label: news}}, share: 0.3, {BY}", cap)], catalog, NOW)
    assert (finding.where, "at most 0.2" in finding.message) == ("controls[0].share", True)
    assert lint([policy(f"where: {{label: news}}, share: 0.1, {BY}", cap)], catalog, NOW) == ()


def test_unreachable_target_is_reported_with_figures(catalog: Catalog) -> None:
    target = target_of(f"where: {{item: i1}}, impressions: 100000, {BY}, on: {{screens: [mobile]}}")
    finding = unreachable("controls[0]", target, catalog, Forecast.flat(0.1), NOW)
    assert finding is not None
    assert "100,000 are required" in finding.message
    assert unreachable("controls[0]", target, catalog, Forecast.flat(10.0), NOW) is None
    nearly = DeliveryCounts(delivered=99_990.0, available=2e6)
    assert unreachable("controls[0]", target, catalog, Forecast.flat(0.1), NOW, nearly) is None, (
        "only ten impressions are missing"
    )
    halfway = unreachable(
        "controls[0]", target, catalog, Forecast.flat(0.1), NOW, DeliveryCounts(delivered=5e4, available=2e6)
    )
    assert halfway is not None
    assert "50,000 are still missing" in halfway.message
    cap = target.model_copy(update={"bound": "at_most"})
    assert unreachable("controls[0]", cap, catalog, Forecast.flat(0.1), NOW) is None


def test_child_may_tighten_a_mandatory_target_but_not_loosen_it() -> None:
    mandatory = target_of(f"where: {{label: news}}, share: 0.2, {BY}, enforcement: mandatory")
    assert weakens(mandatory, mandatory.model_copy(update={"share": 0.3})) is None
    assert "only tighten" in str(weakens(mandatory, mandatory.model_copy(update={"share": 0.1})))
    assert "may change" in str(weakens(mandatory, mandatory.model_copy(update={"pacing": "frontloaded"})))
    assert "must be omitted" in str(weakens(mandatory, mandatory.model_copy(update={"max_price": 0.1})))
    limited = mandatory.model_copy(update={"max_price": 0.2})
    for price in (0.1, None):
        assert "must not be below" in str(weakens(limited, limited.model_copy(update={"max_price": price})))
    assert weakens(limited, limited.model_copy(update={"max_price": 0.3})) is None
    child = Policy(outlet="cn.zj", controls=(mandatory.model_copy(update={"share": 0.1}),))
    merged = merge_policies([Policy(outlet="cn", controls=(mandatory,)), child]).controls
    assert [origin.control for origin in merged] == [mandatory]


def test_target_in_addition_to_that_of_the_parent_is_reported(catalog: Catalog) -> None:
    mandatory = target_of(f"where: {{label: news}}, share: 0.2, {BY}, enforcement: mandatory")
    parent, own = Policy(outlet="cn", controls=(mandatory,)), mandatory.model_copy(update={"share": 0.3})
    (finding,) = lint([parent, Policy(outlet="cn.zj", controls=(own,))], catalog, NOW)
    assert (finding.where, finding.level) == ("controls[0].id", "hint")
    assert "continues here as t@cn" in finding.message
    merged = {
        origin.control.id for origin in merge_policies([parent, Policy(outlet="cn.zj", controls=(own,))]).controls
    }
    assert merged == {"t", "t@cn"}
    soft = Policy(outlet="cn", controls=(mandatory.model_copy(update={"enforcement": "editorial"}),))
    assert lint([soft, Policy(outlet="cn.zj", controls=(own,))], catalog, NOW) == ()
