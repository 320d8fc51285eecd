"""Nothing of the future gets into an example, and features are those that serving would have used."""

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
    """The catalogue with text vectors for most of its items."""
    vectors = np.random.default_rng(4).normal(size=(len(catalog) - 3, 16)).astype(np.float32)
    return replace(catalog, content=Content("test@1", vectors / np.linalg.norm(vectors, axis=1, keepdims=True)))


@pytest.fixture(scope="module")
def split(timeline: Timeline) -> float:
    return timeline.cut(0.5)


@pytest.fixture(scope="module")
def retriever(timeline: Timeline, catalog: Catalog, split: float) -> Retriever:
    return als.fit(als.interactions(timeline.before(split), catalog), ALS, seed=1)


def rewritten(timeline: Timeline, index: int, catalog: Catalog) -> Timeline:
    """Another history from `index` on: other items, other actions, nobody left out."""
    chance = np.random.default_rng(index)
    later = [
        structs.replace(
            event,
            item_id=catalog.ids[chance.integers(len(catalog))],
            kind=("like", "dislike", "play", "hide")[chance.integers(4)],
        )
        for event in timeline.events[index:]
    ]
    return Timeline((*timeline.events[:index], *later))


def with_pauses(timeline: Timeline, pause_s: float) -> Timeline:
    """The history with a pause of each viewer, before the action that has the viewer's number (modulo 30)."""
    later = []
    for event in timeline.events:
        viewer, action = (int(part) for part in event.id.removeprefix("e").split("-"))
        later.append(structs.replace(event, at=event.at + pause_s) if action >= viewer % 30 else event)
    return Timeline.of(later)


def same(one: Rows, other: Rows) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in Rows.__annotations__)


@pytest.mark.parametrize("number", [0, 7, 30, 80, -1])
def test_neither_the_moment_itself_nor_anything_later_is_seen_in_its_features(
    timeline: Timeline, catalog: Catalog, split: float, retriever: Retriever, small: Config, number: int
) -> None:
    moment = iter_decision_points(timeline, catalog, split, timeline.end, small.examples)[number]
    other = rewritten(timeline, moment.index, catalog)
    assert other.events != timeline.events
    one = build_rows(timeline, catalog, retriever, [moment], negatives=30, seed=3)
    assert same(one, build_rows(other, catalog, retriever, [moment], negatives=30, seed=3))


def test_what_comes_after_the_window_changes_nothing_that_was_learned(
    timeline: Timeline, catalog: Catalog, small: Config
) -> None:
    since, until = timeline.cut(0.6), timeline.cut(0.2)
    other = rewritten(timeline, timeline.index(until), catalog)
    one, two = (fit(log, catalog, small, since, until) for log in (timeline, other))
    assert np.array_equal(one.retriever.vectors, two.retriever.vectors)
    first, second = tensors(one.ranker.network), tensors(two.ranker.network)
    assert all(np.array_equal(first[name], second[name]) for name in first)
    third = tensors(fit(other, catalog, small, since, timeline.end).ranker.network)
    assert not np.array_equal(first["head.weight"], third["head.weight"])  # the law can tell


def test_a_moment_holds_exactly_what_its_viewer_did_until_the_next(
    timeline: Timeline, catalog: Catalog, small: Config
) -> None:
    timeline = with_pauses(timeline, 2.0 * small.examples.session_gap_s)
    split, until = timeline.cut(0.5), timeline.cut(0.1)
    found = iter_decision_points(timeline, catalog, split, until, small.examples)
    inside = timeline.since(split)[: len(timeline.before(until)) - len(timeline.before(split))]
    ends = {"full": 0, "pause": 0}
    for viewer_id in {event.viewer_id for event in inside}:
        own = [moment for moment in found if moment.event.viewer_id == viewer_id]
        did = [event for event in inside if event.viewer_id == viewer_id]
        assert [row for moment in own for row in moment.actions] == [positive_row(event, catalog) for event in did]
        expected: list[list[ViewerEvent]] = [[]]
        for event in did:
            is_full = len(expected[-1]) == small.examples.session_actions
            is_after_pause = bool(expected[-1]) and event.at - expected[-1][-1].at > small.examples.session_gap_s
            if is_full or is_after_pause:
                ends["full" if is_full else "pause"] += 1
                expected.append([])
            expected[-1].append(event)
        assert [(moment.event, list(moment.actions)) for moment in own] == [
            (events[0], [positive_row(event, catalog) for event in events]) for events in expected
        ]
    assert min(ends.values()) > 0, "moments end in both ways"
    assert all(timeline.events[moment.index] is moment.event for moment in found)
    bits = {0b0111: "like", 0b0011: "complete", 0b1000: "dislike"}
    first = found[0]
    assert bits[first.actions[catalog.row_of[str(first.event.item_id)]]] == first.event.kind


