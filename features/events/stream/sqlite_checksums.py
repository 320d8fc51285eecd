"""Checksums of rows of the SQLite stream: a damaged message is delivered as such, a damaged commit counts as none."""

from __future__ import annotations

import sqlite3
from zlib import crc32

from features.sqlite import MAX_FAULTS

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


def find_damaged_rows(db: sqlite3.Connection) -> list[str]:
    """Return a line for each damaged message or commit, at most `MAX_FAULTS`. Raises sqlite3.Error."""
    faults: list[str] = []
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
