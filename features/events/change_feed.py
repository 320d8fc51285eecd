"""What editors and outlets change, as CloudEvents for whoever follows: items put in or withdrawn, policies in force.

They go to `<topic>.changes`, keyed by item or outlet, with the revision of the control plane in their id: what is sent
again has the same id. A follower that wants the newest form of a thing keeps the one with the highest revision.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from features.events.schema import SOURCE
from features.events.stream.port import Record
from recsys.domain.errors import EventError
from recsys.domain.item import Item

SCHEMA = "urn:mainstay:change:1"
TYPES: Mapping[str, str] = {
    "upserted": "mainstay.catalogue.upserted",
    "retracted": "mainstay.catalogue.retracted",
    "published": "mainstay.policy.published",
}


class Change(msgspec.Struct, frozen=True):
    """One change: of the item or the outlet named by `subject`, in force from `revision` on."""

    kind: Literal["upserted", "retracted", "published"]
    subject: str
    revision: int
    data: dict[str, Any]  # the whole item; or version and text of the policy


class _Wire(msgspec.Struct, frozen=True):
    specversion: Literal["1.0"]
    id: str
    source: str
    type: str
    subject: str
    time: str
    dataschema: str
    datacontenttype: Literal["application/json"]
    data: dict[str, Any]


_decode = msgspec.json.Decoder(_Wire).decode
_KIND_OF = {name: kind for kind, name in TYPES.items()}


def changes_topic(topic: str) -> str:
    """Where the changes go that belong to a topic of viewer events."""
    return f"{topic}.changes"


def item_change(item: Item, revision: int) -> Change:
    """An item as it is now; one that was withdrawn is retracted."""
    kind: Literal["upserted", "retracted"] = "retracted" if item.status == "withdrawn" else "upserted"
    return Change(kind, item.id, revision, item.model_dump(mode="json", exclude_defaults=True))


def policy_change(outlet: str, version: int, text: str, author: str, revision: int) -> Change:
    """A policy that is in force at an outlet."""
    return Change("published", outlet, revision, {"version": version, "text": text, "author": author})


def to_record(change: Change, at: float) -> Record:
    """Ready to be published at `at` (unix seconds)."""
    wire = _Wire(
        "1.0",
        f"{change.subject}@{change.revision}",
        SOURCE,
        TYPES[change.kind],
        change.subject,
        datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z"),
        SCHEMA,
        "application/json",
        {"revision": change.revision, "policy" if change.kind == "published" else "item": change.data},
    )
    return Record(change.subject, msgspec.json.encode(wire))


def decode_change(raw: bytes) -> Change:
    """The change in these bytes. Raises EventError."""
    try:
        wire = _decode(raw)
        kind = _KIND_OF[wire.type]
        data = wire.data["policy" if kind == "published" else "item"]
        return msgspec.convert(
            {"kind": kind, "subject": wire.subject, "revision": wire.data["revision"], "data": data}, Change
        )
    except (ValueError, KeyError) as error:  # msgspec's errors are ValueErrors
        raise EventError(f"no change: {error}") from error
