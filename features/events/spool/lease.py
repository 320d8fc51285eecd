"""Whose directory is whose, and how far its records were delivered."""

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

_SLOT = struct.Struct("<qqI")  # how many moves there were, the number, a checksum of both
_MOST = 1024


class DirectoryLease:
    """One numbered directory of a spool, held by a lock that the operating system gives up with its process."""

    def __init__(self, directory: Path, handle: int) -> None:
        self.directory, self._handle = directory, handle

    @classmethod
    def first_free(cls, root: Path) -> DirectoryLease:
        """The first directory that no other process holds, with whatever a dead one left in it. Raises Unavailable."""
        try:
            for number in range(_MOST):
                if claim := cls.of(root / str(number)):
                    return claim
        except OSError as error:
            raise Unavailable(f"spool {root}: {error}") from error
        raise Unavailable(f"spool {root}: {_MOST} processes use it already")

    @classmethod
    def of(cls, directory: Path) -> DirectoryLease | None:
        """This directory, unless another holds it; made when missing. May raise OSError."""
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
        """Let another process have it; idempotent."""
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)


@contextmanager
def claim_orphan(root: Path) -> Iterator[DirectoryLease | None]:
    """A directory whose process is gone and that still has records; None when there is no such."""
    claim = None
    with suppress(OSError):
        for directory in sorted(root.iterdir()):
            if (
                directory.name.isdigit()
                and any(directory.glob(f"*{SUFFIX}"))
                and (claim := DirectoryLease.of(directory))
            ):
                break
    try:
        yield claim
    finally:
        if claim is not None:
            claim.release()


class DeliveryCursor:
    """The number up to which everything was delivered, in a file of its own.

    Two slots are written in turn, so that a torn write costs one step and no more. What is lost of it, in a power cut
    say, is delivered again.
    """

    def __init__(self, directory: Path) -> None:
        self._path, self._log = directory / "position", directory / "log"
        self.log = (
            ""  # which log it is about (`features.events.stream.port.Stream.identity`), empty when that is not known
        )
        with suppress(FileNotFoundError, UnicodeDecodeError):
            self.log = self._log.read_text()
        self._handle: int | None = None
        self._moves = 0
        self.number = -1
        with suppress(FileNotFoundError):
            data = self._path.read_bytes()
            for start in range(0, len(data) - _SLOT.size + 1, _SLOT.size):
                moves, number, checksum = _SLOT.unpack_from(data, start)
                if checksum == _sum(moves, number) and moves > self._moves:
                    self._moves, self.number = moves, number

    def of(self, log: str) -> None:
        """Remember which log this is about; a disk that is full costs a repetition, as with `move`."""
        if log != self.log:
            self.log = log
            draft = self._log.with_suffix(".new")
            with suppress(OSError):
                draft.write_text(log)
                draft.replace(self._log)

    def advance(self, number: int) -> None:
        """Remember; a disk that is full costs a repetition after the next start, nothing else."""
        self.number = number
        self._moves += 1
        with suppress(OSError):
            if self._handle is None:
                self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
            slot = _SLOT.pack(self._moves, number, _sum(self._moves, number))
            os.pwrite(self._handle, slot, self._moves % 2 * _SLOT.size)

    def close(self) -> None:
        """Make it durable; idempotent."""
        handle, self._handle = self._handle, None
        if handle is not None:
            with suppress(OSError):
                os.fdatasync(handle)
            os.close(handle)


def _sum(moves: int, number: int) -> int:
    return crc32(struct.pack("<qq", moves, number))
