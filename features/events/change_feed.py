"""The change feed: CloudEvents for items that were added, changed or withdrawn and for policies that were published.

Changes go to the topic `<topic>.changes`, keyed by item or outlet. Their id contains the revision of the control plane,
so a change that is sent twice has the same id. To hold the current state, consumers keep the change with the highest
revision of each subject.
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
    "upserted": "mainstay.catalog.upserted",
    "retracted": "mainstay.catalog.retracted",
    "published": "mainstay.policy.published",
}


class Change(msgspec.Struct, frozen=True):
    """A change of the item or the outlet named by `subject`, in force from `revision` on."""

    kind: Literal["upserted", "retracted", "published"]
    subject: str
    revision: int
    data: dict[str, Any]  # the complete item, or the version, text and author of the policy


class _WireChange(msgspec.Struct, frozen=True):
    specversion: Literal["1.0"]
    id: str
    source: str
    type: str
    subject: str
    time: str
    dataschema: str
    datacontenttype: Literal["application/json"]
    data: dict[str, Any]


_decode = msgspec.json.Decoder(_WireChange).decode
_KIND_OF = {name: kind for kind, name in TYPES.items()}


def changes_topic(topic: str) -> str:
    """Return the name of the change topic that belongs to a topic of viewer events."""
    return f"{topic}.changes"


def item_change(item: Item, revision: int) -> Change:
    """Return the change for the current state of an item; a withdrawn item is retracted."""
    kind: Literal["upserted", "retracted"] = "retracted" if item.status == "withdrawn" else "upserted"
    return Change(kind, item.id, revision, item.model_dump(mode="json", exclude_defaults=True))


def policy_change(outlet: str, version: int, text: str, author: str, revision: int) -> Change:
    """Return the change for a policy that has been published for an outlet."""
    return Change("published", outlet, revision, {"version": version, "text": text, "author": author})


def to_record(change: Change, at: float) -> Record:
    """Encode a change as a stream record, dated `at` (unix seconds)."""
    wire = _WireChange(
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
    """Decode a change. Raises EventError."""
    try:
        wire = _decode(raw)
        kind = _KIND_OF[wire.type]
        data = wire.data["policy" if kind == "published" else "item"]
        return msgspec.convert(
            {"kind": kind, "subject": wire.subject, "revision": wire.data["revision"], "data": data}, Change
        )
    except (ValueError, KeyError) as error:  # msgspec's errors are ValueErrors
        raise EventError(f"not a change event: {error}") from error
