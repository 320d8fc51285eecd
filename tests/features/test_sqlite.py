"""Processes that start together on one new SQLite file all get it."""

from __future__ import annotations

import threading
from contextlib import closing
from pathlib import Path

from features.sqlite import open_database

SCHEMA = "CREATE TABLE IF NOT EXISTS state (key INTEGER PRIMARY KEY);"
TOGETHER, FILES = 8, 60  # without the wait about one file in twenty turns somebody away


def test_all_who_open_a_new_file_at_once_may_write(tmp_path: Path) -> None:
    """SQLite's own waiting does not cover the switch of a new file to its write-ahead log."""

    def write(path: str, key: int) -> None:
        gate.wait()
        with closing(open_database(path, SCHEMA, timeout_s=5.0)) as db:
            db.execute("INSERT INTO state VALUES (?)", (key,))

    gate = threading.Barrier(TOGETHER)
    for n in range(FILES):
        path = f"{tmp_path}/{n}/new.db"
        writers = [threading.Thread(target=write, args=(path, key)) for key in range(TOGETHER)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        with closing(open_database(path, SCHEMA, timeout_s=5.0)) as db:
            assert db.execute("SELECT count(*) FROM state").fetchone() == (TOGETHER,)
