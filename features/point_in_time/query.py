"""Point-in-time features: the features of (viewer, item) pairs as of given times, for any list of entity rows.

Call `get_historical_features` (named as in Feast); `docs/for_data_scientists.md` has an example. `mainstay measure
--skew` uses it to measure how far served features lagged behind the log.

Rule: a row sees every event that the server received *strictly before* its time, and no event at that time or later. So
an event and the page that it led to, or two events of the same microsecond, never see each other. If server clocks
differ, times may go backwards in the log of one viewer: the state as of a time is then the fold of the earlier events,
in log order. Votes on items are those of the worker, in log order, and count from their own times on.

The numbers equal those of serving: the requested viewers go through the worker's fold (`ViewerFold`), votes are those
of the fold (`features.point_in_time.vote_table`) summed up to each time (`features.point_in_time.decayed_sums`), and
`features.columns` computes the features from both. Items do not expire here: what `--item-ttl-days` removes in serving
weighs less than a millionth of its original weight.
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
from features.state.viewer_fold import ViewerFold
from features.state.votes import LoggedEvent
from recsys.domain.catalog import Catalog
from recsys.domain.decay import TTL_S
from recsys.domain.errors import Finding, InvalidInput
from recsys.domain.placement import Screen
from recsys.domain.regions import roll_up
from recsys.domain.types import F32, F64, I32, I64
from recsys.domain.viewer import ViewerState, unexpired
from recsys.models.retriever import Retriever

SCREENS = tuple(screen.value for screen in Screen)


@dataclass(frozen=True)
class EntityRows:
    """N entity rows: a viewer, an item, a time, and the region and screen of the page that shows the item.

    The texts have shape [N]; `at` [N] holds unix seconds, in any sequence of numbers. An empty region or screen means
    none. Raises InvalidInput for times that are not numbers.
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
        """Return [N] catalog rows of the items. Raises InvalidInput, which names the invalid rows."""
        sizes = {len(self.viewer_id), len(self.item_id), len(self.at), len(self.region), len(self.screen)}
        if len(sizes) > 1:
            raise InvalidInput(f"the columns of the entity rows differ in length: {sorted(sizes)}")
        row = np.array([catalog.row_of.get(item_id, -1) for item_id in self.item_id], np.int32)
        findings = [Finding(f"item_id[{n}]", f"unknown item {self.item_id[n]!r}") for n in np.flatnonzero(row < 0)[:20]]
        unknown_screens = [n for n, screen in enumerate(self.screen) if screen and screen not in SCREENS]
        findings += [
            Finding(f"screen[{n}]", f"unknown screen {self.screen[n]!r}, expected one of {', '.join(SCREENS)}")
            for n in unknown_screens[:20]
        ]
        findings += [
            Finding(f"at[{n}]", "not a finite number of unix seconds")
            for n in np.flatnonzero(~np.isfinite(self.at))[:20]
        ]
        if findings:
            raise InvalidInput("invalid entity rows", findings)
        return row


def get_historical_features(
    log: EventLog, catalog: Catalog, entities: EntityRows, *, ttl_s: float = TTL_S, retriever: Retriever | None = None
) -> F32:
    """Return [N, F] features, F as in FEATURES, each row as of its own time.

    ttl_s      a viewer idle for longer than this has expired, as in serving (`--viewer-ttl-days`)
    retriever  computes `affinity`, which is 0 without it; it must be fitted on events before the times of the rows
    Raises InvalidInput for unknown items, Unavailable when the log cannot be read.
    """
    rows = entities.rows(catalog)
    out = empty_features(len(entities))
    if len(entities):
        with paused_gc():
            batch, counter = load_events(log, ttl_s, entities.viewer_id), VoteCounter()
            _viewer_features(out, rows, entities, catalog, _state_times(entities, batch, counter, ttl_s), retriever)
            votes = count_votes(batch, counter, catalog)
        del batch, counter
        _item_features(out, rows, entities, catalog, votes)
    return out


