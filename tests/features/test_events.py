"""The doors of an event: what goes through comes out the same, and nothing else than an EventError comes back."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from features.events import IMPLIES, KINDS, LATEST, MAX_BYTES, ViewerEvent, accept, actions_of, decode, encode
from recsys.errors import EventError
from recsys.types import ACTIONS, Screen

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
instants = st.floats(0, LATEST)
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
    said: dict[str, Any] = {
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
        "percent": draw(st.none() | st.floats(0, 100)),
    }
    if kind == "impression":
        said["items"] = draw(st.lists(names, min_size=1, max_size=4, unique=True))
        said["attention"] = draw(st.just([]) | st.just([0.5] * len(said["items"])))
        said["context"] = draw(
            st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), json_values, max_size=3)
        )
    else:
        said["item_id"] = draw(names)
    return ViewerEvent(**said)


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


@given(st.binary(max_size=200) | json_values.map(lambda thing: json.dumps(thing).encode()))
def test_other_bytes_are_refused_with_an_event_error(raw: bytes) -> None:
    with pytest.raises(EventError):
        decode(raw)


@settings(max_examples=200, deadline=None)
@given(events(), st.data())
def test_no_change_of_the_bytes_gets_past_the_door_by_another_error(event: ViewerEvent, data: st.DataObject) -> None:
    """Cut, flip, or put another JSON value anywhere: an equal-shaped event or an EventError, nothing else."""
    raw = bytearray(encode(event))
    place = data.draw(st.integers(0, len(raw) - 1))
    if data.draw(st.booleans()):
        raw[place] = data.draw(st.integers(0, 255))
    else:
        del raw[place:]
    wire = json.loads(encode(event))
    spot = wire if data.draw(st.booleans()) else wire["data"]
    spot[data.draw(st.sampled_from([*wire, *ViewerEvent.model_fields]))] = data.draw(json_values)
    for changed in (bytes(raw), json.dumps(wire).encode()):
        with suppress(EventError):
            assert isinstance(decode(changed), ViewerEvent)
    with suppress(EventError):
        assert accept(wire, NOW).at == NOW


def test_only_the_servers_clock_counts() -> None:
    event = accept({**SENT, "receivedat": "1999-01-01T00:00:00Z"}, NOW)
    assert (event.at, event.client_at) == (NOW, NOW + 0.5)
    with pytest.raises(EventError, match="receivedat"):
        decode(json.dumps(SENT).encode())


def sent(**changes: Any) -> dict[str, Any]:
    data = {**SENT["data"], **changes.pop("data", {})}
    return {**SENT, "data": data, **changes}


@pytest.mark.parametrize(
    ("raw", "where"),
    [
        (sent(specversion="0.3"), "specversion"),
        (sent(id=None), "id"),
        (sent(id="two words"), "id"),
        (sent(id="x" * 201), "id"),
        (sent(source=""), "source"),
        (sent(subject=7), "subject"),
        (sent(type="mainstay.viewer.teleport"), "type"),
        (sent(type="mainstay.viewer.kind"), "type"),
        (sent(type=["mainstay.viewer.play"]), "type"),
        (sent(type="com.example.play"), "type"),
        (sent(time="yesterday"), "time"),
        (sent(time=NOW), "time"),
        (sent(time="2026-02-30T00:00:00Z"), "time"),
        (sent(time="2026-01-01T00:00:00"), "time"),  # no zone
        (sent(time="0001-01-01T00:00:00+10:00"), "time"),
        (sent(dataschema="urn:mainstay:viewer-event:99"), "dataschema"),
        (sent(datacontenttype="text/xml"), "datacontenttype"),
        ({**SENT, "data": [1]}, "data"),
        ({**SENT, "data": {}}, "data.item_id"),
        (sent(data={"item_id": 3}), "data.item_id"),
        (sent(data={"item_id": "\ud800"}), "data.item_id"),
        (sent(data={"postion_s": 3}), "data.postion_s"),
        (sent(data={"position_s": "3"}), "data.position_s"),
        (sent(data={"position_s": True}), "data.position_s"),
        (sent(data={"position_s": float("nan")}), "data.position_s"),
        (sent(data={"position_s": float("inf")}), "data.position_s"),
        (sent(data={"position_s": -1}), "data.position_s"),
        (sent(data={"percent": 100.5}), "data.percent"),
        (sent(data={"slot": 0}), "data.slot"),
        (sent(data={"slot": 1.5}), "data.slot"),
        (sent(data={"slot": 10**400}), "data.slot"),
        (sent(data={"screen": "fridge"}), "data.screen"),
        (sent(data={"region": "CN.ZJ"}), "data.region"),
        (sent(data={"region": "cn\n"}), "data.region"),
        (sent(data={"placement": "cn-fridge-home"}), "data.placement"),
        (sent(data={"items": ["a"]}), "data.items"),
        (sent(data={"viewer_id": "v2"}), "data.viewer_id"),
        (sent(type="mainstay.viewer.ping", data={"position_s": None}), "data.position_s"),
        (sent(type="mainstay.viewer.seek", data={"position_s": None}), "data.position_s"),
        (sent(type="mainstay.viewer.impression"), "data.items"),
        (sent(type="mainstay.viewer.impression", data={"items": ["a", "a"]}), "data.items"),
        (sent(type="mainstay.viewer.impression", data={"items": ["a", "b"], "attention": [1.0]}), "data.attention"),
        (sent(type="mainstay.viewer.impression", data={"items": ["a"], "attention": [2.0]}), "data.attention.0"),
        (sent(type="mainstay.viewer.impression", data={"items": ["a"], "context": {"rung": "x"}}), "data.context"),
    ],
)  # fmt: skip
def test_a_bad_field_is_named_as_the_client_wrote_it(raw: dict[str, Any], where: str) -> None:
    with pytest.raises(EventError) as caught:
        accept(raw, NOW)
    assert [finding.where for finding in caught.value.findings] == [where]


def test_every_bad_field_is_named_at_once() -> None:
    with pytest.raises(EventError) as caught:
        accept(sent(id="", data={"slot": -1, "percent": 200, "x": 1}), NOW)
    assert {finding.where for finding in caught.value.findings} == {"id", "data.slot", "data.percent", "data.x"}


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
    assert set(IMPLIES) == set(ACTIONS)
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
    with pytest.raises(ValidationError):
        event.item_id = "other"
