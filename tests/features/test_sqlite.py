"""Concurrent first opens of a SQLite database."""

from __future__ import annotations

import threading
from contextlib import closing
from pathlib import Path

from features.sqlite import open_database

SCHEMA = "CREATE TABLE IF NOT EXISTS state (key INTEGER PRIMARY KEY);"
N_WRITERS, N_FILES = 8, 60  # without the retry, a writer fails for about one file in twenty


def test_concurrent_first_opens_of_a_database_all_succeed(tmp_path: Path) -> None:
    """SQLite's busy timeout does not cover the switch of a new file to WAL mode."""

    def write(path: str, key: int) -> None:
        gate.wait()
        with closing(open_database(path, SCHEMA, timeout_s=5.0, kind="stream")) as db:
            db.execute("INSERT INTO state VALUES (?)", (key,))

    gate = threading.Barrier(N_WRITERS)
    for n in range(N_FILES):
        path = f"{tmp_path}/{n}/new.db"
        writers = [threading.Thread(target=write, args=(path, key)) for key in range(N_WRITERS)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        with closing(open_database(path, SCHEMA, timeout_s=5.0, kind="stream")) as db:
            assert db.execute("SELECT count(*) FROM state").fetchone() == (N_WRITERS,)
