"""Eligibility: the columns agree with a rule for single items, and drop reasons are counted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.distribution.eligibility import UNKNOWN_AGE, first_match, ineligible
from recsys.distribution.layouts import LAYOUTS, SLOTS_MAX, screen_layout
from recsys.domain.catalog import Catalog
from recsys.domain.item import Item
from recsys.domain.placement import Placement, Screen, Surface
from recsys.domain.query import Query
from recsys.domain.regions import within
from recsys.domain.trace import DropReason
from recsys.domain.viewer import Position, ViewerState

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOURS = [-48, -1, 0, 1, 48]


def query(screen: Screen = Screen.MOBILE, region: str = "cn.zj.hz", age: int | None = None, **fields: object) -> Query:
    placement = Placement("cn.zj", screen, Surface.HOME)
    return Query("r", "v", placement, region, NOW.timestamp(), 5, age=age, **fields)  # type: ignore[arg-type]


@st.composite
def items(draw: st.DrawFn) -> Item:
    def draw_time() -> datetime:
        return NOW + timedelta(hours=draw(st.sampled_from(HOURS)))

    windows = []
    for _ in range(draw(st.integers(0, 2))):
        start = draw(st.sampled_from([None, *HOURS]))
        length = draw(st.sampled_from([None, 1, 47, 49]))
        start_at = NOW + timedelta(hours=start) if start is not None else None
        windows.append(
            {
                "start": start_at,
                "until": (start_at or NOW) + timedelta(hours=length) if length else None,
                "regions": draw(st.sampled_from([[], ["cn.zj"], ["cn.sh"]])),
                "screens": draw(st.sampled_from([[], ["tv"], ["mobile", "car"]])),
            }
        )
    return Item.model_validate(
        {
            "id": draw(st.uuids()).hex,
            "title": {"zh": "甲"},
            "outlet": "cn",
            "rights": windows,
            "formats": draw(st.sampled_from([["landscape"], ["audio"], ["portrait", "text"]])),
            "status": draw(st.sampled_from(["published", "published", "review", "withdrawn"])),
            "age_rating": draw(st.sampled_from([0, 12, 18])),
            "published_at": draw_time(),
        }
    )


def may_be_shown(item: Item, q: Query) -> bool:
    """Return whether the item is eligible, by the rule for a single item."""
    open_windows = [
        w
        for w in item.rights
        if (w.start is None or w.start <= NOW)
        and (w.until is None or w.until > NOW)
        and (not w.regions or any(within(q.region, r) for r in w.regions))
        and (not w.screens or q.placement.screen in w.screens)
    ]
    return (
        item.status == "published"
        and item.published_at <= NOW
        and (not item.rights or bool(open_windows))
        and bool(set(item.formats) & set(screen_layout(q.placement.screen).formats))
        and item.age_rating <= (UNKNOWN_AGE if q.age is None else q.age)
    )


@given(
    st.lists(items(), min_size=1, max_size=10),
    st.sampled_from(list(Screen)),
    st.sampled_from(["cn.zj.hz", "cn.sh", "cn.zjx"]),
    st.sampled_from([None, 8, 30]),
)
def test_columns_agree_with_the_rule_for_single_items(
    listed: list[Item], screen: Screen, region: str, age: int | None
) -> None:
    catalog, q = Catalog.of(listed), query(screen, region, age)
    rows = np.arange(len(catalog), dtype=np.int32)
    keep, counts = first_match(ineligible(catalog, rows, q, None))
    assert keep.tolist() == [may_be_shown(item, q) for item in catalog.items]
    assert keep.sum() + sum(counts.values()) == len(rows)


def plain(item_id: str) -> Item:
    return Item(id=item_id, title={"zh": "甲"}, outlet="cn", published_at=NOW)


def test_shown_finished_and_hidden_items_are_not_shown_again() -> None:
    catalog = Catalog.of(map(plain, ["shown", "finished", "liked", "hidden", "started", "new"]))
    viewer = ViewerState(
        "v",
        positions={"started": Position(9, 100, 1.0, False)},
        finished_at={"finished": 1.0, "liked": 2.0},
        hidden={"hidden": 1.0},
    )
    rows = np.arange(6, dtype=np.int32)
    keep, counts = first_match(ineligible(catalog, rows, query(shown=("shown", "unknown")), viewer))
    assert [catalog.ids[row] for row in rows[keep]] == ["started", "new"]
    assert counts == {DropReason.SEEN: 3, DropReason.HIDDEN: 1}


def test_a_live_channel_is_never_finished_but_can_be_hidden() -> None:
    live = [plain(item_id).model_copy(update={"kind": "live"}) for item_id in ("liked", "unloved")]
    viewer = ViewerState("v", finished_at={"liked": 1.0, "unloved": 1.0}, hidden={"unloved": 1.0})
    keep, counts = first_match(ineligible(Catalog.of(live), np.arange(2, dtype=np.int32), query(), viewer))
    assert keep.tolist() == [True, False]
    assert counts == {DropReason.HIDDEN: 1}


@pytest.mark.parametrize("screen", list(Screen))
def test_attention_starts_at_one_and_never_rises(screen: Screen) -> None:
    attention = LAYOUTS[screen].attention(SLOTS_MAX)
    assert attention[0] == 1.0
    assert (np.diff(attention) <= 0).all()
    assert (attention > 0).all()
