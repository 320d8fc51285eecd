"""Ownership of spool directories (leases), and the persistent position of their delivery (cursors)."""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from zlib import crc32

from features.events.spool.segments import SUFFIX, sync_directory
from recsys.domain.errors import Unavailable

_CURSOR_SLOT = struct.Struct("<qqI")  # version, sequence number, checksum of both
MAX_DIRECTORIES = 1024


class DirectoryLease:
    """Exclusive ownership of a numbered spool directory. The operating system releases the lock if the process dies."""

    def __init__(self, directory: Path, handle: int) -> None:
        self.directory, self._handle = directory, handle

    @classmethod
    def acquire_free(cls, root: Path) -> DirectoryLease:
        """Acquire the first free directory, which may contain records of a dead process. Raises Unavailable."""
        try:
            for number in range(MAX_DIRECTORIES):
                if lease := cls.acquire(root / str(number)):
                    return lease
        except OSError as error:
            raise Unavailable(f"spool {root}: {error}") from error
        raise Unavailable(f"spool {root}: all {MAX_DIRECTORIES} directories are in use by other processes")

    @classmethod
    def acquire(cls, directory: Path) -> DirectoryLease | None:
        """Acquire this directory, creating it if it is missing; None if another process holds it. May raise OSError."""
        directory.mkdir(parents=True, exist_ok=True)
        handle = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return None
        except OSError:
            os.close(handle)
            raise
        sync_directory(directory)
        sync_directory(directory.parent)
        return cls(directory, handle)

    def release(self) -> None:
        """Release the directory; idempotent."""
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)


@contextmanager
def claim_orphan(root: Path) -> Iterator[DirectoryLease | None]:
    """Acquire a directory of a dead process that still has records; yields None if there is none."""
    lease = None
    with suppress(OSError):
        for directory in sorted(root.iterdir()):
            if (
                directory.name.isdigit()
                and any(directory.glob(f"*{SUFFIX}"))
                and (lease := DirectoryLease.acquire(directory))
            ):
                break
    try:
        yield lease
    finally:
        if lease is not None:
            lease.release()


class DeliveryCursor:
    """The sequence number up to which all records were delivered, stored in a file.

    Two slots are written alternately, so a torn write loses only the latest update. Records after the restored position
    are delivered again.
    """

    def __init__(self, directory: Path) -> None:
        self._cursor_path, self._log_path = directory / "position", directory / "log"
        self.log = ""  # identity of the stream's log (`features.events.stream.port.Stream.identity`); empty if unknown
        with suppress(FileNotFoundError, UnicodeDecodeError):
            self.log = self._log_path.read_text()
        self._handle: int | None = None
        self._version = 0
        self.number = -1
        with suppress(FileNotFoundError):
            data = self._cursor_path.read_bytes()
            for start in range(0, len(data) - _CURSOR_SLOT.size + 1, _CURSOR_SLOT.size):
                version, number, checksum = _CURSOR_SLOT.unpack_from(data, start)
                if checksum == _checksum(version, number) and version > self._version:
                    self._version, self.number = version, number

    def set_log(self, log: str) -> None:
        """Store the identity of the log. If the disk is full, records may be redelivered after a restart."""
        if log != self.log:
            self.log = log
            draft = self._log_path.with_suffix(".new")
            with suppress(OSError):
                draft.write_text(log)
                draft.replace(self._log_path)

    def advance(self, number: int) -> None:
        """Move to this sequence number. If the disk is full, records may be redelivered after a restart."""
        self.number = number
        self._version += 1
        with suppress(OSError):
            if self._handle is None:
                self._handle = os.open(self._cursor_path, os.O_RDWR | os.O_CREAT, 0o600)
            slot = _CURSOR_SLOT.pack(self._version, number, _checksum(self._version, number))
            os.pwrite(self._handle, slot, self._version % 2 * _CURSOR_SLOT.size)

    def close(self) -> None:
        """Make the position durable and close its file; idempotent."""
        handle, self._handle = self._handle, None
        if handle is not None:
            with suppress(OSError):
                os.fdatasync(handle)
            os.close(handle)


def _checksum(version: int, number: int) -> int:
    return crc32(struct.pack("<qq", version, number))
