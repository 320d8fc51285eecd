"""The receipt tells what was kept, moved and paid; `verify` believes nothing of it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from benchmarks.guidance.receipt_claims import attributions
from recsys.guidance.receipt.receipt import Receipt, write_receipt
from recsys.guidance.receipt.verify import verify

POLICY = """
outlet: cn.zj
version: 4
weights: {public_value: 0.2}
controls:
  - {id: public-floor, action: quota, where: {label: public-service}, at_least: 0.4, prefixes: every,
      enforcement: legal}
  - {id: ads, action: quota, where: {label: commercial}, at_most: 0.1, enforcement: mandatory}
  - {id: one-topic, action: cap, attribute: topic, at_most: 3}
  - {id: apart, action: spacing, attribute: provider, at_most: 1, within: 3}
  - {id: lead, action: pin, item: i7, slot: 2}
"""
UNREACHABLE = """
outlet: cn
controls:
  - {id: harvest, action: quota, where: {all: [{series: harvest}, {region: cn.zj.hz}]}, at_least: 0.4}
  - {id: lead, action: pin, item: nobody, slot: 1}
  - {id: most-sport, action: quota, where: {label: sport}, at_least: 0.7, priority: 5}
  - {id: little-sport, action: quota, where: {label: sport}, at_most: 0.4, enforcement: preferred}
