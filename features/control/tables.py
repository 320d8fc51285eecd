"""The tables of the control plane, the same for SQLite and PostgreSQL. Only migrations create them."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, Integer, MetaData, String, Table, Text

metadata = MetaData()

revision = Table(
    "revision",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),  # always 1: its row lock serialises all writers
    Column("value", BigInteger, nullable=False),
)

items = Table(
    "items",
    metadata,
    Column("id", String(200), primary_key=True),
    Column("revision", BigInteger, nullable=False, unique=True),  # when it last changed
    Column("number", BigInteger, nullable=False, unique=True),  # order of creation, 0-based; it never changes
    Column("outlet", String(100), nullable=False, index=True),
    Column("body", Text, nullable=False),  # the item as JSON
)

outlets = Table(
    "outlets",
    metadata,
    Column("code", String(100), primary_key=True),
    Column("revision", BigInteger, nullable=False, unique=True),
    Column("name", Text, nullable=False),  # JSON: language -> text
)

policies = Table(  # append-only: a saved version never changes
    "policies",
    metadata,
    Column("outlet", String(100), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("text", Text, nullable=False),  # as written, JSON or YAML
    Column("author", String(200), nullable=False),
    Column("note", Text, nullable=False),
    Column("at", Float, nullable=False),
)

publications = Table(  # append-only: the newest row of an outlet names the version in force
    "publications",
    metadata,
    Column("revision", BigInteger, primary_key=True, autoincrement=False),
    Column("outlet", String(100), nullable=False, index=True),
    Column("version", Integer, nullable=False),
    Column("author", String(200), nullable=False),
    Column("at", Float, nullable=False),
)

target_orders = Table(  # editors' overrides of running exposure targets
    "target_orders",
    metadata,
    Column("target", String(400), primary_key=True),  # outlet/control, 100 + 1 + 200 characters
    Column("revision", BigInteger, nullable=False, unique=True),
    Column("body", Text, nullable=False),  # JSON: paused, stopped, amount
)

audit = Table(  # append-only; `features.control.audit_trail` signs each row together with the row before it
    "audit",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("at", Float, nullable=False),
    Column("actor", String(200), nullable=False),
    Column("action", String(50), nullable=False),
    Column("subject", String(400), nullable=False),
    Column("detail", Text, nullable=False),  # JSON
    Column("previous", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
)

audit_seal = Table(  # the newest row of the trail, signed
    "audit_seal",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),  # always 1
    Column("seq", BigInteger, nullable=False),
    Column("hash", String(64), nullable=False),
    Column("signature", String(64), nullable=False),
)
