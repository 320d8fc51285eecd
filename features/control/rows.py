"""The row types that the control plane returns."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

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
        """Return the item in this JSON text."""
        return cls(revision, Item.model_validate_json(body), number)


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
    """An entry of the audit trail. `hash` covers all other fields; `previous` is that of the previous row, or ""."""

    seq: int
    at: float
    actor: str
    action: str
    subject: str
    detail: Mapping[str, object]
    previous: str
    hash: str

    def computed_hash(self) -> str:
        """Return the SHA-256 of all fields but `hash`, in a canonical form."""
        fields = [self.seq, self.at, self.actor, self.action, self.subject, self.detail, self.previous]
        return hashlib.sha256(json.dumps(fields, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