def test_labels_are_what_the_viewer_did_with_what_was_proposed(
    timeline: Timeline, catalog: Catalog, split: float, retriever: Retriever, small: Config
) -> None:
    found = iter_decision_points(timeline, catalog, split, timeline.end, small.examples)[:50]
    rows = build_rows(timeline, catalog, retriever, found, negatives=10**6, seed=3)
    assert (rows.weight == 1.0).all()  # nothing sampled away: every row stands for itself
    replay, proposer = StateReplay(timeline, catalog), CandidateGenerator(catalog, retriever)
    for number, moment in enumerate(found):
        replay.advance(moment.index)
        event = moment.event
        viewer, stats = replay.viewer(event.viewer_id, event.at), replay.stats(event.at)
        proposed = proposer.generate(event, event.at, viewer, stats, replay.acted(event.viewer_id)).row
        labels = rows.label[rows.point == number]
        assert len(labels) == len(proposed)
        expected = np.zeros(len(ACTIONS))
        for row, bits in moment.actions.items():
            if row in proposed:
                expected += [bool(bits >> action & 1) for action in range(len(ACTIONS))]
        assert labels.sum(axis=0).tolist() == expected.tolist()


def online(events: list[ViewerEvent], viewer_id: str) -> tuple[ViewerState | None, list[ItemState]]:
    """What the online store holds after these events came through a worker, bytes and all."""
    placed = [LoggedEvent("viewer-events/0", offset, event) for offset, event in enumerate(events)]
    own = [one for one in placed if one.event.viewer_id == viewer_id]
    viewer = decode_viewer(encode_viewer(fold_viewer(ViewerState(viewer_id), own))) if own else None
    everybody = {event.viewer_id for event in events}
    counted = [
        one
        for someone in everybody
        for one in deduplicate_and_fold(
            ViewerState(someone), [one for one in placed if one.event.viewer_id == someone]
        ).new_events
    ]
    counted.sort(key=lambda one: one.offset)
    items = []
    for item_id in sorted({str(one.event.item_id) for one in placed}):
        about = [one for one in counted if one.event.item_id == item_id]
        items.append(decode_item(encode_item(fold_item(ItemState(item_id), about))))
    return viewer, items


def untrained(retriever: Retriever) -> ServedModel:
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
    return ServedModel.load(bundle, FEATURES)


def served(moment: DecisionPoint, timeline: Timeline, catalog: Catalog, retriever: Retriever) -> dict[int, np.ndarray]:  # type: ignore[type-arg]
    """Catalogue row -> features as used, of the page that the real engine gives at this moment."""
    event = moment.event
    viewer, items = online(list(timeline.events[: moment.index]), event.viewer_id)
    counts = ItemColumns(catalog)
    counts.merge(items)
    world = ServingSnapshot.of(catalog, counts.at(event.at), untrained(retriever), compile_policy((), catalog))
    placement = Placement("cn.zj", Screen(str(event.screen)), Surface.HOME)
    query = Query("r1", event.viewer_id, placement, event.region, event.at, slots=40, guided=False)
    page = Engine(columns, candidates=10**6).run(query, viewer, world)
    assert not [stage for stage in page.trace if stage.error]
    return {item.row: features for item, features in zip(page.items, page.features, strict=True)}


@pytest.mark.parametrize("number", [0, 11, 40, -1])
def test_features_in_training_are_those_of_the_page_served_then(
    timeline: Timeline, catalog: Catalog, split: float, retriever: Retriever, small: Config, number: int
) -> None:
    """Online bytes and the whole serving pipeline on one side, the replay of the log on the other."""
    moment = iter_decision_points(timeline, catalog, split, timeline.end, small.examples)[number]
    replay, proposer = StateReplay(timeline, catalog), CandidateGenerator(catalog, retriever)
    replay.advance(moment.index)
    event = moment.event
    viewer, stats = replay.viewer(event.viewer_id, event.at), replay.stats(event.at)
    proposals = proposer.generate(event, event.at, viewer, stats, replay.acted(event.viewer_id))
    trained_on = dict(zip(proposals.row.tolist(), proposals.features, strict=True))
    page = served(moment, timeline, catalog, retriever)
    assert len(page) == 40
    for row, features in page.items():
        assert trained_on[row] == pytest.approx(features, rel=1e-5, abs=1e-6), catalog.ids[row]
