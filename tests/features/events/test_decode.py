"""The doors of an event: what goes through comes out the same, and nothing else than an EventError comes back."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from pydantic_core import from_json

from features.events import decode as module
from features.events.decode import KINDS, accept, accept_json, decode, encode
from features.events.schema import IMPLIED_ACTIONS, LATEST, MAX_BYTES, ViewerEvent, actions_of
from features.state.fold import deduplicate_and_fold
from features.state.votes import LoggedEvent
from recsys.domain.errors import EventError
from recsys.domain.placement import Screen
from recsys.domain.types import ACTIONS
from recsys.domain.viewer import ViewerState

NOW = 1_767_225_600.0
SENT: dict[str, Any] = {
    "specversion": "1.0",
    "id": "e1",
    "source": "/apps/tv",
    "type": "mainstay.viewer.play",
    "subject": "v1",
    "time": "2026-01-01T08:00:00.5+08:00",
    "data": {"item_id": "film-3", "screen": "tv", "position_s": 12},
}

names = st.text(st.characters(exclude_categories=["Z", "C"]), min_size=1, max_size=20)
instants = st.floats(0, LATEST).map(lambda at: round(at, 6))
seconds = st.none() | st.floats(0, 1e6)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@st.composite
def events(draw: st.DrawFn) -> ViewerEvent:
    kind = draw(st.sampled_from(KINDS))
    fields: dict[str, Any] = {
        "id": draw(names),
        "kind": kind,
        "viewer_id": draw(names),
        "at": draw(instants),
        "client_at": draw(st.none() | instants),
        "session_id": draw(st.just("") | names),
        "device_id": draw(st.just("") | names),
        "screen": draw(st.none() | st.sampled_from(Screen)),
        "region": draw(st.sampled_from(["", "cn", "cn.zj.hz"])),
        "placement": draw(st.sampled_from(["", "cn.zj-tv-home", "cn-mobile-hot"])),
        "request_id": draw(st.just("") | names),
        "slot": draw(st.none() | st.integers(1, 100)),
        "position_s": draw(st.floats(0, 1e6) if kind in ("seek", "ping") else seconds),
        "duration_s": draw(seconds),
        "percent": draw(st.none() | st.floats(0, 100)) if kind != "survey" else None,
        "rating": draw(st.floats(0, 1)) if kind == "survey" else None,
    }
    if fields["client_at"] is not None:
        fields["client_at"] = min(fields["client_at"], fields["at"])  # the future has tests of its own
    if kind == "impression":
        fields["items"] = tuple(draw(st.lists(names, min_size=1, max_size=4, unique=True)))
        fields["attention"] = draw(st.just(()) | st.just((0.5,) * len(fields["items"])))
        fields["context"] = draw(
            st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), json_values, max_size=3)
        )
    else:
        fields["item_id"] = draw(names)
    return ViewerEvent(**fields)


@settings(deadline=None)
@given(events())
def test_what_is_encoded_decodes_to_the_same(event: ViewerEvent) -> None:
    assert decode(encode(event)) == event


@settings(deadline=None)
@given(events())
def test_the_wire_form_is_a_cloudevent(event: ViewerEvent) -> None:
    wire = json.loads(encode(event))
    assert wire["specversion"] == "1.0"
    assert wire["type"] == f"mainstay.viewer.{event.kind}"
    assert (wire["id"], wire["subject"]) == (event.id, event.viewer_id)
    assert {"source", "receivedat", "dataschema"} <= wire.keys()
    assert not {"id", "kind", "viewer_id", "at", "client_at"} & wire["data"].keys()


@given(st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()))
def test_other_bytes_are_refused_with_an_event_error(raw: bytes) -> None:
    with pytest.raises(EventError):
        decode(raw)


@st.composite
def spoilt(draw: st.DrawFn) -> bytes:
    """An event's bytes with a flaw or a change somewhere, which may leave an event."""
    raw = encode(draw(events()))
    way = draw(st.sampled_from(["as it is", "flip", "cut", "value", "another's field", "text", "depth"]))
    path = draw(st.integers(0, len(raw) - 1))
    wire = json.loads(raw)
    spot = wire if draw(st.booleans()) else wire["data"]
    field = draw(st.sampled_from([*wire, *ViewerEvent.__struct_fields__, "traceparent"]))
    match way:
        case "flip":
            return raw[:path] + bytes([draw(st.integers(0, 255))]) + raw[path + 1 :]
        case "cut":
            return raw[:path]
        case "value":
            spot[field] = draw(json_values | st.sampled_from(ODD))
        case "another's field":
            second = json.loads(encode(draw(events())))
            (wire if field in wire else wire["data"])[field] = second.get(field, second["data"].get(field))
        case "text":
            odd = draw(st.sampled_from(FRAGMENTS))
            return raw.replace(b'"data":{', b'"data":{' + odd, 1) if draw(st.booleans()) else b"{" + odd + raw[1:]
        case "depth":
            deep = draw(st.sampled_from([30, 90, 150, 250, 2000]))
            return raw.replace(b'"data":{', b'"data":{"context":{"a":' + b"[" * deep + b"]" * deep + b"},", 1)
    return json.dumps(wire).encode("utf-8", "surrogatepass")


