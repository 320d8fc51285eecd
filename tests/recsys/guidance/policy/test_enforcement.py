"""Who gives way to whom: enforcement first, blocks first within it, then parents before children, then priority."""

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


def line_of(made: Any, name: str) -> Any:
    return next(line for line in made.receipt.controls if line.id == name)


def shown(made: Any) -> set[str]:
    return {made.catalog.ids[row] for row in made.batch.row[made.solution.chosen]}


def faults(made: Any) -> tuple[Any, ...]:
    case = (made.solution.chosen, made.policy, made.bounds, made.batch, made.attention, made.catalog)
    return verify(made.receipt, *case, exact=False)


def random_rule(rng: np.random.Generator, name: str, hardnesses: list[str], kinds: list[int]) -> str:
    """A control of one of seven kinds: floor, cap of a label, cap and spacing of an attribute, pin, ban, block."""
    where = f"where: {{label: {rng.choice(['public-service', 'commercial', 'news', 'sport'])}}}"
    part, count = round(float(rng.uniform(0, 1)), 2), int(rng.integers(1, 6))
    attribute, slot = rng.choice(["topic", "provider"]), int(rng.integers(1, 13))
    body = [
        f"action: quota, {where}, at_least: {part}",
        f"action: quota, {where}, at_most: {part}",
        f"action: cap, attribute: {attribute}, at_most: {count}",
        f"action: spacing, attribute: {attribute}, at_most: 1, within: {count + 1}",
        f"action: pin, item: i{rng.integers(60)}, slot: {slot}",
        f"action: quota, {where}, at_most: 0",
        f"action: block, {where}",
    ][rng.choice(kinds)]
    return f"{{id: {name}, enforcement: {rng.choice(hardnesses)}, priority: {rng.integers(4)}, {body}}}"


@pytest.mark.parametrize("seed", range(20))
def test_controls_stand_by_hardness_then_outlet_then_priority_then_text(seed: int) -> None:
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


def test_a_legal_control_is_kept_before_a_binding_one_whoever_says_it(make: Any) -> None:
    """Of the same items a parent asks half of the page, and its child, by law, no more than two."""
    floor = (
        "{id: pub, action: quota, where: {label: public-service}, at_least: 0.5, enforcement: mandatory, "
        "priority: 1000}"
    )
    cap = "{id: law, action: quota, where: {label: public-service}, at_most: 2, enforcement: legal}"
    for texts in ([policy("cn", floor), policy("cn.zj", cap)], [policy("cn", floor, cap)]):
        made = make(*texts)
        assert (line_of(made, "law").slack, line_of(made, "pub").slack, made.receipt.legal_met) == (0, 4, True)
        assert faults(made) == ()
    said = parse_policy(f"outlet: cn\nprofile: quiet\ncontrols: [{cap}]")
    ready = resolve_profiles(said, {"quiet": parse_profile(PROFILE)})
    assert [o.control.id for o in merge_policies([ready]).controls][:2] == ["p0", "law"], "equals: the profile's before"


@pytest.mark.parametrize("seed", range(24))
def test_what_a_child_says_costs_no_control_of_its_parents_that_is_as_hard_one_slot_more(make: Any, seed: int) -> None:
    """A child's controls are at most so hard; all that its parents hold at least so hard gives way as without them."""
    rng = np.random.default_rng(seed)
    most = int(rng.integers(3))
    parents = [
        policy(outlet, *(random_rule(rng, name, list(ENFORCEMENT_ORDER[:3]), [*range(6)]) for name in names))
        for outlet, names in (("cn", "ab"), ("cn.zj", "cd"))
    ]
    rules = [random_rule(rng, name, list(ENFORCEMENT_ORDER[most:]), [*range(6)]) for name in "efg"]
    again = (
        f"{{id: {rng.choice(list('abcd'))}, action: quota, where: {{label: sport}}, at_least: 1.0, enforcement: legal}}"
    )
    low = policy("cn.zj.hz", *rules, *([again] if most == 0 else []))

    def given(*texts: str) -> dict[tuple[str, str], int]:
        made = make(*texts)
        assert made.solution.minimal_proven.all()
        return {
            (o.outlet, o.alias): int(by)
            for o, by, active in zip(made.policy.controls, made.solution.relaxed, made.bounds.active, strict=True)
            if active and ENFORCEMENT_ORDER.index(o.control.enforcement) <= min(most, 1) and o.outlet != "cn.zj.hz"
        }

    assert given(*parents, low) == given(*parents)


