"""Every message that an editor can see is translated in the Chinese catalog of the console."""

from __future__ import annotations

import json
import re
import time
from importlib.resources import files
from typing import Any

import pytest

from recsys.domain.catalog import Catalog
from recsys.domain.errors import PolicyError
from recsys.domain.item import Item
from recsys.guidance.lint.lint import lint
from recsys.guidance.policy.inheritance import weakening_findings
from recsys.guidance.policy.policy import parse_policy
from recsys.guidance.receipt.control_report import ControlOutcome
from recsys.guidance.receipt.shortfall import Shortfall
from recsys.guidance.solver.infeasibility import ConflictSet
from recsys.messages import PLACEHOLDER, TERMS, Message, as_message, message, render
from recsys.pacing.projection import Projection
from recsys.pacing.status import describe
from recsys.pacing.tracker import DeliveryStatus
from tests.serving.conftest import item

CHINESE = json.loads(files("serving.console").joinpath("messages.zh.json").read_text("utf-8"))
_NO_WORDS = re.compile(r"'[^']*'|\"[^\"]*\"|[\w.*-]*[._:/-][\w.*:/-]*|\b[a-z]+_[a-z_]+\b")

_MARKED = {
    code: PLACEHOLDER.sub(lambda match: f"'{match[0]}'" if match[2] in TERMS else match[0], text)
    for code, text in CHINESE.items()
}
"""The catalog with quotes around the names that the console translates itself (`labels.js`)."""


def in_chinese(text: Message | str) -> str:
    """Return the message as the console shows it in Chinese, with the names of `TERMS` in quotes."""
    return render(as_message(text), _MARKED)


def english_words(message: Message | str) -> list[str]:
    """Return the English words that are neither quoted nor part of a name, a path or a field."""
    text = in_chinese(message)
    assert re.search("[一-鿿]", text), text
    return re.findall(r"\b[A-Za-z]{2,}\b", _NO_WORDS.sub("", text))


FIELDS = {
    "YAML", "JSON", "UTC", "HH", "MM", "within", "share", "impressions", "strict", "every", "until", "from", "prefixes",
    "label", "news", "cn", "viewer", "guaranteed", "controls",
}  # fmt: skip
"""Fields and values that an editor writes in the policy as they are."""