def _item_features(out: F32, rows: I32, entities: EntityRows, catalog: Catalog, votes: VoteTable) -> None:
    counts = counts_before(rows, entities, len(catalog), votes)
    for (region, screen), indices in _group_rows(entities.region, entities.screen):
        part = out[indices]
        part_counts = ItemCounts(
            counts.count[indices],
            counts.recent[indices],
            counts.local[indices],
            counts.on_screen[indices],
            counts.total[indices],
            counts.items,
        )
        item_columns(part, rows[indices], catalog, part_counts, entities.at[indices], region, screen)
        out[indices] = part


def counts_before(rows: I32, entities: EntityRows, items: int, votes: VoteTable) -> ItemCounts:
    """Return the counts of the items at `rows`, and the totals, strictly before and decayed to the time of each row."""
    at, row, measures = entities.at, rows.astype(np.int64), len(MEASURES)
    total = DecayedSums(votes.measure, votes.at, votes.value)
    selected = np.isin(votes.row, np.unique(row))
    by_item = DecayedSums(
        votes.row[selected] * measures + votes.measure[selected], votes.at[selected], votes.value[selected]
    )
    visit = selected & (votes.measure == MEASURES.index("visits"))
    recent = FastDecayedSums(votes.row[visit], votes.at[visit], votes.value[visit])
    return ItemCounts(
        count=_as_float32(np.column_stack([by_item.before(row * measures + n, at) for n in range(measures)])),
        recent=_as_float32(recent.before(row, at)),
        local=_as_float32(_visits_from(row, entities.region, at, votes, visit, votes.region, votes.regions, roll=True)),
        on_screen=_as_float32(
            _visits_from(row, entities.screen, at, votes, visit, votes.screen, votes.screens, roll=False)
        ),
        total=np.column_stack([total.before(np.full(len(at), n), at) for n in range(measures)]),
        items=items,
    )


def _as_float32(values: F64) -> F64:
    """Round to float32, the precision of the statistics in serving."""
    return values.astype(np.float32).astype(np.float64)


def _visits_from(
    row: I64,
    requested: Sequence[str],
    at: F64,
    votes: VoteTable,
    visit: np.ndarray[tuple[int], np.dtype[np.bool_]],
    code: I64,
    names: Sequence[str],
    roll: bool,
) -> F64:
    """Return [Q] visits to the items at `row` from the region or screen that each row names.

    With `roll`, visits from regions within the named region count as well.
    """
    requested_code = {name: n for n, name in enumerate(sorted(set(requested) - {""}))}
    if not requested_code:
        return np.zeros(len(row))
    pairs = [
        (n, requested_code[ancestor])
        for n, name in enumerate(names)
        for ancestor in (roll_up(name) if roll else (name,))
        if ancestor in requested_code
    ]
    groups, times, values = [np.zeros(0, np.int64)], [np.zeros(0)], [np.zeros(0)]
    order = np.flatnonzero(visit)[np.argsort(code[visit], kind="stable")]
    starts = np.searchsorted(code[order], np.arange(len(names) + 1))
    for n, ancestor in pairs:
        selected = order[starts[n] : starts[n + 1]]
        groups.append(votes.row[selected] * len(requested_code) + ancestor)
        times.append(votes.at[selected])
        values.append(votes.value[selected])
    sums = DecayedSums(np.concatenate(groups), np.concatenate(times), np.concatenate(values))
    wanted_code = np.array([requested_code.get(name, -1) for name in requested], np.int64)
    return np.where(wanted_code >= 0, sums.before(row * len(requested_code) + wanted_code, at), 0.0)


