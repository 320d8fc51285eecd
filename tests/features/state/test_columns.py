"""Features: rows are independent, values are finite for any input, and each feature has its documented value."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from features.columns import FEATURES, columns
from features.events.schema import KINDS, ViewerEvent
from features.state.fold import fold_viewer
from features.state.votes import LoggedEvent
from recsys.domain.catalog import Catalog
from recsys.domain.decay import FAST_HALF_LIFE_S, HALF_LIFE_S
from recsys.domain.embeddings import Content
from recsys.domain.item import Item
from recsys.domain.item_statistics import ItemStats
from recsys.domain.placement import Screen
from recsys.domain.types import ACTIONS
from recsys.domain.viewer import Position, Recent, Session, ViewerState

NOW = datetime(2026, 3, 1, tzinfo=UTC).timestamp()
IDS = [f"i{n}" for n in range(8)]


def catalog() -> Catalog:
    """Return eight items, the last two without embeddings."""
    vectors = np.random.default_rng(4).normal(size=(6, 48)).astype(np.float32)
    content = Content("test@1", vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    return replace(items(), content=content)


def items() -> Catalog:
    return Catalog.of(
        Item.model_validate(
            {
                "id": item_id,
                "title": {"en": item_id},
                "outlet": ["cn", "cn.zj"][n % 2],
                "labels": [["film/drama"], ["news", "film/comedy"], []][n % 3],
                "series": ["", "s"][n % 2],
                "region": [None, "cn.zj.hz", "cn.sh"][n % 3],
                "kind": ["film", "live"][n % 2],
                "axes": [{"public_value": 0.6, "locality": 0.8}, {"public_value": 0.5}, {}][n % 3],
                "formats": [["landscape"], ["landscape", "portrait"], ["audio"], ["text"]][n % 4],
                "published_at": datetime(2026, 2, 1 + n, tzinfo=UTC),
            }
        )
        for n, item_id in enumerate(IDS)
    )


def stats(seed: int = 0) -> ItemStats:
    rng = np.random.default_rng(seed)
    count = rng.exponential(5, (len(IDS), len(ACTIONS))).astype(np.float32)
    return ItemStats(count, count[:, 0], {"cn.zj.hz": count[:, 1]})


viewers = st.none() | st.lists(
    st.tuples(st.sampled_from([*IDS, "gone"]), st.sampled_from(["play", "like", "dislike", "hide"]), st.floats(0, NOW)),
    max_size=12,
).map(lambda actions: ViewerState("v", tuple(Recent(*action) for action in actions), shown={"i1": (3, (1.0,))}))


def features_of(rows: list[int], viewer: ViewerState | None, affinity: float = 0.5, seed: int = 0) -> np.ndarray:
    row = np.array(rows, np.int32)
    match = np.full(len(rows), affinity, np.float32)
    return columns(row, match, viewer, catalog(), stats(seed), NOW, "cn.zj.hz", "tv")


def column(table: np.ndarray, name: str) -> list[float]:
    return [round(float(x), 4) for x in table[:, FEATURES.index(name)]]


@given(viewers, st.lists(st.integers(0, len(IDS) - 1), max_size=8))
def test_each_row_depends_on_its_own_item_only(viewer: ViewerState | None, rows: list[int]) -> None:
    together = features_of(rows, viewer)
    assert together.shape == (len(rows), len(FEATURES))
    assert np.isfinite(together).all()
    for n, row in enumerate(rows):
        np.testing.assert_array_equal(together[n], features_of([row], viewer)[0])


def test_label_match_decays_with_age() -> None:
    liked = ViewerState("v", (Recent("i0", "like", NOW),))
    assert column(features_of([0, 1, 3], liked), "label_match") == [1.0, 0.0, 1.0]
    both = ViewerState("v", (Recent("i0", "like", NOW - 2 * HALF_LIFE_S), Recent("i1", "like", NOW)))
    assert column(features_of([0, 1], both), "label_match") == [0.25, 1.0]


def test_dislikes_count_by_label_and_outlets_as_shares() -> None:
    viewer = ViewerState("v", (Recent("i0", "dislike", NOW), Recent("i1", "like", NOW), Recent("i3", "play", NOW)))
    assert column(features_of([0, 3, 1], viewer), "label_dislike") == [1.0, 1.0, 0.0]
    assert column(features_of([1, 2], viewer), "same_outlet") == [1.0, 0.0]
    assert column(features_of([1, 2], viewer), "same_series") == [1.0, 0.0]


def test_axis_kind_and_format_match_liked_items() -> None:
    single = ViewerState("v", (Recent("i0", "play", NOW),))
    assert column(features_of([0, 1, 2, 3], single), "axis_match") == [1.0, 0.6, 0.0, 1.0]
    without_axes = ViewerState("v", (Recent("i2", "play", NOW),))
    assert not any(column(features_of([0, 1, 2], without_axes), "axis_match"))

    both = ViewerState("v", (Recent("i0", "like", NOW - HALF_LIFE_S), Recent("i7", "like", NOW)))  # weights 1/3 and 2/3
    mean = np.array([0.6 + 2 * 0.5, 0.8]) / 3
    expected = [float(axes @ mean / np.linalg.norm(mean)) for axes in (np.array([0.6, 0.8]), np.array([1.0, 0.0]))]
    assert column(features_of([0, 1], both), "axis_match") == [round(cosine, 4) for cosine in expected]
    assert column(features_of([0, 1, 2], both), "same_kind") == [0.3333, 0.6667, 0.3333]
    assert column(features_of([0, 1, 2, 3], both), "format_match") == [0.3333, 0.3333, 0.0, 0.6667]
    extended = structs.replace(both, recent=(*both.recent, Recent("i5", "like", NOW)))  # landscape and portrait
    assert column(features_of([0, 1, 3], extended), "format_match") == [
        0.6,
        0.6,
        0.4,
    ]  # the most frequent format counts

    disliked = ViewerState("v", (Recent("i0", "dislike", NOW), Recent("i3", "play", NOW)))
    assert column(features_of([0, 1], disliked), "same_kind") == [0.0, 1.0]
    assert column(features_of([0, 3], disliked), "format_match") == [0.0, 1.0]
    for name in ("axis_match", "same_kind", "format_match"):
        assert not any(column(features_of([0, 1, 2], None), name))
        assert not any(column(features_of([0, 1, 2], ViewerState("v", (Recent("i0", "dislike", NOW),))), name))


def test_the_latest_rating_of_an_item_counts() -> None:
    liked_last = ViewerState("v", (Recent("i0", "dislike", NOW), Recent("i0", "like", NOW)))
    disliked_last = ViewerState("v", (Recent("i0", "like", NOW), Recent("i0", "dislike", NOW)))
    first, last = features_of([0], liked_last), features_of([0], disliked_last)
    for name in ("label_match", "same_outlet", "axis_match", "same_kind", "format_match"):
        assert (column(first, name), column(last, name)) == ([1.0], [0.0]), name
    assert (column(first, "label_dislike"), column(last, "label_dislike")) == ([0.0], [1.0])


def test_columns_are_only_ever_added_at_the_end() -> None:
    """Recorded pages and models of older engines depend on these positions and names. Append new names here as well."""
    expected = """\
