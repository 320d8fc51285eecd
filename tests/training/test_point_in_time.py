"""Training examples use no future events, and their features equal those of serving at the same time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from msgspec import structs

from features.columns import FEATURES, columns
from features.events.schema import ViewerEvent
from features.state.codec import decode_item, decode_viewer, encode_item, encode_viewer
from features.state.fold import deduplicate_and_fold, fold_item, fold_viewer
from features.state.item_columns import ItemColumns
from features.state.votes import LoggedEvent
from recsys.domain.catalog import Catalog
from recsys.domain.embeddings import Content
from recsys.domain.item_statistics import ItemState
from recsys.domain.placement import Placement, Screen, Surface
from recsys.domain.query import Query
from recsys.domain.types import ACTIONS
from recsys.domain.viewer import ViewerState
from recsys.guidance.compilation.compile import compile_policy
from recsys.models.bundle import Bundle
from recsys.models.probe import with_probe
from recsys.models.ranker import Predictor, Ranker, tensors
from recsys.models.retriever import Retriever
from recsys.models.served_model import ServedModel
from recsys.pipeline import Engine
from recsys.snapshot import ServingSnapshot
from training.candidate_generation import CandidateGenerator
from training.config import Als, Config
from training.decision_points import DecisionPoint, iter_decision_points
from training.examples import Rows, build_rows
from training.models import als
from training.run import fit
from training.state_replay import StateReplay
from training.timeline import Timeline, positive_row

MakeEvents = Callable[..., list[ViewerEvent]]
ALS = Als(factors=8, iterations=5)


@pytest.fixture(scope="module")
def timeline(make_events: MakeEvents) -> Timeline:
    return Timeline.of(make_events(viewers=60))


@pytest.fixture(scope="module")
def catalog(catalog: Catalog) -> Catalog:
    """Return the catalog with text vectors for most of its items."""
    vectors = np.random.default_rng(4).normal(size=(len(catalog) - 3, 16)).astype(np.float32)
    return replace(catalog, content=Content("test@1", vectors / np.linalg.norm(vectors, axis=1, keepdims=True)))


@pytest.fixture(scope="module")
def split(timeline: Timeline) -> float:
    return timeline.cut(0.5)


@pytest.fixture(scope="module")
def retriever(timeline: Timeline, catalog: Catalog, split: float) -> Retriever:
    return als.fit(als.interactions(timeline.before(split), catalog), ALS, seed=1)


def rewrite_future(timeline: Timeline, index: int, catalog: Catalog) -> Timeline:
    """Replace the items and actions of all events from `index` on."""
    rng = np.random.default_rng(index)
    later = [
        structs.replace(
            event,
            item_id=catalog.ids[rng.integers(len(catalog))],
            kind=("like", "dislike", "play", "hide")[rng.integers(4)],
        )
        for event in timeline.events[index:]
    ]
    return Timeline((*timeline.events[:index], *later))


def with_pauses(timeline: Timeline, pause_s: float) -> Timeline:
    """Insert a pause into each viewer's session, before the action with the viewer's number (modulo 30)."""
    later = []
    for event in timeline.events:
        viewer, action = (int(part) for part in event.id.removeprefix("e").split("-"))
        later.append(structs.replace(event, at=event.at + pause_s) if action >= viewer % 30 else event)
    return Timeline.of(later)


def are_equal(a: Rows, b: Rows) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in Rows.__annotations__)


@pytest.mark.parametrize("number", [0, 7, 30, 80, -1])
def test_rows_do_not_depend_on_events_from_the_decision_point_on(
    timeline: Timeline, catalog: Catalog, split: float, retriever: Retriever, small: Config, number: int
) -> None:
    point = iter_decision_points(timeline, catalog, split, timeline.end, small.examples)[number]
    changed = rewrite_future(timeline, point.index, catalog)
    assert changed.events != timeline.events
    rows = build_rows(timeline, catalog, retriever, [point], negatives=30, seed=3)
    assert are_equal(rows, build_rows(changed, catalog, retriever, [point], negatives=30, seed=3))


def test_fitted_models_do_not_depend_on_events_after_the_window(
    timeline: Timeline, catalog: Catalog, small: Config
) -> None:
    since, until = timeline.cut(0.6), timeline.cut(0.2)
    changed = rewrite_future(timeline, timeline.index(until), catalog)
    a, b = (fit(log, catalog, small, since, until) for log in (timeline, changed))
    assert np.array_equal(a.retriever.vectors, b.retriever.vectors)
    first, second = tensors(a.ranker.network), tensors(b.ranker.network)
    assert all(np.array_equal(first[name], second[name]) for name in first)
    third = tensors(fit(changed, catalog, small, since, timeline.end).ranker.network)
    assert not np.array_equal(first["head.weight"], third["head.weight"])  # a wider window does change the network


def test_a_decision_point_holds_exactly_the_actions_until_the_next_one(
    timeline: Timeline, catalog: Catalog, small: Config
) -> None:
    timeline = with_pauses(timeline, 2.0 * small.examples.session_gap_s)
    split, until = timeline.cut(0.5), timeline.cut(0.1)
    points = iter_decision_points(timeline, catalog, split, until, small.examples)
    inside = timeline.since(split)[: len(timeline.before(until)) - len(timeline.before(split))]
    ends = {"full": 0, "pause": 0}
    for viewer_id in {event.viewer_id for event in inside}:
        own = [point for point in points if point.event.viewer_id == viewer_id]
        actions = [event for event in inside if event.viewer_id == viewer_id]
        assert [row for point in own for row in point.actions] == [positive_row(event, catalog) for event in actions]
        expected: list[list[ViewerEvent]] = [[]]
        for event in actions:
            is_full = len(expected[-1]) == small.examples.session_actions
            is_after_pause = bool(expected[-1]) and event.at - expected[-1][-1].at > small.examples.session_gap_s
            if is_full or is_after_pause:
                ends["full" if is_full else "pause"] += 1
                expected.append([])
            expected[-1].append(event)
        assert [(point.event, list(point.actions)) for point in own] == [
            (events[0], [positive_row(event, catalog) for event in events]) for events in expected
        ]
    assert min(ends.values()) > 0, "decision points end by number of actions and by pause"
    assert all(timeline.events[point.index] is point.event for point in points)
    bits = {0b0111: "like", 0b0011: "complete", 0b1000: "dislike"}
    first = points[0]
    assert bits[first.actions[catalog.row_of[str(first.event.item_id)]]] == first.event.kind


def test_labels_are_the_viewers_actions_on_the_candidates(
    timeline: Timeline, catalog: Catalog, split: float, retriever: Retriever, small: Config
) -> None:
    points = iter_decision_points(timeline, catalog, split, timeline.end, small.examples)[:50]
    rows = build_rows(timeline, catalog, retriever, points, negatives=10**6, seed=3)
    assert (rows.weight == 1.0).all()  # no negatives are sampled away: every row represents itself
    replay, generator = StateReplay(timeline, catalog), CandidateGenerator(catalog, retriever)
    for number, point in enumerate(points):
        replay.advance(point.index)
        event = point.event
        viewer, stats = replay.viewer(event.viewer_id, event.at), replay.stats(event.at)
        proposed = generator.generate(event, event.at, viewer, stats, replay.acted(event.viewer_id)).row
        labels = rows.label[rows.point == number]
        assert len(labels) == len(proposed)
        expected = np.zeros(len(ACTIONS))
        for row, bits in point.actions.items():
            if row in proposed:
                expected += [bool(bits >> action & 1) for action in range(len(ACTIONS))]
        assert labels.sum(axis=0).tolist() == expected.tolist()


def online_states(events: list[ViewerEvent], viewer_id: str) -> tuple[ViewerState | None, list[ItemState]]:
    """Return the viewer and item states of the online store after a worker folded these events, through the codec."""
    logged = [LoggedEvent("viewer-events/0", offset, event) for offset, event in enumerate(events)]
    own = [entry for entry in logged if entry.event.viewer_id == viewer_id]
    viewer = decode_viewer(encode_viewer(fold_viewer(ViewerState(viewer_id), own))) if own else None
    viewer_ids = {event.viewer_id for event in events}
    counted = [
        weighted
        for each_id in viewer_ids
        for weighted in deduplicate_and_fold(
            ViewerState(each_id), [entry for entry in logged if entry.event.viewer_id == each_id]
        ).new_events
    ]
    counted.sort(key=lambda weighted: weighted.offset)
    items = []
    for item_id in sorted({str(entry.event.item_id) for entry in logged}):
        item_events = [weighted for weighted in counted if weighted.event.item_id == item_id]
        items.append(decode_item(encode_item(fold_item(ItemState(item_id), item_events))))
    return viewer, items


def untrained_model(retriever: Retriever) -> ServedModel:
    network = Ranker(len(FEATURES), len(ACTIONS))
    probe = np.zeros((1, len(FEATURES)), np.float32)
    bundle = Bundle(
        version="test",
        created_at=0.0,
        item_ids=retriever.item_ids,
        item_vectors=retriever.vectors,
        retriever_params={"regularization": ALS.regularization, "alpha": ALS.alpha},
        popularity=np.zeros(len(retriever.item_ids), np.float32),
        network=tensors(network),
        feature_names=FEATURES,
        probe_features=probe,
        probe_p=Predictor(network).p(probe),
        metrics={},
    )
    return ServedModel.load(with_probe(bundle), FEATURES)


def serve_page(
    point: DecisionPoint, timeline: Timeline, catalog: Catalog, retriever: Retriever
) -> dict[int, np.ndarray]:  # type: ignore[type-arg]
    """Return catalog row -> features of the page that the engine serves at this decision point."""
    event = point.event
    viewer, items = online_states(list(timeline.events[: point.index]), event.viewer_id)
    counts = ItemColumns(catalog)
    counts.merge(items)
    snapshot = ServingSnapshot.of(catalog, counts.at(event.at), untrained_model(retriever), compile_policy((), catalog))
    placement = Placement("cn.zj", Screen(str(event.screen)), Surface.HOME)
    query = Query("r1", event.viewer_id, placement, event.region, event.at, slots=40, guided=False)
    page = Engine(columns, candidates=10**6).run(query, viewer, snapshot)
    assert not [stage for stage in page.trace if stage.error]
    return {item.row: features for item, features in zip(page.items, page.features, strict=True)}


@pytest.mark.parametrize("number", [0, 11, 40, -1])
def test_training_features_equal_those_of_the_page_served_at_that_time(
    timeline: Timeline, catalog: Catalog, split: float, retriever: Retriever, small: Config, number: int
) -> None:
    """Compare stored states and the whole serving pipeline with the replay of the log."""
    point = iter_decision_points(timeline, catalog, split, timeline.end, small.examples)[number]
    replay, generator = StateReplay(timeline, catalog), CandidateGenerator(catalog, retriever)
    replay.advance(point.index)
    event = point.event
    viewer, stats = replay.viewer(event.viewer_id, event.at), replay.stats(event.at)
    candidates = generator.generate(event, event.at, viewer, stats, replay.acted(event.viewer_id))
    trained_on = dict(zip(candidates.row.tolist(), candidates.features, strict=True))
    page = serve_page(point, timeline, catalog, retriever)
    assert len(page) == 40
    for row, features in page.items():
        assert trained_on[row] == pytest.approx(features, rel=1e-5, abs=1e-6), catalog.ids[row]
