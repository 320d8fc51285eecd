"""Receipts report status, moves and prices of controls; `verify` recomputes all of it and rejects altered receipts."""

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


def check(case: Any, receipt: Receipt | None = None, chosen: Any = None, exact: bool = True) -> tuple[Any, ...]:
    page = case.solution.chosen if chosen is None else chosen
    receipt = case.receipt if receipt is None else receipt
    return verify(receipt, page, case.policy, case.bounds, case.batch, case.attention, case.catalog, exact=exact)


@pytest.mark.parametrize("text", [POLICY, UNREACHABLE, "outlet: cn"])
@pytest.mark.parametrize("effort", ["adaptive", "exact"])
def test_correct_receipt_passes_verification_and_round_trips_as_json(make: Any, text: str, effort: str) -> None:
    for seed in range(3):
        case = make(text, seed=seed, effort=effort, slots=8)
        assert check(case) == ()
        assert Receipt.model_validate(json.loads(case.receipt.model_dump_json())) == case.receipt


def test_expected_plays_are_the_sum_over_slots_with_and_without_guidance(make: Any) -> None:
    for seed in range(4):
        case = make(POLICY, seed=seed)
        plays = case.batch.p[:, 0].tolist()
        by_utility = sorted(range(len(case.batch)), key=lambda i: -case.batch.utility[i])[:12]
        for field, page in (("expected_plays", case.solution.chosen), ("expected_plays_without", by_utility)):
            brute_force = 0.0
            for slot, candidate in enumerate(page):
                brute_force += 0.9**slot * plays[candidate]
            assert getattr(case.receipt, field) == pytest.approx(brute_force)
        assert case.receipt.expected_plays != pytest.approx(case.receipt.utility)


def test_a_page_without_policy_has_an_empty_receipt(make: Any) -> None:
    receipt = make(POLICY, guided=False).receipt
    assert (receipt.controls, receipt.price, receipt.moved, receipt.gap) == ((), (), (), 0.0)
    assert receipt.proven
    assert receipt.legal_met


def test_infeasible_controls_report_their_shortfall(make: Any) -> None:
    case = make(UNREACHABLE, slots=10)
    lines = {line.id: line for line in case.receipt.controls}
    assert [line.id for line in case.receipt.controls] == ["most-sport", "harvest", "lead", "little-sport"]
    harvest = lines["harvest"]
    supply = sum(item.series == "harvest" and item.region == "cn.zj.hz" for item in case.catalog.items)
    assert supply == 3
    assert (harvest.status, harvest.slack, harvest.shortfall, harvest.achieved) == ("infeasible", 1, 1, 3)
    assert "1 more would have to be available" in str(harvest.reason)
    assert lines["lead"].status == "infeasible"
    assert lines["most-sport"].achieved == 7
    assert lines["most-sport"].status == "active"
    assert (lines["little-sport"].status, lines["little-sport"].slack) == ("relaxed", 3)
    assert "more important" in str(lines["little-sport"].reason)
    assert case.receipt.legal_met


def test_prefix_minimum_reports_counts_of_prefix_and_page(make: Any) -> None:
    text = "outlet: cn\ncontrols: [{id: early, action: quota, where: {label: sport}, at_least: 2, prefixes: [5]}]"
    differ = 0
    for seed in range(6):
        case = make(text, seed=seed, slots=12)
        [line] = case.receipt.controls
        rows = case.batch.row[case.solution.chosen]
        sport = ["sport" in case.catalog.items[row].labels for row in rows]
        assert (line.required.first_slots, line.achieved_first, line.achieved) == (5, sum(sport[:5]), sum(sport))
        assert f"in the first 5 slots: {sum(sport[:5])} there, {sum(sport)} on the page" in str(line.reason)
        differ += line.achieved_first != line.achieved
    assert differ, "the two counts differ on no page"


def test_violated_legal_control_sets_legal_met_to_false(make: Any) -> None:
    text = "outlet: cn\ncontrols: [{id: a, action: quota, where: {series: harvest}, at_least: 0.9, enforcement: legal}]"
    assert not make(text).receipt.legal_met


