"""Sessions over many pages: nothing comes twice, every eligible item comes, then the session ends."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.columns import columns
from recsys.candidates import sources
from recsys.domain.catalog import Catalog
from recsys.domain.item import Item
from recsys.domain.item_statistics import ItemStats
from recsys.domain.placement import Placement, Screen, Surface
from recsys.domain.query import MAX_RECENT_ITEMS, Query
from recsys.domain.types import ACTIONS
from recsys.domain.viewer import ViewerState
from recsys.guidance.compilation.compile import compile_policy
from recsys.guidance.policy.policy import parse_policy
from recsys.pipeline import Engine
from recsys.snapshot import ServingSnapshot
from serving.schemas.tokens import PageToken, Tokens
from tests.conftest import scaled
from tests.recsys.conftest import NOW, assert_no_stage_failed, item

ENGINE = Engine(columns, solve_s=1.0)
TOKENS = Tokens(b"a secret of this test")
CONTROLS = [
    {"id": "public", "action": "quota", "where": {"label": "public-service"}, "at_least": 0.3, "prefixes": "every"},
    {"id": "no-ads", "action": "block", "where": {"label": "commercial"}},
    {"id": "one-topic", "action": "cap", "attribute": "topic", "at_most": 2},
    {"id": "apart", "action": "spacing", "attribute": "topic", "at_most": 1, "within": 3},
]


def query(slots: int, guided: bool) -> Query:
    placement = Placement("cn.zj", Screen.MOBILE, Surface.HOME)
    return Query("r", "v", placement, "cn.zj.hz", NOW.timestamp(), slots, guided=guided)


def snapshot_of(items: list[Item], controls: list[dict[str, object]], plays: np.ndarray) -> ServingSnapshot:
    catalog = Catalog.of(items)
    count = np.repeat(plays[:, None], len(ACTIONS), axis=1).astype(np.float32)
    stats = ItemStats(count, plays.astype(np.float32), {"cn.zj": plays.astype(np.float32)})
    policy = compile_policy([parse_policy(json.dumps({"outlet": "cn.zj", "controls": controls}))], catalog)
    return ServingSnapshot.of(catalog, stats, None, policy)


def session(request: Query, snapshot: ServingSnapshot, viewer: ViewerState | None = None) -> tuple[list[str], int]:
    """Return the ids of all items of a session, page after page until the page token is null, and the longest token."""
    shown: list[str] = []
    longest = 0
    for _ in range(len(snapshot.catalog) // request.slots + 2):
        page = ENGINE.run(request, viewer, snapshot)
        assert_no_stage_failed(page)
        ids = [slot.item_id for slot in page.items]
        shown += ids
        if len(ids) < request.slots:
            return shown, longest
        recent, before = request.after(ids, snapshot.catalog)
        text = TOKENS.write_page_token(PageToken("p", "v", recent, 1, request.now, before))
        token = TOKENS.read_page_token(text, placement="p", viewer_id="v", now=request.now)
        request, longest = replace(request, shown=token.shown, shown_before=token.shown_before), max(longest, len(text))
        assert request.n_shown == len(shown)
    raise AssertionError("the session does not end")


def may_be_shown(item: Item, guided: bool, blocks: bool) -> bool:
    blocked = guided and blocks and "commercial" in item.labels
    return item.status == "published" and item.published_at <= NOW and item.age_rating < 18 and not blocked


@settings(max_examples=scaled(500, minimum=6))
@given(
    count=st.integers(1, 300),
    future=st.integers(0, 300),
    slots=st.integers(5, 50),
    guided=st.booleans(),
    chosen=st.lists(st.sampled_from(CONTROLS), unique_by=lambda control: str(control["id"])),
    seed=st.integers(0, 2**20),
)
def test_a_session_shows_every_eligible_item_once(
    count: int, future: int, slots: int, guided: bool, chosen: list[dict[str, object]], seed: int
) -> None:
    """This holds with and without guidance, and with many items that are not published yet."""
    items = [item(n) for n in range(count)]
    items += [
        item(n).model_copy(update={"published_at": NOW + timedelta(days=1)}) for n in range(count, count + future)
    ]
    rng = np.random.default_rng(seed)
    snapshot = snapshot_of(items, chosen, rng.exponential(1, len(items)) * (rng.random(len(items)) < 0.5))
    shown, _ = session(query(slots, guided), snapshot)
    blocks = any(control["action"] == "block" for control in chosen)
    expected = {each.id for each in items if may_be_shown(each, guided, blocks)}
    assert len(shown) == len(set(shown))
    assert set(shown) == expected


@pytest.mark.parametrize("guided", [True, False])
def test_a_session_shows_a_catalog_of_ten_thousand_items(guided: bool) -> None:
    plain = item(0)
    items = [
        plain.model_copy(update={"id": f"item-{n:05}", "topic": f"t{n % 7}", "published_at": NOW - timedelta(hours=n)})
        for n in range(10_000)
    ]
    controls: list[dict[str, object]] = [{"id": "one-topic", "action": "cap", "attribute": "topic", "at_most": 10}]
    snapshot = snapshot_of(items, controls, np.arange(10_000.0))
    shown, longest = session(query(50, guided), snapshot)
    assert len(shown) == len(set(shown)) == 10_000
    assert longest < 4 * (10_000 / 8 + 12 * MAX_RECENT_ITEMS) / 3


def test_sources_are_cut_after_eligibility() -> None:
    """The most popular and newest items are seen, hidden, blocked or unpublished; each source fills up with others."""
    count = 1_500
    items = []
    for n in range(count):
        update = {
            "id": f"i{n}",
            "labels": ("commercial",) if n < 300 else ("plain",),
            "published_at": NOW + timedelta(hours=1) if n < 150 else NOW - timedelta(minutes=n),
        }
        items.append(item(0).model_copy(update=update))
    snapshot = snapshot_of(items, [CONTROLS[1]], np.arange(count, 0.0, -1.0))
    viewer = ViewerState("v", hidden={f"i{n}": 1.0 for n in range(300, 450)})
    request = replace(query(10, True), shown=tuple(f"i{n}" for n in range(450, 600)))
    page = ENGINE.run(request, viewer, snapshot)
    assert_no_stage_failed(page)
    out = {stage.name: stage.candidates_out - 600 for stage in page.trace if stage.name in sources.SOURCES}
    assert (out["popular"], out["newest"]) == (sources.POPULAR, sources.NEWEST)
    assert next(s for s in page.trace if s.name == "segment").candidates_out == sources.SEGMENT
    assert [slot.item_id for slot in page.items] == [f"i{n}" for n in range(600, 610)]
