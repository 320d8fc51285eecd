"""The order of relaxation: by enforcement, then blocks before other controls, parents before children, priority."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files
from typing import Any

import numpy as np
import pytest

from recsys.domain.catalog import Catalog
from recsys.guidance.compilation.compile import compile_policy
from recsys.guidance.lint.lint import lint
from recsys.guidance.policy.controls import ENFORCEMENT_ORDER
from recsys.guidance.policy.inheritance import merge_policies, resolve_profiles
from recsys.guidance.policy.policy import parse_policy
from recsys.guidance.policy.profiles import parse_profile
from recsys.guidance.receipt.verify import verify
from tests.recsys.guidance.conftest import NOW

PROFILE = """
name: quiet
title: {en: Quiet}
about: A rule.
labels: {public-service: what serves the public}
controls:
  - {id: p0, action: quota, where: {label: public-service}, at_least: 0.2, enforcement: legal, legal_ref: Act 1}
  - {id: p1, action: cap, attribute: topic, at_most: 6, enforcement: mandatory, priority: 7, legal_ref: Act 2}
  - {id: p2, action: block, where: {label: sport}, enforcement: mandatory, legal_ref: Act 3}
"""


def policy(outlet: str, *controls: str) -> str:
    return f"outlet: {outlet}\ncontrols: [{', '.join(controls)}]"


def line_of(page: Any, name: str) -> Any:
    return next(line for line in page.receipt.controls if line.id == name)


def shown(page: Any) -> set[str]:
    return {page.catalog.ids[row] for row in page.batch.row[page.solution.chosen]}


def faults(page: Any) -> tuple[Any, ...]:
    case = (page.solution.chosen, page.policy, page.bounds, page.batch, page.attention, page.catalog)
    return verify(page.receipt, *case, exact=False)


def random_rule(rng: np.random.Generator, name: str, enforcements: list[str], kinds: list[int]) -> str:
    """Return a random control: minimum, maximum or ban of a label, cap, spacing, pin or block."""
    where = f"where: {{label: {rng.choice(['public-service', 'commercial', 'news', 'sport'])}}}"
    share, count = round(float(rng.uniform(0, 1)), 2), int(rng.integers(1, 6))
    attribute, slot = rng.choice(["topic", "provider"]), int(rng.integers(1, 13))
    body = [
        f"action: quota, {where}, at_least: {share}",
        f"action: quota, {where}, at_most: {share}",
        f"action: cap, attribute: {attribute}, at_most: {count}",
        f"action: spacing, attribute: {attribute}, at_most: 1, within: {count + 1}",
        f"action: pin, item: i{rng.integers(60)}, slot: {slot}",
        f"action: quota, {where}, at_most: 0",
        f"action: block, {where}",
    ][rng.choice(kinds)]
    return f"{{id: {name}, enforcement: {rng.choice(enforcements)}, priority: {rng.integers(4)}, {body}}}"


@pytest.mark.parametrize("seed", range(20))
def test_controls_are_ordered_by_enforcement_then_outlet_then_priority_then_text(seed: int) -> None:
    rng = np.random.default_rng(seed)
    texts = {
        outlet: policy(outlet, *(random_rule(rng, f"r{n}{k}", list(ENFORCEMENT_ORDER), [*range(7)]) for k in range(5)))
        for n, outlet in enumerate(("cn", "cn.zj", "cn.zj.hz"))
    }
    low, *rest = (parse_policy(text) for text in reversed(texts.values()))
    ready = resolve_profiles(low.model_copy(update={"profile": ("quiet",)}), {"quiet": parse_profile(PROFILE)})
    controls = merge_policies([ready, *rest]).controls
    assert len(controls) == 18
    deep = {"cn": 0, "cn.zj": 1, "cn.zj.hz": 2, "profile:quiet": 2}
    ranks = [
        (
            ENFORCEMENT_ORDER.index(o.control.enforcement),
            o.control.action != "block",
            deep[o.outlet],
            -o.control.priority,
            not o.outlet.startswith("profile:"),
            o.control.id,
        )
        for o in controls
    ]
    assert ranks == sorted(ranks)


def test_a_legal_control_takes_precedence_over_a_mandatory_control_of_any_outlet(make: Any) -> None:
    """A parent requires half of the page, and its child legally allows only two of the same items."""
    floor = (
        "{id: pub, action: quota, where: {label: public-service}, at_least: 0.5, enforcement: mandatory, "
        "priority: 1000}"
    )
    cap = "{id: law, action: quota, where: {label: public-service}, at_most: 2, enforcement: legal}"
    for texts in ([policy("cn", floor), policy("cn.zj", cap)], [policy("cn", floor, cap)]):
        page = make(*texts)
        assert (line_of(page, "law").slack, line_of(page, "pub").slack, page.receipt.legal_met) == (0, 4, True)
        assert faults(page) == ()
    policy_ = parse_policy(f"outlet: cn\nprofile: quiet\ncontrols: [{cap}]")
    ready = resolve_profiles(policy_, {"quiet": parse_profile(PROFILE)})
    assert [o.control.id for o in merge_policies([ready]).controls][:2] == ["p0", "law"], (
        "the controls of a profile come first among equals"
    )


@pytest.mark.parametrize("seed", range(24))
def test_a_child_never_relaxes_an_equally_strict_control_of_its_parents_further(make: Any, seed: int) -> None:
    """Parents' controls that are at least as strict as the child's are relaxed by the same slots without the child."""
    rng = np.random.default_rng(seed)
    strictest = int(rng.integers(3))
    parents = [
        policy(outlet, *(random_rule(rng, name, list(ENFORCEMENT_ORDER[:3]), [*range(6)]) for name in names))
        for outlet, names in (("cn", "ab"), ("cn.zj", "cd"))
    ]
    rules = [random_rule(rng, name, list(ENFORCEMENT_ORDER[strictest:]), [*range(6)]) for name in "efg"]
    redefined = (
        f"{{id: {rng.choice(list('abcd'))}, action: quota, where: {{label: sport}}, at_least: 1.0, enforcement: legal}}"
    )
    low = policy("cn.zj.hz", *rules, *([redefined] if strictest == 0 else []))

    def relaxed_slots(*texts: str) -> dict[tuple[str, str], int]:
        page = make(*texts)
        assert page.solution.minimal_proven.all()
        return {
            (o.outlet, o.alias): int(by)
            for o, by, active in zip(page.policy.controls, page.solution.relaxed, page.bounds.active, strict=True)
            if active and ENFORCEMENT_ORDER.index(o.control.enforcement) <= min(strictest, 1) and o.outlet != "cn.zj.hz"
        }

    assert relaxed_slots(*parents, low) == relaxed_slots(*parents)


def shortfall(page: Any, block: Any) -> int:
    """Return how many items stricter minimums and pins lack in the catalog if no blocked item may be shown."""
    blocked = {
        item.id
        for o in page.policy.controls
        if o.control.action == "block"
        for item in page.catalog.items
        if set(o.control.where.item) & {item.id}
    }
    lacking = 0
    for o in page.policy.controls:
        if ENFORCEMENT_ORDER.index(o.control.enforcement) >= ENFORCEMENT_ORDER.index(block.control.enforcement):
            continue
        if o.control.action == "pin":
            lacking += o.control.item in blocked
        if o.control.action == "quota" and o.control.at_least is not None:
            members = [item for item in page.catalog.items if set(o.control.where.label) & set(item.labels)]
            minimum = int(np.ceil(o.control.at_least * 12 - 1e-9))
            lacking += max(0, minimum - sum(item.id not in blocked for item in members))
    return lacking


@pytest.mark.parametrize("seed", range(40))
def test_a_block_is_relaxed_no_further_than_stricter_controls_need_and_a_legal_block_never(
    make: Any, seed: int
) -> None:
    """Minimums, pins and blocks of random enforcement in two outlets; every third case blocks nearly all items."""
    rng = np.random.default_rng(seed)

    def block(name: str) -> str:
        count = int(rng.integers(50, 60)) if seed % 3 == 0 else int(rng.integers(5, 25))
        items = ", ".join(f"i{n}" for n in rng.choice(60, count, replace=False))
        return (
            f"{{id: {name}, enforcement: {rng.choice(ENFORCEMENT_ORDER)}, action: block, where: {{item: [{items}]}}}}"
        )

    def rules(names: str) -> list[str]:
        return [random_rule(rng, name, list(ENFORCEMENT_ORDER), [0, 4]).replace("news", "culture") for name in names]

    high, low = policy("cn", *rules("ab"), block("x")), policy("cn.zj", *rules("cd"), block("y"), block("z"))
    page = make(high, low)
    shown_ids = shown(page)
    for o in page.policy.controls:
        if o.control.action != "block":
            continue
        line, items = line_of(page, o.control.id), shown_ids & set(o.control.where.item)
        assert line.slack == line.achieved == len(items)
        assert len(items) <= shortfall(page, o)
        assert not (items and o.control.enforcement == "legal")
        assert line.minimal_proven
        harder = {p.control.id for p in page.policy.controls if p.outranks(o)}
        assert bool(items) == bool(line.cause and set(line.cause.control_ids) <= harder and line.cause.control_ids)
    assert faults(page) == ()


@pytest.mark.parametrize("seed", range(30))
def test_a_block_acts_as_a_maximum_of_zero_that_comes_first_within_its_enforcement(make: Any, seed: int) -> None:
    """Compares with pages on which such a maximum replaces the block, with a minimum, a pin and weaker controls."""
    rng = np.random.default_rng(seed)
    enforcements = [str(name) for name in rng.choice(ENFORCEMENT_ORDER, 4)]
    minimum, label = int(rng.integers(1, 9)), rng.choice(["public-service", "commercial"])
    of_label = [n for n in range(60) if n % 3 == ["public-service", "commercial"].index(label)]
    items = [[f"i{n}" for n in rng.choice(of_label, int(rng.integers(8, 20)), replace=False)] for _ in range(2)]
    cap = "{id: cap, action: quota, where: {label: news}, at_most: 2, enforcement: preferred}"
    rivals = [
        f"{{id: floor, action: quota, where: {{label: {label}}}, at_least: {minimum}, enforcement: {enforcements[0]}}}",
        f"{{id: pin, action: pin, item: i{rng.choice(of_label)}, slot: {rng.integers(1, 13)}, "
        f"enforcement: {enforcements[1]}}}",
        cap,
    ]

    def ban(action: str) -> list[str]:
        return [
            f"{{id: ban{n}, where: {{item: [{', '.join(items[n])}]}}, "
            f"enforcement: {enforcements[2 + n]}, priority: 1000, "
            f"{action}}}"
            for n in range(2)
        ]

    blocked, capped = (
        make(policy("cn", *rivals, *ban(action)), seed=seed)
        for action in ("action: block", "action: quota, at_most: 0")
    )

    def relaxed_slots(page: Any) -> dict[str, int]:
        by = zip(page.policy.controls, page.solution.relaxed, strict=True)
        return {o.control.id: int(slots) for o, slots in by}

    assert relaxed_slots(blocked) == relaxed_slots(capped)
    if blocked.solution.proven and capped.solution.proven:
        assert blocked.solution.value == pytest.approx(capped.solution.value, rel=1e-6)


def test_a_legal_block_stays_in_force_and_the_mandatory_minimum_of_its_parent_is_relaxed(make: Any) -> None:
    """A parent requires half of the page, and its child legally blocks all but five such items, so one is missing."""
    public = [f"i{n}" for n in range(0, 60, 3)]
    floor = "{id: pub, action: quota, where: {label: public-service}, at_least: 6, enforcement: %s}"
    off = f"{{id: court, action: block, where: {{item: [{', '.join(public[5:])}]}}, enforcement: %s}}"
    law = make(policy("cn", floor % "mandatory"), policy("cn.zj", off % "legal"))
    assert not shown(law) & set(public[5:])
    assert (line_of(law, "court").status, line_of(law, "pub").slack, law.receipt.legal_met) == ("met", 1, True)
    own = make(policy("cn", floor % "mandatory", off % "legal"))
    assert not shown(own) & set(public[5:])
    equal = make(policy("cn", floor % "legal"), policy("cn.zj", off % "legal"))
    assert not shown(equal) & set(public[5:])
    assert not equal.receipt.legal_met, "the editorial page is served"
    softer = make(policy("cn", floor % "legal"), policy("cn.zj", off % "mandatory"))
    assert len(shown(softer) & set(public[5:])) == 1, "one item is missing, and one is readmitted"
    court = line_of(softer, "court")
    assert (court.status, court.slack, court.minimal_proven, court.cause.control_ids) == ("relaxed", 1, True, ("pub",))
    for page in (law, own, equal, softer):
        assert faults(page) == ()
    short = make(
        policy("cn", floor % "legal"), policy("cn.zj", "{id: all, action: block, where: {not: {item: nobody}}}")
    )
    assert (len(short.solution.chosen), line_of(short, "all").slack, short.receipt.legal_met) == (6, 6, True)
    two = policy("cn", floor % "legal", (floor % "legal").replace("id: pub", "id: pub2").replace("6", "7"))
    short = make(two, policy("cn.zj", "{id: all, action: block, where: {not: {item: nobody}}}"))
    assert len(short.solution.chosen) == 7, "the same items count for both minimums"


@pytest.mark.parametrize("enforcement", ["legal", "mandatory"])
def test_the_minimum_of_a_profile_never_relaxes_a_legal_block(shop: Any, make: Any, enforcement: str) -> None:
    """A block removes all but one of the items of which a built-in profile legally requires a fifth of the page."""
    path = files("recsys.guidance.policy.profiles") / "mainstream-guidance.yaml"
    ready = {"mainstream-guidance": parse_profile(path.read_text("utf-8"))}
    items = [i.model_copy(update={"labels": ("mainstream", "x")}) if n < 10 else i for n, i in enumerate(shop.items)]
    but_one = "{all: [{label: mainstream}, {not: {item: i3}}]}"
    court = f"{{id: court, action: block, where: {but_one}, enforcement: {enforcement}}}"
    policy_ = parse_policy(f"outlet: cn\nprofile: mainstream-guidance\ncontrols: [{court}]")
    compiled = compile_policy([resolve_profiles(policy_, ready)], Catalog.of(items))
    blocked = compiled.blocked(np.arange(60, dtype=np.int32), make("outlet: cn").query)
    assert np.flatnonzero(blocked).tolist() == ([0, 1, 2, 4, 5, 6, 7, 8, 9] if enforcement == "legal" else [])


def test_lint_reports_whether_a_block_or_a_minimum_is_relaxed(shop: Any) -> None:
    floor = "{id: pub, action: quota, where: {label: public-service}, at_least: 2, enforcement: mandatory}"
    block = "{id: off, action: block, where: {label: public-service}, enforcement: %s}"

    def reported(*texts: str) -> list[str]:
        findings = lint([parse_policy(text) for text in texts], shop, NOW.timestamp())
        return [
            f"{finding.where} {finding.message}"
            for finding in findings
            if "'pub'" in finding.message and "relaxed" in finding.message
        ]

    (soft,) = reported(policy("cn", floor), policy("cn.zj", block % "editorial"))
    assert soft.startswith("controls[0].where leaves 0 of the 20 items for 'pub' of cn (mandatory), which requires 2")
    assert soft.endswith("the block is relaxed there, by at most 2 items")
    (hard, *_) = reported(policy("cn", floor), policy("cn.zj", block % "mandatory"))
    assert hard.endswith("is not stricter than the block's, so that control is relaxed")
    (own,) = reported(policy("cn", floor, block % "preferred"))
    assert own.startswith("controls[1].where leaves 0 of the 20 items for 'pub' (mandatory), which requires 2")
    both = lint([parse_policy(policy("cn", floor, block % "legal"))], shop, NOW.timestamp())
    assert any("every such item is blocked by 'off'" in finding.message for finding in both)


def test_tightening_a_control_does_not_change_its_order_among_equals() -> None:
    rules = [
        f"{{id: {name}, action: quota, where: {{label: news}}, at_least: 2, enforcement: mandatory}}" for name in "ab"
    ]
    low = parse_policy(policy("cn.zj", rules[1].replace("2", "3")))
    assert [o.control.id for o in merge_policies([parse_policy(policy("cn", *rules)), low]).controls] == [
        "a",
        "b@cn",
        "b",
    ]
    assert replace(merge_policies([low]).controls[0], index=9).alias == "b"
