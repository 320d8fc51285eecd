"""A viewer's state in the making: what each event does to what is remembered of its viewer."""

from __future__ import annotations

from bisect import insort
from operator import attrgetter

from features.events.decode import ViewerEvent, is_engine_impression
from features.events.identity import DIGEST_BYTES, PASSED_MAX, SEEN_MAX, event_digest, ring_index
from features.state.exposure_counts import record_impression
from features.state.item_fold import placement_region, screen_of
from features.state.vote_history import append
from features.state.votes import LoggedEvent, WeightedEvent, contributions
from recsys.domain.viewer import RECENT_MAX, Position, Recent, Session, ViewerState, forward_weight, is_expired

SHOWN_MAX = 300  # items with their impressions
SHOWN_TIMES = 4  # impressions of an item whose times are remembered
HIDDEN_MAX = 500
DONE_MAX = 2000  # items that were finished or judged
POSITIONS_MAX = 100
OUTLETS_MAX = 30
FINISHED = 0.95  # of the duration: the credits are not worth resuming

SESSION_GAP_S = 1800.0  # whoever is away for longer comes back to a new session
SESSION_MAX = 20  # items a session remembers as skipped, and as watched
SKIPPED_S = 30.0  # what is left for another item sooner than this was skipped

REMEMBERED = frozenset(
    {"click", "open", "play", "complete", "like", "dislike", "hide", "share", "comment", "favourite"}
)  # kinds that enter `ViewerState.recent`
JUDGED = frozenset({"complete", "like", "dislike"})  # who says this of an item need not be offered it again
PLEASED = frozenset({"like", "favourite", "share"})
DISPLEASED = frozenset({"dislike", "hide"})
_DRAWN = REMEMBERED - DISPLEASED  # what says on which screen, by which outlet and when the viewer likes to come
_PLAYING = frozenset({"play", "pause", "seek", "ping", "complete"})
_PASSIVE = frozenset({"impression", "ping"})
_PASSING = frozenset({"ping", "pause", "seek"})
_age = attrgetter("at", "item_id", "kind")