def owed_to(made: Any, block: Any) -> int:
    """What harder floors and pins lack where only items that no block hits may be shown, counted from the catalogue."""
    off = {
        item.id
        for o in made.policy.controls
        if o.control.action == "block"
        for item in made.catalog.items
        if set(o.control.where.item) & {item.id}
    }
    lacking = 0
    for o in made.policy.controls:
        if ENFORCEMENT_ORDER.index(o.control.enforcement) >= ENFORCEMENT_ORDER.index(block.control.enforcement):
            continue
        if o.control.action == "pin":
            lacking += o.control.item in off
        if o.control.action == "quota" and o.control.at_least is not None:
            fit = [item for item in made.catalog.items if set(o.control.where.label) & set(item.labels)]
            least = int(np.ceil(o.control.at_least * 12 - 1e-9))
            lacking += max(0, least - sum(item.id not in off for item in fit))
    return lacking


@pytest.mark.parametrize("seed", range(40))
def test_a_block_lets_in_no_more_than_what_is_harder_lacks_and_a_legal_one_nothing(make: Any, seed: int) -> None:
    """Floors, pins and blocks of random enforcement in two outlets; every third line blocks nearly everything."""
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
    made = make(high, low)
    there = shown(made)
    for o in made.policy.controls:
        if o.control.action != "block":
            continue
        line, items = line_of(made, o.control.id), there & set(o.control.where.item)
        assert line.slack == line.achieved == len(items)
        assert len(items) <= owed_to(made, o)
        assert not (items and o.control.enforcement == "legal")
        assert line.minimal_proven
        harder = {p.control.id for p in made.policy.controls if p.outranks(o)}
        assert bool(items) == bool(line.cause and set(line.cause.control_ids) <= harder and line.cause.control_ids)
    assert faults(made) == ()


@pytest.mark.parametrize("seed", range(30))
def test_a_block_is_a_cap_of_nothing_that_comes_first_within_its_hardness(make: Any, seed: int) -> None:
    """Against pages out of all items with such a cap in the block's place: for one floor, a pin and softer controls."""
    rng = np.random.default_rng(seed)
    hard = [str(one) for one in rng.choice(ENFORCEMENT_ORDER, 4)]
    least, label = int(rng.integers(1, 9)), rng.choice(["public-service", "commercial"])
    of_label = [n for n in range(60) if n % 3 == ["public-service", "commercial"].index(label)]
    items = [[f"i{n}" for n in rng.choice(of_label, int(rng.integers(8, 20)), replace=False)] for _ in range(2)]
    cap = "{id: cap, action: quota, where: {label: news}, at_most: 2, enforcement: preferred}"
    others = [
        f"{{id: floor, action: quota, where: {{label: {label}}}, at_least: {least}, enforcement: {hard[0]}}}",
        f"{{id: pin, action: pin, item: i{rng.choice(of_label)}, slot: {rng.integers(1, 13)}, enforcement: {hard[1]}}}",
        cap,
    ]

    def ban(action: str) -> list[str]:
        return [
            f"{{id: ban{n}, where: {{item: [{', '.join(items[n])}]}}, enforcement: {hard[2 + n]}, priority: 1000, "
            f"{action}}}"
            for n in range(2)
        ]

    blocked, capped = (
        make(policy("cn", *others, *ban(action)), seed=seed)
        for action in ("action: block", "action: quota, at_most: 0")
    )

    def given(made: Any) -> dict[str, int]:
        by = zip(made.policy.controls, made.solution.relaxed, strict=True)
        return {o.control.id: int(slots) for o, slots in by}

    assert given(blocked) == given(capped)
    if blocked.solution.proven and capped.solution.proven:
        assert blocked.solution.value == pytest.approx(capped.solution.value, rel=1e-6)