"""


def check(made: Any, receipt: Receipt | None = None, chosen: Any = None, exact: bool = True) -> tuple[Any, ...]:
    page = made.solution.chosen if chosen is None else chosen
    receipt = made.receipt if receipt is None else receipt
    return verify(receipt, page, made.policy, made.bounds, made.batch, made.attention, made.catalog, exact=exact)


@pytest.mark.parametrize("text", [POLICY, UNREACHABLE, "outlet: cn"])
@pytest.mark.parametrize("effort", ["adaptive", "exact"])
def test_an_honest_receipt_passes_and_is_plain_json(make: Any, text: str, effort: str) -> None:
    for seed in range(3):
        made = make(text, seed=seed, effort=effort, slots=8)
        assert check(made) == ()
        assert Receipt.model_validate(json.loads(made.receipt.model_dump_json())) == made.receipt


def test_expected_plays_are_the_sum_over_slots_with_and_without_guidance(make: Any) -> None:
    for seed in range(4):
        made = make(POLICY, seed=seed)
        plays = made.batch.p[:, 0].tolist()
        by_utility = sorted(range(len(made.batch)), key=lambda i: -made.batch.utility[i])[:12]
        for field, page in (("expected_plays", made.solution.chosen), ("expected_plays_without", by_utility)):
            brute_force = 0.0
            for slot, candidate in enumerate(page):
                brute_force += 0.9**slot * plays[candidate]
            assert getattr(made.receipt, field) == pytest.approx(brute_force)
        assert made.receipt.expected_plays != pytest.approx(made.receipt.utility)


def test_a_page_without_policy_has_an_empty_receipt(make: Any) -> None:
    receipt = make(POLICY, guided=False).receipt
    assert (receipt.controls, receipt.price, receipt.moved, receipt.gap) == ((), (), (), 0.0)
    assert receipt.proven
    assert receipt.legal_met


def test_what_cannot_be_kept_is_told_with_what_is_missing(make: Any) -> None:
    made = make(UNREACHABLE, slots=10)
    lines = {line.id: line for line in made.receipt.controls}
    assert [line.id for line in made.receipt.controls] == ["most-sport", "harvest", "lead", "little-sport"]
    harvest = lines["harvest"]
    supply = sum(item.series == "harvest" and item.region == "cn.zj.hz" for item in made.catalog.items)
    assert supply == 3
    assert (harvest.status, harvest.slack, harvest.shortfall, harvest.achieved) == ("infeasible", 1, 1, 3)
    assert "1 more would have to be available" in str(harvest.reason)
    assert lines["lead"].status == "infeasible"
    assert lines["most-sport"].achieved == 7
    assert lines["most-sport"].status == "active"
    assert (lines["little-sport"].status, lines["little-sport"].slack) == ("relaxed", 3)
    assert "more important" in str(lines["little-sport"].reason)
    assert made.receipt.legal_met


def test_a_floor_on_first_slots_tells_what_stands_there_and_what_on_the_page(make: Any) -> None:
    text = "outlet: cn\ncontrols: [{id: early, action: quota, where: {label: sport}, at_least: 2, prefixes: [5]}]"
    differ = 0
    for seed in range(6):
        made = make(text, seed=seed, slots=12)
        [line] = made.receipt.controls
        rows = made.batch.row[made.solution.chosen]
        sport = ["sport" in made.catalog.items[row].labels for row in rows]
        assert (line.required.first_slots, line.achieved_first, line.achieved) == (5, sum(sport[:5]), sum(sport))
        assert f"in the first 5 slots: {sum(sport[:5])} there, {sum(sport)} on the page" in str(line.reason)
        differ += line.achieved_first != line.achieved
    assert differ, "no page tells the two counts apart"


def test_a_legal_control_that_gave_way_is_told_apart(make: Any) -> None:
    text = "outlet: cn\ncontrols: [{id: a, action: quota, where: {series: harvest}, at_least: 0.9, enforcement: legal}]"
    assert not make(text).receipt.legal_met


def test_moves_name_the_controls_behind_them(make: Any) -> None:
    made = make(POLICY)
    moves = {move.item_id: move for move in made.receipt.moved}
    assert moves["i7"].control_ids == ("lead",)
    both = [move for seed in range(8) for move in make(POLICY, seed=seed).receipt.moved]
    lifted = [m for m in both if m.slot_without is None and "public-floor" in m.control_ids]
    held = [m for m in both if m.slot is None and "ads" in m.control_ids]
    assert lifted
    assert held
    labels = {item.id: item.labels for item in made.catalog.items}
    assert all("public-service" in labels[move.item_id] for move in lifted)
    assert all("commercial" in labels[move.item_id] for move in held)
    page = [made.catalog.ids[row] for row in made.batch.row[made.solution.chosen]]
    order = np.argsort(-made.batch.utility, kind="stable")
    plain = [made.catalog.ids[row] for row in made.batch.row[order[:12]]]
    unmoved = [item for item, other in zip(page, plain, strict=True) if item == other]
    assert set(moves) == (set(page) | set(plain)) - set(unmoved)


def tampered(receipt: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every number, flag and name of a receipt that is not an estimate, each changed by itself."""

    def changed(path: tuple[Any, ...], turn: Callable[[Any], Any]) -> tuple[str, dict[str, Any]]:
        other = copy.deepcopy(receipt)
        part = other
        for step in path[:-1]:
            part = part[step]
        part[path[-1]] = turn(part[path[-1]])
        return "/".join(map(str, path)), other

    for field in ("value", "bound", "utility", "utility_without", "expected_plays", "expected_plays_without"):
        yield changed((field,), lambda x: x * 1.01 + 0.01)
        yield changed((field,), lambda x: x * 0.99 - 0.01)
    yield changed(("gap",), lambda x: x + 0.1)
    yield changed(("proven",), lambda x: not x)
    yield changed(("legal_met",), lambda x: not x)
    yield changed(("policy_version",), lambda x: x + "x")
    yield changed(("controls",), lambda x: x[1:])
    yield changed(("controls",), lambda x: x[::-1])
    yield changed(("moved",), lambda x: x[1:])
    for place in range(len(receipt["controls"])):
        here = ("controls", place)
        for field in ("achieved", "slack", "shortfall", "priority"):
            yield changed((*here, field), lambda x: x + 1)
        yield changed((*here, "status"), lambda x: "met" if x != "met" else "relaxed")
        yield changed((*here, "enforcement"), lambda x: "preferred" if x != "preferred" else "legal")
        for field in ("id", "origin"):
            yield changed((*here, field), lambda x: x + "x")
        yield changed((*here, "reason", "code"), lambda x: "text")
        yield changed((*here, "reason", "params"), lambda x: {**x, "more": 1})
        for field in ("at_most", "first_slots"):
            yield changed((*here, "required", field), lambda x: (x or 0) + 1)
    for place in range(len(receipt["moved"])):
        yield changed(("moved", place, "slot"), lambda x: (x or 0) + 1)
        yield changed(("moved", place, "item_id"), lambda x: "i59" if x != "i59" else "i58")
        yield changed(("moved", place, "control_ids"), lambda x: [*x, "nobody"])
        yield changed(("moved", place, "cause"), lambda x: "others" if x != "others" else "weights")
    yield changed(("bound",), lambda x: 100.0 * x)
    for turn in (lambda x: [], lambda x: x[1:], lambda x: x[::-1]):
        if turn(receipt["price"]) != receipt["price"]:
            yield changed(("price",), turn)
    for place, line in enumerate(receipt["controls"]):
        if not line["slack"]:
            yield changed(("controls", place, "minimal_proven"), lambda x: not x)
    for place, price in enumerate(receipt["price"]):
        yield changed(("price", place, "play_equivalents"), lambda x: -x - 1)
        yield changed(("price", place, "play_equivalents"), lambda x: 1e9)
        if len(receipt["price"]) > 1:
            yield changed(("price", place, "how"), lambda x: "dual" if x == "resolved" else "resolved")
        yield changed(("price", place, "control_id"), lambda x: x + "x")
        if price["how"] == "resolved":
            yield changed(("price", place, "play_equivalents"), lambda x: x + 0.01)


