"""A stream that an older version wrote without checksums is read as it is."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from features.events.stream.port import Record
from features.events.stream.sqlite import SqliteStream
from features.events.stream.sqlite_checksums import find_damaged_rows

OLDER = """
CREATE TABLE topic (name TEXT PRIMARY KEY, partitions INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE message (
  topic TEXT NOT NULL, partition INTEGER NOT NULL, "offset" INTEGER NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL
);
CREATE TABLE done (
  topic TEXT NOT NULL, consumers TEXT NOT NULL, partition INTEGER NOT NULL, "offset" INTEGER NOT NULL,
  PRIMARY KEY (topic, consumers, partition)
) WITHOUT ROWID;
CREATE TABLE identity (one INTEGER PRIMARY KEY CHECK (one = 1), id TEXT NOT NULL);
INSERT INTO topic VALUES ('t', 1);
INSERT INTO message VALUES ('t', 0, 0, 'a', X'31'), ('t', 0, 1, '安', X'32'), ('t', 0, 2, 'c', X'33');
INSERT INTO done VALUES ('t', 'g', 0, 1);
INSERT INTO identity VALUES (1, 'cafe');
"""


def test_an_older_file_keeps_its_messages_offsets_and_identity(tmp_path: Path) -> None:
    path = tmp_path / "stream.db"
    with closing(sqlite3.connect(path)) as db:
        db.executescript(OLDER)
        assert find_damaged_rows(db) == []
    for _ in range(2):
        stream = SqliteStream(str(path), 1)
        assert stream.identity("t") == "cafe"
        stream.close()
    stream = SqliteStream(str(path), 1)
    stream.publish("t", [Record("d", b"4")])
    member = stream.consumer("t", "g")
    assert [message.value for message in member.poll(10, 1.0)] == [b"3", b"4"]
    member.close()
    stream.close()
    with closing(sqlite3.connect(path)) as db:
        assert find_damaged_rows(db) == []