ODD: list[Any] = [
    "", " ", "a b", "a\n", "a\u0085b", "\0gone", "a\u200db", "\ud800", "x" * 201, "cn.zj\n", "cn-tv-home\n", "２", "tv",
    True, 1.0, -0.0, 1e300, 2**63, 10**400, [], {}, ["a", "a"], ["a", "b c"], [0.5], [True],
    "2026-01-01T00:00:00Z", "2026-01-01 00:00:00Z", "2026-01-01t00:00:00z", "2026-01-01T00:00:00.1234567891Z",
    "2026-01-01T23:59:60Z", "9999-12-31T23:59:59.999999Z", "2026-01-01T00:00:00+00:00", "1969-12-31T23:00:00Z",
    "2061-12-31T23:00:00Z", "urn:mainstay:viewer-event:2", "mainstay.viewer.survey",
]  # fmt: skip
FRAGMENTS = [  # what no dictionary can say
    b'"item_id":"x","item_id":"y",', b'"item_id":7,"item_id":"y",', b'"slot":1e0,', b'"slot":1.0,',
    b'"percent":1e-400,', b'"percent":1e400,', b'"percent":-0,', b'"percent":-0.0,', b'"traceparent":"\xff",',
    b'"traceparent":"\\ud800",', b'"traceparent":[NaN],', b'"traceparent":1e999,', b'"region":"\xed\xa0\x80",',
    b'"context":{"a":1e400},', b'"context":{"a":1,"a":2},', b'"context":null,', b'"context":[],', b'"id":"z",',
    b"\x00", b'"attributiontoken":"t",', b'"attributiontoken":5,', b'"specversion":"1.0",', b'"rating":0.5,',
    b'"dataschema":"urn:mainstay:viewer-event:2",',
]  # fmt: skip


def outcome(read: Callable[[], object]) -> object:
    """What reading gave: an event, or the words of the error."""
    try:
        return read()
    except EventError as error:
        return str(error)


@settings(max_examples=600, deadline=None)
@given(spoilt())
def test_the_fast_readers_accept_what_validate_accepts_and_return_the_same(raw: bytes) -> None:
    """Whatever the bytes: equal events, or the same findings; nothing but an EventError comes back."""
    doors: list[Callable[[], object]] = [lambda: decode(raw), lambda: accept_json(raw, NOW)]
    with suppress(ValueError):
        parsed = from_json(raw, allow_inf_nan=False)
        doors.append(lambda: accept(parsed, NOW))
    for door in doors:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(module, "_fast_event", lambda *_: None)
            slow = outcome(door)
        assert outcome(door) == slow


def test_both_readers_follow_equally_deep(monkeypatch: pytest.MonkeyPatch) -> None:
    page = ViewerEvent(id="e", kind="impression", viewer_id="v", at=NOW, items=("a",), context={"x": 0})
    for depth in (*range(60, 110, 7), *range(190, 206)):
        raw = encode(page).replace(b'"x":0', b'"x":' + b"[" * depth + b"]" * depth)
        fast = outcome(lambda raw=raw: decode(raw))  # type: ignore[misc]
        with monkeypatch.context() as patched:
            patched.setattr(module, "_fast_event", lambda *_: None)
            assert fast == outcome(lambda raw=raw: decode(raw))  # type: ignore[misc]


@settings(deadline=None)
@given(events(), st.data())
def test_what_the_stream_would_not_read_back_is_not_written(event: ViewerEvent, data: st.DataObject) -> None:
    field = data.draw(st.sampled_from(sorted(set(ViewerEvent.__struct_fields__) - {"at", "client_at", "context"})))
    strange = replace(event, **{field: data.draw(json_values | st.sampled_from(ODD))})
    with suppress(EventError):
        decode(encode(strange))
    for at in (float("nan"), float("inf"), -1.0, 1e300, LATEST * 2):
        with pytest.raises(EventError):
            encode(replace(event, at=at))


