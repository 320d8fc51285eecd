"""The segments of the spool's write-ahead log: files with numbered records in one directory.

One thread appends while another reads. A segment is named after the sequence number of its first record and is written
sequentially. A restart or a failed write starts a new segment. Sequence numbers increase and are never reused, so the
remains of a failed write cannot be mistaken for another record. A record is durable before `append` returns, and is not
read before it is durable.
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
RETENTION_S = 86_400.0
"""Maximum time that delivered records stay on disk. A segment is written for half of it, and retained for the rest."""

SUFFIX = ".spool"

logger = logging.getLogger(__name__)


@dataclass
class _Segment:
    path: Path
    first: int  # sequence number of its first record
    size: int  # durable bytes
    created_at: float  # unix seconds


class Segments:
    """The retained records of one directory. Every method may raise OSError."""

    def __init__(
        self, directory: Path, segment_bytes: int = SEGMENT_BYTES, clock: Callable[[], float] = time.time
    ) -> None:
        self._directory, self._segment_bytes, self._clock = directory, segment_bytes, clock
        self._lock = threading.Lock()
        self._write_lock = threading.Lock()  # held while the active segment is opened, written or closed
        self._segments: list[_Segment] = []
        self._handle: int | None = None  # of the active segment, which is the last one
        self._cursor: tuple[Path, int, int] | None = None  # where the last read ended: file, byte offset, number
        self.last = -1  # number of the newest durable record
        self.damaged_until = -1  # the newest number, if the end of the log is damaged and was skipped
        self._last_assigned = -1  # the largest number ever assigned
        self._recover()

    @property
    def size(self) -> int:
        """Bytes of all segments."""
        with self._lock:
            return sum(segment.size for segment in self._segments)

    def size_after(self, number: int) -> int:
        """Return the bytes of the segments with records after this number."""
        with self._lock:
            segments = self._segments[self._segment_index(number + 1) :] if self.last > number else []
            return sum(segment.size for segment in segments)

    def first(self) -> int:
        """Return the number of the oldest record, or the next number if there are no records."""
        with self._lock:
            return self._segments[0].first if self._segments else self.last + 1

    def continue_after(self, number: int) -> None:
        """Assign only numbers greater than this one from now on."""
        self.last, self._last_assigned = max(self.last, number), max(self._last_assigned, number)

    def append(self, records: Sequence[Record]) -> int:
        """Append records durably and return the number of the last one. On OSError, none of them counts as written."""
        with self._write_lock:
            return self._append(records)

    def _append(self, records: Sequence[Record]) -> int:
        first = self._last_assigned + 1
        self._last_assigned += len(records)
        data = b"".join(encode_frame(number, record) for number, record in enumerate(records, first))
        if self._handle is not None and self._clock() - self._segments[-1].created_at >= RETENTION_S / 2:
            self._close_segment()
        if self._handle is None:
            self._open_segment(first)
        assert self._handle is not None
        segment = self._segments[-1]
        try:
            _write(self._handle, data)
            os.fdatasync(self._handle)
        except OSError:
            self._discard_segment(segment)
            raise
        with self._lock:
            segment.size += len(data)
            self.last = self._last_assigned
        if segment.size >= self._segment_bytes:
            self._close_segment()
        return self.last

    def read(self, after: int) -> list[Frame]:
        """Return a batch of durable records after this number, in order; empty if there are none.

        If the end of the log is damaged, `damaged_until` is set to its last number, so that the reader can skip it.
        """
        while True:
            with self._lock:
                if after >= self.last or not self._segments:
                    return []
                index = self._segment_index(after + 1)
                segment = self._segments[index]
                next_first = self._segments[index + 1].first if index + 1 < len(self._segments) else None
                size, last = segment.size, self.last
            if self._cursor is not None and self._cursor[0] == segment.path and self._cursor[2] <= after:
                offset = self._cursor[1]
            else:
                offset = 0
            frames, offset = self._read_chunk(segment.path, offset, size, after)
            if frames:
                self._cursor = (segment.path, offset, frames[-1].number)
                return frames
            if next_first is None:
                self._cursor, self.damaged_until = (segment.path, size, last), last
                return []
            after = next_first - 1  # the skipped numbers were never acknowledged

    def delete_until(self, until_number: int, retention_bytes: int = 0) -> None:
        """Delete the segments that contain no record after this number.

        retention_bytes  of these segments, keep the newest ones up to this size, unless they are older than RETENTION_S
        """
        self._close_expired_segment(until_number)
        with self._lock:
            delivered = (
                self._segments[: self._segment_index(until_number + 1)]
                if until_number < self.last
                else list(self._segments)
            )
            if self._handle is not None and delivered and delivered[-1] is self._segments[-1]:
                delivered.pop()  # the active segment
            retained_bytes = 0
            while (
                delivered
                and retained_bytes + delivered[-1].size <= retention_bytes
                and not self._is_expired(delivered[-1])
            ):
                retained_bytes += delivered.pop().size
            del self._segments[: len(delivered)]
        for segment in delivered:
            segment.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the active segment; idempotent."""
        with self._write_lock:
            self._close_segment()

    # -- internals

    def _recover(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        for path in sorted(self._directory.glob(f"*{SUFFIX}")):
            size = path.stat().st_size
            if size:
                self._segments.append(_Segment(path, int(path.stem), size, path.stat().st_mtime - RETENTION_S / 2))
            else:
                path.unlink()
        while self._segments:
            segment = self._segments[-1]
            scan = scan_frames(segment.path.read_bytes())
            if scan.end < segment.size:
                logger.warning(
                    "spool segment %s: truncated %d bytes of an unfinished write", segment.path, segment.size - scan.end
                )
                os.truncate(segment.path, scan.end)
                segment.size = scan.end
            if scan.frames:
                self.continue_after(scan.frames[-1].number)
                break
            self.continue_after(segment.first)  # its numbers may have been assigned
            self._segments.pop().path.unlink()

    def _close_expired_segment(self, until_number: int) -> None:
        """Close the active segment if it is delivered and expired, so that it can be deleted."""
        if until_number >= self.last and self._write_lock.acquire(
            blocking=False
        ):  # if a write is in progress, retry next time
            try:
                if self._handle is not None and until_number >= self.last and self._is_expired(self._segments[-1]):
                    self._close_segment()
            finally:
                self._write_lock.release()

    def _is_expired(self, segment: _Segment) -> bool:
        """Return whether its oldest record may be older than RETENTION_S."""
        return self._clock() - segment.created_at >= RETENTION_S

    def _segment_index(self, number: int) -> int:
        """Return the index of the segment that would contain this number."""
        index = len(self._segments) - 1
        while index > 0 and self._segments[index].first > number:
            index -= 1
        return max(index, 0)

    def _open_segment(self, first: int) -> None:
        path = self._directory / f"{first:020}{SUFFIX}"
        self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with self._lock:
            self._segments.append(_Segment(path, first, 0, self._clock()))
        try:
            sync_directory(self._directory)
        except OSError:
            self._discard_segment(self._segments[-1])
            raise

    def _discard_segment(self, segment: _Segment) -> None:
        """Stop writing to a segment after a failed write: the bytes after its durable part are unknown."""
        assert self._handle is not None
        with suppress(OSError):
            os.ftruncate(self._handle, segment.size)
        self._close_segment()
        if not segment.size:
            with self._lock:
                self._segments.remove(segment)
            with suppress(OSError):
                segment.path.unlink()

    def _close_segment(self) -> None:
        if self._handle is not None:
            handle, self._handle = self._handle, None
            os.close(handle)

    def _read_chunk(self, path: Path, offset: int, size: int, after: int) -> tuple[list[Frame], int]:
        """Read records after a number, starting at a byte offset; return them and the offset where they end."""
        length = CHUNK_BYTES
        with path.open("rb") as file:
            while offset < size:
                file.seek(offset)
                data = file.read(min(length, size - offset))
                scan = scan_frames(data)
                is_last = offset + len(data) >= size or len(data) < length  # shorter if the file was truncated
                frames = [frame for frame in scan.frames if frame.number > after]
                damaged_bytes = scan.damaged_bytes
                if is_last and not frames:  # otherwise the next read counts the rest
                    damaged_bytes += len(data) - scan.end
                if damaged_bytes:
                    logger.error(
                        "spool segment %s: %d damaged bytes near offset %d; their records are lost",
                        path,
                        damaged_bytes,
                        offset,
                    )
                if frames:
                    return frames, offset + scan.end
                if is_last:
                    break
                if scan.end:
                    offset, length = offset + scan.end, CHUNK_BYTES
                else:
                    length *= 2  # the record is larger than a chunk
        return [], offset


def _write(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


def sync_directory(directory: Path) -> None:
    """Fsync a directory, so that its file names are durable."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