class ViewerFold:
    """Takes the events of one viewer, in offset order per source; `state` is what they have come to."""

    __slots__ = ("_at", "_counts", "_displeased", "_done", "_exposed", "_hidden", "_hours", "_offsets", "_outlets",
                 "_passed", "_pleased", "_positions", "_recent", "_screens", "_seen", "_session", "_shown", "_ttl_s",
                 "_viewer_id", "_voted")  # fmt: skip

    def __init__(self, state: ViewerState, ttl_s: float) -> None:
        self._ttl_s = ttl_s
        self._resume(_copy_state(state))

    @classmethod
    def of(cls, state: ViewerState, ttl_s: float) -> ViewerFold:
        """The same for a state that nobody else holds, as it comes from the store: it is used up instead of copied."""
        fold = cls.__new__(cls)
        fold._ttl_s = ttl_s
        fold._resume(state)
        return fold

    def apply(self, one: LoggedEvent) -> WeightedEvent | None:
        """Fold an event; the event with its votes, or None when it was folded before or sent twice."""
        if one.offset <= self._offsets.get(one.source, -1):
            return None
        event = one.event
        if self._at and is_expired(self._at, event.at, self._ttl_s):
            self._resume(ViewerState(self._viewer_id))
        self._offsets[one.source] = one.offset
        mark = event_digest(event.id)
        if (mark in self._seen and _with_new_id(mark, self._seen)) or (
            mark in self._passed and _with_new_id(mark, self._passed)
        ):
            return None
        passing = event.kind in _PASSING or skips_state(event)
        ring, most = (self._passed, DIGEST_BYTES * PASSED_MAX) if passing else (self._seen, DIGEST_BYTES * SEEN_MAX)
        ring += mark
        if len(ring) > most:
            del ring[:DIGEST_BYTES]
        votes = () if passing else contributions(event, self._recent, self._shown, self._positions, self._voted)
        self._fold(event)
        return WeightedEvent(one.source, one.offset, event, votes)

    def state(self) -> ViewerState:
        """The viewer's state by now; the fold may go on afterwards."""
        return _copy_state(self.finalize())

    def finalize(self) -> ViewerState:
        """The viewer's state at the end; the fold must not go on."""
        return ViewerState(
            self._viewer_id, tuple(self._recent), self._positions, self._done, self._hidden, self._shown,
            self._counts, self._offsets, self._exposed, bytes(self._seen), self._at, self._screens, self._outlets,
            self._hours, self._session, self._pleased, self._displeased, bytes(self._voted),
            bytes(self._passed),
        )  # fmt: skip

    def _resume(self, state: ViewerState) -> None:
        self._viewer_id, self._at, self._session = state.viewer_id, state.at, state.session
        self._recent, self._seen = list(state.recent), bytearray(state.seen_ids)
        self._voted, self._passed = bytearray(state.vote_history), bytearray(state.seen_event_ring)
        self._positions, self._done, self._hidden = state.positions, state.finished_at, state.hidden
        self._shown, self._counts, self._offsets = state.shown, state.counts, state.offsets
        self._exposed, self._screens, self._outlets = state.target_impressions, state.screens, state.outlets
        self._hours, self._pleased, self._displeased = state.hours, state.liked_at, state.disliked_at

    def _fold(self, event: ViewerEvent) -> None:
        kind, item_id, at = event.kind, event.item_id, event.at
        self._at = max(self._at, at)
        self._counts[kind] = self._counts.get(kind, 0) + 1
        if kind == "impression" and (is_engine_impression(event) or not event.request_id):  # else it was counted before
            self._on_impression(event)
        if kind in _DRAWN:
            self._on_vote(event)
        if kind == "survey":
            self._on_rating(event)
        finished = False
        if item_id is not None:
            if kind in REMEMBERED:
                self._append_action(Recent(item_id, kind, at))
                if kind == "hide":
                    _set_latest(self._hidden, item_id, at, HIDDEN_MAX)
                if kind in PLEASED:
                    self._pleased += forward_weight(at)
                elif kind in DISPLEASED:
                    self._displeased += forward_weight(at)
            if kind in _PLAYING:
                _update_position(self._positions, item_id, event)
            place = self._positions.get(item_id)
            finished = kind == "complete" or _is_finished(event) or (place is not None and place.finished)
            if finished or kind in JUDGED:
                _set_latest(self._done, item_id, at, DONE_MAX)
        self._session = update_session(self._session, event, finished)

    def _on_impression(self, event: ViewerEvent) -> None:
        shown, at = self._shown, event.at
        for item_id in event.items:
            times, when = shown.pop(item_id, (0, ()))  # popped, so that the newest stand last
            when = (*when, at) if not when or when[-1] <= at else tuple(sorted((*when, at)))
            shown[item_id] = times + 1, when[-SHOWN_TIMES:]
        while len(shown) > SHOWN_MAX:
            del shown[next(iter(shown))]
        if event.context:
            record_impression(self._exposed, event)

    def _on_vote(self, event: ViewerEvent) -> None:
        """Screen, outlet and hour (UTC) of what the viewer did."""
        weight, hour = forward_weight(event.at), int(event.at % 86_400 // 3600)
        self._hours[hour] = self._hours.get(hour, 0.0) + weight
        if screen := screen_of(event.screen, event.placement):
            self._screens[screen] = self._screens.get(screen, 0.0) + weight
        if event.placement:
            outlets, outlet = self._outlets, placement_region(event.placement)[0]
            outlets[outlet] = outlets.get(outlet, 0.0) + weight
            if len(outlets) > OUTLETS_MAX:
                del outlets[min(outlets, key=lambda name: (outlets[name], name))]

    def _on_rating(self, event: ViewerEvent) -> None:
        if (rating := event.rating) is not None:  # in [0, 1]
            self._pleased += rating * forward_weight(event.at)
            self._displeased += (1.0 - rating) * forward_weight(event.at)

    def _append_action(self, action: Recent) -> None:
        """Put an action in its place by time; nearly always that is the end."""
        recent = self._recent
        if not recent or recent[-1].at < action.at:
            recent.append(action)
        else:
            insort(recent, action, key=_age)
        if len(recent) > RECENT_MAX:
            append(self._voted, recent.pop(0), recent[-1].at)


def skips_state(event: ViewerEvent) -> bool:
    """Whether an event only passes by: folded twice at its time, it changes the number of its kind and nothing else
    that lasts.

    These are the frequent ones: where the player is, every few seconds (a place told again is the same one), and a
    client's word that it showed what the engine knows it showed. A pause or a seek also counts among the actions of the
    session that goes on. All else counts (a vote, a word of praise, an impression) or is rare.
    """
    return event.kind in _PASSING or (
        event.kind == "impression" and bool(event.request_id) and not is_engine_impression(event)
    )


def _with_new_id(mark: bytes, ring: bytearray) -> bool:
    """Whether an id is known here; it is the newest again then, or a long run that is sent twice would push out what
    still comes of it."""
    known = ring_index(mark, ring)
    if known < 0:
        return False
    del ring[known : known + DIGEST_BYTES]
    ring += mark
    return True


def _copy_state(state: ViewerState) -> ViewerState:
    """The same state with dictionaries of its own."""
    return ViewerState(
        state.viewer_id, state.recent, state.positions.copy(), state.finished_at.copy(), state.hidden.copy(),
        state.shown.copy(), state.counts.copy(), state.offsets.copy(), state.target_impressions.copy(), state.seen_ids, state.at,
        state.screens.copy(), state.outlets.copy(), state.hours.copy(), state.session, state.liked_at, state.disliked_at,
        state.vote_history, state.seen_event_ring,
    )  # fmt: skip


def update_session(session: Session, event: ViewerEvent, finished: bool) -> Session:
    """The viewer's session after an event; one that was late changes nothing. `finished`: its item was seen to the end.

    An item that was begun and left for another within SKIPPED_S is skipped, one that was left later is watched.
    """
    at, kind = event.at, event.kind
    if at < session.at:
        return session
    named = event.session_id
    if at - session.at > SESSION_GAP_S or (named and session.id and named != session.id):
        session = Session(named, at)
    item_id, begun, skipped, watched = session.item_id, session.started, session.skipped, session.watched
    if finished and event.item_id is not None:
        watched, skipped = _latest_entries(watched, event.item_id), tuple(i for i in skipped if i != event.item_id)
    if kind == "play" and event.item_id is not None and event.item_id != item_id:
        if item_id and item_id not in watched:
            if at - begun < SKIPPED_S:
                skipped = _latest_entries(skipped, item_id)
            else:
                watched, skipped = _latest_entries(watched, item_id), tuple(i for i in skipped if i != item_id)
        item_id, begun = event.item_id, at
    return Session(
        session.id or named,
        session.since,
        at,
        session.actions + (kind not in _PASSIVE),
        item_id,
        begun,
        skipped,
        watched,
    )


def _latest_entries(noted: tuple[str, ...], item_id: str) -> tuple[str, ...]:
    return (*(one for one in noted if one != item_id), item_id)[-SESSION_MAX:]


def _set_latest(noted: dict[str, float], item_id: str, at: float, most: int) -> None:
    """Remember an item as the newest; the oldest leaves when there are too many. What comes late sets no time back."""
    noted[item_id] = max(at, noted.pop(item_id, at))
    if len(noted) > most:
        del noted[next(iter(noted))]


def _is_finished(event: ViewerEvent) -> bool:
    """Whether the player itself says so, in per cent: true without a known duration too, when no place is."""
    return event.kind in _PLAYING and (event.percent or 0.0) >= 100 * FINISHED


def _update_position(positions: dict[str, Position], item_id: str, event: ViewerEvent) -> None:
    """Remember how far the viewer got; an event that was late changes nothing."""
    known = positions.get(item_id)
    if known is not None and known.at > event.at:
        return
    duration_s = event.duration_s or (known.duration_s if known else 0.0)
    position_s = event.position_s
    if position_s is None and event.percent is not None and duration_s:
        position_s = duration_s * event.percent / 100
    if event.kind == "complete" and position_s is None:
        position_s = duration_s
    if position_s is None:
        return  # a bare play or pause: it does not say where
    finished = (
        event.kind == "complete" or _is_finished(event) or (duration_s > 0 and position_s >= FINISHED * duration_s)
    )
    positions.pop(item_id, None)  # popped, so that the newest stand last
    positions[item_id] = Position(position_s, duration_s, event.at, finished)
    if len(positions) > POSITIONS_MAX:
        del positions[next(iter(positions))]
