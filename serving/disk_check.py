"""A check that the disks of this process accept data: a full disk is reported before an event is refused."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from features.settings import Settings
from recsys.domain.errors import Unavailable

PROBE_BYTES = 64 << 10
MIN_FREE_BYTES = 1 << 20


def data_directories(settings: Settings) -> list[Path]:
    """Return the directories in which this process stores data, each once."""
    urls = (settings.stream_url, settings.online_url, settings.vectors_url, settings.control_url)
    files = [Path(url.removeprefix("sqlite:///")) for url in urls if url.startswith("sqlite:///")]
    directories = [Path(name) for name in (settings.home, settings.spool_dir, settings.event_log_dir)]
    return sorted({directory.absolute() for directory in (*directories, *(file.parent for file in files))})


def check_disks(directories: Iterable[Path]) -> None:
    """Write a probe to each directory that exists. Raises Unavailable for those that do not accept it."""
    faults = [f"{directory}: {fault}" for directory in directories if (fault := _fault(directory))]
    if faults:
        raise Unavailable("; ".join(faults))


def _fault(directory: Path) -> str:
    """Return why a directory accepts no data; empty if it does or does not exist."""
    if not directory.is_dir():
        return ""
    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            file.write(os.urandom(PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
        free = shutil.disk_usage(directory).free
    except OSError as error:
        return error.strerror or str(error)
    return "" if free >= MIN_FREE_BYTES else f"the disk is nearly full: {free >> 10:,} KiB free"
