"""Files with data of viewers and editors can be read by their owner only."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from features.events.stream.port import Record
from features.events.stream.sqlite import SqliteStream
from features.sqlite import open_database
from tests.serving.conftest import running


@pytest.fixture(autouse=True)
def _open_umask() -> object:
    previous = os.umask(0)
    yield
    os.umask(previous)


def test_every_file_of_a_service_is_private(tmp_path: Path) -> None:
    stores = {"stream": "", "online": "", "vectors": ""}
    with running(tmp_path, stores) as service:
        service.stock(5)
        service.page()
        service.published(1)
        consumer = service.services.stream.consumer(service.services.settings.topic, "g")
        consumer.poll(1, 0.1)
        service.services.event_log.erasures.add("hash", 1.0)
        files = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"]  # locks are empty
        modes = {path: path.stat().st_mode & 0o777 for path in files}
        consumer.close()
    assert {".db", ".db-wal", ".seat", ".jsonl"} <= {path.suffix for path in modes}
    assert {path.name: mode for path, mode in modes.items() if mode & 0o077} == {}


def test_the_files_of_an_existing_database_become_private(tmp_path: Path) -> None:
    path = tmp_path / "stream.db"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE x (y)")
    path.chmod(0o644)
    stream = SqliteStream(str(path), 1)
    stream.publish("t", [Record("v", b"1")])
    assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o600}
    stream.close()


def test_opening_a_database_again_releases_no_lock_of_the_process(tmp_path: Path) -> None:
    """Closing any file descriptor of a file releases all POSIX locks of the process on it."""
    path = str(tmp_path / "x.db")
    first = open_database(path, "CREATE TABLE IF NOT EXISTS t (x)", 0.1, "stream")
    first.execute("BEGIN IMMEDIATE")
    open_database(path, "", 0.1, "stream").close()
    locks = Path("/proc/locks").read_text()
    inodes = {str(file.stat().st_ino) for file in tmp_path.iterdir()}
    assert any(line.split()[5].rsplit(":", 1)[-1] in inodes for line in locks.splitlines() if str(os.getpid()) in line)
    first.close()