@pytest.mark.parametrize(
    "controls",
    [
        "{id: a, action: quota, where: {label: x}, at_least: 1.5}",
        "{id: a, action: quota, where: {label: x}, at_least: -1}",
        "{id: a, action: quota, where: {label: x}, at_least: yes}",
        "{id: a, action: quota, where: {label: x}}",
        "{id: a, action: quota, where: {label: x}, at_least: 2, prefixes: every}",
        "{id: a, action: quota, where: {}, at_least: 2}",
        "{id: a, action: quota, where: {age_rating: {}}, at_least: 2}",
        "{id: a, action: quota, where: {age_rating: {at_least: 5, at_most: 3}}, at_least: 2}",
        "{id: a, action: sahre, where: {label: x}}",
        "{id: a, where: {label: x}}",
        "{id: a, action: quota, where: {label: x}, at_least: '3'}",
        "{id: a, action: quota, where: {label: x}, at_least: 201}",
        "{id: a, action: pin, item: 2024, slot: '3'}",
        "{id: a, action: pin, item: x, slot: 2.0}",
        "{id: a, action: block, where: {label: x}, on: {screens: tv}}",
        "{id: a, action: block, where: " + "{not: " * 40 + "{label: x}" + "}" * 41,
        "{id: a, action: block, where: " + "{not: " * 80 + "{label: x}" + "}" * 81,
        "{id: a, action: block, where: {label: x}, active: {from: 20261001}}",
        "{id: a, action: block, where: {label: x}, weer: 3}",
        "{id: a, action: block, where: {region: CN}}",
        "{id: a, action: block, where: {label: a//b}}",
        "{id: a, action: block, where: {kind: movie}}",
        "{id: a, action: block, where: {label: x}, enforcement: hard}",
        "{id: a, action: block, where: {label: x}, priority: 2000}",
        "{id: a, action: block, where: {label: x}, active: {from: 2026-10-01}}",
        "{id: a, action: block, where: {label: x}, active: {daily: ['6-24']}}",
        "{id: a, action: block, where: {label: x}, active: {daily: ['06:70-24:00']}}",
        "{id: a, action: block, where: {label: x}, active: {daily: ['06:00-06:00']}}",
        "{id: a, action: block, where: {label: x}, active: {offset: '8'}}",
        "{id: a, action: boost, where: {label: x}, bonus: 2}",
        "{id: a, action: boost, where: {label: x}, bonus: much}",
        "{id: a, action: pin, item: i 1, slot: 0}",
        "{id: a, action: spacing, attribute: topic, at_most: 3, within: 3}",
        "{id: a, action: exposure_target, where: {label: x}, until: 2026-10-08T00:00:00Z}",
        "{id: a, action: exposure_target, where: {label: x}, share: 3.0, until: 2026-10-08T00:00:00Z}",
        "{id: a, action: exposure_target, where: {item: x}, share: 1%, from: 2027-01-01T00:00:00Z, "
        "until: 2026-01-01T00:00:00Z}",
        "{id: a, action: exposure_target, where: {locality: viewer}, share: 30%, until: 2026-10-08T00:00:00Z}",
        "{id: a, action: exposure_target, where: {label: x}, share: 30%, pacing: by_day_part, "
        "until: 2026-10-08T00:00:00Z}",
        "{id: a, action: exposure_target, where: {label: x}, share: 30%, last_resort: 2, until: 2026-10-08T00:00:00Z}",
        "{id: a, action: block, where: {label: x}}, {id: a, action: block, where: {label: x}}",
        "{id: a, action: block, where: {label: x}, id: b}",
        "&anchor {id: a, action: block, where: {label: x}}, *anchor",
        "{id: a, action: block, where: x}",
        "{id: a, action: block",
        "{id: a: b}",
        "{id: a, note: 'no end",
        "{id: \t a, @x: 1}",
    ],
)  # fmt: skip
def test_errors_of_unreadable_policies_are_translated(controls: str) -> None:
    with pytest.raises(PolicyError) as error:
        parse_policy(f"outlet: cn\ncontrols: [{controls}]")
    for text in (error.value.text, *(finding.text for finding in error.value.findings)):
        assert not set(english_words(text)) - FIELDS, (str(text), in_chinese(text))


@pytest.mark.parametrize(
    ("controls", "words"),
    [
        ("{id: a, action: shar, where: {label: x}}", ("boost", "block", "pin", "quota", "exposure_target")),
        ("{id: a, where: {label: x}}", ("boost", "exposure_target")),
        (
            "{id: a, action: block, where: {label: x}, enforcement: hard}",
            ("legal", "mandatory", "editorial", "preferred"),
        ),
        ("{id: a, action: block, where: {kind: movie}}", ("film", "live")),
        ("{id: a, action: block, where: {label: x}, on: {screens: [radio]}}", ("tv", "mobile", "outdoor")),
    ],
)
def test_keywords_of_the_policy_language_are_not_translated(controls: str, words: tuple[str, ...]) -> None:
    with pytest.raises(PolicyError) as error:
        parse_policy(f"outlet: cn\ncontrols: [{controls}]")
    text = in_chinese(error.value.findings[0].text)
    assert re.search("[一-鿿]", text), text
    for word in words:
        assert re.search(rf"\b{word}\b", text), text


WEAKENED = "{id: floor, action: quota, where: {label: public-service}, "


