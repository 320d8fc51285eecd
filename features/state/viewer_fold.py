"""The fold of one viewer: applies each event to the viewer's state."""

from __future__ import annotations

from bisect import insort
from operator import attrgetter

from features.events.identity import DIGEST_BYTES, PASSED_MAX, SEEN_MAX, event_digest, ring_index
from features.events.schema import ViewerEvent, counts_for_items, is_engine_impression
from features.state.exposure_counts import record_impression
from features.state.item_fold import event_screen, split_placement
from features.state.vote_history import append
from features.state.votes import LoggedEvent, Vote, WeightedEvent, contributions
from recsys.domain.decay import forward_weight, is_expired
from recsys.domain.viewer import RECENT_MAX, Position, Recent, Session, ViewerState

SHOWN_MAX = 300  # items with impressions
SHOWN_TIMES = 4  # impression times kept per item
HIDDEN_MAX = 500
DONE_MAX = 2000  # items that are finished or rated
POSITIONS_MAX = 100
OUTLETS_MAX = 30
FINISHED = 0.95  # share of the duration: an item is not resumed in its closing credits

SESSION_GAP_S = 1800.0  # a longer gap starts a new session
SESSION_MAX = 20  # skipped items per session, and watched items per session
SKIPPED_S = 30.0  # an item that is left for another item sooner than this counts as skipped

RECENT_KINDS = frozenset(
    {"click", "open", "play", "complete", "like", "dislike", "hide", "share", "comment", "favourite"}
)  # kinds that enter `ViewerState.recent`
DONE_KINDS = frozenset({"complete", "like", "dislike"})  # items with such an event are not recommended again
POSITIVE_KINDS = frozenset({"like", "favourite", "share"})
NEGATIVE_KINDS = frozenset({"dislike", "hide"})
_PREFERENCE_KINDS = RECENT_KINDS - NEGATIVE_KINDS  # kinds that count for the viewer's usual screens, outlets and hours
_PLAYBACK_KINDS = frozenset({"play", "pause", "seek", "ping", "complete"})
_PASSIVE_KINDS = frozenset({"impression", "ping"})
_TRANSIENT_KINDS = frozenset({"ping", "pause", "seek"})
_by_time = attrgetter("at", "item_id", "kind")


