"""Where a preview's requests come from: the log, this process's memory, or made up for want of both; always said which.

The offline log knows who asked, when, where, with which seed, and what was shown. Viewers are taken from the online
store and wound back to the moment before they asked (`features.state.as_of`): no page knows what its viewer did next.
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
"""How far back the log is searched."""

ANSWER_S = 6 * 3_600.0
"""A play counts for the page that it came from when it came within this time."""

MIN_REQUESTS = 50
"""Where fewer real requests are known, made-up ones join them up to so many."""

SCREENS = (Screen.TV, Screen.MOBILE)
"""Screens of made-up requests."""

_CHUNK = 500


@dataclass(frozen=True)
class ReplaySample:
    """Requests in the order of their replay, and how many came from where: `log`, `memory`, `made_up`."""

    requests: tuple[ReplayRequest, ...]
    sources: Mapping[str, int]


@dataclass(frozen=True)
class RequestLog:
    """Finds requests for pages of an outlet and of those below it."""

    log: EventLog
    online: OnlineStore
    remembered: Callable[[], Sequence[Query]]
    unreadable: CorruptStateCounter = field(default_factory=CorruptStateCounter)

    def gather(self, outlet: str, outlets: Sequence[str], count: int, now: float, at: float | None) -> ReplaySample:
        """At most `count` requests, newest first by source, then in an order that owes nothing to time.

        outlets  outlets that pages are made for, so that a replay knows a policy for each
        at       where the replay shall think it is, unix seconds; requests are moved by whole weeks until the newest
                 lies within a week before it. None: each is asked again at its own time
        """
        known = frozenset(outlets)
        logged = [one for one in self._logged(outlet, count, now) if one.query.placement.outlet in known]
        have = {one.query.request_id for one in logged}
        memory = [
            query
            for query in reversed(self.remembered())
            if query.guided
            and within(query.placement.outlet, outlet)
            and query.placement.outlet in known
            and query.request_id not in have
        ][: count - len(logged)]
        wanting = min(count, MIN_REQUESTS) - len(logged) - len(memory)
        made_up = self._synthetic(outlet, known, wanting, now) if wanting > 0 else []
        sources = {"log": len(logged), "memory": len(memory), "made_up": len(made_up)}
        asked = self._with_plays(logged) + [ReplayRequest(query, None) for query in (*memory, *made_up)]
        asked.sort(key=lambda one: (zlib.crc32(one.query.request_id.encode()), one.query.request_id))
        return ReplaySample(tuple(_moved(self._with_viewers(asked), at)), sources)

    def _logged(self, outlet: str, count: int, now: float) -> list[LoggedRequest]:
        try:
            return newest_requests(self.log, outlet, count, now, REACH_S)
        except Unavailable:
            return []  # what this process remembers must do

    def _with_plays(self, logged: Sequence[LoggedRequest]) -> list[ReplayRequest]:
        if not logged:
            return []
        times = [one.query.now for one in logged]
        ids = [one.query.request_id for one in logged]
        plays = plays_from(self.log, ids, min(times), max(times) + ANSWER_S)
        return [
            ReplayRequest(
                one.query,
                None,
                LoggedPage(
                    one.item_ids,
                    one.attention,
                    one.propensity,
                    tuple(float((one.query.request_id, item_id) in plays) for item_id in one.item_ids),
                ),
            )
            for one in logged
        ]

    def _synthetic(self, outlet: str, known: frozenset[str], count: int, now: float) -> list[Query]:
        """Viewers of whom something is known, at every outlet here and below, on every screen; else strangers."""
        viewers = [key.removeprefix(VIEWERS).strip("{}") for key, _ in islice(self.online.scan(VIEWERS), count)]
        here = [code for code in sorted(known) if within(code, outlet)]
        return [
            Query(
                request_id=f"made-up-{n}",
                viewer_id=viewers[n % len(viewers)] if viewers else f"stranger-{n}",
                placement=Placement(code, screen, Surface.HOME),
                region=code,
                now=now,
                slots=default_slots(screen, Surface.HOME),
                seed=n,
            )
            for n in range(count if here else 0)
            for code, screen in [(here[n % len(here)], SCREENS[n // len(here) % len(SCREENS)])]
        ]

    def _with_viewers(self, asked: Sequence[ReplayRequest]) -> list[ReplayRequest]:
        ids = list(dict.fromkeys(one.query.viewer_id for one in asked if one.query.personalised))
        states: dict[str, ViewerState] = {}
        try:
            for first in range(0, len(ids), _CHUNK):
                chunk = ids[first : first + _CHUNK]
                keys = [viewer_key(viewer_id) for viewer_id in chunk]
                for viewer_id, key, raw in zip(chunk, keys, self.online.get(keys), strict=True):
                    if raw is not None and (state := self.unreadable.decode(key, raw, viewer_at)) is not None:
                        states[viewer_id] = state
        except Unavailable:
            pass  # strangers then: the pages of a lower fallback level, as they would be served now
        return [
            replace(one, viewer=as_of(state, one.query.now)) if (state := states.get(one.query.viewer_id)) else one
            for one in asked
        ]


def _moved(asked: Sequence[ReplayRequest], at: float | None) -> list[ReplayRequest]:
    """The same requests some whole weeks later or earlier, so that hours and weekdays stay what they were."""
    if at is None or not asked:
        return list(asked)
    newest = max(one.query.now for one in asked)
    by = (at - newest) // WEEK_S * WEEK_S
    return [replace(one, query=replace(one.query, now=one.query.now + by)) for one in asked]
