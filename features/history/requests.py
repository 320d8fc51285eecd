"""Requests as the log remembers them: the newest impressions of an outlet, ready to be asked again."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from features.history.event_log import EventLog
from recsys.domain.errors import NotFound
from recsys.domain.placement import Placement
from recsys.domain.query import Query
from recsys.domain.regions import region_of

FIRST_LOOK_S = 3_600.0
"""How far back is looked first; then four times as far, until enough is found."""


class RequestContextRecord(msgspec.Struct):
    """What a replay reads of an impression's context. Impressions of older engines lack some of it."""

    seed: int = 0
    personalised: bool = True
    guided: bool = True
    propensity: float | list[float] = 1.0
    slots: int | None = None
    age: int | None = None
    shown: list[str] = []


@dataclass(frozen=True)
class LoggedRequest:
    """One impression: the query that asked for it, what was shown, and with what chance.

    attention, propensity  one number per item; 1 where the page was a function of its inputs
    """

    query: Query
    item_ids: tuple[str, ...]
    attention: tuple[float, ...]
    propensity: tuple[float, ...]


_decoder = msgspec.json.Decoder(RequestContextRecord)


def newest_requests(log: EventLog, outlet: str, limit: int, until: float, reach_s: float) -> list[LoggedRequest]:
    """At most `limit` guided requests for pages of the outlet or one below it, newest first.

    until, reach_s  unix second before which, and for how long back, is looked. Raises Unavailable.
    """
    found: list[LoggedRequest] = []
    look_s = min(FIRST_LOOK_S, reach_s)
    while True:
        found = _query_window(log, outlet, limit, until - look_s, until)
        if len(found) >= limit or look_s >= reach_s:
            return found
        look_s = min(4.0 * look_s, reach_s)


def plays_from(log: EventLog, request_ids: list[str], since: float, until: float) -> set[tuple[str, str]]:
    """(request id, item id) of all that was played from these pages in the time given. Raises Unavailable."""
    wanted = """
        SELECT DISTINCT request_id, item_id FROM log
        WHERE kind IN ('play', 'complete', 'like') AND item_id IS NOT NULL AND request_id IN (SELECT unnest($ids))
          AND "at" >= $since AND "at" < $until
    """
    return {
        (str(request), str(item))
        for request, item in _rows(log, since, until, wanted, {"ids": request_ids, "since": since, "until": until})
    }


def _query_window(log: EventLog, outlet: str, limit: int, since: float, until: float) -> list[LoggedRequest]:
    columns = ("at", "viewer_id", "region", "placement", "request_id", "items", "attention", "context")
    wanted = f"""
        SELECT {", ".join(f'"{name}"' for name in columns)} FROM log
        WHERE kind = 'impression' AND context != '' AND "at" >= $since AND "at" < $until
          AND (placement LIKE $here ESCAPE '!' OR placement LIKE $below ESCAPE '!')
        QUALIFY row_number() OVER (PARTITION BY request_id ORDER BY "at") = 1
        ORDER BY "at" DESC, request_id LIMIT $most
    """
    said = outlet.replace("!", "!!").replace("%", "!%").replace("_", "!_")
    bounds = {
        "since": since,
        "until": until,
        "here": f"{said}-%",
        "below": f"{said}.%",
        "most": 2 * limit + 20,
    }  # some may be unguided
    found = []
    for row in _rows(log, since, until, wanted, bounds):
        said_ = dict(zip(columns, row, strict=True))
        try:
            request = _request(said_, str(said_["context"] or "{}").encode())
        except msgspec.MsgspecError:
            continue  # a context of another engine: not ours to guess at
        if request is not None:
            found.append(request)
    return found[:limit]


def _rows(log: EventLog, since: float, until: float, query: str, said: dict[str, object]) -> list[tuple[object, ...]]:
    found = log.query(query, said, since, until)
    return list(zip(*(column.to_pylist() for column in found.columns), strict=True))


def _request(said: dict[str, object], context: bytes) -> LoggedRequest | None:
    known = _decoder.decode(context)
    items, attention = tuple(said["items"] or ()), tuple(said["attention"] or ())  # type: ignore[arg-type, var-annotated]
    try:
        placement = Placement.parse(str(said["placement"]))
    except NotFound:
        return None
    if not known.guided or not items:
        return None
    propensity = known.propensity
    query = Query(
        request_id=str(said["request_id"]),
        viewer_id=str(said["viewer_id"]),
        placement=placement,
        region=str(said["region"] or region_of(placement.outlet)),
        now=float(str(said["at"])),
        slots=known.slots or len(items),
        seed=known.seed,
        age=known.age,
        personalised=known.personalised,
        shown=tuple(known.shown),
    )
    return LoggedRequest(
        query,
        items,
        attention or (1.0,) * len(items),
        tuple(propensity) if isinstance(propensity, list) else (propensity,) * len(items),
    )
