"""Profiles: all built-in profiles are valid, unknown names are reported, and policies may tighten profiles only."""

from __future__ import annotations

from importlib.resources import files

import pytest

from recsys.domain.catalog import Catalog
from recsys.domain.errors import PolicyError
from recsys.domain.item import Item
from recsys.guidance.compilation.compile import compile_policy
from recsys.guidance.lint.lint import lint
from recsys.guidance.policy.inheritance import merge_policies, resolve_profiles
from recsys.guidance.policy.policy import Policy, parse_policy
from recsys.guidance.policy.profiles import Profile, parse_profile

TEXT = """
name: quiet
title: {en: Quiet}
about: A rule.
labels: {public-service: what serves the public}
weights: {public_value: 0.1}
controls:
  - {id: floor, action: quota, where: {label: public-service}, at_least: 0.2, enforcement: legal, legal_ref: Act 1}
  - {id: topics, action: cap, attribute: topic, at_most: 6, legal_ref: Act 2}
"""
READY = {
    file.name.removesuffix(".yaml"): file.read_text("utf-8")
    for file in files("recsys.guidance.policy.profiles").iterdir()
    if file.name.endswith(".yaml")
}


def policy(*controls: str, profile: str = "quiet", more: str = "") -> Policy:
    text = f"outlet: cn\nprofile: {profile}\n{more}\ncontrols: [{', '.join(controls)}]"
    return resolve_profiles(parse_policy(text), {"quiet": parse_profile(TEXT)})


@pytest.mark.parametrize("name", READY)
def test_every_built_in_profile_is_valid_and_cites_the_law(name: str) -> None:
    profile = parse_profile(READY[name])
    assert profile.name == name
    assert profile.title["en"]
    assert profile.title["zh"]
    assert all(control.legal_ref for control in profile.controls)
    named = {
        label for control in profile.controls if (where := getattr(control, "where", None)) for label in where.label
    }
    assert named <= profile.labels.keys()
    own = Policy(outlet="cn", profile=(name,))
    origins = [origin.outlet for origin in merge_policies([resolve_profiles(own, {name: profile})]).controls]
    assert origins == [f"profile:{name}"] * len(profile.controls)


@pytest.mark.parametrize("name", READY)
def test_a_catalog_with_the_labels_of_a_profile_can_meet_it_on_every_screen_and_surface(name: str) -> None:
    profile = parse_profile(READY[name])
    labels = [*(label for label in profile.labels if label != "harmful"), "plain"]
    items = [
        Item.model_validate(
            {
                "id": f"i{n}",
                "title": {"en": "An item"},
                "outlet": "cn",
                "labels": [labels[n % len(labels)]],
                "topic": f"t{n % 9}",
                "formats": ["landscape", "audio"],
                "published_at": "2026-01-01T00:00:00Z",
            }
        )
        for n in range(180)
    ]
    own = resolve_profiles(parse_policy(f"outlet: cn\nprofile: {name}"), {name: profile})
    everywhere = parse_policy(
        "outlet: cn.zj\ncontrols: [{id: all, action: cap, attribute: series, at_most: 50, "
        "on: {surfaces: [home, hot, list, detail, push]}}]"
    )
    reported = [f.message for f in lint([own, everywhere], Catalog.of(items), 1_772_424_000.0)]
    assert not [message for message in reported if "cannot be met" in message]


def test_a_policy_extends_its_profile_and_every_control_names_its_origin(shop: Catalog) -> None:
    compiled = compile_policy([policy("{id: own, action: cap, attribute: series, at_most: 3}")], shop)
    assert {o.control.id: o.outlet for o in compiled.controls} == {
        "floor": "profile:quiet",
        "topics": "profile:quiet",
        "own": "cn",
    }
    assert compiled.version == "profile:quiet@1+cn@0"
    assert compiled.effective.weights == {"public_value": 0.1}
    assert merge_policies([policy(more="weights: {public_value: 0.3}")]).weights == {"public_value": 0.3}


def test_a_policy_may_tighten_but_not_weaken_legal_controls_of_its_profile(shop: Catalog) -> None:
    share = "{{id: floor, action: quota, where: {{label: public-service}}, at_least: {}, enforcement: legal}}"
    tighter, looser = policy(share.format(0.3)), policy(share.format(0.1))

    def floor(policy_: Policy) -> tuple[str, object]:
        origin = next(o for o in merge_policies([policy_]).controls if o.control.id == "floor")
        return origin.outlet, getattr(origin.control, "at_least", None)

    assert floor(tighter) == ("cn", 0.3)
    assert floor(looser) == ("profile:quiet", 0.2)
    reported = [(f.where, f.message) for f in lint([looser], shop, 1_772_424_000.0)]
    assert reported[0][0] == "controls[0]"
    assert "legal in the profile quiet: a child may raise the minimum of 0.2, not lower it to 0.1" in reported[0][1]
    assert floor(policy("{id: topics, action: cap, attribute: topic, at_most: 9}")) == ("profile:quiet", 0.2)


def test_a_policy_may_weaken_editorial_controls_of_its_profile() -> None:
    policy_ = policy("{id: topics, action: cap, attribute: topic, at_most: 9}")
    assert {o.control.id: o.outlet for o in merge_policies([policy_]).controls}["topics"] == "cn"


def test_an_unknown_profile_is_named_at_its_field() -> None:
    for names, where in (("loud", "profile"), ("[quiet, loud]", "profile[1]")):
        with pytest.raises(PolicyError) as caught:
            policy(profile=names)
        assert [(f.where, "'loud'" in f.message, "quiet" in f.message) for f in caught.value.findings] == [
            (where, True, True)
        ]
    with pytest.raises(PolicyError, match="such as mainstream-guidance"):
        policy(profile="Not A Name")


def test_a_policy_whose_profile_is_not_loaded_cannot_be_compiled(shop: Catalog) -> None:
    with pytest.raises(PolicyError, match="not loaded"):
        compile_policy([parse_policy("outlet: cn\nprofile: quiet")], shop)


def test_a_profile_without_a_legal_reference_is_rejected() -> None:
    with pytest.raises(PolicyError, match="'floor' needs a legal_ref"):
        parse_profile(TEXT.replace(", legal_ref: Act 1", ""))
    assert isinstance(parse_profile(TEXT), Profile)
