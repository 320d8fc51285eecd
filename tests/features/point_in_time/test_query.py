"""Point-in-time features equal a replay of all earlier events, for any log layout and any entity rows."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from features.columns import AT, FEATURES, columns
from features.events.schema import KINDS, ViewerEvent
from features.history.compaction import compact
from features.history.event_log import EventLog
from features.point_in_time.decayed_sums import DecayedSums, FastDecayedSums
from features.point_in_time.query import EntityRows, get_historical_features
from features.state.codec import encode_item, item_key
from features.state.fold import FOREVER, deduplicate_and_fold, fold_item
from features.state.item_columns import read_stats
from features.state.online.memory import MemoryStore
from features.state.votes import LoggedEvent
from recsys.domain.catalog import Catalog
from recsys.domain.decay import FAST_HALF_LIFE_S, HALF_LIFE_S, LANDMARK
from recsys.domain.errors import InvalidInput
from recsys.domain.item import Item
from recsys.domain.item_statistics import ItemState
from recsys.domain.placement import Screen
from recsys.domain.regions import roll_up
from recsys.domain.viewer import RECENT_MAX, ViewerState
from recsys.models.als import AlsRetriever
from tests.oracles.point_in_time import replay_features

IDS = [f"i{n}" for n in range(6)]
CATALOG = Catalog.of(
    Item.model_validate(
        {
            "id": item_id,
            "title": {"en": item_id},
            "outlet": ["cn", "cn.zj"][n % 2],
            "labels": [["film/drama"], ["news", "film/comedy"], []][n % 3],
            "series": ["", "s"][n % 2],
            "axes": [{"public_value": 0.9}, {"locality": 0.7, "public_value": 0.2}, {}][n % 3],
            "kind": ["film", "article"][n % 2],
            "formats": [["landscape", "portrait"], ["text"]][n % 2],
            "region": [None, "cn.zj.hz"][n % 2],
            "published_at": datetime(2026, 1, 1 + n, tzinfo=UTC),
            "duration_s": 600.0 * n,
        }
    )
    for n, item_id in enumerate(IDS)
)
RETRIEVER = AlsRetriever(tuple(IDS[:4]), np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32), 0.1, 10.0)
REGIONS = ("", "cn", "cn.zj", "cn.zj.hz", "us")


@pytest.fixture(scope="module", autouse=True)
def _a_fast_disk() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("os.fsync", lambda handle: None)
        yield


def history(chance: random.Random, count: int, span_s: float, viewers: int) -> list[LoggedEvent]:
    """Return events of all kinds on two partitions, with duplicate ids, late events and unknown items."""
    logged, offset = [], {"t/0": 0, "t/1": 0}
    for n in range(count):
        viewer = chance.randrange(viewers)
        source, kind = f"t/{viewer % 2}", chance.choice(KINDS)
        subject = chance.choice([*IDS, "unknown"])
        is_late = chance.random() < 0.1
        at = LANDMARK + round((n / count - is_late * chance.random() * 0.2) * span_s, 1)
        fields: dict[str, Any] = {
            "item_id": subject,
            "position_s": 30.0,
            "duration_s": chance.choice([None, 60.0, 600.0]),
        }
        if kind == "impression":
            fields = {"items": tuple(chance.sample(IDS, 3)), "placement": chance.choice(["cn.zj-tv-home", ""])}
            fields |= {"context": chance.choice([{}, {"seed": 1}, {"seed": 1}]), "request_id": chance.choice(["", "r"])}
        if kind in ("follow", "search", "survey", "handoff", "alert_ack"):
            fields = {"rating": chance.random() if kind == "survey" else None}
        if not fields.get("context"):
            fields["trust"] = chance.choice(["trusted", "anonymous", "anonymous", "excess"])
        event = ViewerEvent(
            id=f"e{n if chance.random() < 0.9 else n // 2}",
            kind=kind,
            viewer_id=f"v{viewer}",
            at=at,
            region=chance.choice(REGIONS),
            screen=chance.choice([None, Screen.TV, Screen.MOBILE]),
            **fields,
        )
        logged.append(LoggedEvent(source, offset[source], event))
        offset[source] += chance.choice([1, 1, 3])
    return logged


def written(directory: Path, logged: list[LoggedEvent], batch: int = 7) -> EventLog:
    log = EventLog(directory)
    for source in ("t/0", "t/1"):
        of_source = [entry for entry in logged if entry.source == source]
        for start in range(0, len(of_source), batch):
            batch_events = of_source[max(0, start - 2) : start + batch]  # ranges overlap
            log.append(source, batch_events[0].offset, batch_events[-1].offset, batch_events)
    return log


def entity_rows(
    chance: random.Random, logged: list[LoggedEvent], count: int, span_s: float, viewers: int
) -> EntityRows:
    """Return entity rows, half of them exactly at the time of an event."""
    times = [LANDMARK + chance.uniform(-0.1, 1.3) * span_s for _ in range(count)]
    times = [chance.choice(logged).event.at if logged and chance.random() < 0.5 else at for at in times]
    return EntityRows(
        [f"v{chance.randrange(viewers + 1)}" for _ in times],
        [chance.choice(IDS) for _ in times],
        np.array(times),
        [chance.choice(REGIONS) for _ in times],
        [chance.choice(["tv", "mobile", ""]) for _ in times],
    )


def assert_same(actual: np.ndarray, expected: np.ndarray) -> None:
    differs = ~np.isclose(actual, expected, rtol=1e-6, atol=1e-6)
    assert not differs.any(), [(n, FEATURES[f], actual[n, f], expected[n, f]) for n, f in np.argwhere(differs)[:5]]


@settings(
    max_examples=12,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=[Phase.explicit, Phase.generate],  # each example opens databases: shrinking takes minutes
)
@given(st.integers(0, 10**6), st.sampled_from([3_600.0, 40 * 86_400.0, 900 * 86_400.0]), st.booleans(), st.booleans())
def test_features_equal_a_replay_of_all_earlier_events(
    tmp_path_factory: pytest.TempPathFactory, seed: int, span_s: float, expires: bool, compacted: bool
) -> None:
    chance = random.Random(seed)
    viewers = chance.choice([3, 60])  # with few viewers most are busy, with many most are not
    logged = history(chance, chance.choice([0, 30, 150]), span_s, viewers)
    log = written(tmp_path_factory.mktemp("events"), logged)
    if compacted:
        compact(log)
    entities = entity_rows(chance, logged, 25, span_s, viewers)
    ttl_s = span_s / 8 if expires else FOREVER
    features = get_historical_features(log, CATALOG, entities, ttl_s=ttl_s, retriever=RETRIEVER)
    assert np.isfinite(features).all()
    assert_same(features, replay_features(logged, CATALOG, entities, ttl_s=ttl_s, retriever=RETRIEVER))


def test_votes_of_busy_viewers_are_discounted_as_in_serving(tmp_path: Path) -> None:
    """The viewer has more actions than a state holds, so the votes are discounted."""
    logged = [
        LoggedEvent("t/0", n, ViewerEvent(id=f"e{n}", kind="click", viewer_id="v", at=LANDMARK + n, item_id=f"x{n}"))
        for n in range(RECENT_MAX + 5)
    ]
    end = LANDMARK + len(logged)
    logged.append(LoggedEvent("t/0", 900, ViewerEvent(id="z", kind="play", viewer_id="v", at=end, item_id="i1")))
    entities = EntityRows(["v", "w"], ["i1", "i1"], np.array([end, end + 1.0]), ["", ""], ["", ""])
    features = get_historical_features(written(tmp_path, logged), CATALOG, entities)
    assert_same(features, replay_features(logged, CATALOG, entities))
    before, after = features[:, AT["log_popularity"]]
    assert before == 0
    assert 0 < after < 0.01


def test_regional_features_are_the_same_in_serving_and_training(tmp_path: Path) -> None:
    """An item has visits from all 2,844 counties of a country, in random order."""
    chance = random.Random(0)
    counties = [f"cn.p{n % 31}.c{n}" for n in range(2844)] * 2 + [f"cn.p3.c{chance.randrange(31)}" for _ in range(50)]
    chance.shuffle(counties)
    logged = [
        LoggedEvent("t/0", n, ViewerEvent(id=f"e{n}", kind="open", viewer_id=f"v{n}", at=LANDMARK + n, item_id="i0",
                                     region=county))
        for n, county in enumerate(counties)
    ]  # fmt: skip
    votes = [
        weighted
        for entry in logged
        for weighted in deduplicate_and_fold(ViewerState(entry.event.viewer_id), [entry]).new_events
    ]
    now, online = LANDMARK + len(logged), MemoryStore()
    online.put({item_key("i0", "t/0"): encode_item(fold_item(ItemState("i0"), votes))})
    stats = read_stats(online, CATALOG, now)
    regions = ["cn", *sorted({ancestor for county in counties for ancestor in roll_up(county)} - {"cn"})[::40]]
    entities = EntityRows(
        ["w"] * len(regions), ["i0"] * len(regions), np.full(len(regions), now), regions, ["tv"] * len(regions)
    )
    features = get_historical_features(written(tmp_path, logged), CATALOG, entities)
    row, no_affinity = np.zeros(1, np.int32), np.zeros(1, np.float32)
    page = np.vstack([columns(row, no_affinity, None, CATALOG, stats, now, region, "tv") for region in regions])
    assert page[:, AT["log_local_popularity"]].min() > 0
    assert_same(page, features)


def test_events_at_the_time_of_a_row_are_excluded(tmp_path: Path) -> None:
    at = LANDMARK + 0.5
    play = LoggedEvent("t/0", 0, ViewerEvent(id="e", kind="play", viewer_id="v", at=at, item_id="i0"))
    log = written(tmp_path, [play])
    entities = EntityRows(["v", "v"], ["i0", "i0"], np.array([at, np.nextafter(at, np.inf)]), ["", ""], ["", ""])
    before, after = get_historical_features(log, CATALOG, entities)[:, [AT["log_popularity"], AT["history"]]]
    assert before.tolist() == [0, 0]
    assert after == pytest.approx([np.log(1.25), np.log(2)])  # a viewer of one item has a quarter of a vote


def test_invalid_entity_rows_are_reported(tmp_path: Path) -> None:
    entities = EntityRows(["v", "v"], ["i0", "gone"], np.array([np.nan, 1.0]), ["", ""], ["", ""])
    with pytest.raises(InvalidInput, match=r"item_id\[1\]: unknown item 'gone'; at\[0\]: not a finite number"):
        get_historical_features(EventLog(tmp_path), CATALOG, entities)
    with pytest.raises(InvalidInput, match=r"screen\[0\]: unknown screen 'watch', expected one of tv, "):
        get_historical_features(EventLog(tmp_path), CATALOG, EntityRows(["v"], ["i0"], np.ones(1), [""], ["watch"]))
    with pytest.raises(InvalidInput, match="unix seconds"):
        EntityRows(["v"], ["i0"], ["noon"], [""], [""])  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="differ in length"):
        get_historical_features(EventLog(tmp_path), CATALOG, EntityRows(["v"], ["i0"], np.zeros(2), [""], [""]))


@given(
    st.lists(st.tuples(st.integers(0, 3), st.floats(6e8, 2.9e9), st.floats(0, 1)), max_size=20),
    st.lists(st.tuples(st.integers(0, 4), st.floats(6e8, 2.9e9)), min_size=1, max_size=10),
    st.booleans(),
)
def test_decayed_sums_equal_their_definition(
    amounts: list[tuple[int, float, float]], lookups: list[tuple[int, float]], fast: bool
) -> None:
    group, at, amount = (
        np.array([entry[n] for entry in amounts], [np.int64, np.float64, np.float64][n]) for n in range(3)
    )
    half_life_s = FAST_HALF_LIFE_S if fast else HALF_LIFE_S
    lookups += [(entry[0], entry[1] + 60.0) for entry in amounts]
    kind: Any = FastDecayedSums if fast else DecayedSums
    sums = kind(group, at, amount).before(np.array([g for g, _ in lookups]), np.array([t for _, t in lookups]))
    expected = [
        sum(a * 2.0 ** ((s - t) / half_life_s) for g2, s, a in amounts if g2 == g and s < t) for g, t in lookups
    ]
    np.testing.assert_allclose(sums, expected, rtol=1e-9, atol=1e-12)