def test_moves_name_the_responsible_controls(make: Any) -> None:
    case = make(POLICY)
    moves = {move.item_id: move for move in case.receipt.moved}
    assert moves["i7"].control_ids == ("lead",)
    moves_of_all_seeds = [move for seed in range(8) for move in make(POLICY, seed=seed).receipt.moved]
    lifted = [m for m in moves_of_all_seeds if m.slot_without is None and "public-floor" in m.control_ids]
    lowered = [m for m in moves_of_all_seeds if m.slot is None and "ads" in m.control_ids]
    assert lifted
    assert lowered
    labels = {item.id: item.labels for item in case.catalog.items}
    assert all("public-service" in labels[move.item_id] for move in lifted)
    assert all("commercial" in labels[move.item_id] for move in lowered)
    page = [case.catalog.ids[row] for row in case.batch.row[case.solution.chosen]]
    order = np.argsort(-case.batch.utility, kind="stable")
    plain = [case.catalog.ids[row] for row in case.batch.row[order[:12]]]
    unmoved = [item for item, plain_item in zip(page, plain, strict=True) if item == plain_item]
    assert set(moves) == (set(page) | set(plain)) - set(unmoved)


def tampered(receipt: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield copies of a receipt with one number, flag or name changed, except for estimates."""

    def changed(path: tuple[Any, ...], change: Callable[[Any], Any]) -> tuple[str, dict[str, Any]]:
        forged = copy.deepcopy(receipt)
        part = forged
        for step in path[:-1]:
            part = part[step]
        part[path[-1]] = change(part[path[-1]])
        return "/".join(map(str, path)), forged

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
    for index in range(len(receipt["controls"])):
        field_path = ("controls", index)
        for field in ("achieved", "slack", "shortfall", "priority"):
            yield changed((*field_path, field), lambda x: x + 1)
        yield changed((*field_path, "status"), lambda x: "met" if x != "met" else "relaxed")
        yield changed((*field_path, "enforcement"), lambda x: "preferred" if x != "preferred" else "legal")
        for field in ("id", "origin"):
            yield changed((*field_path, field), lambda x: x + "x")
        yield changed((*field_path, "reason", "code"), lambda x: "text")
        yield changed((*field_path, "reason", "params"), lambda x: {**x, "more": 1})
        for field in ("at_most", "first_slots"):
            yield changed((*field_path, "required", field), lambda x: (x or 0) + 1)
    for index in range(len(receipt["moved"])):
        yield changed(("moved", index, "slot"), lambda x: (x or 0) + 1)
        yield changed(("moved", index, "item_id"), lambda x: "i59" if x != "i59" else "i58")
        yield changed(("moved", index, "control_ids"), lambda x: [*x, "nobody"])
        yield changed(("moved", index, "cause"), lambda x: "others" if x != "others" else "weights")
    yield changed(("bound",), lambda x: 100.0 * x)
    for change in (lambda x: [], lambda x: x[1:], lambda x: x[::-1]):
        if change(receipt["price"]) != receipt["price"]:
            yield changed(("price",), change)
    for index, line in enumerate(receipt["controls"]):
        if not line["slack"]:
            yield changed(("controls", index, "minimal_proven"), lambda x: not x)
    for index, price in enumerate(receipt["price"]):
        yield changed(("price", index, "play_equivalents"), lambda x: -x - 1)
        yield changed(("price", index, "play_equivalents"), lambda x: 1e9)
        if len(receipt["price"]) > 1:
            yield changed(("price", index, "how"), lambda x: "dual" if x == "resolved" else "resolved")
        yield changed(("price", index, "control_id"), lambda x: x + "x")
        if price["how"] == "resolved":
            yield changed(("price", index, "play_equivalents"), lambda x: x + 0.01)


@pytest.mark.parametrize("text", [POLICY, UNREACHABLE])
def test_every_altered_receipt_is_rejected(make: Any, text: str) -> None:
    case = make(text, seed=1, slots=6, effort="exact")
    assert case.receipt.price or text == UNREACHABLE
    count = 0
    for name, forged in tampered(case.receipt.model_dump(mode="json")):
        count += 1
        assert check(case, Receipt.model_validate(forged)), name
    assert count > 60


def test_estimates_out_of_range_are_rejected(make: Any) -> None:
    """Estimates cannot be recomputed, but a bound, gap or price out of range is rejected."""
    text = "\n".join(line for line in POLICY.splitlines() if "pin" not in line)
    for seed in range(4):
        case = make(text, seed=seed)
        receipt = case.receipt.model_dump(mode="json")
        assert [price["control_id"] for price in receipt["price"]] == [line["id"] for line in receipt["controls"]]
        forged = {
            "bound": {"bound": 100 * receipt["value"], "gap": 99.0, "proven": False},
            "price": {"price": []},
            "price[0].play_equivalents": {"price": [price | {"play_equivalents": 1e9} for price in receipt["price"]]},
            "controls[0].minimal_proven": {
                "controls": [line | {"minimal_proven": False} for line in receipt["controls"]]
            },
        }
        for field, change in forged.items():
            findings = check(case, Receipt.model_validate(receipt | change), exact=False)
            assert field in {finding.where for finding in findings}, (field, findings)
        without_prices = {"price": [price | {"play_equivalents": 0.0} for price in receipt["price"]]}
        assert check(case, Receipt.model_validate(receipt | without_prices), exact=False)


def test_prices_are_clipped_to_the_total_cost_of_controls(make: Any) -> None:
    case = make(POLICY, seed=1)
    wild = replace(case.solution, price=case.solution.price * 1e6, bound=case.solution.bound * 1e6, proven=False)
    receipt = write_receipt(case.policy, case.bounds, wild, case.batch, case.attention, case.catalog)
    assert check(case, receipt, exact=False) == ()
    value = np.sort(case.batch.utility + case.batch.bonus)[::-1][:12]
    assert receipt.bound <= float(case.attention @ value) + 1e-9


@pytest.mark.parametrize("text", [POLICY, UNREACHABLE])
def test_every_altered_page_is_rejected(make: Any, text: str) -> None:
    case = make(text, seed=1, slots=6)
    chosen, rng = case.solution.chosen, np.random.default_rng(0)
    for _ in range(200):
        altered = chosen.copy()
        if rng.random() < 0.5:
            a, b = rng.choice(len(altered), 2, replace=False)
            altered[[a, b]] = altered[[b, a]]
        else:
            altered[rng.integers(len(altered))] = rng.integers(len(case.batch))
        if (altered != chosen).any():
            assert check(case, chosen=altered, exact=False), altered
    assert check(case, chosen=chosen[:-1], exact=False)
    assert check(case, chosen=np.append(chosen[:-1], np.int32(10**6)), exact=False)


def test_bound_below_the_optimum_is_rejected(make: Any) -> None:
    """The second-best page is claimed to be the best; only solving again can detect it."""
    case = make("outlet: cn\ncontrols: [{id: a, action: quota, where: {kind: film}, at_least: 0.1}]", slots=6)
    value = case.batch.utility + case.batch.bonus
    worse = case.solution.chosen.copy()
    worse[-1] = np.argsort(-value)[6]
    page_value = float(case.attention @ value[worse])
    solution = replace(case.solution, chosen=worse, value=page_value, bound=page_value, proven=True)
    forgery = write_receipt(case.policy, case.bounds, solution, case.batch, case.attention, case.catalog)
    assert check(case, forgery, worse, exact=False) == ()
    assert [finding.where for finding in check(case, forgery, worse)] == ["bound", "price[0].play_equivalents"]


def test_unnecessary_relaxation_is_rejected(make: Any) -> None:
    case = make("outlet: cn\ncontrols: [{id: a, action: quota, where: {label: sport}, at_least: 0.5}]", slots=6)
    value = case.batch.utility + case.batch.bonus
    sport = case.bounds.member[0]
    order = np.argsort(-value)
    relaxed_page = np.concatenate([order[~sport[order]][:4], order[sport[order]][:2]])
    relaxed_page = relaxed_page[np.argsort(-value[relaxed_page])].astype(np.int32)
    page_value = float(case.attention @ value[relaxed_page])
    solution = replace(
        case.solution, chosen=relaxed_page, relaxed=np.array([1], np.int32), value=page_value, bound=100.0, proven=False
    )
    forgery = write_receipt(case.policy, case.bounds, solution, case.batch, case.attention, case.catalog)
    assert [finding.where for finding in check(case, forgery, relaxed_page)] == [
        "controls[0].cause",
        "controls[0].slack",
    ]


def test_prefix_minimum_credits_only_the_items_it_needs(make: Any) -> None:
    text = "outlet: cn\ncontrols: [{id: top, action: quota, where: {label: sport}, at_least: 2, prefixes: [5]}]"
    case = make(text, slots=10)
    (line,) = case.receipt.controls
    assert (line.required.at_least, line.required.first_slots) == (2, 5)
    sport = case.bounds.member[0, case.solution.chosen]
    assert sport[:5].sum() >= 2
    credited = [bool(case.policy.serving(case.bounds, case.solution.chosen, k)) for k in range(10)]
    assert credited == [bool(is_sport and sport[:k].sum() < 2) for k, is_sport in enumerate(sport)]


@pytest.mark.parametrize("limit", [2, 3, 9, 40, "0.9", "100%"])
def test_cap_reports_the_count_of_its_most_frequent_value(make: Any, limit: Any) -> None:
    """Three pins share a topic, so the page has at least three items of it."""
    pins = ", ".join(f"{{id: p{n}, action: pin, item: i{7 * n}, slot: {n}, priority: 9}}" for n in (1, 2, 3))
    text = f"outlet: cn\ncontrols: [{{id: cap, action: cap, attribute: topic, at_most: {limit}}}, {pins}]"
    for seed in range(3):
        case = make(text, seed=seed)
        [line] = [line for line in case.receipt.controls if line.id == "cap"]
        topics = [case.catalog.items[row].topic for row in case.batch.row[case.solution.chosen]]
        largest = max(topics.count(topic) for topic in topics)
        allowed = {"0.9": 10, "100%": 12, 40: 12}.get(limit, limit)
        assert (line.achieved, line.required.at_most) == (largest, allowed)
        assert largest >= 3
        assert line.slack == max(0, largest - allowed)
        assert f"at most {allowed} on the page: {largest}" in str(line.reason)
        assert check(case) == ()
        for forgery in ({"achieved": largest - 1}, {"required": line.required.model_copy(update={"at_most": None})}):
            forged = [
                control_line.model_copy(update=forgery) if control_line.id == "cap" else control_line
                for control_line in case.receipt.controls
            ]
            assert check(case, case.receipt.model_copy(update={"controls": tuple(forged)}), exact=False)


@pytest.mark.parametrize(
    ("control", "words"),
    [
        ("action: quota, where: {series: harvest}, at_least: 0.1",
         ""),
        ("action: quota, where: {label: commercial}, at_most: 0.1",
         "at most 0 on the page (earlier pages of this session: 4 in 12 slots)"),
        ("action: quota, where: {label: sport}, at_least: 0.5",
         "at least 9 on the page (earlier pages of this session: 3 in 12 slots)"),
        ("action: quota, where: {label: sport}, at_least: 0.5, prefixes: [4]",
         "at least 9 on the page (earlier pages of this session: 3 in 12 slots)"),
        ("action: cap, attribute: provider, at_most: 0.1",
         "at most 1 on the page (earlier pages of this session: 3 of the same value in 12 slots)"),
    ],
)  # fmt: skip
def test_receipt_reports_how_the_session_changes_a_requirement(make: Any, control: str, words: str) -> None:
    """Shares apply over all pages of a session, so a page may require more or less than the policy states."""
    text = f"outlet: cn\ncontrols: [{{id: a, {control}}}]"
    alone, later = make(text), make(text, shown=12)
    assert "session" not in str(alone.receipt.controls[0].reason)
    assert alone.receipt.controls[0].required.session is None
    [line] = later.receipt.controls
    assert words in str(line.reason)
    assert ("session" in str(line.reason)) == (line.required.session is not None) == bool(words), line
    assert check(later) == ()


def test_empty_page_is_explained_in_every_reason(make: Any) -> None:
    text = """
outlet: cn
controls:
  - {id: all, action: block, where: {kind: [film, article]}}
  - {id: a, action: quota, where: {label: sport}, at_least: 0.3}
  - {id: b, action: cap, attribute: topic, at_most: 3}
"""
    case = make(text)
    block, *lines = case.receipt.controls
    assert (block.id, block.status) == ("all", "met")
    assert [str(line.reason).split(",")[0] for line in lines] == ["nothing may be shown here now"] * 2
    assert check(case) == ()


def test_moves_by_weights_alone_have_the_cause_weights(make: Any) -> None:
    case = make("outlet: cn\nweights: {public_value: 0.5}")
    receipt = case.receipt
    assert receipt.moved
    assert {move.cause for move in receipt.moved} == {"weights"}
    assert receipt.utility < receipt.utility_without


def test_responsible_controls_are_decisive_for_their_moves() -> None:
    """Without the named controls, most moves disappear, and far more than without random controls."""
    rates = attributions(6)
    for kind, minimum in (("promoted", 75), ("held_back", 75)):
        assert rates[f"{kind}_items"] > 50
        assert rates[f"{kind}_decisive_pct"] >= max(minimum, 3 * rates[f"{kind}_random_controls_pct"])
