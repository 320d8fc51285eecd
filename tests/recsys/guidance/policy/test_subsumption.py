"""Whether a condition is wider than another: what is told from words holds for the items of any catalogue."""

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
        st.lists(st.sampled_from(names), min_size=1, max_size=2).map(lambda said, f=field: {f: said})
        for field, names in NAMES.items()
    ),
    st.sampled_from([0.25, 0.5, 0.75]).map(lambda least: {"axis": {"public_value": least}}),
    st.sampled_from([{"at_most": 12}, {"at_least": 12}, {"at_least": 0, "at_most": 18}]).map(
        lambda r: {"age_rating": r}
    ),
    st.just({"locality": "viewer"}),
)
SAID = st.recursive(
    st.lists(TESTS, min_size=1, max_size=2).map(lambda tests: {k: v for test in tests for k, v in test.items()}),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"any": parts}),
        st.lists(inner, min_size=1, max_size=2).map(lambda parts: {"all": parts}),
        inner.map(lambda part: {"not": part}),
    ),
    max_leaves=4,
)


@settings(max_examples=600, deadline=None)
@given(one=SAID, other=SAID, third=SAID)
def test_what_covers_holds_for_every_item_for_which_the_covered_holds(
    shop: Any, one: Any, other: Any, third: Any
) -> None:
    for wide, narrow in (
        (one, other), ({"any": [one, other]}, one), ({"any": [one, other]}, {"all": [one, third]}),
        ({"not": {"all": [one, other]}}, {"not": one}), ({"any": [one, third]}, {"any": [third, other]}),
    ):  # fmt: skip
        a, b = Condition.model_validate(wide), Condition.model_validate(narrow)
        if subsumes(a, b):
            assert not (mask(b, shop, "cn.zj.hz") & ~mask(a, shop, "cn.zj.hz")).any(), (wide, narrow)


@settings(max_examples=200, deadline=None)
@given(one=SAID, other=SAID)
def test_with_more_ways_to_hold_a_condition_is_wider(one: Any, other: Any) -> None:
    narrow = Condition.model_validate(one)
    for wide in (
        {"any": [one, other]},
        {"any": [{"any": [other, one]}, other]},
        {"not": {"all": [{"not": one}, other]}},
    ):
        if "not" not in wide:
            assert subsumes(Condition.model_validate(wide), narrow)
    assert subsumes(narrow, Condition.model_validate({"all": [other, one]}))
    assert subsumes(Condition.model_validate({"any": [other, one]}), Condition.model_validate({"any": [one, other]}))


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
    """Wider, it stands beside the parent's own; else the parent's stands alone, and lint says what may be said."""
    line = [
        parse_policy(
            f"outlet: {outlet}\ncontrols: [{{id: off, action: block, where: {where}, enforcement: mandatory}}]"
        )
        for outlet, where in (("cn", parent), ("cn.zj", child))
    ]
    controls = [(o.control.id, o.outlet) for o in merge_policies(line).controls]
    assert controls == ([("off@cn", "cn"), ("off", "cn.zj")] if wider else [("off", "cn")])
    told = [finding.message for finding in weakening_findings(line)]
    assert [
        ("its condition may only be widened: any: [the parent's condition, ...]" in message) for message in told
    ] == [True] * (not wider)