class ViewerFold:
    """The fold of one viewer's events, which come in offset order per source."""

    __slots__ = (
        "_at",
        "_counts",
        "_finished_at",
        "_hidden",
        "_hours",
        "_is_served",
        "_liked_at",
        "_negative_feedback",
        "_offsets",
        "_outlets",
        "_positions",
        "_recent",
        "_screens",
        "_seen_event_ring",
        "_seen_ids",
        "_session",
        "_shown",
        "_target_impressions",
        "_ttl_s",
        "_viewer_id",
        "_vote_history",
    )  # fmt: skip

    def __init__(self, state: ViewerState, ttl_s: float) -> None:
        self._ttl_s = ttl_s
        self._resume(_copy_state(state))

    @classmethod
    def of(cls, state: ViewerState, ttl_s: float) -> ViewerFold:
        """Return a fold that takes ownership of `state` and modifies it in place, which saves a copy."""
        fold = cls.__new__(cls)
        fold._ttl_s = ttl_s
        fold._resume(state)
        return fold

    def apply(self, logged: LoggedEvent) -> WeightedEvent | None:
        """Fold an event. Return it with its votes, or None if it is a redelivery or a duplicate."""
        if logged.offset <= self._offsets.get(logged.source, -1):
            return None
        event = logged.event
        if self._at and is_expired(self._at, event.at, self._ttl_s):
            self._resume(ViewerState(self._viewer_id))
        self._offsets[logged.source] = logged.offset
        digest = event_digest(event.id)
        if (digest in self._seen_ids and _move_to_newest(digest, self._seen_ids)) or (
            digest in self._seen_event_ring and _move_to_newest(digest, self._seen_event_ring)
        ):
            return None
        passing = event.kind in _TRANSIENT_KINDS or skips_state(event)
        ring, max_bytes = (
            (self._seen_event_ring, DIGEST_BYTES * PASSED_MAX) if passing else (self._seen_ids, DIGEST_BYTES * SEEN_MAX)
        )
        ring += digest
        if len(ring) > max_bytes:
            del ring[:DIGEST_BYTES]
        votes: tuple[Vote, ...] = ()
        if not passing and counts_for_items(event, self._is_served):
            votes = contributions(event, self._recent, self._shown, self._positions, self._vote_history)
        self._fold(event)
        return WeightedEvent(logged.source, logged.offset, event, votes)

    def state(self) -> ViewerState:
        """Return a copy of the current state; more events may be applied afterwards."""
        return _copy_state(self.finalize())

    def finalize(self) -> ViewerState:
        """Return the final state without a copy; no more events may be applied."""
        return ViewerState(
            self._viewer_id, tuple(self._recent), self._positions, self._finished_at, self._hidden, self._shown,
            self._counts, self._offsets, self._target_impressions, bytes(self._seen_ids), self._at, self._screens,
            self._outlets, self._hours, self._session, self._liked_at, self._negative_feedback,
            bytes(self._vote_history),
            bytes(self._seen_event_ring), self._is_served,
        )  # fmt: skip

    def _resume(self, state: ViewerState) -> None:
        self._viewer_id, self._at, self._session = state.viewer_id, state.at, state.session
        self._recent, self._seen_ids = list(state.recent), bytearray(state.seen_ids)
        self._vote_history, self._seen_event_ring = bytearray(state.vote_history), bytearray(state.seen_event_ring)
        self._positions, self._finished_at, self._hidden = state.positions, state.finished_at, state.hidden
        self._shown, self._counts, self._offsets = state.shown, state.counts, state.offsets
        self._target_impressions, self._screens, self._outlets = state.target_impressions, state.screens, state.outlets
        self._is_served = state.is_served
        self._hours, self._liked_at, self._negative_feedback = (
            state.hours,
            state.positive_feedback,
            state.negative_feedback,
        )

    def _fold(self, event: ViewerEvent) -> None:
        kind, item_id, at = event.kind, event.item_id, event.at
        self._at = max(self._at, at)
        self._counts[kind] = self._counts.get(kind, 0) + 1
        if kind == "impression" and (
            is_engine_impression(event) or not event.request_id
        ):  # the engine's own impression counts, not the client's report of it
            self._on_impression(event)
        if kind in _PREFERENCE_KINDS:
            self._add_preferences(event)
        if kind == "survey":
            self._on_rating(event)
        finished = False
        if item_id is not None:
            if kind in RECENT_KINDS:
                self._append_action(Recent(item_id, kind, at))
                if kind == "hide":
                    _set_latest(self._hidden, item_id, at, HIDDEN_MAX)
                if kind in POSITIVE_KINDS:
                    self._liked_at += forward_weight(at)
                elif kind in NEGATIVE_KINDS:
                    self._negative_feedback += forward_weight(at)
            if kind in _PLAYBACK_KINDS:
                _update_position(self._positions, item_id, event)
            position = self._positions.get(item_id)
            finished = kind == "complete" or _is_finished(event) or (position is not None and position.finished)
            if finished or kind in DONE_KINDS:
                _set_latest(self._finished_at, item_id, at, DONE_MAX)
        self._session = update_session(self._session, event, finished)

    def _on_impression(self, event: ViewerEvent) -> None:
        shown, at = self._shown, event.at
        for item_id in event.items:
            n_shown, times = shown.pop(item_id, (0, ()))  # popped, so that the newest come last
            times = (*times, at) if not times or times[-1] <= at else tuple(sorted((*times, at)))
            shown[item_id] = n_shown + 1, times[-SHOWN_TIMES:]
        while len(shown) > SHOWN_MAX:
            del shown[next(iter(shown))]
        if event.context:
            self._is_served = True
            record_impression(self._target_impressions, event)

    def _add_preferences(self, event: ViewerEvent) -> None:
        """Count the screen, the outlet and the hour (UTC) of an action."""
        weight, hour = forward_weight(event.at), int(event.at % 86_400 // 3600)
        self._hours[hour] = self._hours.get(hour, 0.0) + weight
        if screen := event_screen(event.screen, event.placement):
            self._screens[screen] = self._screens.get(screen, 0.0) + weight
        if event.placement:
            outlets, outlet = self._outlets, split_placement(event.placement)[0]
            outlets[outlet] = outlets.get(outlet, 0.0) + weight
            if len(outlets) > OUTLETS_MAX:
                del outlets[min(outlets, key=lambda name: (outlets[name], name))]

    def _on_rating(self, event: ViewerEvent) -> None:
        if (rating := event.rating) is not None:  # in [0, 1]
            self._liked_at += rating * forward_weight(event.at)
            self._negative_feedback += (1.0 - rating) * forward_weight(event.at)

    def _append_action(self, action: Recent) -> None:
        """Insert an action in time order, which is nearly always at the end."""
        recent = self._recent
        if not recent or recent[-1].at < action.at:
            recent.append(action)
        else:
            insort(recent, action, key=_by_time)
        if len(recent) > RECENT_MAX:
            append(self._vote_history, recent.pop(0), recent[-1].at)


def skips_state(event: ViewerEvent) -> bool:
    """Return whether an event is transient: folding it again changes only the count of its kind, nothing that lasts.

    Transient events are the frequent ones: player positions every few seconds (folding the same position twice has no
    effect), and client reports of impressions that the engine already recorded. A pause or a seek also counts as an
    action of the current session. All other events count as votes, ratings or impressions, or are rare.
    """
    return event.kind in _TRANSIENT_KINDS or (
        event.kind == "impression" and bool(event.request_id) and not is_engine_impression(event)
    )


def _move_to_newest(digest: bytes, ring: bytearray) -> bool:
    """Return whether a ring contains a digest, and if so make it the newest entry.

    Otherwise a long run of duplicates would push out the ids of its own later events.
    """
    index = ring_index(digest, ring)
    if index < 0:
        return False
    del ring[index : index + DIGEST_BYTES]
    ring += digest
    return True


def _copy_state(state: ViewerState) -> ViewerState:
    """Return a copy of the state that shares no dictionaries with it."""
    return ViewerState(
        state.viewer_id, state.recent, state.positions.copy(), state.finished_at.copy(), state.hidden.copy(),
        state.shown.copy(), state.counts.copy(), state.offsets.copy(), state.target_impressions.copy(), state.seen_ids,
        state.at, state.screens.copy(), state.outlets.copy(), state.hours.copy(), state.session,
        state.positive_feedback, state.negative_feedback, state.vote_history, state.seen_event_ring,
        state.is_served,
    )  # fmt: skip


def update_session(session: Session, event: ViewerEvent, finished: bool) -> Session:
    """Return the viewer's session after an event. A late event changes nothing.

    `finished` states whether the event's item was watched to the end. An item that is left for another item within
    SKIPPED_S is skipped; an item that is left later is watched.
    """
    at, kind = event.at, event.kind
    if at < session.at:
        return session
    session_id = event.session_id
    if at - session.at > SESSION_GAP_S or (session_id and session.id and session_id != session.id):
        session = Session(session_id, at)
    item_id, started, skipped, watched = session.item_id, session.started, session.skipped, session.watched
    if finished and event.item_id is not None:
        watched, skipped = _latest_entries(watched, event.item_id), tuple(i for i in skipped if i != event.item_id)
    if kind == "play" and event.item_id is not None and event.item_id != item_id:
        if item_id and item_id not in watched:
            if at - started < SKIPPED_S:
                skipped = _latest_entries(skipped, item_id)
            else:
                watched, skipped = _latest_entries(watched, item_id), tuple(i for i in skipped if i != item_id)
        item_id, started = event.item_id, at
    return Session(
        session.id or session_id,
        session.since,
        at,
        session.actions + (kind not in _PASSIVE_KINDS),
        item_id,
        started,
        skipped,
        watched,
    )


def _latest_entries(item_ids: tuple[str, ...], item_id: str) -> tuple[str, ...]:
    return (*(entry for entry in item_ids if entry != item_id), item_id)[-SESSION_MAX:]


def _set_latest(times: dict[str, float], item_id: str, at: float, limit: int) -> None:
    """Make an item the newest entry, and drop the oldest entry above `limit`. A late event does not lower the time."""
    times[item_id] = max(at, times.pop(item_id, at))
    if len(times) > limit:
        del times[next(iter(times))]


def _is_finished(event: ViewerEvent) -> bool:
    """Return whether the percentage that the player reports means finished; this needs no duration."""
    return event.kind in _PLAYBACK_KINDS and (event.percent or 0.0) >= 100 * FINISHED


def _update_position(positions: dict[str, Position], item_id: str, event: ViewerEvent) -> None:
    """Record how far the viewer has watched an item. A late event changes nothing."""
    previous = positions.get(item_id)
    if previous is not None and previous.at > event.at:
        return
    duration_s = event.duration_s or (previous.duration_s if previous else 0.0)
    position_s = event.position_s
    if position_s is None and event.percent is not None and duration_s:
        position_s = duration_s * event.percent / 100
    if event.kind == "complete" and position_s is None:
        position_s = duration_s
    if position_s is None:
        return  # a play or pause event without a position
    finished = (
        event.kind == "complete" or _is_finished(event) or (duration_s > 0 and position_s >= FINISHED * duration_s)
    )
    positions.pop(item_id, None)  # popped, so that the newest come last
    positions[item_id] = Position(position_s, duration_s, event.at, finished)
    if len(positions) > POSITIONS_MAX:
        del positions[next(iter(positions))]