@pytest.mark.parametrize(
    "controls",
    [
        WEAKENED + "at_least: 0.1, prefixes: every, enforcement: legal}",
        WEAKENED + "at_least: 0.4, prefixes: every, enforcement: preferred}",
        WEAKENED + "at_least: 0.4, enforcement: legal}",
        WEAKENED + "at_most: 0.4, prefixes: every, enforcement: legal}",
        "{id: floor, action: cap, attribute: topic, at_most: 2}",
        "{id: a, action: quota, where: {label: film/drma}, at_least: 0.1}",
        "{id: a, action: block, where: {axis: {nobility: 0.5}}}",
        "{id: a, action: pin, item: item-999, slot: 2}",
        "{id: a, action: pin, item: item-1, slot: 2}, {id: b, action: pin, item: item-1, slot: 3}",
        "{id: a, action: pin, item: item-1, slot: 2}, {id: b, action: pin, item: item-2, slot: 2}",
        "{id: a, action: pin, item: item-1, slot: 2}, {id: b, action: block, where: {item: item-1}}",
        "{id: a, action: pin, item: item-0, slot: 1}, {id: b, action: pin, item: item-5, slot: 2}, "
        "{id: c, action: cap, attribute: topic, at_most: 1}",
        "{id: a, action: quota, where: {label: film}, at_least: 0.8, at_most: 0.7}",
        "{id: a, action: quota, where: {label: film}, at_least: 0}",
        "{id: a, action: quota, where: {label: film}, at_most: 1.0}",
        "{id: a, action: cap, attribute: topic, at_most: 0.0}",
        "{id: a, action: boost, where: {label: film}, bonus: 0}",
        "{id: a, action: boost, where: {kind: [film, article, video]}, bonus: 0.1}",
        "{id: a, action: quota, where: {label: film}, at_least: 0.9}",
        "{id: a, action: quota, where: {item: [item-1, item-2]}, at_least: 0.5}",
        "{id: a, action: quota, where: {item: item-1}, at_least: 0.5, on: {surfaces: [home, hot, list]}}",
        "{id: a, action: quota, where: {label: film}, at_least: 0.4}, {id: b, action: block, where: {label: film}}",
        "{id: a, action: quota, where: {label: film}, at_least: 0.4}, "
        "{id: b, action: quota, where: {label: film}, at_most: 0.2}",
        "{id: a, action: block, where: {label: film}, active: {until: 2026-01-01T00:00:00Z}}",
        "{id: a, action: exposure_target, where: {label: film}, share: 1.0, until: 2020-10-08T00:00:00Z}",
    ],
)
def test_findings_of_the_lint_are_translated(shared: Any, controls: str) -> None:
    text = f"outlet: cn.zj\nweights: {{nobility: 0.1, public_value: 0}}\ncontrols: [{controls}]\n"
    findings = shared.http.post("/v1/policies/cn.zj/lint", json={"text": text}).json()["findings"]
    assert len(findings) > 1, "the weights alone have two findings"
    for finding in findings:
        rendered = Message(code=finding["code"], params=finding["params"])
        assert str(rendered) == finding["message"]
        assert not set(english_words(rendered)) - FIELDS, (finding["message"], in_chinese(rendered))


PARENT = """
outlet: cn
controls:
  - {id: floor, action: quota, where: {label: public-service}, at_least: 0.3, prefixes: every, enforcement: legal}
  - {id: lead, action: pin, item: item-1, slot: 1, enforcement: mandatory}
  - {id: second, action: pin, item: item-2, slot: 2}
"""
ON_TOP = "on: {surfaces: [home, hot]}"
MANY_SCOPES = "{{id: a, action: block, where: {{label: film}}, on: {{{}: [{}]}}}}"


