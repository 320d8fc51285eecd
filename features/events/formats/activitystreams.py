"""ActivityStreams 2 activities -> CloudEvents of ours.

Source: W3C Activity Vocabulary, https://www.w3.org/TR/activitystreams-vocabulary/ . An activity says that an *actor*
did something to an *object*: the actor's id is our viewer, the object's id our item. Both are taken as they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from features.events.identity import MAPPED
from features.events.schema import TYPE_PREFIX
from recsys.domain.errors import EventError, Finding

KINDS: dict[str, str] = {
    "View": "open",
    "Read": "open",
    "Listen": "play",
    "Like": "like",
    "Dislike": "dislike",
    "Announce": "share",
    "Follow": "follow",
    "Ignore": "hide",
    "Block": "hide",
    "Reject": "hide",
}
"""Activity -> our kind. `Create` is a comment when its object is a note in reply to something, `Add` a favourite."""

_SHORT = re.compile(r"^(\d{4}-\d\d-\d\d[Tt]\d\d:\d\d)([Zz]|[+-]\d\d:\d\d|)$", re.ASCII)


def from_activity(raw: object) -> dict[str, Any]:
    """One activity as a CloudEvent. Raises EventError for a type that says nothing about items, and for `Undo`.

    >>> from_activity({"@context": "https://www.w3.org/ns/activitystreams", "type": "Like", "id": "urn:a:1",
    ...                "actor": "urn:viewer:7", "object": {"type": "Video", "id": "film-3"}})["data"]
    {'item_id': 'film-3'}
    """
    if not isinstance(raw, dict):
        raise EventError("an activity is a JSON object")
    kind, about = _kind(raw), raw.get("object")
    if kind == "comment" and isinstance(about, dict):
        about = about.get("inReplyTo")
    sent = {
        "specversion": "1.0",
        "id": raw.get("id"),
        "source": MAPPED["activitystreams"],
        "type": TYPE_PREFIX + kind,
        "subject": _id(raw.get("actor")),
        "time": _time(raw.get("published") or raw.get("startTime")),
        "data": {} if _id(about) is None else {"item_id": _id(about)},
    }
    return {name: said for name, said in sent.items() if said is not None}


def _kind(raw: Mapping[str, Any]) -> str:
    """Of the first of its types that is known here."""
    said, about = raw.get("type"), raw.get("object")
    types = said if isinstance(said, list) else [said]
    replies = isinstance(about, dict) and about.get("inReplyTo") is not None
    known = KINDS | {"Add": "favourite"} | ({"Create": "comment"} if replies else {})
    found = [known[one] for one in types if isinstance(one, str) and one in known]
    if found and "Undo" not in types:
        return found[0]
    why = "an event cannot be taken back" if "Undo" in types else "no activity that is understood here"
    raise EventError("not understood", [Finding("type", f"{ascii(said)[:60]}: {why}; {', '.join(KINDS)} are")])


def _time(said: object) -> object:
    """A time as RFC 3339 has it. Source: https://www.w3.org/TR/activitystreams-core/#dates , seconds may be left out.

    >>> _time("2026-11-25T10:00+08:00"), _time("2026-11-25T10:00:30Z"), _time(7)
    ('2026-11-25T10:00:00+08:00', '2026-11-25T10:00:30Z', 7)
    """
    return _SHORT.sub(r"\1:00\2", said) if isinstance(said, str) else said


def _id(thing: object) -> object:
    """The id of an object, which may be the id itself, the object, or a list of one."""
    if isinstance(thing, list) and len(thing) == 1:
        thing = thing[0]
    return thing.get("id") if isinstance(thing, dict) else thing
