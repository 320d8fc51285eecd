"""The event log: what went in comes out once, in the order of time, and half a file is never seen."""

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


def event(id: str, at: float, **said: Any) -> ViewerEvent:
    return ViewerEvent(id=id, kind="play", viewer_id="v", at=at, item_id="a", **said)


def test_every_field_comes_back(tmp_path: Path) -> None:
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
    placed = [LoggedEvent("viewer-events/0", 5, full), LoggedEvent("viewer-events/0", 6, page)]
    log.append("viewer-events/0", 5, 6, placed)
    assert list(log.replay()) == placed
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
        placed: list[LoggedEvent] = []
        for offset in range(data.draw(st.integers(0, 8))):
            id = f"e{data.draw(st.integers(0, offset))}"  # sometimes sent twice
            days = data.draw(st.integers(0, 3)) / 4 + offset / 4
            made = ViewerEvent(id=id, kind="play", viewer_id=viewer, at=START + days * DAY_S, item_id="a")
            placed.append(LoggedEvent(source, offset, made))
        position = 0
        while position < len(placed):
            again = data.draw(st.integers(0, position))  # redelivered with other bounds after a crash
            position = data.draw(st.integers(position + 1, len(placed)))
            for _ in range(data.draw(st.integers(1, 2))):
                log.append(source, again, position - 1, placed[again:position])
        first: dict[str, LoggedEvent] = {}
        for one in placed:
            first.setdefault(one.event.id, one)
        expected += first.values()
    expected.sort(key=lambda one: (one.event.at, one.source, one.offset))
    assert list(log.replay()) == expected
    since, until = START + DAY_S * 0.5, START + DAY_S * 1.5
    assert list(log.replay(since, until)) == [one for one in expected if since <= one.event.at < until]


def test_only_files_of_the_days_asked_for_are_opened(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    for day in range(10):
        log.append("t/0", day, day, [LoggedEvent("t/0", day, event(f"e{day}", START + day * DAY_S))])
    for file in tmp_path.glob(f"day={files.day_of(START + 9 * DAY_S)}/*"):
        file.write_bytes(b"broken")
    assert [p.event.id for p in log.replay(START + 2 * DAY_S, START + 4 * DAY_S)] == ["e2", "e3"]
    with pytest.raises(Unavailable):
        log.events()


@pytest.mark.parametrize("seed", range(3))
def test_an_event_sent_again_after_any_time_is_none_of_the_later_days(tmp_path: Path, seed: int) -> None:
    """The oracle takes the first copy in the order of the stream, then the days asked for."""
    log, chance, first = EventLog(tmp_path), random.Random(seed), dict[tuple[str, str], LoggedEvent]()
    for offset in range(60):
        one = event(f"e{chance.randrange(30)}", START + (offset // 2 + chance.choice([0, 0.5, -0.5])) * DAY_S)
        placed = LoggedEvent(f"t/{chance.randrange(2)}", offset, one)
        log.append(placed.source, offset, offset, [placed])
        known = first.setdefault((one.viewer_id, one.id), placed)
        if (placed.source, offset) < (known.source, known.offset):
            first[one.viewer_id, one.id] = placed
    for since in (0.0, START + 5 * DAY_S, START + 12 * DAY_S, START + 25 * DAY_S):
        due = [one for one in first.values() if since <= one.event.at]
        assert list(log.replay(since)) == sorted(due, key=lambda one: (one.event.at, one.source, one.offset))


def test_the_ends_of_time_are_inside(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    log.append("t/0", 0, 1, [LoggedEvent("t/0", 0, event("a", 0.0)), LoggedEvent("t/0", 1, event("z", LATEST))])
    assert [one.event.id for one in log.replay()] == ["a", "z"]
    assert EventLog(tmp_path / "none").events().num_rows == 0


def test_a_reader_beside_a_writer_never_sees_half_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer is stopped in the middle of a file: nothing of it shows, then all of it."""
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
