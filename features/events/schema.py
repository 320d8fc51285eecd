"""The schema of viewer events: their fields with all constraints, the rules across fields, the kinds of events.

This is the only place that says what a valid event is. `features.events.decode` reads events by it, and
`features.events.validation` explains by it what is wrong with an event.

A text field with a pattern names it in `Meta.extra`: msgspec would match it on every event, at a third of the time that
an event takes. Both readers check it themselves.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias, get_args

from msgspec import Meta, Struct

from recsys.domain.errors import ID, NAME
from recsys.domain.placement import Screen, Surface
from recsys.domain.regions import MAX_REGION_LEVELS
from recsys.domain.types import ACTIONS

TYPE_PREFIX = "mainstay.viewer."
SchemaId: TypeAlias = Literal["urn:mainstay:viewer-event:1"]
SCHEMA: SchemaId = "urn:mainstay:viewer-event:1"

SOURCE = "/mainstay"
MAX_BYTES = 1 << 20  # of a message that is read
MAX_ENCODED_BYTES = 1_000_000  # of one that is written: with its key it fits a Kafka broker's default
LATEST = 2.9e9  # year 2061: up to here doubles tell microseconds apart and hold every forward-decayed count
CLIENT_LATEST = 253_402_300_799.0  # the last second of year 9999: clients' clocks say such things
MAX_CLOCK_SKEW_S = 300.0  # a client's clock may be this far ahead of ours; what is further ahead is quarantined

Kind: TypeAlias = Literal[
    "impression", "click", "open", "play", "pause", "seek", "ping", "complete", "like", "dislike", "hide",
    "share", "comment", "favourite", "follow", "search", "survey", "handoff", "alert_ack",
]  # fmt: skip
KINDS: tuple[str, ...] = get_args(Kind)
TYPES = tuple(TYPE_PREFIX + kind for kind in KINDS)

IMPLIED_ACTIONS: Mapping[str, tuple[str, ...]] = {
    "play": ("play",),
    "complete": ("play", "complete"),
    "like": ("play", "complete", "like"),
    "dislike": ("dislike",),
}
"""Event kind -> the actions of `recsys.domain.types.ACTIONS` it stands for: who likes has seen it to the end, who has
seen it to the end has played it. Other kinds stand for none."""

ITEM_KINDS = frozenset(KINDS) - {"impression", "follow", "search", "survey", "handoff", "alert_ack"}
REGION = rf"^([a-z0-9_]+(\.[a-z0-9_]+){{0,{MAX_REGION_LEVELS - 1}}})?$"
PLACEMENT = (
    r"^([a-z0-9_]+(\.[a-z0-9_]+)*-(" + "|".join(Screen) + ")-(" + "|".join(Surface) + "))?$"
)  # empty, or OUTLET-SCREEN-SURFACE
RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)

assert set(ACTIONS) == {action for actions in IMPLIED_ACTIONS.values() for action in actions}

LIST_MAX = 1000  # items of an impression
Id = Annotated[str, Meta(min_length=1, max_length=200, extra={"pattern": ID})]
_Name = Annotated[str, Meta(max_length=200, extra={"pattern": NAME})]
_Region = Annotated[str, Meta(max_length=100, extra={"pattern": REGION})]
_Placement = Annotated[
    str,
    Meta(
        max_length=200,
        description="OUTLET-SCREEN-SURFACE, such as cn.zj-tv-home",
        extra={"pattern": PLACEMENT},
    ),
]
_Seconds = Annotated[float, Meta(ge=0, lt=10**7)]
_Part = Annotated[float, Meta(ge=0, le=1)]


class ViewerEvent(Struct, frozen=True, kw_only=True, gc=False):
    """One thing a viewer did or, for an impression, one page a viewer was given.

    Times are unix seconds; the wire tells whole microseconds, so whoever makes an event rounds to six places.

    Creating an event checks nothing: `accept` and `decode` check what they read, `encode` what it writes.
    """

    id: Id  # unique per viewer (`features.events.identity`); a repeated id is the same event sent twice
    kind: Kind
    viewer_id: Id
    at: float  # server time
    client_at: float | None = None
    session_id: _Name = ""
    device_id: _Name = ""
    screen: Screen | None = None
    region: _Region = ""
    placement: _Placement = ""
    request_id: _Name = ""
    item_id: Id | None = None
    slot: Annotated[int, Meta(ge=1, le=10_000)] | None = None
    position_s: _Seconds | None = None
    duration_s: _Seconds | None = None
    percent: Annotated[float, Meta(ge=0, le=100)] | None = None
    rating: _Part | None = None  # of a survey: how satisfied, from 0 (not at all) to 1 (wholly)
    items: Annotated[tuple[Id, ...], Meta(max_length=LIST_MAX)] = ()  # of an impression, in slot order
    attention: Annotated[tuple[_Part, ...], Meta(max_length=LIST_MAX)] = ()  # chance that each was looked at
    context: dict[str, Any] = {}  # of an impression: seed, versions, rung, propensity, features as used


class Envelope(Struct, frozen=True, kw_only=True, gc=False):
    """The attributes of a CloudEvent that every viewer event has; readers add `data` and what else they take."""

    specversion: Annotated[Literal["1.0"], Meta(description='"1.0" (CloudEvents)')]
    id: Id
    source: Annotated[str, Meta(min_length=1, description="the sender, as a URI such as /apps/tv")]
    type: Annotated[Literal[TYPES], Meta(description=f"{TYPE_PREFIX}KIND, with KIND one of {', '.join(KINDS)}")]  # type: ignore[valid-type]
    subject: Id
    dataschema: Annotated[SchemaId, Meta(description=SCHEMA)] = SCHEMA
    datacontenttype: Annotated[Literal["application/json"], Meta(description="application/json")] = "application/json"
    time: str | None = None


def mismatch(event: ViewerEvent) -> tuple[str, str] | None:
    """Return the first field that contradicts the event's kind or another field, and why; None where all agree."""
    kind, items, attention = event.kind, event.items, event.attention
    if kind == "impression":
        if not items:
            return "items", "an impression names the items it showed"
        if len(set(items)) != len(items):
            return "items", "a page shows an item once"
        if attention and len(attention) != len(items):
            return "attention", f"one number per item: {len(items)}, not {len(attention)}"
    elif items or attention or event.context:
        return "items", f"items, attention and context belong to impressions, not to a {kind}"
    elif event.item_id is None and kind in ITEM_KINDS:
        return "item_id", f"{'an' if kind[0] in 'aeiou' else 'a'} {kind} is about an item: say which"
    elif event.position_s is None:
        if kind == "seek":
            return "position_s", "a seek says where to"
        if kind == "ping" and event.percent is None:
            return "position_s", "a ping says how far: position_s or percent"
    if kind == "survey":
        return None if event.percent is None else ("percent", "a survey's answer is its rating, from 0 to 1")
    return None if event.rating is None else ("rating", f"a rating is the answer to a survey, not part of a {kind}")


def actions_of(event: ViewerEvent) -> tuple[str, ...]:
    """The actions of `recsys.domain.types.ACTIONS` this event stands for, in their order."""
    return IMPLIED_ACTIONS.get(event.kind, ())


def is_engine_impression(event: ViewerEvent) -> bool:
    """Whether this is an impression that the engine wrote of a page it made: it says how, and no client may.

    Only such impressions count for what is everybody's: traffic, exposure targets, votes on items. One that a client
    sent stays in the log. If it names the page of a request it confirms what has been counted already, and changes
    nothing; else it tells of a page that the app made itself, and serves the viewer's own history.
    """
    return event.kind == "impression" and bool(event.context)


def clock_skew_reason(event: ViewerEvent) -> str:
    """Why this event is quarantined; empty when it is not. Its client's clock was further ahead than a clock may be.

    Such an event is kept on the stream and no state is made of it: `decode` refuses it, so it becomes a dead letter.
    """
    if event.client_at is None or event.client_at <= event.at + MAX_CLOCK_SKEW_S:
        return ""
    return (
        f"{event.client_at - event.at:,.0f} s ahead of the server's clock: quarantined (over {MAX_CLOCK_SKEW_S:.0f} s)"
    )
