"""Requests read from the log equal the original queries; `as_of` restores a viewer's earlier state."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from features.events.schema import ViewerEvent
from features.history.event_log import EventLog
from features.history.requests import newest_requests, plays_from
from features.state.as_of import as_of
from features.state.fold import fold_viewer
from features.state.votes import LoggedEvent
from recsys.domain.viewer import ViewerState

NOON = 1_772_366_400.0


def impression(n: int, at: float, placement: str = "cn.zj-tv-home", **context: object) -> ViewerEvent:
    return ViewerEvent(
        id=f"page-{n}",
        kind="impression",
        viewer_id=f"v{n % 3}",
        at=at,
        region="cn.zj.hz",
        placement=placement,
        request_id=f"r{n}",
        items=("a", "b"),
        attention=(1.0, 0.5),
        context={"seed": n, "guided": True, "propensity": 1.0, **context},  # type: ignore[dict-item]
    )


def logged(home: Path, events: Sequence[ViewerEvent]) -> EventLog:
    log = EventLog(home)
    log.append("t/0", 0, len(events) - 1, [LoggedEvent("t/0", n, event) for n, event in enumerate(events)])
    return log


def test_logged_requests_equal_the_original_queries(tmp_path: Path) -> None:
    log = logged(tmp_path, [impression(7, NOON, slots=24, age=12, shown=["x", "y"], personalised=False)])
    [request] = newest_requests(log, "cn", 10, NOON + 1, 3600)
    query = request.query
    assert (query.request_id, query.viewer_id, query.region, query.now) == ("r7", "v1", "cn.zj.hz", NOON)
    assert query.placement.id == "cn.zj-tv-home"
    assert (query.seed, query.slots, query.age, query.shown, query.personalised) == (7, 24, 12, ("x", "y"), False)
    assert request.item_ids == ("a", "b")
    assert (request.attention, request.propensity) == ((1.0, 0.5), (1.0, 1.0))


def test_requests_of_older_engines_use_defaults(tmp_path: Path) -> None:
    [request] = newest_requests(logged(tmp_path, [impression(1, NOON)]), "cn.zj", 10, NOON + 1, 3600)
    assert (request.query.slots, request.query.age, request.query.shown) == (2, None, ())


def test_newest_requests_returns_guided_pages_of_the_subtree_newest_first(tmp_path: Path) -> None:
    log = logged(
        tmp_path,
        [
            impression(1, NOON - 30 * 86_400),
            impression(2, NOON - 50_000),
            impression(3, NOON - 10, "cn.zj.hz-mobile-home"),
            impression(4, NOON - 9, "cn.zjx-tv-home"),
            impression(5, NOON - 8, "cn-tv-home"),
            impression(6, NOON - 7, guided=False),
            impression(7, NOON + 5),
            impression(8, NOON - 6, seed="no number"),
        ],
    )

    def request_ids(outlet: str, limit: int = 10, lookback_s: float = 7 * 86_400.0) -> list[str]:
        return [request.query.request_id for request in newest_requests(log, outlet, limit, NOON, lookback_s)]

    assert request_ids("cn.zj") == ["r3", "r2"]
    assert request_ids("cn.zj", limit=1) == ["r3"]
    assert request_ids("cn", lookback_s=60 * 86_400.0) == ["r5", "r4", "r3", "r2", "r1"]
    assert request_ids("cn_zj") == []
    assert newest_requests(EventLog(tmp_path / "none"), "cn", 5, NOON, 3600) == []


def test_plays_are_attributed_to_their_page(tmp_path: Path) -> None:
    def act(n: int, kind: str, request: str) -> ViewerEvent:
        return ViewerEvent(id=f"e{n}", kind=kind, viewer_id="v1", at=NOON + n, item_id=f"i{n}", request_id=request)  # type: ignore[arg-type]

    log = logged(tmp_path, [act(1, "play", "r1"), act(2, "hide", "r1"), act(3, "like", "r2"), act(4, "play", "r9")])
    assert plays_from(log, ["r1", "r2"], NOON, NOON + 100) == {("r1", "i1"), ("r2", "i3")}
    assert plays_from(log, ["r1", "r2"], NOON, NOON + 3) == {("r1", "i1")}


KINDS = ("impression", "play", "complete", "like", "hide")
histories = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 4)), max_size=25)


@given(histories, st.integers(0, 26))
def test_as_of_equals_a_fold_of_earlier_events(actions: list[tuple[str, int]], cut: int) -> None:
    """The oracle is the fold. Each item is shown at most once after the cut, so stored impression times suffice."""
    logged, shown_after_cut = [], set()
    for n, (kind, item) in enumerate(actions):
        if kind == "impression":
            if n >= cut and item in shown_after_cut:
                continue
            shown_after_cut |= {item} if n >= cut else set()
            event = ViewerEvent(id=f"e{n}", kind="impression", viewer_id="v", at=NOON + n, items=(f"i{item}",))
        else:
            if n >= cut and any(e.item_id == f"i{item}" and e.at < NOON + cut for _, _, e in logged):
                continue  # `as_of` cannot restore what a later event replaced, as its module documents
            event = ViewerEvent(id=f"e{n}", kind=kind, viewer_id="v", at=NOON + n, item_id=f"i{item}")  # type: ignore[arg-type]
        logged.append(LoggedEvent("t/0", n, event))
    now = fold_viewer(ViewerState("v"), logged)
    expected = fold_viewer(ViewerState("v"), [entry for entry in logged if entry.event.at < NOON + cut])
    earlier = as_of(now, NOON + cut)
    assert earlier.recent == expected.recent
    assert earlier.finished_at == expected.finished_at
    assert earlier.hidden == expected.hidden
    assert earlier.positions == expected.positions
    assert {item: times for item, (times, _) in earlier.shown.items()} == {i: n for i, (n, _) in expected.shown.items()}


def test_as_of_keeps_earlier_impressions_of_capped_targets() -> None:
    now = ViewerState("v", counts={"play": 3}, target_impressions={"drama": (1.0, 4.0, 5.0), "late": (6.0,)})
    earlier = as_of(now, 5.0)
    assert earlier.target_impressions == {"drama": (1.0, 4.0)}
    assert earlier.counts == {}, "counts have no dates"
