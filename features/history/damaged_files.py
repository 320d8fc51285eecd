"""Damaged files of the event log: found by their checksum before anything parses them, and moved to a quarantine.

The name of a file holds the checksum of its content. A file is verified before it is read for the first time, once an
hour after that, and when a query fails. A damaged file moves to the folder `quarantine` of the log, so that everything
else can be read. Its events are missing until they are restored: `mainstay rebuild --from stream` appends what the
stream still holds. A file without a checksum in its name was written by another program; it is verified by the
checksums of its Parquet pages, if it has any.
"""

from __future__ import annotations

import errno
import logging
import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from features.checksum import file_checksum
from features.history import files
from recsys.domain.errors import Unavailable

FOLDER = "quarantine"
VERIFIED_FOR_S = 3_600.0
"""How long a file counts as intact after its verification, unless it changes."""

HINT = "`mainstay rebuild --from stream` restores the events that the stream still holds; delete the file afterwards"

_MAX_NAMED, _MAX_REMEMBERED = 3, 10_000
logger = logging.getLogger(__name__)
_CHECKSUM_IN_NAME = re.compile(f"{files.CHECKSUM}([0-9a-f]{{8}}){files.UNTIL}")


class DamagedFiles:
    """The verification and the quarantine of the files of one event log. Safe for threads and processes."""

    def __init__(self, directory: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.folder = directory / FOLDER
        self._clock = clock
        self._verified: dict[str, tuple[tuple[int, int, int], float]] = {}  # path -> its identity, and when

    def quarantined(self) -> list[Path]:
        """Return the damaged files in quarantine."""
        return sorted(self.folder.glob("*.parquet"))

    def report(self) -> str | None:
        """Return a line that names the damaged files and what to do; None if there are none."""
        if not (names := [path.name for path in self.quarantined()]):
            return None
        more = f" and {len(names) - _MAX_NAMED:,} more" if len(names) > _MAX_NAMED else ""
        return f"{len(names):,} damaged file(s) in {self.folder}: {', '.join(names[:_MAX_NAMED])}{more}; {HINT}"

    def without_damaged(self, paths: Iterable[str], recheck: bool = False) -> list[str]:
        """Return the intact files among these, and move the damaged ones to the quarantine.

        recheck  verify files even if they were verified within the last hour

        Raises FileNotFoundError if a file no longer exists, and Unavailable if one cannot be read.
        """
        return [path for path in paths if self.is_intact(Path(path), recheck)]

    def is_intact(self, path: Path, recheck: bool = False) -> bool:
        """Return whether a file is intact; move a damaged file to the quarantine. Raises as `without_damaged` does."""
        status = path.stat()
        identity = (status.st_ino, status.st_size, status.st_mtime_ns)
        verified, at = self._verified.get(str(path), ((0, 0, 0), float("-inf")))
        if not recheck and verified == identity and self._clock() < at + VERIFIED_FOR_S:
            return True
        if (fault := _fault(path)) is None:
            self._remember(path, identity)
            return True
        self._verified.pop(str(path), None)
        self._quarantine(path, fault)
        return False

    def _remember(self, path: Path, identity: tuple[int, int, int]) -> None:
        now = self._clock()
        self._verified[str(path)] = identity, now
        if len(self._verified) > _MAX_REMEMBERED:  # most of them were compacted
            self._verified = {
                name: entry for name, entry in self._verified.copy().items() if now < entry[1] + VERIFIED_FOR_S
            }

    def _quarantine(self, path: Path, fault: str) -> None:
        target = self.folder / path.name
        try:
            self.folder.mkdir(exist_ok=True)
            path.rename(target)
        except FileNotFoundError:
            return  # another process was faster
        except OSError as error:  # the file is left out all the same
            logger.error("event log: %s is damaged (%s) and cannot be moved to %s: %s", path, fault, target, error)
            return
        logger.error("event log: %s is damaged (%s); its events are left out. It was moved to %s; %s", path, fault,
                     target, HINT)  # fmt: skip


def _fault(path: Path) -> str | None:
    """Return what is wrong with a file; None if it is intact. Raises FileNotFoundError, Unavailable."""
    expected = _CHECKSUM_IN_NAME.search(path.name)
    try:
        if expected is None:
            return _page_fault(path)
        return None if file_checksum(path) == expected[1] else "its checksum does not match"
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno == errno.EIO:  # the disk itself reports the damage
            return str(error)
        raise Unavailable(f"event log: {path}: {error}") from error


def _page_fault(path: Path) -> str | None:
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            for _ in file.iter_batches():
                pass
    except (pa.ArrowException, ValueError) as error:
        return str(error)
    except OSError as error:  # Arrow reports a wrong page checksum as an OSError without a number
        if error.errno is None:
            return str(error)
        raise
    return None
