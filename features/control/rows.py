"""The row types that the control plane returns."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from features.checksum import decode_stored
from recsys.domain.fields import STORED
from recsys.domain.item import Item

Change = Literal["created", "updated", "unchanged"]


@dataclass(frozen=True)
class StoredItem:
    """An item, the revision at which it last changed, and its number: 0 for the first item created, and so on."""

    revision: int
    item: Item
    number: int

    @classmethod
    def read(cls, revision: int, body: str, number: int) -> StoredItem:
        """Return the item in this JSON text. Raises DamagedData."""
        item = decode_stored(body, lambda text: Item.model_validate_json(text, context=STORED))
        return cls(revision, item, number)


@dataclass(frozen=True)
class Outlet:
    """A tenant: its code in the tree (`cn.zj.hz`) and its name by language; unnamed outlets have an empty name."""

    code: str
    name: Mapping[str, str]
    revision: int


@dataclass(frozen=True)
class PolicyVersion:
    """A saved version of an outlet's policy.

    `published_at` holds unix seconds of every publication, oldest first: empty for a draft, several after a rollback.
    """

    outlet: str
    version: int
    text: str
    author: str
    note: str
    at: float
    published_at: tuple[float, ...] = ()
    active: bool = False

    @property
    def state(self) -> Literal["draft", "published"]:
        """Return `published` for a version that was ever in force, else `draft`."""
        return "published" if self.published_at else "draft"


@dataclass(frozen=True)
class PublishedPolicy:
    """The version in force for an outlet, and the revision of its publication."""

    outlet: str
    version: int
    text: str
    author: str
    revision: int


@dataclass(frozen=True)
class AuditRow:
    """An entry of the audit trail. `hash` is its signature; `previous` is that of the previous entry, or ""."""

    seq: int
    at: float
    actor: str
    action: str
    subject: str
    detail: Mapping[str, object]
    previous: str
    hash: str

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> AuditRow:
        """Return the entry in a row of the table. A detail that is no JSON object is returned as `unreadable`."""
        try:
            detail = json.loads(row["detail"])
        except (ValueError, TypeError):
            detail = None
        return cls(**{**row, "detail": detail if isinstance(detail, dict) else {"unreadable": str(row["detail"])}})
