"""The contract of the control plane, run against SQLite and PostgreSQL."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import pairwise

import pytest
from alembic import command
from alembic.config import Config
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from features.control.connect import HEAD, MIGRATIONS, connect, open_control
from features.control.plane import ControlPlane
from recsys.domain.errors import Conflict, InvalidInput, NotFound, Unavailable
from recsys.domain.item import Item

AT = 1_800_000_000.0
KEY = b"key of the audit trail"


@pytest.fixture
def url(control_url: str) -> str:
    """An empty database."""
    return control_url


@pytest.fixture
def plane(url: str) -> Iterator[ControlPlane]:
    opened = open_control(url, KEY, lambda: AT)
    yield opened
    opened.close()


def item(id_: str, title: str = "t", outlet: str = "cn.zj.hz") -> Item:
    return Item.model_validate(
        {"id": id_, "title": {"en": title}, "outlet": outlet, "published_at": "2026-01-01T00:00:00Z"}
    )


def test_reading_by_revision_yields_the_latest_version_of_every_item(plane: ControlPlane) -> None:
    @given(st.lists(st.lists(st.tuples(st.sampled_from("abcde"), st.sampled_from("xyz")), max_size=6), max_size=6))
    @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
    def check(batches: list[list[tuple[str, str]]]) -> None:
        prefix = uuid.uuid4().hex
        expected: dict[str, str] = {}
        follower: dict[str, str] = {}
        position = plane.revision()
        for batch in batches:
            plane.upsert_items([item(prefix + id_, title) for id_, title in batch], "t")
            expected.update((prefix + id_, title) for id_, title in batch)
            while page := plane.items_since(position, limit=2):
                follower.update((stored.item.id, stored.item.title["en"]) for stored in page)
                assert all(a.revision < b.revision for a, b in pairwise(page))
                position = page[-1].revision
            assert position <= plane.revision()
            assert follower == expected

    check()


def test_an_identical_upsert_is_not_a_change(plane: ControlPlane) -> None:
    assert plane.upsert_items([item("a"), item("b")], "t") == ["created", "created"]
    before = plane.revision()
    assert plane.upsert_items([item("a")], "t") == ["unchanged"]
    assert plane.revision() == before
    assert plane.upsert_items([item("a", "new"), item("b")], "t") == ["updated", "unchanged"]
    assert plane.revision() > before
    assert plane.item("a").item.title == {"en": "new"}


def test_a_large_batch_is_stored_completely(plane: ControlPlane) -> None:
    items = [item(f"i{n}") for n in range(1200)]
    plane.upsert_items(items, "t")
    assert sorted(s.item.id for s in plane.items_since(0, limit=5000)) == sorted(i.id for i in items)


def test_an_unknown_item_or_version_is_not_found(plane: ControlPlane) -> None:
    with pytest.raises(NotFound, match="nope"):
        plane.item("nope")
    with pytest.raises(NotFound, match="version 3"):
        plane.publish("cn", 3, "t")
    with pytest.raises(NotFound, match="version 3"):
        plane.version("cn", 3)


def test_outlets_and_their_ancestors_are_created_on_first_use(plane: ControlPlane) -> None:
    plane.upsert_items([item("a", outlet="cn.zj.hz")], "t")
    plane.draft("cn.js", "{}", "t", "", 0)
    assert [outlet.code for outlet in plane.outlets()] == ["cn", "cn.js", "cn.zj", "cn.zj.hz"]
    revision = plane.revision()
    plane.put_outlet("cn.zj", {"zh": "浙江", "en": "Zhejiang"}, "t")
    assert [(o.code, o.name["zh"]) for o in plane.outlets(since=revision)] == [("cn.zj", "浙江")]


def test_versions_are_appended_published_and_rolled_back(plane: ControlPlane) -> None:
    for n in range(3):
        assert plane.draft("cn", f"text {n + 1}", "ann", f"note {n}", n).version == n + 1
    assert plane.policies_since(0) == []
    first = plane.publish("cn", 1, "bo", base_version=0)
    second = plane.publish("cn", 2, "bo", base_version=1)
    assert [(p.version, p.text) for p in plane.policies_since(first.revision)] == [(2, "text 2")]
    assert plane.policies_since(second.revision) == []
    plane.rollback("cn", 1, "bo", base_version=2)
    assert [(p.version, p.text, p.author) for p in plane.policies_since(0)] == [(1, "text 1", "ann")]
    history = plane.history("cn")
    assert [(v.version, v.state, v.active, len(v.published_at)) for v in history] == [
        (3, "draft", False, 0),
        (2, "published", False, 1),
        (1, "published", True, 2),
    ]
    with pytest.raises(InvalidInput, match="never in force"):
        plane.rollback("cn", 3, "bo")
    with pytest.raises(Conflict, match="already in force"):
        plane.publish("cn", 1, "bo")


def test_writes_based_on_an_old_version_conflict(plane: ControlPlane) -> None:
    plane.draft("cn", "one", "ann", "", 0)
    with pytest.raises(Conflict, match="version 1 is newer than 0"):
        plane.draft("cn", "two", "bo", "", 0)
    plane.publish("cn", 1, "ann")
    plane.draft("cn", "two", "bo", "", 1)
    with pytest.raises(Conflict, match="version 1 is in force, not 0"):
        plane.publish("cn", 2, "bo", base_version=0)
    assert [v.text for v in plane.history("cn")] == ["two", "one"]


def test_concurrent_writers_create_each_version_once(url: str) -> None:
    planes = [open_control(url, KEY, lambda: AT) for _ in range(4)]

    def race(plane: ControlPlane) -> list[int]:
        versions_won = []
        for n in range(5):
            try:
                versions_won.append(plane.draft("cn", "x", "t", "", n).version)
            except Conflict:
                while not [v for v in plane.history("cn") if v.version > n]:
                    raise AssertionError("a conflict without a newer version") from None
        return versions_won

    with ThreadPoolExecutor(4) as pool:
        versions_won = [version for versions in pool.map(race, planes) for version in versions]
    assert sorted(versions_won) == [1, 2, 3, 4, 5]
    assert [row.detail["version"] for row in planes[0].audit()] == [1, 2, 3, 4, 5]
    assert planes[0].verify_audit()[1] is None
    for plane in planes:
        plane.close()


def test_concurrent_batches_leave_no_revision_gap(url: str) -> None:
    planes = [open_control(url, KEY, lambda: AT) for _ in range(3)]

    def write(n: int) -> None:
        for m in range(8):
            planes[n].upsert_items([item(f"{n}-{m}-{i}") for i in range(5)], "t")

    position, n_read = 0, 0
    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(write, n) for n in (0, 1)]
        while True:
            done = all(
                future.done() for future in running
            )  # checked before the read, so that the read includes all commits
            page = planes[2].items_since(position)
            n_read += len(page)
            position = page[-1].revision if page else position
            if done and not page:
                break
    assert [future.exception() for future in running] == [None, None]
    assert n_read == 80, "a row that commits later must not get an earlier revision"
    for plane in planes:
        plane.close()


def test_every_change_is_recorded_in_the_audit_chain(plane: ControlPlane) -> None:
    plane.upsert_items([item("a")], "importer")
    plane.upsert_items([item("a")], "importer")  # unchanged: no audit row
    plane.draft("cn", "{}", "安", "first", 0)
    plane.publish("cn", 1, "bo")
    rows = plane.audit()
    assert [(row.seq, row.actor, row.action, row.subject) for row in rows] == [
        (1, "importer", "items.upsert", "a"),
        (2, "安", "policy.draft", "cn"),
        (3, "bo", "policy.publish", "cn"),
    ]
    assert plane.audit(after=2, limit=1) == rows[2:]
    assert plane.audit(limit=2, newest_first=True) == [rows[2], rows[1]]
    assert plane.audit(before=2, newest_first=True) == [rows[0]]
    assert plane.verify_audit()[1] is None


@pytest.mark.parametrize(
    ("tamper", "broken"),
    [
        ("UPDATE audit SET actor = 'mallory' WHERE seq = 2", 2),
        ("UPDATE audit SET detail = '{}' WHERE seq = 3", 3),
        ("DELETE FROM audit WHERE seq = 1", 1),
        ("DELETE FROM audit WHERE seq = 2", 2),
    ],
)
def test_tampering_with_the_audit_log_is_detected(url: str, tamper: str, broken: int) -> None:
    plane = open_control(url, KEY, lambda: AT)
    for n in range(3):
        plane.draft("cn", "{}", "ann", "", n)
    plane.close()
    engine = connect(url)
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        connection.execute(text(tamper))
    engine.dispose()
    plane = open_control(url, KEY, lambda: AT)
    assert plane.verify_audit()[1].seq == broken
    plane.close()


def test_migrations_create_the_declared_tables(url: str) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    from features.control.tables import metadata

    open_control(url, KEY).close()
    engine = connect(url)
    with engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), metadata)
    engine.dispose()
    assert differences == []
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]


def test_an_item_keeps_its_number(plane: ControlPlane) -> None:
    """Numbers follow the order of creation, without gaps; a later reader finds the same numbers as an earlier one."""
    plane.upsert_items([item("c"), item("a")], "ann")
    plane.upsert_items([item("c", "changed"), item("b")], "ann")
    before = {stored.item.id: stored.number for stored in plane.items_since(0)}
    assert before == {"c": 0, "a": 1, "b": 2}
    plane.upsert_items([item("a", "changed"), item("d")], "ann")
    after = {stored.item.id: stored.number for stored in plane.items_since(0)}
    assert after == {**before, "d": 3}
    assert plane.item("d").number == 3


def test_migration_numbers_stored_items(url: str) -> None:
    open_control(url, KEY).close()
    engine = connect(url)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    rows = [{"id": f"i{n}", "revision": 9 - n, "body": item(f"i{n}").model_dump_json()} for n in range(5)]
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        config.attributes["connection"] = connection
        command.downgrade(config, "0004")
        insert = "INSERT INTO items (id, revision, outlet, body) VALUES (:id, :revision, 'cn', :body)"
        connection.execute(text(insert), rows)
    engine.dispose()
    plane = open_control(url, KEY, lambda: AT)
    assert [(stored.item.id, stored.number) for stored in plane.items_since(0)] == [(f"i{4 - n}", n) for n in range(5)]
    plane.upsert_items([item("new")], "ann")
    assert plane.item("new").number == 5
    plane.close()


def test_concurrent_starts_migrate_once(url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        planes = list(pool.map(lambda _: open_control(url, KEY), range(4)))
    assert {plane.revision() for plane in planes} == {0}
    for plane in planes:
        plane.close()


def test_an_unreachable_database_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="control plane"):
        open_control("postgresql://nobody@127.0.0.1:1/none", KEY)


def test_an_unsafe_schema_name_is_rejected() -> None:
    for schema in ("a;drop", "A", "1a", "a b"):
        with pytest.raises(InvalidInput, match="control plane schema"):
            connect(f"postgresql://nobody@127.0.0.1/none?schema={schema}")


@pytest.mark.parametrize("url", ["mysql://x/y", "nonsense", "sqlite://"])
def test_an_unsupported_database_url_is_rejected(url: str) -> None:
    with pytest.raises(InvalidInput, match="control plane URL"):
        open_control(url, KEY)


@given(st.text(st.sampled_from("a\x00\ud83d/é") | st.characters(), max_size=6), st.integers(-(2**70), 2**70))
@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@example("\x00", 2**63)
@example("a\ud83d", -(2**63) - 1)
@example("a", 2**31)
def test_a_value_that_the_database_cannot_hold_is_no_outage(plane: ControlPlane, text_: str, number: int) -> None:
    """Each call succeeds or says that the input is wrong or does not exist; it never raises Unavailable."""
    code = f"o{uuid.uuid4().hex}"
    calls: list[Callable[[], object]] = [
        lambda: plane.items_since(number),
        lambda: plane.items_since(0, limit=number),
        lambda: plane.audit(after=number),
        lambda: plane.audit(before=number),
        lambda: plane.outlets(since=number),
        lambda: plane.policies_since(number),
        lambda: plane.publish(code, number, "t"),
        lambda: plane.publish(code, 1, "t", base_version=number),
        lambda: plane.rollback(code, number, "t"),
        lambda: plane.draft(code, text_, text_, text_, 0),
        lambda: plane.draft(code, "", "t", "", number),
        lambda: plane.upsert_items([item(uuid.uuid4().hex)], text_),
        lambda: plane.put_outlet(code, {"en": text_}, text_),
        lambda: plane.target_overrides.update(f"{code}/{text_}", lambda override: override, text_, "target.pause", {}),
    ]
    for call in calls:
        with suppress(InvalidInput, NotFound, Conflict):
            call()
    with pytest.raises(NotFound):
        plane.item(text_)


def test_the_longest_names_are_stored(plane: ControlPlane) -> None:
    outlet, id_, author = "o" * 100, "é" * 200, "a" * 200
    plane.upsert_items([item(id_, outlet=outlet)], author)
    assert plane.item(id_).item.id == id_
    plane.target_overrides.update(f"{outlet}/{id_}", lambda override: override, author, "target.pause", {})
    assert list(plane.target_overrides.since()) == [f"{outlet}/{id_}"]
    assert plane.audit()[-1].subject == f"{outlet}/{id_}"


def test_an_item_of_an_older_version_is_read_with_the_names_that_it_shows(plane: ControlPlane, url: str) -> None:
    plane.upsert_items([item("a")], "t")
    body = item("a").model_copy(update={"labels": ("ne\u200bws ",)}).model_dump_json()
    engine = connect(url)
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        connection.execute(text("UPDATE items SET body = :body"), {"body": body})
    engine.dispose()
    assert plane.item("a").item.labels == plane.items_since(0)[0].item.labels == ("news",)