@pytest.mark.parametrize(
    ("controls", "part"),
    [
        ("{id: a, action: block, where: {label: public-service}}", "leaves 0 of the 15 items for 'floor' of cn"),
        ("{id: a, action: block, where: {item: item-1}, on: {screens: [tv]}}", "removes item-1, which 'lead' of cn"),
        ("{id: a, action: block, where: {item: item-1}, enforcement: mandatory}", "so that control is relaxed"),
        ("{id: a, action: block, where: {label: public-service}, enforcement: legal}", "so that control is relaxed"),
        ("{id: a, action: block, where: {item: item-3}}, {id: b, action: pin, item: item-3, slot: 3, "
         "enforcement: legal}",
         "removes item-3, which 'b' (legal)"),
        ("{id: a, action: block, where: {kind: [film, series, episode, video, article, audio, live]}}, "
         "{id: b, action: quota, where: {label: film}, at_least: 2, enforcement: legal}",
         "for 'b' (legal), which requires 2"),
        (f"{{id: a, action: cap, attribute: topic, at_most: 1, {ON_TOP}}}", "too many of one topic)"),
        (f"{{id: a, action: spacing, attribute: kind, at_most: 1, within: 6, {ON_TOP}}}",
         "of one kind close together)"),
        ("{id: a, action: cap, attribute: kind, at_most: 1}, "
         "{id: b, action: quota, where: {label: film}, at_most: 9, on: {regions: [cn.zj.hz]}}", " of pages"),
        ("{id: a, action: cap, attribute: kind, at_most: 1, on: {outlets: [cn.zj.hz]}}", "web home of cn.zj.hz in"),
        ("{id: a, action: quota, where: {not: {label: film}}, at_most: 0.1, on: {screens: [tv, web]}}", " too many)"),
        ("{id: a, action: quota, where: {label: public-service}, at_least: 0.8}", " too few)"),
        ("{id: a, action: block, where: {item: item-2}}", "(the item cannot be placed there)"),
        ("{id: a, action: quota, where: {label: film}, at_least: 0.6, enforcement: preferred}",
         "a preferred control is relaxed"),
        ("{id: floor, action: quota, where: {label: public-service}, at_least: 0.3, at_most: 0.1, prefixes: every, "
         "enforcement: legal}", "below its own minimum"),
        ("{id: a, action: cap, attribute: topic, at_most: 1, on: {outlets: [cn.sh]}}", "none of them is cn.zj"),
        (MANY_SCOPES.format("regions", ", ".join(f"cn.r{n}" for n in range(20))), "regions only"),
        (MANY_SCOPES.format("outlets", ", ".join(f"cn.zj.r{n}" for n in range(20))), "outlets only"),
    ],
)  # fmt: skip
def test_findings_of_the_dry_run_are_translated(controls: str, part: str) -> None:
    """The policy inherits a minimum and pins; a finding that names many pages stays one sentence."""
    catalog = Catalog.of(Item.model_validate(item(n)) for n in range(60))
    policies = [parse_policy(f"outlet: cn.zj\ncontrols: [{controls}]"), parse_policy(PARENT)]
    texts = [finding.text for finding in lint(policies, catalog, time.time())]
    assert any(part in str(text) for text in texts), list(map(str, texts))
    for text in texts:
        assert not set(english_words(text)) - FIELDS, (str(text), in_chinese(text))


def test_findings_about_weakened_controls_are_translated() -> None:
    parent, child = (
        parse_policy(
            f"outlet: {outlet}\ncontrols: [{{id: a, action: block, where: {{label: {label}}}, enforcement: legal}}]"
        )
        for outlet, label in (("cn", "news"), ("cn.zj", "film"))
    )
    (finding,) = weakening_findings([parent, child])
    assert not set(english_words(finding.text)) - FIELDS, in_chinese(finding.text)


IRREDUCIBLE, REDUCIBLE = ConflictSet(0, (0,), True), ConflictSet(0, (0, 1), False)
QUOTA, CAP, PIN = ("quota", 12, 4, 9, 0, True), ("cap", 12, 4, 9, 0, True), ("pin", 12, 1, 1, 0)
BLOCK = ("block", 12, 2, 0, 0, False)
CONFLICTS = (message("control", id="a"), message("control_of_outlet", id="b", outlet="cn.zj"))
OUTCOMES = [
    ControlOutcome(*QUOTA, at_least=2, first_slots=5, achieved_first=3),
    ControlOutcome("quota", 12, 4, 9, 0, False, at_least=2, at_most=5),
    ControlOutcome("quota", 0, 0, 0, 0, False),
    *(
        ControlOutcome(kind, 12, 4, 9, 0, True, at_least=6, session=(1, 12), first_slots=early, achieved_first=early)
        for kind, early in (("quota", None), ("quota", 5), ("cap", None))
    ),
    ControlOutcome("free", 12, 3, 9, 0, False),
    ControlOutcome(*PIN, True, slot=1),
    ControlOutcome(*PIN, False, slot=1),
    ControlOutcome(*QUOTA, at_least=6, slack=2),
    ControlOutcome(*PIN, True, slot=1, slack=1),
    *(
        ControlOutcome(*control, at_least=minimum, at_most=maximum, slot=1, slack=2, cause=cause, conflicts=CONFLICTS)
        for control, minimum, maximum in ((QUOTA, 6, None), (CAP, None, 2), ((*PIN, True), None, None))
        for cause in (IRREDUCIBLE, REDUCIBLE)
    ),
    ControlOutcome(*BLOCK),
    *(ControlOutcome(*BLOCK, slack=2, cause=cause, conflicts=CONFLICTS) for cause in (IRREDUCIBLE, REDUCIBLE)),
    ControlOutcome(*BLOCK, slack=2),
]
SHORTFALLS = [
    message("supply_short", missing=3, supply=6),
    message("other_supply_short", missing=3, supply=6),
    message("prefix_too_short", minimum=5, slots=3),
    message("limits_contradict", minimum=4, maximum=3, slots=12),
    message("prefixes_contradict"),
    message("cap_lacks_values", values=2, attribute="topic", maximum=4, room=8, slots=10, missing=2),
    message(
        "cap_lacks_items",
        values=2,
        attribute="provider",
        others=message("items_without_value", items=3),
        room=9,
        slots=10,
        missing=1,
    ),
    message("spacing_lacks_values", values=2, attribute="region", others=None, maximum=1, within=3, slots=12),
]


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_reasons_of_receipts_are_translated(outcome: ControlOutcome) -> None:
    assert not english_words(outcome.reason()), (str(outcome.reason()), in_chinese(outcome.reason()))


