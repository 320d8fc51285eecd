"""The event log: each event is read once, in time order, and readers never see a partial file."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.events.schema import LATEST, ViewerEvent
from features.history import event_log as module
from features.history import files
from features.history.arrow_schema import SCHEMA
from features.history.event_log import EventLog
from features.state.votes import LoggedEvent
from recsys.domain.errors import Unavailable
from recsys.domain.placement import Screen

DAY_S = 86_400.0
START = 20_000 * DAY_S


@pytest.fixture(scope="module", autouse=True)
def _a_fast_disk() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("os.fsync", lambda handle: None)
        yield


def event(id: str, at: float, **fields: Any) -> ViewerEvent:
    return ViewerEvent(id=id, kind="play", viewer_id="v", at=at, item_id="a", **fields)


def test_events_round_trip_with_every_field(tmp_path: Path) -> None:
    full = ViewerEvent(
        id="e1",
        kind="ping",
        viewer_id="观众",
        at=START + 0.25,
        client_at=START,
        session_id="s",
        device_id="d",
        screen=Screen.TV,
        region="cn.zj",
        placement="cn.zj-tv-home",
        request_id="r",
        item_id="a",
        slot=3,
        position_s=1.5,
        duration_s=9.0,
        percent=16.7,
    )
    page = ViewerEvent(
        id="e2",
        kind="impression",
        viewer_id="v",
        at=START + 1,
        items=("a", "b"),
        attention=(1.0, 0.5),
        context={"seed": 7, "versions": {"policy": "cn@1", "模型": None}, "propensity": [0.25, 1]},
    )
    log = EventLog(tmp_path / "new" / "events")
    logged = [LoggedEvent("viewer-events/0", 5, full), LoggedEvent("viewer-events/0", 6, page)]
    log.append("viewer-events/0", 5, 6, logged)
    assert list(log.replay()) == logged
    table = log.events()
    assert table.schema == SCHEMA
    assert set(ViewerEvent.__struct_fields__) | {"source", "offset"} == set(table.column_names)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_log_with_overlaps_and_repeats_yields_each_event_once_in_order(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    log = EventLog(tmp_path_factory.mktemp("events"))
    expected: list[LoggedEvent] = []
    for partition in range(2):
        source, viewer = f"t/{partition}", f"v{partition}"
        logged: list[LoggedEvent] = []
        for offset in range(data.draw(st.integers(0, 8))):
            id = f"e{data.draw(st.integers(0, offset))}"  # sometimes a duplicate
            days = data.draw(st.integers(0, 3)) / 4 + offset / 4
            play = ViewerEvent(id=id, kind="play", viewer_id=viewer, at=START + days * DAY_S, item_id="a")
            logged.append(LoggedEvent(source, offset, play))
        position = 0
        while position < len(logged):
            start = data.draw(st.integers(0, position))  # redelivered in a different range after a crash
            position = data.draw(st.integers(position + 1, len(logged)))
            for _ in range(data.draw(st.integers(1, 2))):
                log.append(source, start, position - 1, logged[start:position])
        first: dict[str, LoggedEvent] = {}
        for entry in logged:
            first.setdefault(entry.event.id, entry)
        expected += first.values()
    expected.sort(key=lambda entry: (entry.event.at, entry.source, entry.offset))
    assert list(log.replay()) == expected
    since, until = START + DAY_S * 0.5, START + DAY_S * 1.5
    assert list(log.replay(since, until)) == [entry for entry in expected if since <= entry.event.at < until]


def test_only_files_of_the_requested_days_are_opened(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    for day in range(10):
        log.append("t/0", day, day, [LoggedEvent("t/0", day, event(f"e{day}", START + day * DAY_S))])
    for file in tmp_path.glob(f"day={files.day_of(START + 9 * DAY_S)}/*"):
        file.write_bytes(b"broken")
    assert [p.event.id for p in log.replay(START + 2 * DAY_S, START + 4 * DAY_S)] == ["e2", "e3"]
    assert log.damaged.quarantined() == []
    assert len(log.events()) == 9
    assert len(log.damaged.quarantined()) == 1


@pytest.mark.parametrize("seed", range(3))
def test_a_late_duplicate_does_not_appear_in_later_days(tmp_path: Path, seed: int) -> None:
    """The oracle selects the first copy in stream order, then the requested days."""
    log, chance, first = EventLog(tmp_path), random.Random(seed), dict[tuple[str, str], LoggedEvent]()
    for offset in range(60):
        play = event(f"e{chance.randrange(30)}", START + (offset // 2 + chance.choice([0, 0.5, -0.5])) * DAY_S)
        logged = LoggedEvent(f"t/{chance.randrange(2)}", offset, play)
        log.append(logged.source, offset, offset, [logged])
        earliest = first.setdefault((play.viewer_id, play.id), logged)
        if (logged.source, offset) < (earliest.source, earliest.offset):
            first[play.viewer_id, play.id] = logged
    for since in (0.0, START + 5 * DAY_S, START + 12 * DAY_S, START + 25 * DAY_S):
        expected_events = [play for play in first.values() if since <= play.event.at]
        assert list(log.replay(since)) == sorted(
            expected_events, key=lambda play: (play.event.at, play.source, play.offset)
        )


def test_the_earliest_and_latest_times_are_included(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    log.append("t/0", 0, 1, [LoggedEvent("t/0", 0, event("a", 0.0)), LoggedEvent("t/0", 1, event("z", LATEST))])
    assert [logged.event.id for logged in log.replay()] == ["a", "z"]
    assert EventLog(tmp_path / "none").events().num_rows == 0


def test_readers_never_see_a_partial_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer pauses in the middle of a file: readers see nothing of it, then all of it."""
    log = EventLog(tmp_path)
    half, go_on = threading.Event(), threading.Event()
    write_table = pq.write_table

    def slowly(table: Any, out: Any, **options: Any) -> None:
        out.write(b"PAR1 half a file")
        out.flush()
        half.set()
        assert go_on.wait(10)
        out.seek(0)
        out.truncate()
        write_table(table, out, **options)

    monkeypatch.setattr(module.pq, "write_table", slowly)
    writer = threading.Thread(target=log.append, args=("t/0", 0, 0, [LoggedEvent("t/0", 0, event("e", START))]))
    writer.start()
    assert half.wait(10)
    assert log.events().num_rows == 0
    go_on.set()
    writer.join()
    assert log.events().num_rows == 1
    assert [file.suffix for file in tmp_path.glob("day=*/*")] == [".parquet"]


def test_a_directory_that_cannot_be_written_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="event log"):
        EventLog(tmp_path / "file").append("t/0", 0, 0, [LoggedEvent("t/0", 0, event("e", START))])
