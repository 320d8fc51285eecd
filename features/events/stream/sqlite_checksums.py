"""Checksums of rows of the SQLite stream: a damaged message is delivered as such, a damaged commit counts as none."""

from __future__ import annotations

import sqlite3
from zlib import crc32

from features.checksum import seal
from features.sqlite import MAX_FAULTS, transaction

DELETED_KEY = "\0gone"
"""The key of tombstones, whose checksum means nothing."""


def message_checksum(topic: str, partition: int, offset: int, key: str, value: bytes) -> int:
    """Return the checksum of a message and its position."""
    return crc32(value, crc32(f"{topic}/{partition}/{offset}/{key}".encode(errors="replace")))


def commit_checksum(topic: str, group: str, partition: int, offset: int) -> int:
    """Return the checksum of a committed offset."""
    return crc32(f"{topic}/{group}/{partition}/{offset}".encode(errors="replace"))


def committed_offsets(db: sqlite3.Connection, topic: str, group: str) -> dict[int, int]:
    """Return the committed offset of each partition. A damaged commit is left out, so that messages come again."""
    sql = 'SELECT partition, "offset", checksum FROM done WHERE topic = ? AND consumers = ?'
    return {
        partition: offset
        for partition, offset, checksum in db.execute(sql, (topic, group))
        if checksum == commit_checksum(topic, group, partition, offset)
    }


def add_checksums(db: sqlite3.Connection) -> None:
    """Add checksums to a file that an older version wrote without them. Raises sqlite3.Error."""
    if _has_checksums(db):
        return
    db.create_function("message_checksum", 5, message_checksum, deterministic=True)
    db.create_function("commit_checksum", 4, commit_checksum, deterministic=True)
    db.create_function("seal", 1, lambda text: seal(text.encode()).decode(), deterministic=True)
    with transaction(db):
        if _has_checksums(db):
            return  # another process was faster
        for table in ("message", "done"):
            db.execute(f"ALTER TABLE {table} ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0")
        db.execute('UPDATE message SET checksum = message_checksum(topic, partition, "offset", key, value)')
        db.execute('UPDATE done SET checksum = commit_checksum(topic, consumers, partition, "offset")')
        db.execute("UPDATE identity SET id = seal(id)")


def _has_checksums(db: sqlite3.Connection) -> bool:
    return any(row[1] == "checksum" for row in db.execute("PRAGMA table_info(message)"))


def find_damaged_rows(db: sqlite3.Connection) -> list[str]:
    """Return a line for each damaged message or commit, at most `MAX_FAULTS`. Raises sqlite3.Error.

    A file that an older version wrote without checksums has none.
    """
    faults: list[str] = []
    if not _has_checksums(db):
        return faults
    sql = """SELECT topic, partition, "offset", coalesce(CAST(key AS TEXT), ''), coalesce(CAST(value AS BLOB), x''),
             checksum FROM message"""
    for topic, partition, offset, key, value, checksum in db.execute(sql):
        is_tombstone = key == DELETED_KEY and not value
        if not is_tombstone and checksum != message_checksum(topic, partition, offset, key, value):
            faults.append(f"message {topic}/{partition}@{offset}")
        if len(faults) == MAX_FAULTS:
            return faults
    for topic, group, partition, offset, checksum in db.execute(
        'SELECT topic, consumers, partition, "offset", checksum FROM done'
    ):
        if checksum != commit_checksum(topic, group, partition, offset):
            faults.append(f"committed offset of group {group} in {topic}/{partition}")
    return faults[:MAX_FAULTS]
