"""Spool segments: acknowledged records are read back in order after torn writes, damage, full disks and crashes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.events.spool.durable import Relay
from features.events.spool.lease import DeliveryCursor
from features.events.spool.record_framing import MAGIC, encode_frame, scan_frames
from features.events.spool.segments import RETENTION_S, Segments
from features.events.stream.memory import MemoryStream
from features.events.stream.port import Record


def record(number: int) -> Record:
    return Record(f"观众{number % 3}", str(number).encode())


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_acknowledged_records_survive_any_sequence_of_crashes_and_torn_writes(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Acknowledged records are read back in order after any crash, with the last segment truncated anywhere."""
    directory = tmp_path_factory.mktemp("spool")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("os.fdatasync", lambda handle: None)
        patched.setattr("os.fsync", lambda handle: None)
        segments, position = Segments(directory, 200), DeliveryCursor(directory)
        accepted: dict[int, bytes] = {}
        got: list[bytes] = []
        count = 0
        for step in data.draw(st.lists(st.sampled_from(["append", "drain", "crash", "torn", "full"]), max_size=20)):
            if step in ("append", "torn", "full"):
                records = [record(count + n) for n in range(data.draw(st.integers(1, 5)))]
                count += len(records)
            if step == "append":
                last = segments.append(records)
                accepted |= {last - len(records) + 1 + n: frame.value for n, frame in enumerate(records)}
            elif step == "full":  # the disk becomes full during the write
                n_bytes = data.draw(st.integers(0, 60))
                with patched.context() as full:
                    full.setattr("features.events.spool.segments._write", write_partially(n_bytes))
                    if data.draw(st.booleans()):
                        full.setattr("os.ftruncate", raise_io_error)
                    with pytest.raises(OSError, match="No space"):
                        segments.append(records)
            elif step == "drain":
                for frame in segments.read(position.number)[: data.draw(st.integers(1, 9))]:
                    assert frame.number > position.number
                    position.advance(frame.number)
                    if frame.number in accepted:
                        assert accepted.pop(frame.number) == frame.record.value
                        got.append(frame.record.value)
                segments.delete_until(position.number)
            else:
                if step == "torn":  # killed during the write: any prefix is on disk
                    files = sorted(directory.glob("*.spool"))
                    data_written = b"".join(
                        encode_frame(segments._last_assigned + 1 + n, frame) for n, frame in enumerate(records)
                    )
                    if files:
                        with files[-1].open("ab") as file:
                            file.write(data_written[: data.draw(st.integers(0, len(data_written)))])
                segments, position = Segments(directory, 200), DeliveryCursor(directory)
                segments.continue_after(position.number)
        while batch := segments.read(position.number):
            for frame in batch:
                position.advance(frame.number)
                if frame.number in accepted:
                    assert accepted.pop(frame.number) == frame.record.value
                    got.append(frame.record.value)
        assert not accepted, "acknowledged records were lost"
        assert [int(value) for value in got] == sorted(int(value) for value in got)
        segments.delete_until(position.number)
        segments.close()
        position.close()


def write_partially(n_bytes: int) -> Callable[[int, bytes], None]:
    def write(handle: int, data: bytes) -> None:
        os.write(handle, data[:n_bytes])
        raise OSError(28, "No space left on device")

    return write


def raise_io_error(*_: object) -> None:
    raise OSError(5, "Input/output error")


@given(st.lists(st.tuples(st.text(max_size=5), st.binary(max_size=30)), min_size=1, max_size=6), st.data())
def test_scanning_detects_truncated_and_damaged_frames(pairs: list[tuple[str, bytes]], data: st.DataObject) -> None:
    pairs = [(key.encode("utf-8", "replace").decode(), value) for key, value in pairs]
    records = [Record(key, value) for key, value in pairs if MAGIC not in value]
    encoded = b"".join(encode_frame(number, item) for number, item in enumerate(records))
    assert [item.record for item in scan_frames(encoded).frames] == records
    cut = encoded[: data.draw(st.integers(0, len(encoded)))]
    scan = scan_frames(cut)
    assert [item.record for item in scan.frames] == records[: len(scan.frames)]
    assert scan.damaged_bytes == 0
    if encoded:
        damaged = bytearray(encoded)
        damaged[data.draw(st.integers(0, len(encoded) - 1))] ^= data.draw(st.integers(1, 255))
        scan = scan_frames(bytes(damaged))
        assert len(scan.frames) == len(records) - 1, "the records after the damage are found"
        assert all(records[item.number] == item.record for item in scan.frames)


