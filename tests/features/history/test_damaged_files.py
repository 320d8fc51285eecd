"""A damaged Parquet file costs its own events only, and every command on the event log goes on."""

from __future__ import annotations

import logging
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest

from features.events.schema import ViewerEvent
from features.history.arrow_schema import table_of
from features.history.compaction import compact
from features.history.damaged_files import VERIFIED_FOR_S, DamagedFiles
from features.history.event_log import EventLog
from features.history.privacy import erase_viewer, export_viewer
from features.state.online.memory import MemoryStore
from features.state.votes import LoggedEvent
from recsys.domain.errors import Unavailable

DAY_S = 86_400.0
START = 20_000 * DAY_S


@pytest.fixture(scope="module", autouse=True)
def _no_fsync() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("os.fsync", lambda handle: None)
        yield


def events(first: int, count: int) -> list[LoggedEvent]:
    """Return events of three viewers, with texts and lists."""
    return [
        LoggedEvent("t/0", n, ViewerEvent(id=f"e{n}", kind="impression", viewer_id=f"v{n % 3}", at=START + 60.0 * n,
                                          items=("i1", f"i{n}"), attention=(1.0, 0.5), context={"seed": n}))
        for n in range(first, first + count)
    ]  # fmt: skip


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    """A log of three files, one of them compacted."""
    log = EventLog(tmp_path / "events")
    for first in (0, 10):
        log.append("t/0", first, first + 9, events(first, 10))
    compact(log)
    for first in (2_000, 4_000):
        log.append("t/0", first, first + 9, events(first, 10))
    assert len(log.files()) == 3
    return log


def flip(path: Path, position: int, mask: int) -> None:
    damaged = bytearray(path.read_bytes())
    damaged[position] ^= mask
    path.write_bytes(damaged)


def test_one_damaged_byte_costs_only_the_events_of_its_file(
    log: EventLog, tmp_path: Path, scaled: Callable[..., int]
) -> None:
    chance = random.Random(1)
    ids_of = {Path(file).name: set(pq.read_table(file)["id"].to_pylist()) for file in log.files()}
    for number in range(scaled(1_000, 10)):
        copy = EventLog(tmp_path / f"copy-{number}")
        shutil.copytree(log.directory, copy.directory)
        file = Path(chance.choice(copy.files()))
        flip(file, chance.randrange(file.stat().st_size), chance.randrange(1, 256))
        if number % 2:
            compact(copy)
        assert {entry.event.id for entry in copy.replay()} == set().union(*ids_of.values()) - ids_of[file.name]
        assert [path.name for path in copy.damaged.quarantined()] == [file.name]
        shutil.rmtree(copy.directory)


def test_export_and_erasure_name_the_damaged_file(log: EventLog) -> None:
    file = Path(log.files()[-1])
    flip(file, 100, 1)
    lines = b"".join(export_viewer(log, MemoryStore(), "v1"))
    assert lines.count(b'"event"') == 7 + 3
    assert f'{{"damaged_file":"{file.name}"}}'.encode() in lines
    report = erase_viewer(log, MemoryStore(), "v1", START + 10 * DAY_S)
    assert (report.events, report.damaged_files) == (10, (file.name,))


def test_a_file_that_is_damaged_after_its_verification_is_found_at_the_latest_an_hour_later(log: EventLog) -> None:
    now = [0.0]
    log.damaged = DamagedFiles(log.directory, lambda: now[0])
    assert len(log.events()) == 40
    status = (file := Path(log.files()[0])).stat()
    flip(file, 5, 1)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))  # as when the disk changes a byte
    now[0] = VERIFIED_FOR_S
    assert len(log.events()) == 20
    assert log.damaged.quarantined()[0].name == file.name


def test_a_query_that_fails_verifies_all_files_again(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(log.events()) == 40
    file = Path(log.files()[0])
    flip(file, file.stat().st_size - 1, 1)  # the magic number at the end: DuckDB refuses the file
    with monkeypatch.context() as patched:
        patched.setattr(
            DamagedFiles, "is_intact", lambda self, path, recheck=False: not recheck or _is_intact(self, path)
        )
        assert len(log.events()) == 20


_is_intact = DamagedFiles.is_intact


def test_a_query_that_fails_on_intact_files_is_reported(log: EventLog) -> None:
    with pytest.raises(Unavailable, match="no_such_column"):
        log.query("SELECT no_such_column FROM log", {})
    assert log.damaged.quarantined() == []


def test_a_damaged_file_is_written_again_when_its_batch_is_delivered_again(log: EventLog) -> None:
    flip(Path(log.files()[-1]), 50, 1)
    log.append("t/0", 4_000, 4_009, events(4_000, 10))
    assert len(log.events()) == 40
    n_files = len(log.files())
    log.append("t/0", 4_000, 4_009, events(4_000, 10))
    assert len(log.files()) == n_files


@pytest.mark.parametrize("with_page_checksums", [False, True])
def test_files_of_other_programs_are_verified_by_their_pages(log: EventLog, with_page_checksums: bool) -> None:
    folder = Path(log.files()[0]).parent
    table = table_of(events(9_000, 500))
    for name, options in (("intact", {}), ("damaged", {"write_page_checksum": with_page_checksums})):
        pq.write_table(table, folder / f"{name}-until-2030-01-01.parquet", compression="none", **options)
    file = folder / "damaged-until-2030-01-01.parquet"
    content = file.read_bytes()
    flip(file, content.index(b"e9123") + 4, 1)
    assert len(log.events()) == (540 if with_page_checksums else 541)  # without: one id differs from that of its copy
    assert len(log.damaged.quarantined()) == int(with_page_checksums)


def test_every_file_of_the_log_has_page_checksums(log: EventLog) -> None:
    """Arrow reports a wrong page checksum, whatever the name of the file."""
    for path in log.files():
        file = Path(path)
        column = pq.read_metadata(file).row_group(0).column(0)
        flip(file, column.dictionary_page_offset + column.total_compressed_size - 1, 1)
        with pytest.raises((OSError, ValueError)):
            pq.read_table(file, page_checksum_verification=True)


def test_each_damaged_file_is_logged_with_what_to_do(log: EventLog, caplog: pytest.LogCaptureFixture) -> None:
    file = Path(log.files()[0])
    flip(file, 9, 7)
    with caplog.at_level(logging.ERROR):
        log.sources()
        log.sources()
    assert len(caplog.records) == 1
    assert file.name in caplog.text
    assert "mainstay rebuild --from stream" in str(log.damaged.report())
