"""Numbered records in the files of one directory. One thread appends, one reads; both may go on while the other does.

A file is named by the number of its first record and is written once, front to back: after a restart, or after a write
that failed, a new one is begun. Numbers only grow and are never given twice, so what a failed write left behind can
never stand in for another record. A record is durable before `append` returns, and is not read before it is durable.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from features.events.spool.record_framing import Frame, encode_frame, scan_frames
from features.events.stream.port import Record

SEGMENT_BYTES = 8 << 20
CHUNK_BYTES = 1 << 20
KEEP_S = 86_400.0
"""What was delivered is on the disk no longer than this: a file is written for half of it, and kept for the other."""

SUFFIX = ".spool"

logger = logging.getLogger(__name__)


@dataclass
class _File:
    path: Path
    first: int  # number of its first record
    size: int  # bytes that are durable
    created_at: float  # unix second


class Segments:
    """The records of one directory that are not forgotten yet. Every method may raise OSError."""

    def __init__(
        self, directory: Path, segment_bytes: int = SEGMENT_BYTES, clock: Callable[[], float] = time.time
    ) -> None:
        self._directory, self._segment_bytes, self._clock = directory, segment_bytes, clock
        self._lock = threading.Lock()
        self._writing = threading.Lock()  # held while the last file is written, begun or ended
        self._files: list[_File] = []
        self._handle: int | None = None  # of the last file, while it is being written
        self._cursor: tuple[Path, int, int] | None = None  # file, place and number after which the last read ended
        self.last = -1  # number of the newest durable record
        self.given_up = -1  # newest number that was read and is damaged, with no record behind it
        self._given = -1  # the largest number ever given
        self._recover()

    @property
    def size(self) -> int:
        """Bytes that all files take."""
        with self._lock:
            return sum(file.size for file in self._files)

    def size_after(self, number: int) -> int:
        """Bytes of the files that hold records after this number."""
        with self._lock:
            kept = self._files[self._holding(number + 1) :] if self.last > number else []
            return sum(file.size for file in kept)

    def first(self) -> int:
        """Number of the oldest record; one beyond the newest when there is none."""
        with self._lock:
            return self._files[0].first if self._files else self.last + 1

    def continue_after(self, number: int) -> None:
        """Give no number up to this one again."""
        self.last, self._given = max(self.last, number), max(self._given, number)

    def append(self, records: Sequence[Record]) -> int:
        """Write these; on the disk on return. Returns the number of the last. On OSError none of them counts."""
        with self._writing:
            return self._append(records)

    def _append(self, records: Sequence[Record]) -> int:
        first = self._given + 1
        self._given += len(records)
        data = b"".join(encode_frame(number, record) for number, record in enumerate(records, first))
        if self._handle is not None and self._clock() - self._files[-1].created_at >= KEEP_S / 2:
            self._end()
        if self._handle is None:
            self._begin(first)
        assert self._handle is not None
        file = self._files[-1]
        try:
            _write(self._handle, data)
            os.fdatasync(self._handle)
        except OSError:
            self._discard_segment(file)
            raise
        with self._lock:
            file.size += len(data)
            self.last = self._given
        if file.size >= self._segment_bytes:
            self._end()
        return self.last

    def read(self, after: int) -> list[Frame]:
        """Return some of the durable records after this number, in order; none if there are none.

        If what is left at the end is damaged, `given_up` says up to which number: nothing follows to step over it.
        """
        while True:
            with self._lock:
                if after >= self.last or not self._files:
                    return []
                index = self._holding(after + 1)
                file = self._files[index]
                following = self._files[index + 1].first if index + 1 < len(self._files) else None
                size, last = file.size, self.last
            if self._cursor is not None and self._cursor[0] == file.path and self._cursor[2] <= after:
                place = self._cursor[1]
            else:
                place = 0
            found, place = self._chunk(file.path, place, size, after)
            if found:
                self._cursor = (file.path, place, found[-1].number)
                return found
            if following is None:
                self._cursor, self.given_up = (file.path, size, last), last
                return []
            after = following - 1  # the numbers between them were never acknowledged

    def delete_until(self, upto: int, keep_bytes: int = 0) -> None:
        """Remove the files whose records are all at or below this number, but the newest `keep_bytes` of them, and of
        those what has stood for KEEP_S."""
        self._close_old_segment(upto)
        with self._lock:
            done = self._files[: self._holding(upto + 1)] if upto < self.last else list(self._files)
            if self._handle is not None and done and done[-1] is self._files[-1]:
                done.pop()  # it is still being written
            kept = 0
            while done and kept + done[-1].size <= keep_bytes and not self._is_old(done[-1]):
                kept += done.pop().size
            del self._files[: len(done)]
        for file in done:
            file.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Write no more; idempotent."""
        with self._writing:
            self._end()

    # -- inside

    def _recover(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        for path in sorted(self._directory.glob(f"*{SUFFIX}")):
            size = path.stat().st_size
            if size:
                self._files.append(_File(path, int(path.stem), size, path.stat().st_mtime - KEEP_S / 2))
            else:
                path.unlink()
        while self._files:
            file = self._files[-1]
            found = scan_frames(file.path.read_bytes())
            if found.end < file.size:
                logger.warning("%s: %d bytes of an unfinished write cut off", file.path, file.size - found.end)
                os.truncate(file.path, found.end)
                file.size = found.end
            if found.whole:
                self.continue_after(found.whole[-1].number)
                break
            self.continue_after(file.first)  # its numbers may have been given
            self._files.pop().path.unlink()

    def _close_old_segment(self, upto: int) -> None:
        """Nothing more goes into a file that has stood for long and is delivered, so that it can be removed."""
        if upto >= self.last and self._writing.acquire(blocking=False):  # else somebody is writing: the next time
            try:
                if self._handle is not None and upto >= self.last and self._is_old(self._files[-1]):
                    self._end()
            finally:
                self._writing.release()

    def _is_old(self, file: _File) -> bool:
        """Whether its oldest record has stood for KEEP_S, or may have."""
        return self._clock() - file.created_at >= KEEP_S

    def _holding(self, number: int) -> int:
        """Index of the file that would hold this number."""
        index = len(self._files) - 1
        while index > 0 and self._files[index].first > number:
            index -= 1
        return max(index, 0)

    def _begin(self, first: int) -> None:
        path = self._directory / f"{first:020}{SUFFIX}"
        self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with self._lock:
            self._files.append(_File(path, first, 0, self._clock()))
        try:
            sync_directory(self._directory)
        except OSError:
            self._discard_segment(self._files[-1])
            raise

    def _discard_segment(self, file: _File) -> None:
        """After a failed write nobody knows what is on the disk behind the durable part: leave this file."""
        assert self._handle is not None
        with suppress(OSError):
            os.ftruncate(self._handle, file.size)
        self._end()
        if not file.size:
            with self._lock:
                self._files.remove(file)
            with suppress(OSError):
                file.path.unlink()

    def _end(self) -> None:
        if self._handle is not None:
            handle, self._handle = self._handle, None
            os.close(handle)

    def _chunk(self, path: Path, place: int, size: int, after: int) -> tuple[list[Frame], int]:
        """Records after a number from a place of a file on, and where they end."""
        length = CHUNK_BYTES
        with path.open("rb") as file:
            while place < size:
                file.seek(place)
                data = file.read(min(length, size - place))
                found = scan_frames(data)
                whole = place + len(data) >= size or len(data) < length  # the file was cut
                fresh = [one for one in found.whole if one.number > after]
                damaged = found.damaged + (
                    len(data) - found.end if whole and not fresh else 0
                )  # the next read: the rest
                if damaged:
                    logger.error(
                        "%s: %d bytes near offset %d are damaged; their records are lost", path, damaged, place
                    )
                if fresh:
                    return fresh, place + found.end
                if whole:
                    break
                if found.end:
                    place, length = place + found.end, CHUNK_BYTES
                else:
                    length *= 2  # one record larger than a chunk
        return [], place


def _write(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