def test_remains_of_a_failed_write_never_replace_another_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed write leaves a complete record on disk that cannot be truncated; then another record is written."""
    segments = Segments(tmp_path)
    segments.append([record(0)])
    with monkeypatch.context() as failing:
        failing.setattr("os.fdatasync", raise_io_error)
        failing.setattr("os.ftruncate", raise_io_error)
        with pytest.raises(OSError, match="Input/output"):
            segments.append([record(1)])
    segments.append([record(2)])
    segments.close()
    for opened in (segments, Segments(tmp_path)):
        got, after = [], -1
        while batch := opened.read(after):
            got += [int(frame.record.value) for frame in batch]
            after = batch[-1].number
        assert [number for number in got if number != 1] == [0, 2]


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_one_damaged_byte_loses_at_most_one_record(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Some records are delivered, and others are in several segments; the byte changes while no process runs."""
    directory, stream = tmp_path_factory.mktemp("spool"), MemoryStream(1)
    stream.partitions("t")
    segments = Segments(directory, 300)
    relay = Relay(directory, segments, stream, "t", 200)
    n_undelivered = data.draw(st.integers(1, 30))
    for count in range(30):
        if count == 30 - n_undelivered:
            while relay.step():
                pass
        segments.append([record(2 * count), record(2 * count + 1)])
    relay.close()
    segments.close()
    file = data.draw(st.sampled_from(sorted(path for path in directory.iterdir() if path.stat().st_size)))
    damaged = bytearray(file.read_bytes())
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    file.write_bytes(damaged)
    segments = Segments(directory, 300)
    relay = Relay(directory, segments, stream, "t", 200)
    segments.append([record(60), record(61)])
    while relay.step():
        pass
    assert segments.last == relay.cursor.number
    relay.close()
    segments.close()
    got = list(dict.fromkeys(int(message.value) for message in stream.read("t", 0, 0, 10**6)))
    assert len(set(range(62)) - set(got)) <= 1
    assert got == sorted(got)
    assert set(got) <= set(range(62))


def test_an_unfinished_write_is_truncated_at_the_next_start(tmp_path: Path) -> None:
    segments = Segments(tmp_path)
    segments.append([record(0), record(1)])
    segments.close()
    (file,) = tmp_path.glob("*.spool")
    size = file.stat().st_size
    with file.open("ab") as torn:
        torn.write(encode_frame(2, record(2))[:-1])
    assert Segments(tmp_path).size == file.stat().st_size == size


def test_truncating_an_open_segment_loses_only_the_truncated_records(tmp_path: Path) -> None:
    segments = Segments(tmp_path)
    segments.append([record(0), record(1), record(2)])
    (file,) = tmp_path.glob("*.spool")
    os.truncate(file, file.stat().st_size * 2 // 3 - 1)
    assert [item.number for item in segments.read(-1)] == [0]
    assert segments.read(0) == []
    assert segments.damaged_until == 2
    segments.append([record(3)])
    assert [item.number for item in segments.read(2)] == [3]
    segments.close()


def test_delivered_records_are_deleted_after_a_day(tmp_path: Path) -> None:
    """This includes the active segment if nothing is written. Undelivered records stay until they are delivered."""
    now = [0.0]
    segments = Segments(tmp_path, clock=lambda: now[0])
    segments.append([record(0)])
    now[0] = RETENTION_S / 2
    segments.append([record(1)])
    for hour, delivered_until, n_files in (
        (12, 1, 2),
        (23.9, 1, 2),
        (24, 1, 1),
        (35.9, 1, 1),
        (36, 0, 1),
        (100, 0, 1),
        (100, 1, 0),
    ):
        now[0] = hour * 3600.0
        segments.delete_until(delivered_until, retention_bytes=1 << 30)
        assert len(list(tmp_path.glob("*.spool"))) == n_files, hour
    assert segments.append([record(2)]) == 2
    segments.delete_until(1, retention_bytes=1 << 30)
    assert [frame.number for frame in segments.read(1)] == [2]
    segments.close()
    reopened = Segments(tmp_path, clock=lambda: time.time() + RETENTION_S)
    reopened.delete_until(1, retention_bytes=1 << 30)
    assert [frame.number for frame in reopened.read(1)] == [2]
    reopened.delete_until(2, retention_bytes=1 << 30)
    assert not list(tmp_path.glob("*.spool"))
