"""Logged requests: the newest impressions of an outlet, as queries that can be replayed."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from features.history.event_log import EventLog
from recsys.domain.errors import NotFound
from recsys.domain.placement import Placement
from recsys.domain.query import Query
from recsys.domain.regions import region_of

FIRST_WINDOW_S = 3_600.0
"""The first time window to search. Each next window is four times as long, until enough requests are found."""


class RequestContextRecord(msgspec.Struct):
    """The part of an impression's context that a replay reads. Impressions of older engines lack some fields."""

    seed: int = 0
    personalised: bool = True
    guided: bool = True
    propensity: float | list[float] = 1.0
    slots: int | None = None
    age: int | None = None
    shown: list[str] = []
    shown_before: bytes = b""  # base64 in JSON


@dataclass(frozen=True)
class LoggedRequest:
    """A logged impression: its query, the items shown, and their propensities.

    attention, propensity  one number per item; propensity is 1 for a deterministic page
    """

    query: Query
    item_ids: tuple[str, ...]
    attention: tuple[float, ...]
    propensity: tuple[float, ...]


_decoder = msgspec.json.Decoder(RequestContextRecord)


def newest_requests(log: EventLog, outlet: str, limit: int, until: float, lookback_s: float) -> list[LoggedRequest]:
    """Return at most `limit` guided requests for pages of the outlet or its descendants, newest first.

    until       only requests before this unix second
    lookback_s  how far back before `until` to search
    Raises Unavailable.
    """
    requests: list[LoggedRequest] = []
    window_s = min(FIRST_WINDOW_S, lookback_s)
    while True:
        requests = _query_window(log, outlet, limit, until - window_s, until)
        if len(requests) >= limit or window_s >= lookback_s:
            return requests
        window_s = min(4.0 * window_s, lookback_s)


def plays_from(log: EventLog, request_ids: list[str], since: float, until: float) -> set[tuple[str, str]]:
    """Return (request id, item id) of items played from these pages in `since <= at < until`. Raises Unavailable."""
    query = """
        SELECT DISTINCT request_id, item_id FROM log
        WHERE kind IN ('play', 'complete', 'like') AND item_id IS NOT NULL AND request_id IN (SELECT unnest($ids))
          AND "at" >= $since AND "at" < $until
    """
    return {
        (str(request), str(item))
        for request, item in _rows(log, since, until, query, {"ids": request_ids, "since": since, "until": until})
    }


def _query_window(log: EventLog, outlet: str, limit: int, since: float, until: float) -> list[LoggedRequest]:
    columns = ("at", "viewer_id", "region", "placement", "request_id", "items", "attention", "context")
    query = f"""
        SELECT {", ".join(f'"{name}"' for name in columns)} FROM log
        WHERE kind = 'impression' AND context != '' AND "at" >= $since AND "at" < $until
          AND (placement LIKE $outlet ESCAPE '!' OR placement LIKE $descendants ESCAPE '!')
        QUALIFY row_number() OVER (PARTITION BY request_id ORDER BY "at") = 1
        ORDER BY "at" DESC, request_id LIMIT $limit
    """
    escaped = outlet.replace("!", "!!").replace("%", "!%").replace("_", "!_")
    parameters = {
        "since": since,
        "until": until,
        "outlet": f"{escaped}-%",
        "descendants": f"{escaped}.%",
        "limit": 2 * limit + 20,  # some may be unguided
    }
    requests = []
    for row in _rows(log, since, until, query, parameters):
        fields = dict(zip(columns, row, strict=True))
        try:
            request = _request(fields, str(fields["context"] or "{}").encode())
        except msgspec.MsgspecError:
            continue  # a context of another engine
        if request is not None:
            requests.append(request)
    return requests[:limit]


def _rows(
    log: EventLog, since: float, until: float, query: str, parameters: dict[str, object]
) -> list[tuple[object, ...]]:
    table = log.query(query, parameters, since, until)
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))


def _request(fields: dict[str, object], context: bytes) -> LoggedRequest | None:
    record = _decoder.decode(context)
    items, attention = tuple(fields["items"] or ()), tuple(fields["attention"] or ())  # type: ignore[arg-type, var-annotated]
    try:
        placement = Placement.parse(str(fields["placement"]))
    except NotFound:
        return None
    if not record.guided or not items:
        return None
    propensity = record.propensity
    query = Query(
        request_id=str(fields["request_id"]),
        viewer_id=str(fields["viewer_id"]),
        placement=placement,
        region=str(fields["region"] or region_of(placement.outlet)),
        now=float(str(fields["at"])),
        slots=record.slots or len(items),
        seed=record.seed,
        age=record.age,
        personalised=record.personalised,
        shown=tuple(record.shown),
        shown_before=record.shown_before,
    )
    return LoggedRequest(
        query,
        items,
        attention or (1.0,) * len(items),
        tuple(propensity) if isinstance(propensity, list) else (propensity,) * len(items),
    )
