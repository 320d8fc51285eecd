"""Encoding and decoding of events: round trips are exact, and invalid input raises EventError only."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from pydantic_core import from_json

from features.events import decode as module
from features.events.decode import KINDS, accept, accept_json, decode, encode
from features.events.schema import IMPLIED_ACTIONS, LATEST, MAX_BYTES, Trust, ViewerEvent, actions_of
from features.state.fold import deduplicate_and_fold
from features.state.votes import LoggedEvent
from recsys.domain.errors import EventError
from recsys.domain.fields import is_visible
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
        "trust": draw(st.sampled_from(get_args(Trust))),
        "slot": draw(st.none() | st.integers(1, 100)),
        "position_s": draw(st.floats(0, 1e6) if kind in ("seek", "ping") else seconds),
        "duration_s": draw(seconds),
        "percent": draw(st.none() | st.floats(0, 100)) if kind != "survey" else None,
        "rating": draw(st.floats(0, 1)) if kind == "survey" else None,
    }
    if fields["client_at"] is not None:
        fields["client_at"] = min(fields["client_at"], fields["at"])  # other tests cover times in the future
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
def test_decoding_an_encoded_event_returns_the_same_event(event: ViewerEvent) -> None:
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


@given(events(), st.sampled_from([*get_args(Trust), "other", 7]))
def test_clients_cannot_set_how_far_they_are_trusted(event: ViewerEvent, trust: object) -> None:
    wire = json.loads(encode(replace(event, context={}, client_at=None, trust="trusted")))
    plain = None
    with suppress(EventError):  # a survey, or an event with a name that clients cannot send
        plain = accept_json(json.dumps(wire).encode(), NOW).event
    if plain is not None:
        assert accept_json(json.dumps(wire | {"trust": trust}).encode(), NOW).event == plain
        assert accept(wire | {"trust": trust}, NOW) == plain
    with pytest.raises(EventError, match="trust"):
        accept(wire | {"data": wire["data"] | {"trust": trust}}, NOW)


@given(st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()))
def test_bytes_that_are_not_an_event_raise_an_event_error(raw: bytes) -> None:
    with pytest.raises(EventError):
        decode(raw)


@st.composite
def corrupted(draw: st.DrawFn) -> bytes:
    """Draw the bytes of an event with one fault or change; the result may still be a valid event."""
    raw = encode(draw(events()))
    mutation = draw(st.sampled_from(["none", "flip", "truncate", "value", "swap field", "fragment", "depth"]))
    offset = draw(st.integers(0, len(raw) - 1))
    wire = json.loads(raw)
    target = wire if draw(st.booleans()) else wire["data"]
    field = draw(st.sampled_from([*wire, *ViewerEvent.__struct_fields__, "traceparent"]))
    match mutation:
        case "flip":
            return raw[:offset] + bytes([draw(st.integers(0, 255))]) + raw[offset + 1 :]
        case "truncate":
            return raw[:offset]
        case "value":
            target[field] = draw(json_values | st.sampled_from(UNUSUAL_VALUES))
        case "swap field":
            second = json.loads(encode(draw(events())))
            (wire if field in wire else wire["data"])[field] = second.get(field, second["data"].get(field))
        case "fragment":
            fragment = draw(st.sampled_from(FRAGMENTS))
            in_data = draw(st.booleans())
            return raw.replace(b'"data":{', b'"data":{' + fragment, 1) if in_data else b"{" + fragment + raw[1:]
        case "depth":
            depth = draw(st.sampled_from([30, 90, 150, 250, 2000]))
            return raw.replace(b'"data":{', b'"data":{"context":{"a":' + b"[" * depth + b"]" * depth + b"},", 1)
    return json.dumps(wire).encode("utf-8", "surrogatepass")


UNUSUAL_VALUES: list[Any] = [
    "", " ", "a b", "a\n", "a\u0085b", "\0gone", "a\u200db", "\ud800", "x" * 201, "cn.zj\n", "cn-tv-home\n", "２", "tv",
    True, 1.0, -0.0, 1e300, 2**63, 10**400, [], {}, ["a", "a"], ["a", "b c"], [0.5], [True],
    "2026-01-01T00:00:00Z", "2026-01-01 00:00:00Z", "2026-01-01t00:00:00z", "2026-01-01T00:00:00.1234567891Z",
    "2026-01-01T23:59:60Z", "9999-12-31T23:59:59.999999Z", "2026-01-01T00:00:00+00:00", "1969-12-31T23:00:00Z",
    "2061-12-31T23:00:00Z", "urn:mainstay:viewer-event:2", "mainstay.viewer.survey",
]  # fmt: skip
FRAGMENTS = [  # JSON that no Python dictionary can represent
    b'"item_id":"x","item_id":"y",', b'"item_id":7,"item_id":"y",', b'"slot":1e0,', b'"slot":1.0,',
    b'"percent":1e-400,', b'"percent":1e400,', b'"percent":-0,', b'"percent":-0.0,', b'"traceparent":"\xff",',
    b'"traceparent":"\\ud800",', b'"traceparent":[NaN],', b'"traceparent":1e999,', b'"region":"\xed\xa0\x80",',
    b'"context":{"a":1e400},', b'"context":{"a":1,"a":2},', b'"context":null,', b'"context":[],', b'"id":"z",',
    b"\x00", b'"attributiontoken":"t",', b'"attributiontoken":5,', b'"specversion":"1.0",', b'"rating":0.5,',
    b'"dataschema":"urn:mainstay:viewer-event:2",',
]  # fmt: skip


def result_of(read: Callable[[], object]) -> object:
    """Return the event that was read, or the text of the error."""
    try:
        return read()
    except EventError as error:
        return str(error)


@settings(max_examples=600, deadline=None)
@given(corrupted())
def test_the_fast_readers_and_validate_return_the_same_event_or_error(raw: bytes) -> None:
    """For any bytes, the events or the findings are equal, and no error but EventError is raised."""
    readers: list[Callable[[], object]] = [lambda: decode(raw), lambda: accept_json(raw, NOW)]
    with suppress(ValueError):
        parsed = from_json(raw, allow_inf_nan=False)
        readers.append(lambda: accept(parsed, NOW))
    for reader in readers:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(module, "_fast_event", lambda *_: None)
            expected = result_of(reader)
        assert result_of(reader) == expected


def test_both_readers_have_the_same_nesting_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    page = ViewerEvent(id="e", kind="impression", viewer_id="v", at=NOW, items=("a",), context={"x": 0})
    for depth in (*range(60, 110, 7), *range(190, 206)):
        raw = encode(page).replace(b'"x":0', b'"x":' + b"[" * depth + b"]" * depth)
        fast = result_of(lambda raw=raw: decode(raw))  # type: ignore[misc]
        with monkeypatch.context() as patched:
            patched.setattr(module, "_fast_event", lambda *_: None)
            assert fast == result_of(lambda raw=raw: decode(raw))  # type: ignore[misc]


@settings(deadline=None)
@given(events(), st.data())
def test_an_event_that_cannot_be_decoded_is_not_encoded(event: ViewerEvent, data: st.DataObject) -> None:
    field = data.draw(st.sampled_from(sorted(set(ViewerEvent.__struct_fields__) - {"at", "client_at", "context"})))
    altered = replace(event, **{field: data.draw(json_values | st.sampled_from(UNUSUAL_VALUES))})
    with suppress(EventError):
        decode(encode(altered))
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
            st.text(min_size=1, max_size=30).filter(is_visible)
            | st.sampled_from(["/apps/tv", "/apps/mobile", "a", "a#b", "x" * 199, "x" * 200, "x" * 400]),
            names | st.sampled_from(["e1", "b#c", "c", "i" * 199, "i" * 200]),
        ),
        min_size=2,
        max_size=6,
    )
)
def test_source_and_id_together_identify_an_event(senders: list[tuple[str, str]]) -> None:
    """As CloudEvents requires, equal pairs have equal keys and different pairs have different keys."""
    keys: dict[tuple[str, str], str] = {}
    for source, id in senders:
        raw = sent(source=source, id=id)
        with suppress(UnicodeEncodeError):
            accepted, sent_id, _ = accept_json(json.dumps(raw, ensure_ascii=False).encode(), NOW)
            assert (accepted, sent_id) == (accept(raw, NOW), id)
            assert keys.setdefault((source, id), accepted.id) == accepted.id
            assert (
                decode(encode(accepted)) == accepted
            )  # encoding keeps the key, also when the stream delivers it again
            assert accept(json.loads(encode(accepted)), NOW).id == accepted.id
            assert decode(json.dumps({**raw, "receivedat": "2026-01-01T00:00:00Z"}).encode()).id == accepted.id
    assert len(set(keys.values())) == len(keys)


def test_the_same_id_from_two_sources_is_two_events_and_duplicates_count_once() -> None:
    tv, mobile = (accept(sent(source=f"/apps/{app}", data={"item_id": app}), NOW) for app in ("tv", "mobile"))
    assert (tv.id, mobile.id) == ("/apps/tv#e1", "/apps/mobile#e1")
    twice = [LoggedEvent("t/0", n, event) for n, event in enumerate((tv, mobile, tv, mobile))]
    assert [logged.event.item_id for logged in deduplicate_and_fold(ViewerState("v1"), twice).new_events] == [
        "tv",
        "mobile",
    ]


def test_the_event_time_is_the_time_of_the_server() -> None:
    event = accept({**SENT, "receivedat": "1999-01-01T00:00:00Z"}, NOW)
    assert (event.at, event.client_at) == (NOW, NOW + 0.5)
    with pytest.raises(EventError, match="receivedat"):
        decode(json.dumps(SENT).encode())


def sent(**changes: Any) -> dict[str, Any]:
    data = {**SENT["data"], **changes.pop("data", {})}
    return {**SENT, "data": data, **changes}


@pytest.mark.parametrize("raw", [None, [], "play", 3, [SENT]])
def test_an_event_must_be_a_json_object(raw: object) -> None:
    with pytest.raises(EventError, match="a JSON object"):
        accept(raw, NOW)


def test_events_that_are_too_long_or_too_deeply_nested_are_rejected() -> None:
    event = accept(SENT, NOW)
    with pytest.raises(EventError, match="bytes"):
        decode(encode(event) + b" " * MAX_BYTES)
    oversized = ViewerEvent(
        id="e", kind="impression", viewer_id="v", at=NOW, items=("a",), context={"x": "y" * MAX_BYTES}
    )
    with pytest.raises(EventError, match="bytes"):
        encode(oversized)
    with pytest.raises(EventError, match="not JSON"):
        decode(b'{"data":' * 5000 + b"1" + b"}" * 5000)


def test_stronger_actions_imply_weaker_actions() -> None:
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


def test_events_are_immutable() -> None:
    event = accept(SENT, NOW)
    with pytest.raises(AttributeError):
        event.item_id = "film-4"  # type: ignore[misc]
