"""Finds damage in the SQLite files of the embedded stream, the online store and the control plane."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from features.control.rows import StoredItem
from features.events.stream.sqlite_checksums import find_damaged_rows
from features.settings import Settings
from features.sqlite import MAX_FAULTS, damage_line, find_damage, sqlite_path
from recsys.domain.errors import DamagedData

RowCheck = Callable[[sqlite3.Connection], list[str]]
"""Returns what is wrong with the rows of a database. May raise sqlite3.Error."""


def damaged_databases(settings: Settings) -> list[str]:
    """Return a line for each fault of an SQLite file: what is wrong and what to do.

    The structure of each file is checked, and the rows of stream and control plane. The values of the online store are
    compared with the event log (`features.worker.verify`).
    """
    checks: dict[str, tuple[str, RowCheck]] = {
        "stream": (settings.stream_url, find_damaged_rows),
        "online store": (settings.online_url, _missing_states),
        "control plane": (settings.control_url, _damaged_items),
    }
    return [
        damage_line(path, kind, fault)
        for kind, (url, check_rows) in checks.items()
        if (path := _path_of(url))
        for fault in find_damage(path) or _check_rows(path, check_rows)
    ]


def _path_of(url: str) -> str | None:
    """Return the path of an SQLite file; None for a server and for a file that does not exist yet."""
    if not url.startswith("sqlite:///"):
        return None
    path = sqlite_path(url)
    return path if Path(path).exists() else None


def _check_rows(path: str, check_rows: RowCheck) -> list[str]:
    try:
        with closing(sqlite3.connect(path, timeout=30.0)) as database:
            database.text_factory = lambda text: text.decode(errors="surrogateescape")
            return check_rows(database)
    except (sqlite3.Error, ValueError) as error:
        return [str(error)]


def _missing_states(database: sqlite3.Connection) -> list[str]:
    """Return nothing, or raise sqlite3.Error if a damaged schema no longer has the table of the states."""
    database.execute("SELECT key, value, until FROM state LIMIT 1").fetchall()
    return []


def _damaged_items(database: sqlite3.Connection) -> list[str]:
    faults: list[str] = []
    for id_, revision, body, number in database.execute("SELECT id, revision, body, number FROM items"):
        try:
            StoredItem.read(revision, body, number)
        except DamagedData as error:
            faults.append(f"item {id_!a}: {error}")
        if len(faults) == MAX_FAULTS:
            break
    return faults
