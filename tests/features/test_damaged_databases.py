"""A damaged SQLite file is named in one line with what to do; a damaged row costs no more than itself."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from features.cli import main
from features.control.connect import open_control, open_control_of
from features.events.dead_letters import read_dead_letters
from features.events.stream.sqlite import SqliteStream
from features.history.event_log import EventLog
from features.settings import Settings
from features.sqlite import ADVICE
from features.state.online.memory import MemoryStore
from features.state.online.sqlite import SqliteStore
from features.worker.damage import damaged_databases
from recsys.domain.errors import DamagedData, Unavailable
from recsys.domain.item import Item
from recsys.pacing.tracker import TargetOverride
from tests.features.worker.runs import TOPIC, dump, folded, happened, published

FILES = {"stream": "stream.db", "online store": "online.db", "control plane": "control.db"}
TABLES = {
    "stream.db": ("message", "done", "identity", "topic", "written"),
    "online.db": ("state",),
    "control.db": ("items", "outlets", "revision", "audit", "alembic_version"),
}
KEY = b"key of the audit trail"
FLAGS = ("--viewer-ttl-days", "100000")


@pytest.fixture(scope="module", autouse=True)
def _no_fsync() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("os.fsync", lambda handle: None)
        yield


def item(number: int) -> Item:
    return Item.model_validate({"id": f"i{number}", "title": {"en": f"Item {number}"}, "outlet": "cn",
                                "published_at": "2026-01-01T00:00:00Z"})  # fmt: skip


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a hundred events, folded, and twenty items; its files have no write-ahead log."""
    home = tmp_path_factory.mktemp("filled")
    with closing(SqliteStream(f"{home}/stream.db", 2)) as stream:
        published(stream, happened(random.Random(9), 100), "viewer-events")
    assert main(["worker", "--home", str(home), "--until-idle", "0", *FLAGS]) == 0
    with closing(open_control_of(Settings.read(home=str(home)))) as control:
        control.upsert_items([item(number) for number in range(20)], "editor")
        control.put_outlet("cn", {"en": "China"}, "editor")
    return home


@pytest.fixture
def home(filled: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(filled, tmp_path / "home"))


def content(path: Path) -> list[object] | None:
    """Return all rows of a database, and None if they cannot be read."""
    with suppress(sqlite3.Error, UnicodeDecodeError), closing(sqlite3.connect(path)) as database:
        database.text_factory = bytes
        return [(name, row) for name in TABLES[path.name] for row in database.execute(f"SELECT * FROM {name}")]
    return None


