"""Versions of the schema, and what clients' clocks say: old bytes stay readable, the future is kept out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from msgspec.structs import replace

from features.events import ViewerEvent, accept, accept_json, ahead, decode, encode
from features.fold import Placed
from features.offline.log import EventLog
from features.offline.table import table_of
from features.online.memory import MemoryStore
from features.viewers import export_viewer
from recsys.errors import EventError
from recsys.types import Screen

NOW = 1_767_225_600.0


def sent(kind: str = "play", version: int = 2, time: str = "2026-01-01T00:00:00Z", **data: Any) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": "e1",
        "source": "/apps/tv",
        "type": f"mainstay.viewer.{kind}",
        "subject": "v1",
        "time": time,
        "dataschema": f"urn:mainstay:viewer-event:{version}",
        "data": {"item_id": "film-3", **data},
    }


def test_a_survey_says_how_satisfied() -> None:
    event = accept(sent("survey", rating=0.75), NOW)
    assert (event.rating, event.percent) == (0.75, None)
    assert decode(encode(event)) == event


V1 = (  # bytes as version 1 wrote them
    b'{"specversion":"1.0","id":"e1","source":"/mainstay","type":"mainstay.viewer.%s","subject":"v1",'
    b'"receivedat":"2026-01-01T00:00:00.250000Z","dataschema":"urn:mainstay:viewer-event:1",'
    b'"datacontenttype":"application/json","data":{%s},"time":"2025-12-31T23:59:59Z"}'
)


@pytest.mark.parametrize(
    ("kind", "data", "said"),
    [
        (b"play", b'"screen":"tv","item_id":"film-3","slot":2', {"screen": Screen.TV, "item_id": "film-3", "slot": 2}),
        (b"ping", b'"item_id":"film-3","percent":12.5', {"item_id": "film-3", "percent": 12.5}),
        (b"survey", b'"percent":80', {"rating": 0.8}),
        (b"survey", b'"item_id":"film-3","percent":0', {"item_id": "film-3", "rating": 0.0}),
        (b"survey", b'"item_id":"film-3"', {"item_id": "film-3"}),
        (
            b"impression",
            b'"items":["a","b"],"attention":[1.0,0.5],"context":{"seed":7}',
            {"items": ("a", "b"), "attention": (1.0, 0.5), "context": {"seed": 7}},
        ),
    ],
)
def test_bytes_of_version_1_are_read_as_the_newest_version_says_it(
    kind: bytes, data: bytes, said: dict[str, Any]
) -> None:
    event = decode(V1 % (kind, data))
    envelope = {"id": "e1", "viewer_id": "v1", "at": NOW + 0.25, "client_at": NOW - 1}
    assert event == ViewerEvent(kind=kind.decode(), **envelope, **said)  # type: ignore[arg-type]
    assert json.loads(encode(event))["dataschema"] == "urn:mainstay:viewer-event:2"
    assert decode(encode(event)) == event


@pytest.mark.parametrize("another_file_has_ratings", [False, True])
def test_files_of_version_1_are_read_as_its_bytes_are(tmp_path: Path, another_file_has_ratings: bool) -> None:
    """An engine that knew no `rating` wrote a survey's answer as `percent`, into files without that column."""
    said = [("survey", 90.0), ("survey", 0.0), ("survey", None), ("ping", 12.5), ("play", None)]
    old = [
        ViewerEvent(id=f"s{n}", kind=kind, viewer_id="v1", at=NOW + n, item_id="a", percent=percent)  # type: ignore[arg-type]
        for n, (kind, percent) in enumerate(said)
    ]
    log, placed = EventLog(tmp_path), [Placed("t/0", n, event) for n, event in enumerate(old)]
    file = log._file("t/0", 0, len(old) - 1, placed)
    file.parent.mkdir(parents=True)
    pq.write_table(table_of(placed).drop_columns(["rating"]), file)
    if another_file_has_ratings:
        newer = ViewerEvent(id="s9", kind="survey", viewer_id="v9", at=NOW + 9, rating=0.25)
        log.append("t/0", len(old), len(old), [Placed("t/0", len(old), newer)])
    first = b'"item_id":"a"'
    bytes_ = [
        V1 % (kind.encode(), first if percent is None else b'%s,"percent":%g' % (first, percent))
        for kind, percent in said
    ]
    expected = [
        replace(decode(raw), id=event.id, at=event.at, client_at=None) for raw, event in zip(bytes_, old, strict=True)
    ]
    assert [one.event for one in log.by_offset("t/0")][: len(old)] == expected
    lines = [json.loads(line) for line in export_viewer(log, MemoryStore(), "v1")]
    assert [decode(json.dumps(line["event"]).encode()) for line in lines[1:]] == expected


def test_an_export_holds_what_an_engine_that_took_more_has_taken(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    odd = ViewerEvent(id="e\x01", kind="like", viewer_id="v1", at=NOW, item_id="film\x00")
    log.append("t/0", 0, 0, [Placed("t/0", 0, odd)])
    _, line = (json.loads(line) for line in export_viewer(log, MemoryStore(), "v1"))
    assert (line["event"]["id"], line["event"]["data"]["item_id"]) == (odd.id, odd.item_id)


def test_a_client_of_version_1_may_go_on_sending() -> None:
    assert accept(sent("survey", version=1, percent=25), NOW).rating == 0.25
    with pytest.raises(EventError, match=r"data\.percent: must be at most"):
        accept(sent("survey", version=1, percent=250), NOW)
    with pytest.raises(EventError, match=r"dataschema: .* is not read here"):
        accept(sent(version=3), NOW)


@pytest.mark.parametrize(
    ("time", "offset_s"),
    [
        ("2026-01-01T00:05:00Z", 300),
        ("2025-12-31T23:00:00Z", -3600),
        ("2016-01-01T00:00:00Z", -3653 * 86_400),
        ("1970-01-01T00:00:00Z", -NOW),
    ],
)
def test_a_late_clock_and_a_little_haste_are_kept_and_taken(time: str, offset_s: float) -> None:
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
def test_a_clock_that_is_dead_or_without_a_zone_costs_no_event(time: str, at: float | None) -> None:
    for event in (accept(sent(time=time), NOW), accept_json(json.dumps(sent(time=time)).encode(), NOW)[0]):
        assert (event.at, event.client_at) == (NOW, at)
        assert decode(encode(event)) == event


@pytest.mark.parametrize("time", ["2026-02-31T00:00:00", "2026-02-31T00:00:60Z", "2026-01-01T00:00:61Z", "24:00:60", 5])
def test_what_is_no_time_is_refused_by_name(time: object) -> None:
    with pytest.raises(EventError) as told:
        accept(sent(time=time), NOW)
    assert [finding.where for finding in told.value.findings] == ["time"]


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
def test_the_future_is_written_and_never_read(time: str) -> None:
    event = accept(sent(time=time), NOW)
    assert "ahead of the server's clock" in ahead(event)
    with pytest.raises(EventError, match=r"time: .* ahead of the server's clock: quarantined"):
        decode(encode(event))