def test_valid_events_with_any_extension_take_the_fast_path(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("validate was called")

    monkeypatch.setattr(module, "validate", fail)
    for kind in KINDS:
        data: dict[str, Any] = (
            {"items": ["a", "观众"], "attention": [1, 0.5]} if kind == "impression" else {"item_id": "a"}
        )
        data |= {"screen": "tv", "region": "cn.zj.hz", "placement": "cn-tv-home", "session_id": "s", "slot": 3}
        data |= {"rating": 1} if kind == "survey" else {"position_s": 3, "percent": 7.5}
        raw = {**SENT, "type": f"mainstay.viewer.{kind}", "data": data, "attributiontoken": "t"}
        event = accept(raw, NOW)
        assert decode(encode(event)) == event
        assert accept_json(json.dumps(raw).encode(), NOW) == (event, "e1", "t")
        assert accept_json(json.dumps(raw | {"traceparent": "00-4b"}).encode(), NOW) == (event, "e1", "t")
    page = replace(
        event, kind="impression", items=("a",), item_id=None, rating=None, context={"seed": 7, "x": [1, [2]]}
    )
    assert decode(encode(page)) == page


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.text(min_size=1, max_size=30)
            | st.sampled_from(["/apps/tv", "/apps/mobile", "a", "a#b", "x" * 199, "x" * 200, "x" * 400]),
            names | st.sampled_from(["e1", "b#c", "c", "i" * 199, "i" * 200]),
        ),
        min_size=2,
        max_size=6,
    )
)
def test_an_event_is_told_from_others_by_source_and_id_together(sent_by: list[tuple[str, str]]) -> None:
    """As CloudEvents has it: equal for equal pairs, different for all others, and once and for all."""
    expected: dict[tuple[str, str], str] = {}
    for source, id in sent_by:
        raw = sent(source=source, id=id)
        with suppress(UnicodeEncodeError):
            accepted, sent_id, _ = accept_json(json.dumps(raw, ensure_ascii=False).encode(), NOW)
            assert (accepted, sent_id) == (accept(raw, NOW), id)
            assert expected.setdefault((source, id), accepted.id) == accepted.id
            assert decode(encode(accepted)) == accepted  # also as it is sent again
            assert accept(json.loads(encode(accepted)), NOW).id == accepted.id
            assert decode(json.dumps({**raw, "receivedat": "2026-01-01T00:00:00Z"}).encode()).id == accepted.id
    assert len(set(expected.values())) == len(expected)


def test_the_same_id_of_two_apps_is_two_events_and_each_sent_twice_counts_once() -> None:
    tv, mobile = (accept(sent(source=f"/apps/{app}", data={"item_id": app}), NOW) for app in ("tv", "mobile"))
    assert (tv.id, mobile.id) == ("/apps/tv#e1", "/apps/mobile#e1")
    twice = [LoggedEvent("t/0", n, event) for n, event in enumerate((tv, mobile, tv, mobile))]
    assert [logged.event.item_id for logged in deduplicate_and_fold(ViewerState("v1"), twice).new_events] == [
        "tv",
        "mobile",
    ]


def test_only_the_servers_clock_counts() -> None:
    event = accept({**SENT, "receivedat": "1999-01-01T00:00:00Z"}, NOW)
    assert (event.at, event.client_at) == (NOW, NOW + 0.5)
    with pytest.raises(EventError, match="receivedat"):
        decode(json.dumps(SENT).encode())


def sent(**changes: Any) -> dict[str, Any]:
    data = {**SENT["data"], **changes.pop("data", {})}
    return {**SENT, "data": data, **changes}


@pytest.mark.parametrize("raw", [None, [], "play", 3, [SENT]])
def test_an_event_is_an_object(raw: object) -> None:
    with pytest.raises(EventError, match="a JSON object"):
        accept(raw, NOW)


def test_what_is_too_long_or_too_deep_is_refused() -> None:
    event = accept(SENT, NOW)
    with pytest.raises(EventError, match="bytes"):
        decode(encode(event) + b" " * MAX_BYTES)
    huge = ViewerEvent(id="e", kind="impression", viewer_id="v", at=NOW, items=("a",), context={"x": "y" * MAX_BYTES})
    with pytest.raises(EventError, match="bytes"):
        encode(huge)
    with pytest.raises(EventError, match="not JSON"):
        decode(b'{"data":' * 5000 + b"1" + b"}" * 5000)


def test_kinds_imply_actions_downwards() -> None:
    assert set(IMPLIED_ACTIONS) == set(ACTIONS)
    counts = {
        kind: set(actions_of(accept(sent(type=f"mainstay.viewer.{kind}"), NOW)))
        for kind in ("play", "complete", "like", "dislike", "click")
    }
    assert counts == {
        "play": {"play"},
        "complete": {"play", "complete"},
        "like": {"play", "complete", "like"},
        "dislike": {"dislike"},
        "click": set(),
    }


def test_an_event_cannot_be_changed() -> None:
    event = accept(SENT, NOW)
    with pytest.raises(AttributeError):
        event.item_id = "other"  # type: ignore[misc]
