"""Client clocks: past and unusual times are accepted, future times are quarantined. Also surveys and exports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from features.events.decode import accept, accept_json, decode, encode
from features.events.schema import ViewerEvent, clock_skew_reason
from features.history.event_log import EventLog
from features.history.privacy import export_viewer
from features.state.online.memory import MemoryStore
from features.state.votes import LoggedEvent
from recsys.domain.errors import EventError

NOW = 1_767_225_600.0


def sent(kind: str = "play", time: str = "2026-01-01T00:00:00Z", **data: Any) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": "e1",
        "source": "/apps/tv",
        "type": f"mainstay.viewer.{kind}",
        "subject": "v1",
        "time": time,
        "dataschema": "urn:mainstay:viewer-event:1",
        "data": {"item_id": "film-3", **data},
    }


def test_a_survey_carries_a_rating() -> None:
    event = accept(sent("survey", rating=0.75), NOW)
    assert (event.rating, event.percent) == (0.75, None)
    assert decode(encode(event)) == event


def test_an_export_includes_events_with_control_characters(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    event = ViewerEvent(id="e\x01", kind="like", viewer_id="v1", at=NOW, item_id="film\x00")
    log.append("t/0", 0, 0, [LoggedEvent("t/0", 0, event)])
    _, line = (json.loads(line) for line in export_viewer(log, MemoryStore(), "v1"))
    assert (line["event"]["id"], line["event"]["data"]["item_id"]) == (event.id, event.item_id)


@pytest.mark.parametrize(
    ("time", "offset_s"),
    [
        ("2026-01-01T00:05:00Z", 300),
        ("2025-12-31T23:00:00Z", -3600),
        ("2016-01-01T00:00:00Z", -3653 * 86_400),
        ("1970-01-01T00:00:00Z", -NOW),
    ],
)
def test_past_times_and_small_clock_skew_are_accepted(time: str, offset_s: float) -> None:
    event = accept(sent(time=time), NOW)
    assert (event.at, event.client_at) == (NOW, NOW + offset_s)
    assert decode(encode(event)) == event


@pytest.mark.parametrize(
    ("time", "at"),
    [
        ("1970-01-01T00:00:00+08:00", None),
        ("1969-12-31T23:59:59.999999Z", None),
        ("0001-01-01T00:00:00+08:00", None),
        ("2026-01-01T00:00:00", None),
        ("2016-12-31t23:59:60", None),
        ("2016-12-31T23:59:60Z", 1_483_228_800.0),
        ("2017-01-01T07:59:60.5+08:00", 1_483_228_800.5),
    ],
)
def test_unusable_client_times_are_dropped_and_the_event_is_accepted(time: str, at: float | None) -> None:
    for event in (accept(sent(time=time), NOW), accept_json(json.dumps(sent(time=time)).encode(), NOW)[0]):
        assert (event.at, event.client_at) == (NOW, at)
        assert decode(encode(event)) == event


@pytest.mark.parametrize("time", ["2026-02-31T00:00:00", "2026-02-31T00:00:60Z", "2026-01-01T00:00:61Z", "24:00:60", 5])
def test_an_invalid_time_is_rejected_with_its_field(time: object) -> None:
    with pytest.raises(EventError) as caught:
        accept(sent(time=time), NOW)
    assert [finding.where for finding in caught.value.findings] == ["time"]


@pytest.mark.parametrize(
    "time",
    [
        "2026-01-01T00:05:00.001Z",
        "2026-01-01T01:00:00Z",
        "2036-01-01T00:00:00Z",
        "9999-12-31T23:59:59.999999Z",
        "9999-01-01T00:00:00-10:00",
    ],
)
def test_future_dated_events_are_encoded_but_not_decoded(time: str) -> None:
    event = accept(sent(time=time), NOW)
    assert "ahead of the server's clock" in clock_skew_reason(event)
    with pytest.raises(EventError, match=r"time: .* ahead of the server's clock: quarantined"):
        decode(encode(event))