affinity log_popularity relative_popularity like_rate complete_rate dislike_rate hide_rate visit_rate trend
log_local_popularity screen_share label_match label_dislike label_skipped same_outlet same_series outlet_affinity
log_age_d log_duration_min shown_before progress history satisfaction screen_affinity hour_affinity
session_actions skip_rate is_live is_local on_tv on_mobile content_match
axis_match same_kind format_match
"""
    assert " ".join(FEATURES) == " ".join(expected.split())


def test_content_match_is_zero_without_embeddings() -> None:
    liked = ViewerState("v", (Recent("i0", "like", NOW), Recent("i1", "dislike", NOW), Recent("i7", "like", NOW)))
    vectors = catalog().content.vectors
    assert column(features_of([0, 1, 5, 7], liked), "content_match") == [
        round(float(x), 4) for x in [1.0, *vectors[[1, 5]] @ vectors[0], 0.0]
    ]
    assert not any(column(features_of([0, 5], None), "content_match"))
    rows = np.arange(8, dtype=np.int32)
    without_vectors = columns(rows, np.zeros(8, np.float32), liked, items(), stats(), NOW, "cn", "tv")
    assert not any(column(without_vectors, "content_match"))


def test_context_and_locality() -> None:
    table = features_of([0, 1, 2], None)
    assert column(table, "on_tv") == [1, 1, 1]
    assert column(table, "on_mobile") == [0, 0, 0]
    assert column(table, "is_local") == [0, 1, 0]
    assert column(table, "is_live") == [0, 1, 0]


def test_rates_are_shrunk_towards_the_mean() -> None:
    counts = ItemStats(np.zeros((len(IDS), len(ACTIONS)), np.float32), np.zeros(len(IDS), np.float32))
    counts.count[0] = [1, 0, 1, 0]
    counts.count[1] = [100, 0, 0, 0]
    rate = columns(np.array([0, 1, 2], np.int32), np.zeros(3, np.float32), None, catalog(), counts, NOW, "cn", "tv")
    lucky, proven, unknown = column(rate, "like_rate")
    assert proven < unknown < lucky < 0.06


def any_event(chance: random.Random, id: str) -> ViewerEvent:
    return ViewerEvent(
        id=id,
        kind=chance.choice(KINDS),
        viewer_id="v",
        item_id=chance.choice(IDS),
        at=NOW + chance.choice([-1e6, -10.0, 0.0, 50.0]),
        position_s=chance.choice([0.0, 9e6]),
        duration_s=chance.choice([None, 0.0, 60.0]),
        screen=chance.choice([None, Screen.TV]),
        placement=chance.choice(["", "cn.zj-tv-home"]),
        items=tuple(IDS[:2]),
    )


@given(st.integers(0, 10**6), st.sampled_from([0.0, 1.0, NOW, NOW + 60.0, NOW + 10**9]))
def test_every_column_is_finite_for_any_folded_events(seed: int, now: float) -> None:
    chance = random.Random(seed)
    events = [LoggedEvent("t/0", n, any_event(chance, f"e{n}")) for n in range(chance.randrange(12))]
    viewer = fold_viewer(ViewerState("v"), events)
    rows = np.arange(len(IDS), dtype=np.int32)
    table = columns(rows, np.zeros(len(IDS), np.float32), viewer, catalog(), stats(seed), now, "cn.zj.hz", "tv")
    assert np.isfinite(table).all()
    for share in (
        "screen_affinity",
        "hour_affinity",
        "outlet_affinity",
        "skip_rate",
        "progress",
        "satisfaction",
        "axis_match",
        "same_kind",
        "format_match",
    ):
        assert (table[:, FEATURES.index(share)] >= 0).all()
        assert (table[:, FEATURES.index(share)] <= 1).all()


def test_viewer_features_have_their_documented_values() -> None:
    weight = {"tv": 3.0, "web": 1.0}
    viewer = ViewerState(
        "v",
        positions={"i0": Position(30.0, 120.0, NOW, finished=False), "i1": Position(119.0, 120.0, NOW, finished=True)},
        screens=weight,
        hours={0: 1.0, 12: 3.0},  # NOW is midnight
        outlets={"cn": 1.0, "cn.zj": 4.0, "elsewhere": 5.0},
        session=Session("s", NOW - 60, NOW - 5, 6, "i1", NOW, skipped=("i0",), watched=("i1", "i2", "i4")),
    )
    table = features_of([0, 1], viewer)
    assert column(table, "screen_affinity") == [0.75, 0.75]
    assert column(table, "hour_affinity") == [0.25, 0.25]
    assert column(table, "outlet_affinity") == [0.1, 0.4]
    assert column(table, "progress") == [0.25, 0]
    assert column(table, "skip_rate") == [0.125, 0.125]
    assert column(table, "label_skipped") == [1.0, 0.0]
    assert column(table, "session_actions") == [round(float(np.log(7)), 4)] * 2
    old_session = structs.replace(viewer, session=Session(at=NOW - 7200, actions=6))
    assert column(features_of([0], old_session), "session_actions") == [0]


def test_trend_and_hide_rate_reflect_visits_and_hides() -> None:
    statistics = replace(
        stats(),
        visits=np.full(len(IDS), 100.0, np.float32),
        recent=np.array([50.0, 100 * FAST_HALF_LIFE_S / HALF_LIFE_S, 0, 0, 0, 0, 0, 0], np.float32),
        impressions=np.full(len(IDS), 1000.0, np.float32),
        hides=np.array([100.0, *[0.0] * (len(IDS) - 1)], np.float32),
    )
    rows = np.array([0, 1, 2], np.int32)
    table = columns(rows, np.zeros(3, np.float32), None, catalog(), statistics, NOW, "cn", "tv")
    rising, steady, resting = column(table, "trend")
    assert rising > steady == 0 > resting
    hidden, shown, _ = column(table, "hide_rate")
    assert hidden == round((100 + 200 * 0.0125) / 1200, 4)
    assert shown == round(200 * 0.0125 / 1200, 4)
