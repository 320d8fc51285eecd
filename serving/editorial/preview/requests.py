"""The requests that a preview replays: from the event log, from this process's memory, else synthetic.

The event log records the viewer, time, placement and seed of a request and the page that was shown. Viewer states come
from the online store and are rolled back to the moment of the request (`features.state.as_of`), so that no replayed
page uses what its viewer did afterwards. A preview reports how many requests came from each source.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from features.history.event_log import EventLog
from features.history.requests import LoggedRequest, newest_requests, plays_from
from features.state.as_of import as_of
from features.state.codec import viewer_at, viewer_key
from features.state.keys import VIEWERS
from features.state.online.port import OnlineStore
from features.state.quarantine import CorruptStateCounter
from recsys.distribution.layouts import default_slots
from recsys.domain.errors import Unavailable
from recsys.domain.placement import Placement, Screen, Surface
from recsys.domain.query import Query
from recsys.domain.regions import within
from recsys.domain.viewer import ViewerState
from recsys.preview.study import LoggedPage, ReplayRequest

WEEK_S = 7 * 86_400.0
REACH_S = 4 * WEEK_S
"""How far back the log is searched, in seconds."""

ANSWER_S = 6 * 3_600.0
"""A play is attributed to its page when it follows the request within this time, in seconds."""

MIN_REQUESTS = 50
"""With fewer real requests, synthetic ones are added up to this number."""

SCREENS = (Screen.TV, Screen.MOBILE)
"""Screens of synthetic requests."""

_CHUNK = 500


@dataclass(frozen=True)
class ReplaySample:
    """Requests in replay order, and the number of requests by source: `log`, `memory`, `synthetic`."""

    requests: tuple[ReplayRequest, ...]
    sources: Mapping[str, int]


@dataclass(frozen=True)
class RequestLog:
    """A source of requests for pages of an outlet and of the outlets below it."""

    log: EventLog
    online: OnlineStore
    recent_queries: Callable[[], Sequence[Query]]
    unreadable: CorruptStateCounter = field(default_factory=CorruptStateCounter)

    def gather(self, outlet: str, outlets: Sequence[str], count: int, now: float, at: float | None) -> ReplaySample:
        """Return at most `count` requests, the newest of each source, in an order independent of time.

        outlets  outlets with a policy; requests for other outlets are left out
        at       time of the replay in unix seconds: requests are shifted by whole weeks until the newest lies within
                 the week before it. None: each request is replayed at its own time
        """
        known_outlets = frozenset(outlets)
        logged = [entry for entry in self._logged(outlet, count, now) if entry.query.placement.outlet in known_outlets]
        logged_ids = {entry.query.request_id for entry in logged}
        memory = [
            query
            for query in reversed(self.recent_queries())
            if query.guided
            and within(query.placement.outlet, outlet)
            and query.placement.outlet in known_outlets
            and query.request_id not in logged_ids
        ][: count - len(logged)]
        missing = min(count, MIN_REQUESTS) - len(logged) - len(memory)
        synthetic = self._synthetic(outlet, known_outlets, missing, now) if missing > 0 else []
        sources = {"log": len(logged), "memory": len(memory), "synthetic": len(synthetic)}
        requests = self._with_plays(logged) + [ReplayRequest(query, None) for query in (*memory, *synthetic)]
        requests.sort(key=lambda entry: (zlib.crc32(entry.query.request_id.encode()), entry.query.request_id))
        return ReplaySample(tuple(_shifted(self._with_viewers(requests), at)), sources)

    def _logged(self, outlet: str, count: int, now: float) -> list[LoggedRequest]:
        try:
            return newest_requests(self.log, outlet, count, now, REACH_S)
        except Unavailable:
            return []  # fall back to the queries in memory

    def _with_plays(self, logged: Sequence[LoggedRequest]) -> list[ReplayRequest]:
        if not logged:
            return []
        times = [request.query.now for request in logged]
        ids = [request.query.request_id for request in logged]
        plays = plays_from(self.log, ids, min(times), max(times) + ANSWER_S)
        return [
            ReplayRequest(
                request.query,
                None,
                LoggedPage(
                    request.item_ids,
                    request.attention,
                    request.propensity,
                    tuple(float((request.query.request_id, item_id) in plays) for item_id in request.item_ids),
                ),
            )
            for request in logged
        ]

    def _synthetic(self, outlet: str, known_outlets: frozenset[str], count: int, now: float) -> list[Query]:
        """Return synthetic queries over all outlets and screens, by viewers of the online store, else by new ones."""
        viewers = [key.removeprefix(VIEWERS).strip("{}") for key, _ in islice(self.online.scan(VIEWERS), count)]
        codes = [code for code in sorted(known_outlets) if within(code, outlet)]
        return [
            Query(
                request_id=f"synthetic-{i}",
                viewer_id=viewers[i % len(viewers)] if viewers else f"stranger-{i}",
                placement=Placement(code, screen, Surface.HOME),
                region=code,
                now=now,
                slots=default_slots(screen, Surface.HOME),
                seed=i,
            )
            for i in range(count if codes else 0)
            for code, screen in [(codes[i % len(codes)], SCREENS[i // len(codes) % len(SCREENS)])]
        ]

    def _with_viewers(self, requests: Sequence[ReplayRequest]) -> list[ReplayRequest]:
        ids = list(dict.fromkeys(request.query.viewer_id for request in requests if request.query.personalised))
        states: dict[str, ViewerState] = {}
        try:
            for start in range(0, len(ids), _CHUNK):
                chunk = ids[start : start + _CHUNK]
                keys = [viewer_key(viewer_id) for viewer_id in chunk]
                for viewer_id, key, raw in zip(chunk, keys, self.online.get(keys), strict=True):
                    if raw is not None and (state := self.unreadable.decode(key, raw, viewer_at)) is not None:
                        states[viewer_id] = state
        except Unavailable:
            pass  # replay without viewer states: pages of a lower fallback level, as they would be served now
        return [
            replace(request, viewer=as_of(state, request.query.now))
            if (state := states.get(request.query.viewer_id))
            else request
            for request in requests
        ]


def _shifted(requests: Sequence[ReplayRequest], at: float | None) -> list[ReplayRequest]:
    """Shift the requests by whole weeks towards `at`, so that hours and weekdays stay the same."""
    if at is None or not requests:
        return list(requests)
    newest = max(request.query.now for request in requests)
    shift_s = (at - newest) // WEEK_S * WEEK_S
    return [replace(request, query=replace(request.query, now=request.query.now + shift_s)) for request in requests]
