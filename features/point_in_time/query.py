"""Point-in-time features: what a page could have known of (viewer, item) at a time, for any list of entity rows.

`get_historical_features` is the function to call (Feast's name for it); `docs/for_data_scientists.md` has an example.
`mainstay measure --skew` uses it to tell how far served features lagged behind the log.

Items are not forgotten here: what `--item-ttl-days` lets go weighs less than a millionth of what it did.

Rule: everything the server received *strictly before* the time of the row, nothing at it or later. So an event and
the page that it led to, or two events of the same microsecond, never see each other. Where the clocks of two servers
differ, times may fall back in the log of one viewer: the state as of a time is then that of the events of before, in
the order of the log; votes on items are as the worker gave them, in the order of the log, and count from their own
time on.

The numbers are those of serving: viewers go through the worker's fold (`ViewerFold`), only those who are asked for;
votes are those of the fold (`features.point_in_time.vote_table`), summed up to each moment asked (`features.point_in_time.decayed_sums`); and
`features.columns` makes the features of both.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import numpy as np

from features.columns import AT, empty_features, item_columns, viewer_columns
from features.gc_pause import paused_gc
from features.history.event_log import EventLog
from features.item_counts import MEASURES, ItemCounts
from features.point_in_time.decayed_sums import DecayedSums, FastDecayedSums
from features.point_in_time.vote_table import EventBatch, VoteCounter, VoteTable, by_viewer, count_votes, load_events
from features.state.fold import LoggedEvent, ViewerFold, roll_up
from recsys.domain.catalog import Catalog
from recsys.domain.errors import Finding, InvalidInput
from recsys.domain.types import F32, F64, I32, I64, Screen
from recsys.domain.viewer import TTL_S, ViewerState, unexpired
from recsys.models.retriever import Retriever

SCREENS = tuple(screen.value for screen in Screen)


@dataclass(frozen=True)
class EntityRows:
    """N entity rows: a viewer, an item, a time, and the region and screen of the page that shows the item.

    Texts [N]; `at` [N] unix seconds, any sequence of numbers. An empty region or screen is none.
    Raises InvalidInput for times that are not numbers.
    """

    viewer_id: Sequence[str]
    item_id: Sequence[str]
    at: F64
    region: Sequence[str]
    screen: Sequence[str]

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "at", np.asarray(self.at, np.float64))
        except (TypeError, ValueError):
            raise InvalidInput("invalid entity rows: `at` must hold unix seconds") from None

    def __len__(self) -> int:
        return len(self.viewer_id)

    def rows(self, catalog: Catalog) -> I32:
        """Return [N] catalogue rows of the items. Raises InvalidInput, which names the invalid rows."""
        sizes = {len(self.viewer_id), len(self.item_id), len(self.at), len(self.region), len(self.screen)}
        if len(sizes) > 1:
            raise InvalidInput(f"the columns of the entity rows differ in length: {sorted(sizes)}")
        row = np.array([catalog.row_of.get(item_id, -1) for item_id in self.item_id], np.int32)
        wrong = [Finding(f"item_id[{n}]", f"no item {self.item_id[n]!r}") for n in np.flatnonzero(row < 0)[:20]]
        odd = [n for n, screen in enumerate(self.screen) if screen and screen not in SCREENS]
        wrong += [Finding(f"screen[{n}]", f"no screen {self.screen[n]!r}: {', '.join(SCREENS)}") for n in odd[:20]]
        wrong += [Finding(f"at[{n}]", "not a time") for n in np.flatnonzero(~np.isfinite(self.at))[:20]]
        if wrong:
            raise InvalidInput("invalid entity rows", wrong)
        return row


def get_historical_features(
    log: EventLog, catalog: Catalog, entities: EntityRows, *, ttl_s: float = TTL_S, retriever: Retriever | None = None
) -> F32:
    """Return [N, F] features, F as in FEATURES, each row as of its own time.

    ttl_s      a viewer without an event for this long had been forgotten, as online (`--viewer-ttl-days`)
    retriever  computes `affinity`, which is 0 without it; it must be fitted on events before the times of the rows
    Raises InvalidInput for unknown items, Unavailable when the log cannot be read.
    """
    rows = entities.rows(catalog)
    out = empty_features(len(entities))
    if len(entities):
        with paused_gc():
            found, tally = load_events(log, ttl_s, entities.viewer_id), VoteCounter()
            _viewer_features(out, rows, entities, catalog, _state_times(entities, found, tally, ttl_s), retriever)
            votes = count_votes(found, tally, catalog)
        del found, tally
        _item_features(out, rows, entities, catalog, votes)
    return out


def _item_features(out: F32, rows: I32, entities: EntityRows, catalog: Catalog, votes: VoteTable) -> None:
    figures = counts_before(rows, entities, len(catalog), votes)
    for (region, screen), places in _groups(entities.region, entities.screen):
        part = out[places]
        some = ItemCounts(
            figures.count[places],
            figures.recent[places],
            figures.local[places],
            figures.on_screen[places],
            figures.total[places],
            figures.items,
        )
        item_columns(part, rows[places], catalog, some, entities.at[places], region, screen)
        out[places] = part


def counts_before(rows: I32, entities: EntityRows, items: int, votes: VoteTable) -> ItemCounts:
    """Counts of the items at `rows`, and of all, strictly before the time of each row, as they weighed then."""
    at, row, measures = entities.at, rows.astype(np.int64), len(MEASURES)
    total = DecayedSums(votes.measure, votes.at, votes.value)
    mine = np.isin(votes.row, np.unique(row))
    each = DecayedSums(votes.row[mine] * measures + votes.measure[mine], votes.at[mine], votes.value[mine])
    visit = mine & (votes.measure == MEASURES.index("visits"))
    lately = FastDecayedSums(votes.row[visit], votes.at[visit], votes.value[visit])
    return ItemCounts(
        count=_single(np.column_stack([each.before(row * measures + n, at) for n in range(measures)])),
        recent=_single(lately.before(row, at)),
        local=_single(_region_features(row, entities.region, at, votes, visit, votes.region, votes.regions, roll=True)),
        on_screen=_single(
            _region_features(row, entities.screen, at, votes, visit, votes.screen, votes.screens, roll=False)
        ),
        total=np.column_stack([total.before(np.full(len(at), n), at) for n in range(measures)]),
        items=items,
    )


def _single(figures: F64) -> F64:
    """In the precision in which serving holds its statistics."""
    return figures.astype(np.float32).astype(np.float64)


def _region_features(
    row: I64,
    named: Sequence[str],
    at: F64,
    votes: VoteTable,
    visit: np.ndarray[tuple[int], np.dtype[np.bool_]],
    code: I64,
    names: Sequence[str],
    roll: bool,
) -> F64:
    """[Q] visits to the items at `row` from the place that each question names; with `roll`, or from a place in it."""
    wanted = {name: n for n, name in enumerate(sorted(set(named) - {""}))}
    if not wanted:
        return np.zeros(len(row))
    pairs = [
        (n, wanted[place])
        for n, name in enumerate(names)
        for place in (roll_up(name) if roll else (name,))
        if place in wanted
    ]
    groups, times, worth = [np.zeros(0, np.int64)], [np.zeros(0)], [np.zeros(0)]
    order = np.flatnonzero(visit)[np.argsort(code[visit], kind="stable")]
    starts = np.searchsorted(code[order], np.arange(len(names) + 1))
    for n, place in pairs:
        here = order[starts[n] : starts[n + 1]]
        groups.append(votes.row[here] * len(wanted) + place)
        times.append(votes.at[here])
        worth.append(votes.value[here])
    sums = DecayedSums(np.concatenate(groups), np.concatenate(times), np.concatenate(worth))
    wanted_code = np.array([wanted.get(name, -1) for name in named], np.int64)
    return np.where(wanted_code >= 0, sums.before(row * len(wanted) + wanted_code, at), 0.0)


def _viewer_features(
    out: F32,
    rows: I32,
    entities: EntityRows,
    catalog: Catalog,
    moments: Iterable[tuple[ViewerState, float, I64]],
    retriever: Retriever | None,
) -> None:
    """What compares an item with what its viewer had done."""
    position = _positions(retriever, catalog)
    for viewer, at, places in moments:
        for (_, screen), some in _groups([entities.region[n] for n in places], [entities.screen[n] for n in places]):
            here = places[some]
            part = out[here]
            viewer_columns(part, rows[here], viewer, catalog, at, screen)
            vector = retriever.viewer_vector(viewer) if retriever is not None else None
            if retriever is not None and vector is not None:
                known = position[rows[here]]
                part[:, AT["affinity"]] = np.where(known >= 0, retriever.scores(vector, known), np.float32(0.0))
            out[here] = part


def _positions(retriever: Retriever | None, catalog: Catalog) -> I64:
    position = np.full(len(catalog), -1, np.int64)
    for place, item_id in enumerate(retriever.item_ids if retriever is not None else ()):
        if (row := catalog.row_of.get(item_id)) is not None:
            position[row] = place
    return position


def _state_times(
    entities: EntityRows, found: EventBatch, tally: VoteCounter, ttl_s: float
) -> Iterator[tuple[ViewerState, float, I64]]:
    """The states of viewers at the times of the rows, where there was one, and the indices of the rows; each viewer is
    folded once for them and for the votes."""
    order = sorted(range(len(entities)), key=lambda n: (entities.viewer_id[n], entities.at[n]))
    questions = {
        viewer_id: [(at, np.array(list(same))) for at, same in groupby(theirs, key=lambda n: float(entities.at[n]))]
        for viewer_id, theirs in groupby(order, key=lambda n: entities.viewer_id[n])
    }
    for viewer_id, their in by_viewer(found.events):
        votes = tally if viewer_id in found.busy else None
        for state, at, places in _states(viewer_id, their, questions.get(viewer_id, ()), ttl_s, votes):
            if (known := unexpired(state, at, ttl_s)) is not None:
                yield known, at, places


def _states(
    viewer_id: str,
    events: Sequence[LoggedEvent],
    questions: Sequence[tuple[float, I64]],
    ttl_s: float,
    votes: VoteCounter | None,
) -> Iterator[tuple[ViewerState | None, float, I64]]:
    """One pass where the times of events rise, as they nearly always do; else each question has a fold of its own."""
    times = [one.event.at for one in events]
    rising = all(one <= two for one, two in pairwise(times))
    fold, done = ViewerFold(ViewerState(viewer_id), ttl_s), 0
    for at, places in questions:
        if rising:
            upto = bisect_left(times, at)
            _apply(fold, events[done:upto], votes)
            done = max(done, upto)
            yield (fold.state() if done else None), at, places
        else:
            before = [one for one in events if one.event.at < at]
            yield (_folded(viewer_id, before, ttl_s) if before else None), at, places
    if votes is not None:
        _apply(fold, events[done:], votes)


def _apply(fold: ViewerFold, events: Sequence[LoggedEvent], votes: VoteCounter | None) -> None:
    for one in events:
        if votes is None:
            fold.apply(one)
        else:
            votes.add(fold, one)


def _folded(viewer_id: str, events: Sequence[LoggedEvent], ttl_s: float) -> ViewerState:
    fold = ViewerFold(ViewerState(viewer_id), ttl_s)
    for one in events:
        fold.apply(one)
    return fold.state()


def _groups(regions: Sequence[str], screens: Sequence[str]) -> list[tuple[tuple[str, str], I64]]:
    """Places of the questions by (region, screen)."""
    found: dict[tuple[str, str], list[int]] = {}
    for n, pair in enumerate(zip(regions, screens, strict=True)):
        found.setdefault(pair, []).append(n)
    return [(pair, np.array(places)) for pair, places in found.items()]