@pytest.mark.parametrize("text", [POLICY, UNREACHABLE])
def test_every_altered_receipt_is_rejected(make: Any, text: str) -> None:
    made = make(text, seed=1, slots=6, effort="exact")
    assert made.receipt.price or text == UNREACHABLE
    count = 0
    for what, other in tampered(made.receipt.model_dump(mode="json")):
        count += 1
        assert check(made, Receipt.model_validate(other)), what
    assert count > 60


def test_estimates_are_held_within_what_can_be(make: Any) -> None:
    """Nobody can tell a good estimate from a fair one, but a bound, a gap or a price of any size is found out."""
    text = "\n".join(line for line in POLICY.splitlines() if "pin" not in line)
    for seed in range(4):
        made = make(text, seed=seed)
        said = made.receipt.model_dump(mode="json")
        assert [price["control_id"] for price in said["price"]] == [line["id"] for line in said["controls"]]
        forged = {
            "bound": {"bound": 100 * said["value"], "gap": 99.0, "proven": False},
            "price": {"price": []},
            "price[0].play_equivalents": {"price": [price | {"play_equivalents": 1e9} for price in said["price"]]},
            "controls[0].minimal_proven": {"controls": [line | {"minimal_proven": False} for line in said["controls"]]},
        }
        for where, change in forged.items():
            found = check(made, Receipt.model_validate(said | change), exact=False)
            assert where in {finding.where for finding in found}, (where, found)
        free = {"price": [price | {"play_equivalents": 0.0} for price in said["price"]]}
        assert check(made, Receipt.model_validate(said | free), exact=False)


def test_prices_are_clipped_to_what_controls_cost_in_all(make: Any) -> None:
    made = make(POLICY, seed=1)
    wild = replace(made.solution, price=made.solution.price * 1e6, bound=made.solution.bound * 1e6, proven=False)
    receipt = write_receipt(made.policy, made.bounds, wild, made.batch, made.attention, made.catalog)
    assert check(made, receipt, exact=False) == ()
    value = np.sort(made.batch.utility + made.batch.bonus)[::-1][:12]
    assert receipt.bound <= float(made.attention @ value) + 1e-9


@pytest.mark.parametrize("text", [POLICY, UNREACHABLE])
def test_every_altered_page_is_rejected(make: Any, text: str) -> None:
    made = make(text, seed=1, slots=6)
    chosen, rng = made.solution.chosen, np.random.default_rng(0)
    for _ in range(200):
        other = chosen.copy()
        if rng.random() < 0.5:
            one, two = rng.choice(len(other), 2, replace=False)
            other[[one, two]] = other[[two, one]]
        else:
            other[rng.integers(len(other))] = rng.integers(len(made.batch))
        if (other != chosen).any():
            assert check(made, chosen=other, exact=False), other
    assert check(made, chosen=chosen[:-1], exact=False)
    assert check(made, chosen=np.append(chosen[:-1], np.int32(10**6)), exact=False)


def test_a_bound_below_what_is_possible_is_found_out(make: Any) -> None:
    """The second best page, told as if it were the best one: only solving again can tell."""
    made = make("outlet: cn\ncontrols: [{id: a, action: quota, where: {kind: film}, at_least: 0.1}]", slots=6)
    value = made.batch.utility + made.batch.bonus
    worse = made.solution.chosen.copy()
    worse[-1] = np.argsort(-value)[6]
    worth = float(made.attention @ value[worse])
    solution = replace(made.solution, chosen=worse, value=worth, bound=worth, proven=True)
    lie = write_receipt(made.policy, made.bounds, solution, made.batch, made.attention, made.catalog)
    assert check(made, lie, worse, exact=False) == ()
    assert [finding.where for finding in check(made, lie, worse)] == ["bound", "price[0].play_equivalents"]


def test_giving_way_further_than_needed_is_found_out(make: Any) -> None:
    made = make("outlet: cn\ncontrols: [{id: a, action: quota, where: {label: sport}, at_least: 0.5}]", slots=6)
    value = made.batch.utility + made.batch.bonus
    sport = made.bounds.member[0]
    order = np.argsort(-value)
    lax = np.concatenate([order[~sport[order]][:4], order[sport[order]][:2]])
    lax = lax[np.argsort(-value[lax])].astype(np.int32)
    worth = float(made.attention @ value[lax])
    solution = replace(
        made.solution, chosen=lax, relaxed=np.array([1], np.int32), value=worth, bound=100.0, proven=False
    )
    lie = write_receipt(made.policy, made.bounds, solution, made.batch, made.attention, made.catalog)
    assert [finding.where for finding in check(made, lie, lax)] == ["controls[0].cause", "controls[0].by"]


