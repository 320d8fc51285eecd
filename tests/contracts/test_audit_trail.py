"""Every manipulation of the audit trail is found, and the first bad entry is named: over SQLite and PostgreSQL."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, create_engine, delete, insert, text, update

from features.control import audit_trail, tables
from features.control.audit_checkpoint import AuditCheckpoint, read_checkpoint
from features.control.audit_trail import AuditSigner, Seal
from features.control.connect import MIGRATIONS, connect, open_control
from recsys.domain.errors import Conflict, InvalidInput
from tests.conftest import scaled

AT = 1_800_000_000.0
KEY, OTHER_KEY = b"key of the audit trail", b"key of somebody else"
ENTRIES = 24

Row = dict[str, Any]
Manipulation = Callable[[random.Random, list[Row]], list[Row]]


@pytest.fixture
def trail(control_url: str) -> Iterator[Connection]:
    """A connection to a database with a trail of ENTRIES entries; nothing that it writes is committed."""
    plane = open_control(control_url, KEY, lambda: AT)
    for n in range(ENTRIES // 2):
        plane.put_outlet(f"cn.o{n}", {"en": f"Outlet {n}", "zh": "杭州"}, f"editor-{n % 3}")
        plane.draft("cn", f"text {n}", "安", f"note {n}", n)
    plane.close()
    engine = connect(control_url)
    with engine.connect().execution_options(writes=True) as connection:
        yield connection
    engine.dispose()


def rows_of(connection: Connection) -> list[Row]:
    return [dict(row) for row in connection.execute(tables.audit.select().order_by(tables.audit.c.seq)).mappings()]


def signed_again(rows: Sequence[Row], start: int, key: bytes | None) -> list[Row]:
    """Return the rows with valid chaining from `start` on: with this key, or with plain SHA-256 for None."""
    result = [dict(row) for row in rows]
    for n in range(start, len(result)):
        result[n]["previous"] = result[n - 1]["hash"] if n else ""
        fields = [result[n][name] for name in ("seq", "at", "actor", "action", "subject", "detail", "previous")]
        plain = hashlib.sha256(json.dumps(fields, ensure_ascii=False).encode()).hexdigest()
        result[n]["hash"] = plain if key is None else AuditSigner(key).entry(result[n])
    return result


def edit(rng: random.Random, rows: list[Row]) -> list[Row]:
    row = rng.choice(rows)
    name = rng.choice(["at", "actor", "action", "subject", "detail", "previous", "hash"])
    if name == "at":
        row[name] += rng.choice([-1.0, 1e-3, 3600.0])
        return rows
    value, position = row[name] or "x", rng.randrange(max(len(row[name]), 1))
    character = rng.choice(["", " ", "0", "é", value[position] * 2])
    changed = value[:position] + character + value[position + 1 :]
    row[name] = (
        (changed if changed != row[name] else f"{row[name]} ")[-64:]
        if name in ("previous", "hash")
        else (changed if changed != row[name] else f"{row[name]} ")
    )
    if row[name] == value:
        row[name] = value[:-1]
    return rows


def remove(rng: random.Random, rows: list[Row]) -> list[Row]:
    first = rng.randrange(len(rows))
    return rows[:first] + rows[rng.randint(first + 1, len(rows)) :]


def remove_and_renumber(rng: random.Random, rows: list[Row]) -> list[Row]:
    rest = remove(rng, rows)
    return [row | {"seq": n} for n, row in enumerate(rest, 1)]


def cut_the_end(rng: random.Random, rows: list[Row]) -> list[Row]:
    return rows[: rng.randrange(len(rows))]


def swap(rng: random.Random, rows: list[Row]) -> list[Row]:
    a, b = rng.sample(range(len(rows)), 2)
    rows[a], rows[b] = rows[b] | {"seq": a + 1}, rows[a] | {"seq": b + 1}
    return rows


def insert_copy(rng: random.Random, rows: list[Row]) -> list[Row]:
    position = rng.randrange(len(rows) + 1)
    rows.insert(position, dict(rng.choice(rows)) | {"actor": "mallory"})
    return [row | {"seq": n} for n, row in enumerate(rows, 1)]


def rewrite(rng: random.Random, rows: list[Row]) -> list[Row]:
    start = rng.randrange(len(rows))
    rows[start]["actor"] = "mallory"
    changed = rng.choice([remove, swap, edit])(rng, rows[start + 1 :]) if start + 2 < len(rows) else []
    rows = [row | {"seq": n} for n, row in enumerate(rows[: start + 1] + changed, 1)]
    return signed_again(rows, start, rng.choice([None, OTHER_KEY]))


def prepend(rng: random.Random, rows: list[Row]) -> list[Row]:
    return [dict(rng.choice(rows)) | {"seq": -rng.randrange(3)}, *rows]


MANIPULATIONS: list[Manipulation] = [
    edit, remove, remove_and_renumber, cut_the_end, swap, insert_copy, rewrite, prepend,
]  # fmt: skip


def first_difference(before: Sequence[Row], after: Sequence[Row]) -> int:
    """Return the number of the first entry that is not as it was: the oracle of the tests below."""
    for n, row in enumerate(before):
        if n >= len(after) or after[n] != row:
            return min(row["seq"], after[n]["seq"]) if n < len(after) else int(row["seq"])
    return len(before) + 1


def store(connection: Connection, rows: Sequence[Row]) -> None:
    connection.execute(delete(tables.audit))
    if rows:
        connection.execute(insert(tables.audit), list(rows))


def first_fault(connection: Connection, checkpoint: Seal | None = None) -> int | None:
    fault = audit_trail.verify(connection, AuditSigner(KEY), checkpoint)[1]
    return None if fault is None else fault.seq


def test_every_manipulation_is_found_and_the_first_bad_entry_is_named(trail: Connection) -> None:
    """The attacker can write to the database but does not know the key; seals are removed or forged as well."""
    rng, original = random.Random(11), rows_of(trail)
    trail.rollback()
    for n in range(scaled(1000)):
        manipulate = MANIPULATIONS[n % len(MANIPULATIONS)]
        changed = manipulate(rng, [dict(row) for row in original])
        store(trail, changed)
        match rng.randrange(4) if changed else 0:
            case 1:
                trail.execute(delete(tables.audit_seal))
            case 2:
                forged = AuditSigner(OTHER_KEY).seal(changed[-1]["seq"], changed[-1]["hash"])
                audit_trail.write_seal(trail, forged)
        assert first_fault(trail) == first_difference(original, changed), (manipulate.__name__, n)
        trail.rollback()
    assert first_fault(trail) is None


def test_only_a_checkpoint_finds_an_older_state_of_the_whole_database(trail: Connection) -> None:
    """An older state, with its own genuine seal, is indistinguishable from the trail as it was then."""
    rows, signer = rows_of(trail), AuditSigner(KEY)
    checkpoint = audit_trail.read_seal(trail)
    assert checkpoint is not None
    for length in range(ENTRIES):
        store(trail, rows[:length])
        trail.execute(delete(tables.audit_seal))
        if length:
            audit_trail.write_seal(trail, signer.seal(length, rows[length - 1]["hash"]))
            assert first_fault(trail) is None
        assert first_fault(trail, checkpoint) == length + 1
        trail.rollback()
    assert first_fault(trail, checkpoint) is None
    store(trail, signed_again([rows[0] | {"actor": "x"}, *rows[1:]], 0, KEY))  # by somebody who knows the key
    assert first_fault(trail, checkpoint) == ENTRIES


def test_a_forged_checkpoint_is_refused(trail: Connection) -> None:
    with pytest.raises(InvalidInput, match="checkpoint"):
        first_fault(trail, AuditSigner(OTHER_KEY).seal(1, "x"))


@pytest.mark.parametrize("seal", ["stays", "removed"])
@pytest.mark.parametrize("remaining", [0, 1, ENTRIES - 1])
def test_later_writes_do_not_hide_a_cut(control_url: str, trail: Connection, seal: str, remaining: int) -> None:
    trail.execute(delete(tables.audit).where(tables.audit.c.seq > remaining))
    if seal == "removed":
        trail.execute(delete(tables.audit_seal))
    trail.commit()
    plane = open_control(control_url, KEY, lambda: AT)
    for n in range(3):
        plane.put_outlet("cn", {"en": f"New {n}"}, "editor")
    fault = plane.verify_audit()[1]
    plane.close()
    assert fault is not None
    assert fault.seq == remaining + 1


def test_a_host_with_another_key_writes_nothing(control_url: str, trail: Connection) -> None:
    trail.rollback()
    plane = open_control(control_url, OTHER_KEY, lambda: AT)
    with pytest.raises(Conflict, match="MAINSTAY_AUDIT_KEY"):
        plane.put_outlet("cn", {"en": "New"}, "editor")
    plane.close()
    assert first_fault(trail) is None
    assert len(rows_of(trail)) == ENTRIES


def remove_signatures(connection: Connection, rows: Sequence[Row]) -> list[Row]:
    """Store the rows as an older version did, in a database of its schema: chained by SHA-256 without a key."""
    chained: list[Row] = []
    for row in rows:
        unkeyed = row | {"previous": chained[-1]["hash"] if chained else ""}
        fields = [unkeyed[name] for name in ("seq", "at", "actor", "action", "subject", "detail", "previous")]
        fields[5] = json.loads(row["detail"])
        canonical = json.dumps(fields, sort_keys=True, ensure_ascii=False)
        chained.append(unkeyed | {"hash": hashlib.sha256(canonical.encode()).hexdigest()})
    store(connection, chained)
    connection.commit()
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    command.downgrade(config, "0003")
    connection.execute(text("DROP TABLE audit_seal"))
    connection.execute(text("UPDATE alembic_version SET version_num = '0002'"))
    connection.commit()
    return chained


def test_a_trail_without_signatures_is_signed_by_the_migration(control_url: str, trail: Connection) -> None:
    remove_signatures(trail, rows_of(trail))
    plane = open_control(control_url, KEY, lambda: AT)
    assert plane.verify_audit() == (ENTRIES, None)
    plane.put_outlet("cn", {"en": "New"}, "editor")
    assert plane.verify_audit() == (ENTRIES + 1, None)
    plane.close()


@pytest.mark.parametrize("bad", [1, 2, ENTRIES])
@pytest.mark.parametrize("is_removed", [False, True])
def test_the_migration_does_not_sign_what_was_manipulated_before(
    control_url: str, trail: Connection, bad: int, is_removed: bool
) -> None:
    changed = remove_signatures(trail, rows_of(trail))
    changed[bad - 1 : bad] = [] if is_removed else [changed[bad - 1] | {"actor": "mallory"}]
    store(trail, changed)
    trail.commit()
    plane = open_control(control_url, KEY, lambda: AT)
    for n in range(2):
        fault = plane.verify_audit()[1]
        if is_removed and bad == ENTRIES and not n:
            assert fault is None  # a chain without a seal cannot show that its end was removed
            break
        assert fault is not None
        assert fault.seq == bad
        plane.put_outlet("cn", {"en": "New"}, "editor")
    plane.close()


def test_signatures_cannot_be_replaced_by_a_migration(control_url: str, trail: Connection, tmp_path: Path) -> None:
    """Somebody rewrites the trail and lets the database look as if an older version had written it."""
    checkpoint, seal = AuditCheckpoint(tmp_path / "checkpoint"), audit_trail.read_seal(trail)
    assert seal is not None
    checkpoint.save(seal)
    original = rows_of(trail)
    remove_signatures(trail, [original[0] | {"actor": "mallory"}, *original[1:]])
    plane = open_control(control_url, KEY, lambda: AT, checkpoint)
    for _ in range(2):
        assert plane.verify_audit()[1] is not None
        plane.put_outlet("cn", {"en": "New"}, "editor")
    plane.close()


def test_the_checkpoint_file_follows_the_trail_and_never_goes_back(control_url: str, tmp_path: Path) -> None:
    file = tmp_path / "elsewhere" / "checkpoint"
    plane = open_control(control_url, KEY, lambda: AT, AuditCheckpoint(file))
    for n in range(1, 4):
        plane.put_outlet("cn", {"en": f"Name {n}"}, "editor")
        assert read_checkpoint(file).seq == n
    assert file.stat().st_mode & 0o777 == 0o600
    assert plane.verify_audit(read_checkpoint(file)) == (3, None)
    AuditCheckpoint(file).save(AuditSigner(KEY).seal(2, "older"))
    assert read_checkpoint(file).seq == 3
    plane.close()


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"seq": "1", "hash": "", "signature": ""}', "\x00"])
def test_a_damaged_checkpoint_file_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "checkpoint"
    file.write_text(content)
    with pytest.raises(InvalidInput, match="not a checkpoint"):
        read_checkpoint(file)


def test_a_failed_checkpoint_does_not_fail_the_change(
    control_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    plane = open_control(control_url, KEY, lambda: AT, AuditCheckpoint(tmp_path / "file" / "checkpoint"))
    plane.put_outlet("cn", {"en": "Name"}, "editor")
    assert plane.verify_audit() == (1, None)
    plane.close()
    assert "audit checkpoint" in caplog.text


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *product(["actor", "detail", "hash"], ["X'ff00'", "CAST(X'ff41' AS TEXT)", "7.5"]),
        *product(["seq"], ["'x'", "2.5", "X'02'"]),
    ],
)
def test_values_of_another_type_or_encoding_are_named(tmp_path: Path, column: str, value: str) -> None:
    url = f"sqlite:///{tmp_path}/control.db"
    plane = open_control(url, KEY, lambda: AT)
    for n in range(3):
        plane.put_outlet("cn", {"en": f"Name {n}"}, "editor")
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE audit SET {column} = {value} WHERE seq = 2"))
    engine.dispose()
    fault = plane.verify_audit()[1]
    plane.close()
    assert fault is not None
    assert fault.seq == 2


def test_an_update_of_nothing_is_no_manipulation(trail: Connection) -> None:
    trail.execute(update(tables.audit).values(actor=tables.audit.c.actor))
    assert first_fault(trail) is None
