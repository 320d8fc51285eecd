"""Comparison of conditions: the result holds for the items of any catalog."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.guidance.policy.conditions import Condition, mask
from recsys.guidance.policy.inheritance import merge_policies, weakening_findings
from recsys.guidance.policy.policy import parse_policy
from recsys.guidance.policy.subsumption import subsumes

NAMES = {
    "label": ["news", "news/city", "news/politics", "sport", "public-service", "newsreel"],
    "outlet": ["cn", "cn.zj", "cn.zj.hz", "cn.z"],
    "region": ["cn.zj", "cn.zj.hz", "cn.js"],
    "kind": ["film", "article"],
    "language": ["zh", "en", "no"],
    "provider": ["p0", "p1", "p2"],
    "item": ["i0", "i1", "i2", "i3"],
}
TESTS = st.one_of(
    *(
        st.lists(st.sampled_from(names), min_size=1, max_size=2).map(lambda values, f=field: {f: values})
        for field, names in NAMES.items()
    ),
    st.sampled_from([0.25, 0.5, 0.75]).map(lambda value: {"axis": {"public_value": value}}),
    st.sampled_from([{"at_most": 12}, {"at_least": 12}, {"at_least": 0, "at_most": 18}]).map(
        lambda r: {"age_rating": r}
    ),
    st.just({"locality": "viewer"}),
)
CONDITIONS = st.recursive(
    st.lists(TESTS, min_size=1, max_size=2).map(lambda tests: {k: v for test in tests for k, v in test.items()}),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"any": parts}),
        st.lists(inner, min_size=1, max_size=2).map(lambda parts: {"all": parts}),
        inner.map(lambda part: {"not": part}),
    ),
    max_leaves=4,
)


@settings(max_examples=600, deadline=None)
@given(first=CONDITIONS, second=CONDITIONS, third=CONDITIONS)
def test_a_wider_condition_holds_for_every_item_of_the_narrower(shop: Any, first: Any, second: Any, third: Any) -> None:
    for wide, narrow in (
        (first, second), ({"any": [first, second]}, first), ({"any": [first, second]}, {"all": [first, third]}),
        ({"not": {"all": [first, second]}}, {"not": first}), ({"any": [first, third]}, {"any": [third, second]}),
    ):  # fmt: skip
        a, b = Condition.model_validate(wide), Condition.model_validate(narrow)
        if subsumes(a, b):
            assert not (mask(b, shop, "cn.zj.hz") & ~mask(a, shop, "cn.zj.hz")).any(), (wide, narrow)


@settings(max_examples=200, deadline=None)
@given(first=CONDITIONS, second=CONDITIONS)
def test_an_added_alternative_makes_a_condition_wider(first: Any, second: Any) -> None:
    narrow = Condition.model_validate(first)
    for wide in (
        {"any": [first, second]},
        {"any": [{"any": [second, first]}, second]},
        {"not": {"all": [{"not": first}, second]}},
    ):
        if "not" not in wide:
            assert subsumes(Condition.model_validate(wide), narrow)
    assert subsumes(narrow, Condition.model_validate({"all": [second, first]}))
    assert subsumes(
        Condition.model_validate({"any": [second, first]}), Condition.model_validate({"any": [first, second]})
    )


@pytest.mark.parametrize(
    ("parent", "child", "wider"),
    [
        ("{label: commercial/cars}", "{any: [{label: commercial/cars}, {item: i3}]}", True),
        ("{label: commercial/cars}", "{label: [commercial/cars, sport]}", True),
        ("{label: commercial/cars}", "{label: commercial}", True),
        ("{label: commercial}", "{label: commercial/cars}", False),
        ("{label: news}", "{label: newsreel}", False),
        ("{label: newsreel}", "{label: news}", False),
        ("{label: news}", "{label: sport}", False),
        ("{label: news, kind: film}", "{label: news}", True),
        ("{label: news}", "{label: news, kind: film}", False),
        ("{axis: {q: 0.5}}", "{axis: {q: 0.3}}", True),
        ("{axis: {q: 0.3}}", "{axis: {q: 0.5}}", False),
        ("{not: {label: news}}", "{not: {label: news/city}}", True),
        ("{not: {label: news/city}}", "{not: {label: news}}", False),
        ("{age_rating: {at_least: 18}}", "{age_rating: {at_least: 16}}", True),
    ],
)
def test_a_child_may_widen_a_firm_block_and_not_narrow_it(parent: str, child: str, wider: bool) -> None:
    """A wider block is added to the parent's; a narrower block is ignored, and lint suggests how to widen it."""
    line = [
        parse_policy(
            f"outlet: {outlet}\ncontrols: [{{id: off, action: block, where: {where}, enforcement: mandatory}}]"
        )
        for outlet, where in (("cn", parent), ("cn.zj", child))
    ]
    controls = [(o.control.id, o.outlet) for o in merge_policies(line).controls]
    assert controls == ([("off@cn", "cn"), ("off", "cn.zj")] if wider else [("off", "cn")])
    reported = [finding.message for finding in weakening_findings(line)]
    assert [
        ("its condition may only be widened: any: [the parent's condition, ...]" in message) for message in reported
    ] == [True] * (not wider)
