"""The claim of one member of a consumer group to all partitions of a topic in an SQLite stream.

A claim has two parts. The lock of a slot file ends with the process that holds it, so after `kill -9` the next member
takes over at once. A process that is stopped (SIGSTOP, a suspended machine) keeps its lock but no longer touches the
file: after the session time without a touch, a waiting member starts the next *generation* of the claim, which has a
slot file of its own. A member of an older generation can neither read nor commit.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from features.sqlite import create_private_file, map_sqlite_errors, transaction
from recsys.domain.errors import Unavailable

SCHEMA = """
CREATE TABLE IF NOT EXISTS claim (
  topic TEXT NOT NULL, consumers TEXT NOT NULL, generation INTEGER NOT NULL, PRIMARY KEY (topic, consumers)
) WITHOUT ROWID;
"""
SESSION_S = 6.0
"""Default time after which a stopped member loses its claim; the same as that of a broker's consumer groups."""


class GroupClaim:
    """A claim that a member holds or waits for."""

    def __init__(
        self,
        db: sqlite3.Connection,
        path: str,
        topic: str,
        group: str,
        session_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`db` is a connection to the stream at `path`; `clock` returns monotonic seconds."""
        self._db, self._path, self._topic, self._group = db, path, topic, group
        self._session_s, self._clock = session_s, clock
        self._generation = -1  # of the open slot file
        self._slot: sqlite3.Connection | None = None
        self._touched, self._observed_at = -1, 0.0  # the newest touch by another member, and when it was noticed
        self._heartbeat: threading.Thread | None = None
        self._stopping = threading.Event()

    def acquire(self) -> bool:
        """Try to get the claim; return False while a member that is alive holds it."""
        generation = self._current_generation()
        if self._slot is None or generation != self._generation:
            self._open_slot(generation)
        assert self._slot is not None
        if not _lock(self._slot):
            self._take_over_if_stopped()
            return False
        self._touch()
        if self._current_generation() != generation:  # another member took over in the meantime
            self._open_slot(self._current_generation())
            return False
        self._stopping.clear()
        self._heartbeat = threading.Thread(target=self._touch_regularly, name="claim", daemon=True)
        self._heartbeat.start()
        return True

    def check(self) -> None:
        """Raise Unavailable if this member held the claim and another one has taken it over."""
        if self._heartbeat is not None and self._current_generation() != self._generation:
            raise Unavailable(
                f"{self._path}: consumer group {self._group}: this member was stopped for more than "
                f"{self._session_s:g} s, and another one has taken over; it joins the group again"
            )

    def release(self) -> None:
        """Give the claim up; idempotent."""
        self._stopping.set()
        if self._heartbeat is not None:
            self._heartbeat.join()
            self._heartbeat = None
        if self._slot is not None:
            self._slot.close()
            self._slot = None

    def _current_generation(self) -> int:
        sql = "SELECT generation FROM claim WHERE topic = ? AND consumers = ?"
        row = self._db.execute(sql, (self._topic, self._group)).fetchone()
        return int(row[0]) if row else 0

    def _slot_path(self, generation: int) -> str:
        name = f"{self._path}.{quote(self._topic, safe='')}.{quote(self._group, safe='')}.seat"
        return f"{name}.{generation}" if generation else name

    def _open_slot(self, generation: int) -> None:
        self.release()
        path = self._slot_path(generation)
        with map_sqlite_errors(path, "stream"):
            create_private_file(path)
            self._slot = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        self._generation, self._touched = generation, -1

    def _take_over_if_stopped(self) -> None:
        """Start the next generation if the holder has not touched its slot file for the session time."""
        touched = self._last_touch()
        if touched != self._touched:
            self._touched, self._observed_at = touched, self._clock()
        elif self._clock() - self._observed_at > self._session_s:
            key = (self._topic, self._group, self._generation)
            with transaction(self._db):
                self._db.execute("INSERT OR IGNORE INTO claim VALUES (?, ?, ?)", key)
                sql = (
                    "UPDATE claim SET generation = generation + 1 WHERE topic = ? AND consumers = ? AND generation = ?"
                )
                is_next = self._db.execute(sql, key).rowcount
            if is_next:
                Path(self._slot_path(self._generation)).unlink(missing_ok=True)

    def _last_touch(self) -> int:
        try:
            return os.stat(self._slot_path(self._generation)).st_mtime_ns
        except FileNotFoundError:
            return 0

    def _touch(self) -> None:
        with suppress(OSError):  # the file is gone if another member has taken over
            os.utime(self._slot_path(self._generation))

    def _touch_regularly(self) -> None:
        while not self._stopping.wait(self._session_s / 4):
            self._touch()


def _lock(slot: sqlite3.Connection) -> bool:
    """Try to lock a slot file; return False while another member holds it."""
    try:
        slot.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            return False
        raise
    return True
