"""The schema of viewer events: their fields with all constraints, the rules across fields, the kinds of events.

This module alone defines what a valid event is. `features.events.decode` reads events by this schema, and
`features.events.validation` explains what is wrong with an invalid event.

Text patterns are declared in `Meta.extra`, because letting msgspec match them takes a third of the decoding time. Both
readers check the patterns themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias, get_args

from msgspec import Meta, Struct

from recsys.domain.errors import ID, NAME
from recsys.domain.placement import Screen, Surface
from recsys.domain.types import ACTIONS

TYPE_PREFIX = "mainstay.viewer."
SchemaId: TypeAlias = Literal["urn:mainstay:viewer-event:1"]
SCHEMA: SchemaId = "urn:mainstay:viewer-event:1"

SOURCE = "/mainstay"
MAX_BYTES = 1 << 20  # of a message when read
MAX_ENCODED_BYTES = 1_000_000  # of a message when written: with its key it fits a Kafka broker's default limit
LATEST = 2.9e9  # year 2061: up to here a double resolves microseconds and can hold every forward-decayed count
CLIENT_LATEST = 253_402_300_799.0  # the last second of year 9999: some client clocks report such times
MAX_CLOCK_SKEW_S = 300.0  # an event whose client clock is further ahead of the server's is quarantined

Kind: TypeAlias = Literal[
    "impression", "click", "open", "play", "pause", "seek", "ping", "complete", "like", "dislike", "hide",
    "share", "comment", "favourite", "follow", "search", "survey", "handoff", "alert_ack",
]  # fmt: skip
KINDS: tuple[str, ...] = get_args(Kind)
TYPES = tuple(TYPE_PREFIX + kind for kind in KINDS)

Trust: TypeAlias = Literal["trusted", "anonymous", "excess"]
"""Who vouches for an event, as the intake decided when it accepted the event; logged with it, so that a replay agrees.

trusted    a producer with access to the stream, or a client with the admin token: the event counts for its item
anonymous  any other client: it counts if the engine has served its viewer a page before (`counts_for_items`)
excess     like `anonymous`, but from a source that has sent events of too many viewers: it does not count
"""

IMPLIED_ACTIONS: Mapping[str, tuple[str, ...]] = {
    "play": ("play",),
    "complete": ("play", "complete"),
    "like": ("play", "complete", "like"),
    "dislike": ("dislike",),
}
"""Event kind -> the actions of `recsys.domain.types.ACTIONS` that it implies: a like implies completion, and completion
implies play. Other kinds imply none."""

ITEM_KINDS = frozenset(KINDS) - {"impression", "follow", "search", "survey", "handoff", "alert_ack"}
LEVELS_MAX = 8  # levels of a region; each level is counted separately
REGION = rf"^([a-z0-9_]+(\.[a-z0-9_]+){{0,{LEVELS_MAX - 1}}})?$"
PLACEMENT = (
    r"^([a-z0-9_]+(\.[a-z0-9_]+)*-(" + "|".join(Screen) + ")-(" + "|".join(Surface) + "))?$"
)  # empty, or OUTLET-SCREEN-SURFACE

assert set(ACTIONS) == {action for actions in IMPLIED_ACTIONS.values() for action in actions}

LIST_MAX = 1000  # maximum items of an impression
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
_Fraction = Annotated[float, Meta(ge=0, le=1)]


class ViewerEvent(Struct, frozen=True, kw_only=True, gc=False):
    """An action of a viewer or, for an impression, a page that was shown to a viewer.

    Times are unix seconds. The wire format has microsecond resolution, so round times to six decimal places.

    The constructor checks nothing: `accept` and `decode` check their input, and `encode` its output.
    """

    id: Id  # unique per viewer (`features.events.identity`); a repeated id marks a duplicate
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
    rating: _Fraction | None = None  # of a survey: satisfaction from 0 (not at all) to 1 (completely)
    items: Annotated[tuple[Id, ...], Meta(max_length=LIST_MAX)] = ()  # of an impression, in slot order
    attention: Annotated[
        tuple[_Fraction, ...], Meta(max_length=LIST_MAX)
    ] = ()  # probability that the viewer looked at each item
    trust: Trust = "trusted"  # set by the intake
    context: dict[str, Any] = {}  # of an impression: seed, versions, fallback level, propensity, features as used


class Envelope(Struct, frozen=True, kw_only=True, gc=False):
    """The CloudEvents attributes that every viewer event has; readers add `data` and further attributes."""

    specversion: Annotated[Literal["1.0"], Meta(description='"1.0" (CloudEvents)')]
    id: Id
    source: Annotated[str, Meta(min_length=1, description="the sender, as a URI such as /apps/tv")]
    type: Annotated[Literal[TYPES], Meta(description=f"{TYPE_PREFIX}KIND, with KIND one of {', '.join(KINDS)}")]  # type: ignore[valid-type]
    subject: Id
    dataschema: Annotated[SchemaId, Meta(description=SCHEMA)] = SCHEMA
    datacontenttype: Annotated[Literal["application/json"], Meta(description="application/json")] = "application/json"
    time: str | None = None


def mismatch(event: ViewerEvent) -> tuple[str, str] | None:
    """Return the first field that contradicts the event's kind or another field, and the reason; None if all agree."""
    kind, items, attention = event.kind, event.items, event.attention
    if kind == "impression":
        if not items:
            return "items", "an impression must list the items it showed"
        if len(set(items)) != len(items):
            return "items", "must not contain an item twice"
        if attention and len(attention) != len(items):
            return "attention", f"must have one number per item: expected {len(items)}, got {len(attention)}"
    elif items or attention or event.context:
        return "items", f"items, attention and context are allowed in impressions only, not in a {kind} event"
    elif event.item_id is None and kind in ITEM_KINDS:
        return "item_id", f"{'an' if kind[0] in 'aeiou' else 'a'} {kind} event requires an item_id"
    elif event.position_s is None:
        if kind == "seek":
            return "position_s", "a seek event requires the new position in seconds"
        if kind == "ping" and event.percent is None:
            return "position_s", "a ping event requires position_s or percent"
    if kind == "survey":
        return None if event.percent is None else ("percent", "not allowed in a survey: send rating, from 0 to 1")
    return None if event.rating is None else ("rating", f"allowed in surveys only, not in a {kind} event")