@pytest.mark.parametrize("kind", FILES)
def test_verify_names_a_damaged_file_and_what_to_do(home: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--home", str(home), *FLAGS]) == 0
    path = home / FILES[kind]
    path.write_bytes(bytes(50) + path.read_bytes()[50:])
    capsys.readouterr()
    assert main(["verify", "--home", str(home), *FLAGS]) == 1
    printed = capsys.readouterr()
    assert printed.out.splitlines()[0] == f"{kind} {path} is damaged (file is not a database): {ADVICE[kind]}"
    assert "Traceback" not in printed.out + printed.err
    assert len(printed.err.splitlines()) == (0 if kind == "control plane" else 1)
    opening: dict[str, Callable[[], object]] = {
        "stream": lambda: SqliteStream(str(path)),
        "online store": lambda: SqliteStore(str(path)),
        "control plane": lambda: open_control(f"sqlite:///{path}", KEY),
    }
    with pytest.raises(Unavailable) as error:
        opening[kind]()
    assert str(error.value) == printed.out.splitlines()[0]


@pytest.mark.parametrize("kind", FILES)
def test_a_damaged_byte_of_a_database_is_reported_by_verify_or_changes_nothing(
    filled: Path, tmp_path: Path, kind: str, scaled: Callable[..., int]
) -> None:
    """Rows of the control plane have no checksum, so a changed text there is found only if it cannot be read."""
    chance, path = random.Random(kind), tmp_path / FILES[kind]
    settings = Settings(home=str(tmp_path))
    original, rows = (filled / FILES[kind]).read_bytes(), content(filled / FILES[kind])
    n_found = 0
    for _ in range(scaled(1_000, 30)):
        position = chance.randrange(len(original))
        path.write_bytes(original[:position] + bytes([original[position] ^ chance.randrange(1, 256)])
                         + original[position + 1 :])  # fmt: skip
        lines = damaged_databases(settings)
        n_found += bool(lines)
        assert all(line.startswith(f"{kind} {path} is damaged (") and "\n" not in line for line in lines)
        now = content(path)
        if kind == "stream":
            assert lines or now == rows or _only_times_differ(now, rows)
        elif kind == "online store":
            assert lines or now == rows or len(now or ()) == len(rows or ())  # a value: its checksum is wrong
        else:
            assert lines or now is not None
    assert n_found


def _only_times_differ(now: list[object] | None, before: list[object] | None) -> bool:
    """Return whether only the time index of retention, or the number of partitions of a topic, differs."""
    parts = ("written", "topic")
    return now is not None and before is not None and not any(
        row[0] not in parts for row in set(map(repr, now)) ^ set(map(repr, before)) if isinstance(row, tuple)
    )  # fmt: skip


def test_a_damaged_message_is_a_dead_letter_and_the_others_are_folded(tmp_path: Path) -> None:
    events = happened(random.Random(3), 60)
    with closing(SqliteStream(f"{tmp_path}/stream.db", 1)) as stream:
        published(stream, events)
        with closing(sqlite3.connect(f"{tmp_path}/stream.db")) as database:
            database.execute("""UPDATE message SET value = CAST(replace(CAST(value AS TEXT), 'cn.zj', 'cn.zk') AS BLOB)
                                WHERE "offset" = 7""")
            database.execute("""UPDATE message SET key = CAST(x'f9' AS TEXT) WHERE "offset" = 8""")
            database.execute("""UPDATE message SET value = 5 WHERE "offset" = 9""")
            database.execute("""UPDATE message SET value = replace(value, '"', '?') WHERE "offset" = 10""")
            database.commit()
        online, log = MemoryStore(), EventLog(tmp_path / "events")
        folded(stream, online, log)
        assert {entry.offset for entry in log.by_offset(log.sources()[0])} == set(range(60)) - {7, 8, 9, 10}
        letters = list(read_dead_letters(stream, TOPIC))
        assert {letter.offset for letter in letters} == {7, 8, 9, 10}
        assert all("damaged" in letter.cause for letter in letters)
        assert damaged_databases(Settings(home=str(tmp_path)))


def test_a_damaged_commit_delivers_messages_again_and_counts_nothing_twice(tmp_path: Path) -> None:
    online, log = MemoryStore(), EventLog(tmp_path / "events")
    with closing(SqliteStream(f"{tmp_path}/stream.db", 1)) as stream:
        published(stream, happened(random.Random(3), 60))
        folded(stream, online, log)
        before = dump(online)
        with closing(sqlite3.connect(f"{tmp_path}/stream.db")) as database:
            database.execute('UPDATE done SET "offset" = "offset" + 256')
            database.commit()
        assert stream.committed(TOPIC, "g") == {}
        published(stream, happened(random.Random(4), 1))
        folded(stream, online, log)
        assert stream.committed(TOPIC, "g") == {0: 60}
    assert dump(online).keys() >= before.keys()
    assert {entry.offset for entry in log.by_offset(log.sources()[0])} == set(range(61))


def test_a_damaged_identity_is_named_and_starts_no_new_log(tmp_path: Path) -> None:
    with closing(SqliteStream(f"{tmp_path}/stream.db", 1)) as stream:
        assert len(stream.identity(TOPIC)) == 32
        with closing(sqlite3.connect(f"{tmp_path}/stream.db")) as database:
            database.execute("UPDATE identity SET id = replace(replace(id, 'a', 'b'), '0', '1')")
            database.commit()
        with pytest.raises(Unavailable, match="table identity"):
            stream.identity(TOPIC)


def test_keys_and_values_of_any_type_are_read_from_a_damaged_online_store(tmp_path: Path) -> None:
    with closing(SqliteStore(f"{tmp_path}/online.db")) as store:
        store.put({f"viewer:{{{n}}}": b"value" for n in range(5)})
        with closing(sqlite3.connect(f"{tmp_path}/online.db")) as database:
            for n, sql in enumerate(("key = CAST(x'7669657765723af9' AS TEXT)", "value = 7", "value = 'text'")):
                database.execute(f"UPDATE state SET {sql} WHERE key = 'viewer:{{{n}}}'")
            database.commit()
        keys = [key for key, _ in store.scan("viewer:")]
        assert len(keys) == 5
        assert store.get([f"viewer:{{{n}}}" for n in range(5)]) == [None, b"7", b"text", b"value", b"value"]
        store.delete(keys[:1] + keys[-1:])
        assert [key for key, _ in store.scan("viewer:")] == keys[1:-1]


def test_a_damaged_row_of_the_control_plane_hides_no_other_row(home: Path) -> None:
    path = home / "control.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE items SET body = CAST(x'7bf9' AS TEXT) WHERE id = 'i3'")
        database.execute("UPDATE items SET body = replace(body, '\"', '?') WHERE id = 'i4'")
        database.execute("UPDATE outlets SET name = '[' WHERE code = 'cn'")
        database.commit()
    with closing(open_control_of(Settings.read(home=str(home)))) as control:
        for limit in (1, 3, 1000):
            read, since = list[str](), 0
            while page := control.items_since(since, limit):
                read += [stored.item.id for stored in page]
                since = page[-1].revision
            assert read == [f"i{n}" for n in range(20) if n not in (3, 4)]
        assert [outlet.name for outlet in control.outlets()] == [{}]
        with pytest.raises(DamagedData):
            control.item("i3")
        assert control.upsert_items([item(3), item(4)], "editor") == ["updated", "updated"]
        assert len(control.items_since(0)) == 20
        control.target_overrides.update("cn/a", lambda override: TargetOverride(stopped=True), "e", "target.stop", {})
        with closing(sqlite3.connect(path)) as database:
            database.execute("UPDATE target_orders SET body = '{'")
            database.commit()
        assert control.target_overrides.since() == {"cn/a": TargetOverride(paused=True)}