def test_a_legal_block_stands_and_the_binding_floor_above_it_gives_way(make: Any) -> None:
    """A parent asks for half of the page, and its child blocks by law all but five such items: one is missing."""
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
    assert not equal.receipt.legal_met, "the editorial page answers"
    softer = make(policy("cn", floor % "legal"), policy("cn.zj", off % "mandatory"))
    assert len(shown(softer) & set(public[5:])) == 1, "one is missing, and one is let in"
    court = line_of(softer, "court")
    assert (court.status, court.slack, court.minimal_proven, court.cause.control_ids) == ("relaxed", 1, True, ("pub",))
    for made in (law, own, equal, softer):
        assert faults(made) == ()
    few = make(policy("cn", floor % "legal"), policy("cn.zj", "{id: all, action: block, where: {not: {item: nobody}}}"))
    assert (len(few.solution.chosen), line_of(few, "all").slack, few.receipt.legal_met) == (6, 6, True)
    two = policy("cn", floor % "legal", (floor % "legal").replace("id: pub", "id: pub2").replace("6", "7"))
    few = make(two, policy("cn.zj", "{id: all, action: block, where: {not: {item: nobody}}}"))
    assert len(few.solution.chosen) == 7, "the same items serve both"


@pytest.mark.parametrize("enforcement", ["legal", "mandatory"])
def test_the_floor_of_a_profile_opens_no_legal_block_of_its_own_outlet(shop: Any, make: Any, enforcement: str) -> None:
    """A court takes all but one of the items of which the shipped profile's legal floor asks a fifth of the page."""
    path = files("recsys.guidance.policy.profiles") / "mainstream-guidance.yaml"
    ready = {"mainstream-guidance": parse_profile(path.read_text("utf-8"))}
    items = [i.model_copy(update={"labels": ("mainstream", "x")}) if n < 10 else i for n, i in enumerate(shop.items)]
    but_one = "{all: [{label: mainstream}, {not: {item: i3}}]}"
    court = f"{{id: court, action: block, where: {but_one}, enforcement: {enforcement}}}"
    said = parse_policy(f"outlet: cn\nprofile: mainstream-guidance\ncontrols: [{court}]")
    compiled = compile_policy([resolve_profiles(said, ready)], Catalog.of(items))
    off = compiled.blocked(np.arange(60, dtype=np.int32), make("outlet: cn").query)
    assert np.flatnonzero(off).tolist() == ([0, 1, 2, 4, 5, 6, 7, 8, 9] if enforcement == "legal" else [])


def test_lint_says_which_of_a_block_and_a_floor_gives_way(shop: Any) -> None:
    floor = "{id: pub, action: quota, where: {label: public-service}, at_least: 2, enforcement: mandatory}"
    block = "{id: off, action: block, where: {label: public-service}, enforcement: %s}"

    def told(*texts: str) -> list[str]:
        found = lint([parse_policy(text) for text in texts], shop, NOW.timestamp())
        return [f"{one.where} {one.message}" for one in found if "'pub'" in one.message and "relaxed" in one.message]

    (soft,) = told(policy("cn", floor), policy("cn.zj", block % "editorial"))
    assert soft.startswith("controls[0].where leaves 0 of the 20 items of which 'pub' of cn (mandatory) requires 2")
    assert soft.endswith("the block is relaxed there, by 2 items at most")
    (hard, *_) = told(policy("cn", floor), policy("cn.zj", block % "mandatory"))
    assert hard.endswith("that control is not harder than the block, so it is relaxed")
    (own,) = told(policy("cn", floor, block % "preferred"))
    assert own.startswith("controls[1].where leaves 0 of the 20 items of which 'pub' (mandatory) requires 2")
    both = lint([parse_policy(policy("cn", floor, block % "legal"))], shop, NOW.timestamp())
    assert any("every such item is blocked by 'off'" in one.message for one in both)


def test_the_order_of_two_equal_parents_rules_stays_when_a_child_asks_more_of_one() -> None:
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