def region_of(outlet: str) -> str:
    """Return the region of an outlet: its own code, truncated to the maximum number of region levels.

    >>> region_of("cn.zj"), region_of("a.b.c.d.e.f.g.h.i")
    ('cn.zj', 'a.b.c.d.e.f.g.h')
    """
    return ".".join(outlet.split(".")[:LEVELS_MAX])


def actions_of(event: ViewerEvent) -> tuple[str, ...]:
    """Return the actions of `recsys.domain.types.ACTIONS` that this event implies, in their order."""
    return IMPLIED_ACTIONS.get(event.kind, ())


def is_engine_impression(event: ViewerEvent) -> bool:
    """Return whether the engine itself wrote this impression. It has a context, which clients may not send.

    Only these impressions count towards shared statistics: traffic, exposure targets and item counts. An impression
    from a client stays in the log. If it names the page of a request, it only confirms an impression that has already
    been counted; otherwise it describes a page that the app built, and is part of the viewer's own history.
    """
    return event.kind == "impression" and bool(event.context)


def counts_for_items(event: ViewerEvent, is_served: bool) -> bool:
    """Return whether an event counts for its item, its popularity among others, and not only for its viewer.

    is_served  whether the engine had served the viewer a page before, by its own impression

    Otherwise anybody could lift an item with events of invented viewers.
    """
    return event.trust == "trusted" or (is_served and event.trust == "anonymous")


def clock_skew_reason(event: ViewerEvent) -> str:
    """Return why the event is quarantined for client clock skew; empty if it is not quarantined.

    A quarantined event stays in the stream but is not folded into any state: `decode` rejects it, so it becomes a dead
    letter.
    """
    if event.client_at is None or event.client_at <= event.at + MAX_CLOCK_SKEW_S:
        return ""
    return (
        f"{event.client_at - event.at:,.0f} s ahead of the server's clock: quarantined "
        f"(at most {MAX_CLOCK_SKEW_S:.0f} s are allowed)"
    )
