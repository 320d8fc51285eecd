"""States of versions 1 to 3 are still read, and the fold goes on from them as if they had always been of this one."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.codec import VERSION, NewerState, StateError, decode_item, decode_viewer, encode_item, encode_viewer
from features.codec_v1 import ItemStateV1, ViewerStateV1
from features.events import ViewerEvent
from features.fold import Placed, fold_item, sift
from features.marks import event_mark
from features.votes import KNOWN
from recsys.state import LANDMARK, RECENT_MAX, ItemState, Session, ViewerState, forward_weight

# What the last release of version 1 wrote after the five events below, byte for byte.
VIEWER_V1 = bytes.fromhex("01") + msgspec.msgpack.encode(
    {
        "viewer_id": "v",
        "recent": [["a", "play", LANDMARK], ["b", "like", LANDMARK + 2]],
        "positions": {"a": [60.0, 600.0, LANDMARK + 1, False]},
        "done": {"b": LANDMARK + 2},
        "hidden": {},
        "shown": {"a": [2, LANDMARK + 4], "c": [1, LANDMARK + 3]},
        "counts": {"play": 1, "ping": 1, "like": 1, "impression": 2},
        "offsets": {"t/0": 4},
        "exposed": {"cn/t": [LANDMARK + 3, LANDMARK + 4]},
        "seen_ids": {"e0": 0, "e1": 1, "e2": 2, "e3": 3, "e4": 4},
    }
)
ITEM_V1 = bytes.fromhex("01") + msgspec.msgpack.encode(
    {"item_id": "a", "counts": {"play": 2.5}, "regions": {"cn": 2.5}, "impressions": 4.0, "offsets": {"t/0": 4}}
)

# What the last release of version 2 wrote of a viewer, byte for byte.
VIEWER_V2 = bytes.fromhex("02") + msgspec.msgpack.encode(
    [
        "v", [["a", "play", LANDMARK], ["b", "like", LANDMARK + 2]], {"a": [60.0, 600.0, LANDMARK + 1, False]},
        {"b": LANDMARK + 2}, {}, {"a": [2, [LANDMARK + 3, LANDMARK + 4]]}, {"play": 1, "like": 1, "impression": 2},
        {"t/0": 4}, {"cn/t": [LANDMARK + 3]}, b"12345678", LANDMARK + 4, {"tv": 2.0}, {"cn": 2.0}, {0: 2.0},
        ["s", LANDMARK, LANDMARK + 4, 2, "a", LANDMARK, [], ["b"]], 1.0, 0.5,
    ]
)  # fmt: skip

# What the last release of version 3 wrote of a viewer, byte for byte.
VIEWER_V3 = bytes.fromhex("03") + msgspec.msgpack.encode([*msgspec.msgpack.decode(VIEWER_V2[1:]), b"votes..."])


def event(id: str, kind: str, at: float, **said: Any) -> ViewerEvent:
    return ViewerEvent(id=id, kind=kind, viewer_id="v", at=at, **said)


def test_a_viewer_of_version_1_is_the_same_viewer() -> None:
    state = decode_viewer(VIEWER_V1)
    assert [one.item_id for one in state.recent] == ["a", "b"]
    assert state.positions["a"].position_s == 60.0
    assert state.done == {"b": LANDMARK + 2}
    assert state.shown == {"a": (2, (LANDMARK + 4,)), "c": (1, (LANDMARK + 3,))}
    assert state.counts == {"play": 1, "ping": 1, "like": 1, "impression": 2}
    assert state.exposed == {"cn/t": (LANDMARK + 3, LANDMARK + 4)}
    assert state.at == LANDMARK + 4


def test_a_viewer_of_version_2_is_the_same_viewer_and_begins_to_remember_votes() -> None:
    state = decode_viewer(VIEWER_V2)
    assert state == msgspec.structs.replace(decode_viewer(VIEWER_V3), voted=b"")
    assert (state.session, state.pleased, state.displeased) == (
        Session("s", LANDMARK, LANDMARK + 4, 2, "a", LANDMARK, (), ("b",)), 1.0, 0.5,
    )  # fmt: skip
    assert state.voted == b""
    others = [
        Placed("t/0", 5 + n, event(f"o{n}", "click", LANDMARK + 5 + n, item_id=f"i{n}")) for n in range(RECENT_MAX)
    ]
    again = Placed("t/0", 500, event("e", "play", LANDMARK + 3600, item_id="a"))
    assert sift(state, [*others, again]).fresh[-1].votes == (), "what version 2 had among the recent is remembered"
    assert encode_viewer(sift(state, others).state)[0] == VERSION


def test_a_viewer_of_version_3_is_the_same_viewer() -> None:
    state = decode_viewer(VIEWER_V3)
    said = msgspec.msgpack.decode(VIEWER_V3[1:])
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(state))[: len(said)] == said
    assert state.passed_ids == b""
    again = Placed("t/0", 5, event("known", "ping", LANDMARK + 5, item_id="a", position_s=70.0))
    known = msgspec.structs.replace(state, seen_ids=state.seen_ids + event_mark("known"))
    assert sift(known, [again]).fresh == [], "what version 3 remembered of its pings is still known"
    after = sift(state, [again]).state
    assert (after.seen_ids, after.passed_ids) == (b"12345678", event_mark("known"))
    assert decode_viewer(encode_viewer(after)) == after


def test_a_viewer_whose_first_byte_says_another_version_is_not_read_as_one() -> None:
    for older in (b"\x02", b"\x03"):
        with pytest.raises(StateError, match="broken state"):
            decode_viewer(older + encode_viewer(ViewerState("v"))[1:])
    for raw in (VIEWER_V1, VIEWER_V2, VIEWER_V3, encode_viewer(decode_viewer(VIEWER_V3))):
        with pytest.raises(StateError, match="under the number") as told:
            decode_viewer(bytes([VERSION + 1]) + raw[1:])
        assert not isinstance(told.value, NewerState)


def test_what_version_1_had_folded_is_not_folded_again() -> None:
    state = decode_viewer(VIEWER_V1)
    redelivered = Placed("t/0", 4, event("e4", "impression", LANDMARK + 4, items=("a",)))
    sent_again = Placed("t/0", 5, event("e2", "like", LANDMARK + 2, item_id="b"))
    new = Placed("t/0", 6, event("e5", "play", LANDMARK + 6, item_id="b"))
    after = sift(state, [redelivered, sent_again, new])
    assert [one.event.id for one in after.fresh] == ["e5"]
    assert after.state.offsets == {"t/0": 6}
    again = decode_viewer(encode_viewer(after.state))
    assert again == after.state
    assert encode_viewer(after.state)[0] == VERSION


def test_an_item_of_version_1_goes_on_counting() -> None:
    state = decode_item(ITEM_V1)
    assert state == ItemState("a", {"play": 2.5}, {"cn": 2.5}, 4.0, {"t/0": 4}, visits=2.5)
    placed = [Placed("t/0", n, event(f"e{n}", "play", LANDMARK + n, item_id="a", region="cn")) for n in (4, 5)]
    counted = sift(ViewerState("v"), placed).fresh
    after = fold_item(state, counted)  # offset 4 was counted by version 1
    assert after.offsets == {"t/0": 5}
    assert after.counts == {"play": pytest.approx(2.5)}, "the second play of a day is no second vote"
    fresh = sift(ViewerState("w"), [Placed("t/0", 6, event("e6", "play", LANDMARK, item_id="a", region="cn"))]).fresh
    assert fold_item(after, fresh).visits == pytest.approx(2.5 + forward_weight(LANDMARK) / KNOWN)
    assert decode_item(encode_item(after)) == after


ids = st.text("ab{}/é", max_size=4)
ats = st.floats(0, 2.9e9)


@settings(max_examples=50, deadline=None)
@given(
    st.builds(
        ViewerStateV1,
        viewer_id=ids,
        done=st.dictionaries(ids, ats),
        hidden=st.dictionaries(ids, ats),
        shown=st.dictionaries(ids, st.tuples(st.integers(1, 9), ats)),
        counts=st.dictionaries(st.sampled_from(["play", "like"]), st.integers(1, 9)),
        offsets=st.dictionaries(ids, st.integers(0, 9)),
        seen_ids=st.dictionaries(ids, st.integers(0, 9)),
    )
)
def test_any_viewer_of_version_1_survives(old: ViewerStateV1) -> None:
    new = decode_viewer(b"\x01" + msgspec.msgpack.encode(old))
    assert decode_viewer(encode_viewer(new)) == new
    for name in ("viewer_id", "done", "hidden", "counts", "offsets"):
        assert getattr(new, name) == getattr(old, name)
    assert {item: number for item, (number, _) in new.shown.items()} == {i: n for i, (n, _) in old.shown.items()}
    for id, offset in old.seen_ids.items():
        duplicate = Placed("another log", offset, event(id or "-", "play", new.at, item_id="a"))
        assert len(sift(new, [duplicate]).fresh) == (0 if id else 1)


@settings(max_examples=50, deadline=None)
@given(
    st.builds(
        ItemStateV1,
        item_id=ids,
        counts=st.dictionaries(st.sampled_from(["play", "like"]), st.floats(0, 1e9)),
        regions=st.dictionaries(ids, st.floats(0, 1e9)),
        impressions=st.floats(0, 1e9),
        offsets=st.dictionaries(ids, st.integers(0, 9)),
    )
)
def test_any_item_of_version_1_survives(old: ItemStateV1) -> None:
    new = decode_item(b"\x01" + msgspec.msgpack.encode(old))
    assert decode_item(encode_item(new)) == new
    for name in ("item_id", "counts", "regions", "impressions", "offsets"):
        assert getattr(new, name) == getattr(old, name)
    assert new.visits == old.counts.get("play", 0.0)
