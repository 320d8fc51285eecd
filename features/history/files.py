"""The files of the event log: names, listing, atomic writes and locks.

`day=2026-01-31/viewer-events-0-…100-…199-crc1a2b3c4d-until-2026-01-31.parquet` holds one batch of one source. Its
folder and name give the days of its oldest and newest event, its offsets, and the checksum of its content
(`features.history.damaged_files`). `day=2026-01-31/whole-….parquet` is a compacted file. Locks are `flock` locks on
files in the directory; they end with the process that holds them.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import IO

from features.checksum import file_checksum

CHECKSUM, UNTIL = "-crc", "-until-"
COMPACTED_PREFIX = "whole-"
DRAFT = ".tmp"


def day_of(at: float) -> date:
    """Return the day (UTC) of a unix second."""
    return datetime.fromtimestamp(at, UTC).date()


def folder_of(directory: Path, day: date) -> Path:
    """Return the folder for the files of a day."""
    return directory / f"day={day}"


def days(directory: Path) -> Iterator[Path]:
    """Yield the folders of all days, oldest first."""
    yield from sorted(directory.glob("day=*"))


def list_files(directory: Path, earliest: str = "", latest: str = "~") -> list[str]:
    """Return the paths of files that may contain events of days from `earliest` to `latest` (ISO dates).

    A directory listing during a compaction may show neither the old file nor the compacted file that replaced it. Such
    an old file existed during the previous listing, so the directory is listed again until no listed file disappears.
    """
    before = _scan(directory, earliest, latest)
    while True:
        after = _scan(directory, earliest, latest)
        if before <= after:
            return sorted(after)
        before = after


def _scan(directory: Path, earliest: str, latest: str) -> set[str]:
    return {
        str(file)
        for folder in days(directory)
        if folder.name.removeprefix("day=") <= latest
        for file in folder.glob("*.parquet")
        if file.stem.rpartition(UNTIL)[2] >= earliest
    }


def write(file: Path, fill: Callable[[IO[bytes]], object]) -> None:
    """Write a file atomically, with mode 600: `fill` writes a draft, which is renamed. It is durable on return."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.{os.getpid()}{DRAFT}")
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
            fill(out)
            out.flush()
            os.fsync(out.fileno())
        draft.rename(file)
    finally:
        draft.unlink(missing_ok=True)
    sync(file.parent)


def write_checksummed(folder: Path, name: str, until: date, fill: Callable[[IO[bytes]], object]) -> Path:
    """Write a file as `write` does, with the checksum of its content in its name; return its path.

    name   the part of the file name before the checksum
    until  day of the newest event
    """
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".{name}.{os.getpid()}{DRAFT}"
    try:
        with draft.open("wb") as out:
            fill(out)
            out.flush()
            os.fsync(out.fileno())
        file = folder / f"{name}{CHECKSUM}{file_checksum(draft)}{UNTIL}{until}.parquet"
        draft.rename(file)
    finally:
        draft.unlink(missing_ok=True)
    sync(folder)
    return file


def sync(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def locked(directory: Path, name: str, *, shared: bool = False, wait: bool = True) -> Iterator[bool]:
    """Hold a lock while the block runs. Yields False if another process holds it and `wait` is False."""
    directory.mkdir(parents=True, exist_ok=True)
    handle = os.open(directory / f".{name}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(handle)
