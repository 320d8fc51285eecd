"""Spool files: what append returned for is read back in order, whatever was cut, flipped, refused or killed."""

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
def test_append_crash_cut_drain_and_restart_in_any_order_lose_nothing(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """What append returned for is read back, in order, after any crash; the end of the last file is cut anywhere."""
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
                accepted |= {last - len(records) + 1 + n: one.value for n, one in enumerate(records)}
            elif step == "full":  # the disk takes a part, then no more
                room = data.draw(st.integers(0, 60))
                with patched.context() as full:
                    full.setattr("features.events.spool.segments._write", short_of(room))
                    if data.draw(st.booleans()):
                        full.setattr("os.ftruncate", refuses)
                    with pytest.raises(OSError, match="No space"):
                        segments.append(records)
            elif step == "drain":
                for one in segments.read(position.number)[: data.draw(st.integers(1, 9))]:
                    assert one.number > position.number
                    position.advance(one.number)
                    if one.number in accepted:
                        assert accepted.pop(one.number) == one.record.value
                        got.append(one.record.value)
                segments.delete_until(position.number)
            else:
                if step == "torn":  # killed while writing: any part of it is on the disk
                    files = sorted(directory.glob("*.spool"))
                    data_written = b"".join(
                        encode_frame(segments._last_assigned + 1 + n, one) for n, one in enumerate(records)
                    )
                    if files:
                        with files[-1].open("ab") as file:
                            file.write(data_written[: data.draw(st.integers(0, len(data_written)))])
                segments, position = Segments(directory, 200), DeliveryCursor(directory)
                segments.continue_after(position.number)
        while batch := segments.read(position.number):
            for one in batch:
                position.advance(one.number)
                if one.number in accepted:
                    assert accepted.pop(one.number) == one.record.value
                    got.append(one.record.value)
        assert not accepted, "taken and lost"
        assert [int(value) for value in got] == sorted(int(value) for value in got)
        segments.delete_until(position.number)
        segments.close()
        position.close()


def short_of(room: int) -> Callable[[int, bytes], None]:
    def write(handle: int, data: bytes) -> None:
        os.write(handle, data[:room])
        raise OSError(28, "No space left on device")

    return write


def refuses(*_: object) -> None:
    raise OSError(5, "Input/output error")


@given(st.lists(st.tuples(st.text(max_size=5), st.binary(max_size=30)), min_size=1, max_size=6), st.data())
def test_frames_come_back_and_no_cut_or_flip_passes_for_a_record(
    said: list[tuple[str, bytes]], data: st.DataObject
) -> None:
    said = [(key.encode("utf-8", "replace").decode(), value) for key, value in said]
    records = [Record(key, value) for key, value in said if MAGIC not in value]
    whole = b"".join(encode_frame(number, one) for number, one in enumerate(records))
    assert [one.record for one in scan_frames(whole).frames] == records
    cut = whole[: data.draw(st.integers(0, len(whole)))]
    found = scan_frames(cut)
    assert [one.record for one in found.frames] == records[: len(found.frames)]
    assert found.damaged_bytes == 0
    if whole:
        spoilt = bytearray(whole)
        spoilt[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
        found = scan_frames(bytes(spoilt))
        assert len(found.frames) == len(records) - 1, "the others are found behind the damage"
        assert all(records[one.number] == one.record for one in found.frames)


def test_what_a_failed_write_left_behind_never_stands_in_for_another_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole record is on the disk, its write was refused, and nothing could be cut off: another one comes next."""
    segments = Segments(tmp_path)
    segments.append([record(0)])
    with monkeypatch.context() as failing:
        failing.setattr("os.fdatasync", refuses)
        failing.setattr("os.ftruncate", refuses)
        with pytest.raises(OSError, match="Input/output"):
            segments.append([record(1)])
    segments.append([record(2)])
    segments.close()
    for opened in (segments, Segments(tmp_path)):
        got, after = [], -1
        while batch := opened.read(after):
            got += [int(one.record.value) for one in batch]
            after = batch[-1].number
        assert [number for number in got if number != 1] == [0, 2]


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_one_damaged_byte_in_any_file_loses_at_most_one_record_and_stops_nothing(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Some records are delivered, the others wait in several files; the byte changes while no process runs."""
    directory, stream = tmp_path_factory.mktemp("spool"), MemoryStream(1)
    stream.partitions("t")
    segments = Segments(directory, 300)
    delivery = Relay(directory, segments, stream, "t", 200)
    waiting = data.draw(st.integers(1, 30))
    for count in range(30):
        if count == 30 - waiting:
            while delivery.step():
                pass
        segments.append([record(2 * count), record(2 * count + 1)])
    delivery.close()
    segments.close()
    file = data.draw(st.sampled_from(sorted(path for path in directory.iterdir() if path.stat().st_size)))
    damaged = bytearray(file.read_bytes())
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    file.write_bytes(damaged)
    segments = Segments(directory, 300)
    delivery = Relay(directory, segments, stream, "t", 200)
    segments.append([record(60), record(61)])
    while delivery.step():
        pass
    assert segments.last == delivery.cursor.number
    delivery.close()
    segments.close()
    got = list(dict.fromkeys(int(message.value) for message in stream.read("t", 0, 0, 10**6)))
    assert len(set(range(62)) - set(got)) <= 1
    assert got == sorted(got)
    assert set(got) <= set(range(62))


def test_an_unfinished_write_is_cut_off_at_the_next_start(tmp_path: Path) -> None:
    segments = Segments(tmp_path)
    segments.append([record(0), record(1)])
    segments.close()
    (file,) = tmp_path.glob("*.spool")
    size = file.stat().st_size
    with file.open("ab") as torn:
        torn.write(encode_frame(2, record(2))[:-1])
    assert Segments(tmp_path).size == file.stat().st_size == size


def test_file_cut_while_it_is_open_loses_only_the_records_that_were_cut(tmp_path: Path) -> None:
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


def test_what_was_delivered_stands_for_a_day_at_most(tmp_path: Path) -> None:
    """Also in the file that is being written, while nothing is written; what waits stays for as long as it waits."""
    now = [0.0]
    segments = Segments(tmp_path, clock=lambda: now[0])
    segments.append([record(0)])
    now[0] = RETENTION_S / 2
    segments.append([record(1)])
    for hour, upto, left in ((12, 1, 2), (23.9, 1, 2), (24, 1, 1), (35.9, 1, 1), (36, 0, 1), (100, 0, 1), (100, 1, 0)):
        now[0] = hour * 3600.0
        segments.delete_until(upto, retention_bytes=1 << 30)
        assert len(list(tmp_path.glob("*.spool"))) == left, hour
    assert segments.append([record(2)]) == 2
    segments.delete_until(1, retention_bytes=1 << 30)
    assert [one.number for one in segments.read(1)] == [2]
    segments.close()
    again = Segments(tmp_path, clock=lambda: time.time() + RETENTION_S)
    again.delete_until(1, retention_bytes=1 << 30)
    assert [one.number for one in again.read(1)] == [2]
    again.delete_until(2, retention_bytes=1 << 30)
    assert not list(tmp_path.glob("*.spool"))
