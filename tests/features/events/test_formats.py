"""Event formats: supported input is converted to viewer events, and any other input raises EventError."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.events.decode import KINDS, accept, decode, encode
from features.events.formats import activitystreams, segment
from features.events.formats.activitystreams import from_activity
from features.events.formats.registry import FORMATS
from features.events.formats.segment import from_segment
from features.events.schema import ViewerEvent
from recsys.domain.errors import EventError

NOW = 1_767_225_600.0
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)


def track(event: str, **properties: Any) -> dict[str, Any]:
    return {
        "type": "track",
        "event": event,
        "messageId": "m1",
        "userId": "v1",
        "anonymousId": "a1",
        "timestamp": "2026-01-01T00:00:00.000Z",
        "context": {"device": {"id": "tv-1"}},
        "properties": {"session_id": "s1", **properties},
    }


@pytest.mark.parametrize(
    ("name", "properties", "expected"),
    [
        ("Video Playback Started", {"content_asset_ids": ["a"]}, {"kind": "open"}),
        ("Video Playback Paused", {"asset_id": "a", "position": 7}, {"kind": "pause", "position_s": 7.0}),
        ("Video Playback Resumed", {"asset_id": "a", "position": 7}, {"kind": "ping", "position_s": 7.0}),
        (
            "Video Playback Seek Completed",
            {"content_asset_ids": ["a"], "position": 7, "seek_position": 99, "total_length": 200},
            {"kind": "seek", "position_s": 99.0, "duration_s": 200.0, "percent": 49.5},
        ),
        (
            "Video Content Started",
            {"asset_id": "a", "position": 0, "total_length": 200},
            {"kind": "play", "position_s": 0.0, "duration_s": 200.0, "percent": 0.0},
        ),
        (
            "Video Content Playing",
            {"asset_id": "a", "position": 50, "total_length": 200},
            {"kind": "ping", "position_s": 50.0, "duration_s": 200.0, "percent": 25.0},
        ),
        ("Video Content Completed", {"asset_id": "a"}, {"kind": "complete"}),
    ],
)
def test_segment_video_calls_are_converted(name: str, properties: dict[str, Any], expected: dict[str, Any]) -> None:
    event = accept(from_segment(track(name, **properties)), NOW)
    envelope = {"id": "m1", "viewer_id": "v1", "at": NOW, "client_at": NOW}
    assert event == ViewerEvent(**envelope, item_id="a", session_id="s1", device_id="tv-1", **expected)
    assert decode(encode(event)) == event


def test_the_anonymous_id_is_used_without_a_user_id() -> None:
    raw = track("Video Content Completed", asset_id="a")
    del raw["userId"]
    assert accept(from_segment(raw), NOW).viewer_id == "a1"


@pytest.mark.parametrize(
    ("activity", "kind"),
    [
        ({"type": "View"}, "open"),
        ({"type": "Listen"}, "play"),
        ({"type": "Like"}, "like"),
        ({"type": "Dislike"}, "dislike"),
        ({"type": "Announce"}, "share"),
        ({"type": "Follow"}, "follow"),
        ({"type": "Block"}, "hide"),
        ({"type": "Add"}, "favourite"),
        ({"type": "Create", "object": {"type": "Note", "content": "Bravo", "inReplyTo": "film-3"}}, "comment"),
        ({"type": "Create", "object": {"type": "Note", "inReplyTo": {"id": "film-3"}}}, "comment"),
        ({"type": "Like", "object": {"type": "Video", "id": "film-3"}, "actor": {"id": "v1"}}, "like"),
        ({"type": "Like", "object": [{"id": "film-3"}], "actor": ["v1"]}, "like"),
        ({"type": ["Like"]}, "like"),
        ({"type": ["http://example.org/Applaud", "Dislike", "Like"]}, "dislike"),
        ({"type": [7, "Add"]}, "favourite"),
        ({"type": ["Create"], "object": {"type": ["Note"], "inReplyTo": "film-3"}}, "comment"),
        ({"type": "Like", "published": "2026-01-01T08:00+08:00"}, "like"),
        ({"type": "Like", "published": "2026-01-01T00:00Z"}, "like"),
        ({"type": "Like", "published": None, "startTime": "2026-01-01T00:00:00Z"}, "like"),
    ],
)
def test_activities_are_converted(activity: dict[str, Any], kind: str) -> None:
    base = {"@context": "https://www.w3.org/ns/activitystreams", "id": "urn:a:1", "actor": "v1", "object": "film-3"}
    event = accept(from_activity({**base, "published": "2026-01-01T08:00:00+08:00", **activity}), NOW)
    assert event == ViewerEvent(id="urn:a:1", kind=kind, viewer_id="v1", at=NOW, client_at=NOW, item_id="film-3")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("format_name", "raw", "field"),
    [
        ("segment", track("Video Ad Started"), "event"),
        ("segment", track("Order Completed"), "event"),
        ("segment", {**track("Video Content Playing"), "type": "page"}, "event"),
        ("segment", {**track("Video Content Playing"), "properties": 3}, "properties"),
        ("activitystreams", {"type": "Undo", "object": {"type": "Like"}}, "type"),
        ("activitystreams", {"type": ["Like", "Undo"]}, "type"),
        ("activitystreams", {"type": []}, "type"),
        ("activitystreams", {"type": ["Applaud", ["Like"], None]}, "type"),
        ("activitystreams", {"type": ["Create", "Applaud"], "object": {"type": "Note"}}, "type"),
        ("activitystreams", {"type": "Create", "object": {"type": "Note"}}, "type"),
    ],
)
def test_unsupported_input_is_rejected_with_its_field(format_name: str, raw: object, field: str) -> None:
    with pytest.raises(EventError) as caught:
        FORMATS[format_name](raw)
    assert [finding.where for finding in caught.value.findings] == [field]


@pytest.mark.parametrize(
    ("published", "client_at"),
    [
        ("2026-01-01T00:00", None),  # without a time zone it is ambiguous
        ("2026-01-01t00:00z", NOW),
        ("1969-12-31T23:59Z", None),
        ("2026-02-30T00:00Z", "time"),
        ("2026-01-01T00:00:0Z", "time"),
        ("2026-01-01", "time"),
        (7, "time"),
    ],
)
def test_activity_times_may_omit_seconds_only(published: object, client_at: float | str | None) -> None:
    """See https://www.w3.org/TR/activitystreams-core/#dates."""
    raw = {"type": "Like", "id": "urn:a:1", "actor": "v1", "object": "film-3", "published": published}
    if client_at == "time":
        with pytest.raises(EventError) as caught:
            accept(from_activity(raw), NOW)
        assert [finding.where for finding in caught.value.findings] == ["time"]
    else:
        assert accept(from_activity(raw), NOW).client_at == client_at


def test_formats_map_to_existing_kinds_only() -> None:
    assert {*segment.KINDS.values(), *activitystreams.KINDS.values()} - {""} <= set(KINDS)


@given(
    st.sampled_from(sorted(FORMATS)),
    json_values
    | st.fixed_dictionaries(
        {
            "type": st.sampled_from(["track", *activitystreams.KINDS, "Create", "Add"]) | json_values,
            "event": st.sampled_from(sorted(segment.KINDS)) | json_values,
        },
        optional=dict.fromkeys(("properties", "object", "actor", "id", "messageId", "userId", "context"), json_values),
    ),
)
def test_any_input_gives_a_valid_event_or_an_event_error(format_name: str, raw: object) -> None:
    try:
        event = accept(FORMATS[format_name](raw), NOW)
    except EventError:
        return
    assert decode(encode(event)) == event