def _viewer_features(
    out: F32,
    rows: I32,
    entities: EntityRows,
    catalog: Catalog,
    states: Iterable[tuple[ViewerState, float, I64]],
    retriever: Retriever | None,
) -> None:
    """Fill in the features that depend on the viewer's state."""
    position = _positions(retriever, catalog)
    for viewer, at, indices in states:
        for (_, screen), group in _group_rows(
            [entities.region[n] for n in indices], [entities.screen[n] for n in indices]
        ):
            selected = indices[group]
            part = out[selected]
            viewer_columns(part, rows[selected], viewer, catalog, at, screen)
            vector = retriever.viewer_vector(viewer) if retriever is not None else None
            if retriever is not None and vector is not None:
                positions = position[rows[selected]]
                part[:, AT["affinity"]] = np.where(positions >= 0, retriever.scores(vector, positions), np.float32(0.0))
            out[selected] = part


def _positions(retriever: Retriever | None, catalog: Catalog) -> I64:
    position = np.full(len(catalog), -1, np.int64)
    for index, item_id in enumerate(retriever.item_ids if retriever is not None else ()):
        if (row := catalog.row_of.get(item_id)) is not None:
            position[row] = index
    return position


def _state_times(
    entities: EntityRows, batch: EventBatch, counter: VoteCounter, ttl_s: float
) -> Iterator[tuple[ViewerState, float, I64]]:
    """Yield (viewer state, time, indices of the rows) for all rows whose viewer had a state.

    Each viewer is folded once, for the states and for the votes.
    """
    order = sorted(range(len(entities)), key=lambda n: (entities.viewer_id[n], entities.at[n]))
    times_of = {
        viewer_id: [(at, np.array(list(group))) for at, group in groupby(indices, key=lambda n: float(entities.at[n]))]
        for viewer_id, indices in groupby(order, key=lambda n: entities.viewer_id[n])
    }
    for viewer_id, events in by_viewer(batch.events):
        votes = counter if viewer_id in batch.busy_viewers else None
        for state, at, indices_ in _states(viewer_id, events, times_of.get(viewer_id, ()), ttl_s, votes):
            if (current := unexpired(state, at, ttl_s)) is not None:
                yield current, at, indices_


def _states(
    viewer_id: str,
    events: Sequence[LoggedEvent],
    times: Sequence[tuple[float, I64]],
    ttl_s: float,
    votes: VoteCounter | None,
) -> Iterator[tuple[ViewerState | None, float, I64]]:
    """Yield (state, time, indices) for one viewer.

    If the events are in time order, as they nearly always are, one fold serves all times; otherwise each time takes a
    fold of its own.
    """
    event_times = [event.event.at for event in events]
    in_time_order = all(event <= two for event, two in pairwise(event_times))
    fold, n_folded = ViewerFold(ViewerState(viewer_id), ttl_s), 0
    for at, indices in times:
        if in_time_order:
            end = bisect_left(event_times, at)
            _apply(fold, events[n_folded:end], votes)
            n_folded = max(n_folded, end)
            yield (fold.state() if n_folded else None), at, indices
        else:
            before = [event for event in events if event.event.at < at]
            yield (_fold_all(viewer_id, before, ttl_s) if before else None), at, indices
    if votes is not None:
        _apply(fold, events[n_folded:], votes)


def _apply(fold: ViewerFold, events: Sequence[LoggedEvent], votes: VoteCounter | None) -> None:
    for event in events:
        if votes is None:
            fold.apply(event)
        else:
            votes.add(fold, event)


def _fold_all(viewer_id: str, events: Sequence[LoggedEvent], ttl_s: float) -> ViewerState:
    fold = ViewerFold(ViewerState(viewer_id), ttl_s)
    for event in events:
        fold.apply(event)
    return fold.state()


def _group_rows(regions: Sequence[str], screens: Sequence[str]) -> list[tuple[tuple[str, str], I64]]:
    """Return ((region, screen), indices) for each distinct pair."""
    groups: dict[tuple[str, str], list[int]] = {}
    for n, pair in enumerate(zip(regions, screens, strict=True)):
        groups.setdefault(pair, []).append(n)
    return [(pair, np.array(indices)) for pair, indices in groups.items()]