def test_a_floor_due_early_says_so_and_credits_only_those_it_needs(make: Any) -> None:
    text = "outlet: cn\ncontrols: [{id: top, action: quota, where: {label: sport}, at_least: 2, prefixes: [5]}]"
    made = make(text, slots=10)
    (line,) = made.receipt.controls
    assert (line.required.at_least, line.required.first_slots) == (2, 5)
    sport = made.bounds.member[0, made.solution.chosen]
    assert sport[:5].sum() >= 2
    credited = [bool(made.policy.serving(made.bounds, made.solution.chosen, k)) for k in range(10)]
    assert credited == [bool(one and sport[:k].sum() < 2) for k, one in enumerate(sport)]


@pytest.mark.parametrize("most", [2, 3, 9, 40, "0.9", "100%"])
def test_a_cap_tells_how_many_of_one_value_there_are_whether_or_not_it_can_bind(make: Any, most: Any) -> None:
    """Three pins of one topic: the page holds three of it at least."""
    pins = ", ".join(f"{{id: p{n}, action: pin, item: i{7 * n}, slot: {n}, priority: 9}}" for n in (1, 2, 3))
    text = f"outlet: cn\ncontrols: [{{id: cap, action: cap, attribute: topic, at_most: {most}}}, {pins}]"
    for seed in range(3):
        made = make(text, seed=seed)
        [line] = [line for line in made.receipt.controls if line.id == "cap"]
        topics = [made.catalog.items[row].topic for row in made.batch.row[made.solution.chosen]]
        fullest = max(topics.count(topic) for topic in topics)
        asked = {"0.9": 10, "100%": 12, 40: 12}.get(most, most)
        assert (line.achieved, line.required.at_most) == (fullest, asked)
        assert fullest >= 3
        assert line.slack == max(0, fullest - asked)
        assert f"at most {asked} on the page: {fullest}" in str(line.reason)
        assert check(made) == ()
        for lie in ({"achieved": fullest - 1}, {"required": line.required.model_copy(update={"at_most": None})}):
            other = [one.model_copy(update=lie) if one.id == "cap" else one for one in made.receipt.controls]
            assert check(made, made.receipt.model_copy(update={"controls": tuple(other)}), exact=False)


@pytest.mark.parametrize(
    ("control", "words"),
    [
        ("action: quota, where: {series: harvest}, at_least: 0.1",
         ""),
        ("action: quota, where: {label: commercial}, at_most: 0.1",
         "at most 0 on the page, after 4 in the session's 12 slots before"),
        ("action: quota, where: {label: sport}, at_least: 0.5",
         "at least 9 on the page, after 3 in the session's 12 slots before"),
        ("action: quota, where: {label: sport}, at_least: 0.5, prefixes: [4]",
         "at least 9 on the page, after 3 in the session's 12 slots before"),
        ("action: cap, attribute: provider, at_most: 0.1",
         "at most 1 on the page, after 3 of one in the session's 12 slots before"),
    ],
)  # fmt: skip
def test_what_a_session_makes_of_a_control_is_told(make: Any, control: str, words: str) -> None:
    """Shares hold over all pages of a session, so a page may be asked for more, or less, than the editor wrote."""
    text = f"outlet: cn\ncontrols: [{{id: a, {control}}}]"
    alone, later = make(text), make(text, shown=12)
    assert "session" not in str(alone.receipt.controls[0].reason)
    assert alone.receipt.controls[0].required.session is None
    [line] = later.receipt.controls
    assert words in str(line.reason)
    assert ("session" in str(line.reason)) == (line.required.session is not None) == bool(words), line
    assert check(later) == ()


def test_a_page_for_which_there_is_nothing_says_so(make: Any) -> None:
    text = """
outlet: cn
controls:
  - {id: all, action: block, where: {kind: [film, article]}}
  - {id: a, action: quota, where: {label: sport}, at_least: 0.3}
  - {id: b, action: cap, attribute: topic, at_most: 3}
"""
    made = make(text)
    block, *lines = made.receipt.controls
    assert (block.id, block.status) == ("all", "met")
    assert [str(line.reason).split(",")[0] for line in lines] == ["nothing may be shown here now"] * 2
    assert check(made) == ()


def test_weights_alone_answer_for_what_they_move(make: Any) -> None:
    made = make("outlet: cn\nweights: {public_value: 0.5}")
    receipt = made.receipt
    assert receipt.moved
    assert {move.cause for move in receipt.moved} == {"weights"}
    assert receipt.utility < receipt.utility_without


def test_named_controls_are_decisive_for_what_they_move() -> None:
    """Solved again without them, the item is gone (or back): far more often than not, or than without others."""
    told = attributions(6)
    for kind, least in (("promoted", 75), ("held_back", 75)):
        assert told[f"{kind}_items"] > 50
        assert told[f"{kind}_decisive_pct"] >= max(least, 3 * told[f"{kind}_random_controls_pct"])