@pytest.mark.parametrize("lacks", SHORTFALLS, ids=lambda lacks: lacks.code)
def test_reasons_of_shortfalls_are_translated(lacks: Message) -> None:
    shortage = Shortfall("supply", 0, lacks)
    for extra in ({}, {"conflicts": CONFLICTS}):
        text = ControlOutcome(*QUOTA, at_least=6, slack=2, cause=IRREDUCIBLE, shortage=shortage, **extra).reason()  # type: ignore[arg-type]
        assert not english_words(text), (str(text), in_chinese(text))
    for reason in (message("pin_item_unavailable"), message("pin_slot_beyond_page", slots=3)):
        text = ControlOutcome(*PIN, True, slot=5, slack=1, shortage=Shortfall("slots", 0, reason)).reason()
        assert not english_words(text), (str(text), in_chinese(text))


def delivery_status(**changes: object) -> DeliveryStatus:
    """Return the status of a target that is halfway through and on plan, with some changes."""
    on_plan = {
        "amount": 100.0, "delivered": 50.0, "planned": 50.0, "progress": 0.5, "price": 0.1, "price_limit": 0.5,
        "tolerance": 0.02, "outlook": Projection(1.0, 0.9, 1.1, False), "counter_lag_s": 0.0, "silent_s": 0.0,
        "pacing_error": 0.0, "paused": False, "stopped": False, "ended": False, "started": True, "last_resort": False,
        "cap": False,
    }  # fmt: skip
    return DeliveryStatus(**{**on_plan, **changes})  # type: ignore[arg-type]


LIMITED = {"outlook": Projection(0.7, 0.6, 0.8, True)}


@pytest.mark.parametrize(
    "changes",
    [
        {}, {"started": False}, {"paused": True}, {"stopped": True}, {"silent_s": 900.0}, {"delivered": 20.0},
        {"delivered": 80.0}, {"delivered": 120.0}, {"ended": True}, {"ended": True, "delivered": 100.0}, LIMITED,
        {**LIMITED, "last_resort": True}, {"outlook": Projection(1.0, 0.9, 1.1, True)},
        {"delivered": 0.0, "progress": 0.001},
        *({"share": 0.1, "share_so_far": 0.12, "cap": cap, "delivered": delivered}
            for cap in (False, True) for delivered in (20.0, 50.0, 80.0)),
        *({"cap": True, **changes} for changes in (
            {"delivered": 80.0}, {"delivered": 20.0}, {"ended": True}, {"ended": True, "delivered": 120.0},
            {"outlook": Projection(1.3, 1.2, 1.4, True)},
        )),
    ],
)  # fmt: skip
def test_descriptions_of_targets_are_translated(changes: dict[str, object]) -> None:
    text = describe(delivery_status(**changes))
    assert not english_words(text), (str(text), in_chinese(text))
