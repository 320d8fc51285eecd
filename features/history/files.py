"""The files of the event log: how they are named, listed, written so that none is ever half visible, and locked.

`day=2026-01-31/viewer-events-0-…100-…199-until-2026-01-31.parquet` holds one batch of one source; its name says the
days of its oldest and newest event and its offsets. `day=2026-01-31/whole-….parquet` is what a compaction made of many.
Locks are `flock` on files below the directory: they go with the process that held them.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import IO

UNTIL = "-until-"
FILE_SUFFIX = "whole-"
DRAFT = ".tmp"


def day_of(at: float) -> date:
    """The day (UTC) of a unix second."""
    return datetime.fromtimestamp(at, UTC).date()


def folder_of(directory: Path, day: date) -> Path:
    """Where the files of a day are."""
    return directory / f"day={day}"


def days(directory: Path) -> Iterator[Path]:
    """The folders of days, oldest first."""
    yield from sorted(directory.glob("day=*"))


def list_files(directory: Path, earliest: str = "", latest: str = "~") -> list[str]:
    """Paths of the files that may hold events of days from `earliest` to `latest` (ISO dates).

    A directory that changes while it is read may show neither an old file nor the whole one that took its place. The
    old one then stood there all through the reading before; so it is read again until nothing that was seen is gone.
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
    """Under another name first, so that a reader sees the whole file or none; on the disk on return."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.{os.getpid()}{DRAFT}")
    try:
        with draft.open("wb") as out:
            fill(out)
            out.flush()
            os.fsync(out.fileno())
        draft.rename(file)
    finally:
        draft.unlink(missing_ok=True)
    sync(file.parent)


def sync(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def locked(directory: Path, name: str, *, shared: bool = False, wait: bool = True) -> Iterator[bool]:
    """Hold a lock while the block runs; False when it is held elsewhere and `wait` is not wanted."""
    directory.mkdir(parents=True, exist_ok=True)
    handle = os.open(directory / f".{name}.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(handle)
