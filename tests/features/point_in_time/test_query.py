"""Point-in-time features are those of a replay of everything before, however the log lies and whoever is asked for."""

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
from features.events.decode import ViewerEvent
from features.events.schema import KINDS
from features.history.compaction import compact
from features.history.event_log import EventLog
from features.point_in_time.decayed_sums import DecayedSums, FastDecayedSums
from features.point_in_time.query import EntityRows, get_historical_features
from features.state.codec import encode_item, item_key
from features.state.fold import FOREVER, LoggedEvent, deduplicate_and_fold, fold_item, roll_up
from features.state.item_columns import read_stats
from features.state.online.memory import MemoryStore
from recsys.domain.catalog import Catalog, Item
from recsys.domain.errors import InvalidInput
from recsys.domain.types import Screen
from recsys.domain.viewer import FAST_HALF_LIFE_S, HALF_LIFE_S, LANDMARK, RECENT_MAX, ItemState, ViewerState
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
    """Events of all kinds on two partitions; ids repeat, times fall back now and then, some items are unknown."""
    placed, offset = [], {"t/0": 0, "t/1": 0}
    for n in range(count):
        viewer = chance.randrange(viewers)
        source, kind = f"t/{viewer % 2}", chance.choice(KINDS)
        about = chance.choice([*IDS, "unknown"])
        late = chance.random() < 0.1
        at = LANDMARK + round((n / count - late * chance.random() * 0.2) * span_s, 1)
        said: dict[str, Any] = {"item_id": about, "position_s": 30.0, "duration_s": chance.choice([None, 60.0, 600.0])}
        if kind == "impression":
            said = {"items": tuple(chance.sample(IDS, 3)), "placement": chance.choice(["cn.zj-tv-home", ""])}
            said |= {"context": chance.choice([{}, {"seed": 1}, {"seed": 1}]), "request_id": chance.choice(["", "r"])}
        if kind in ("follow", "search", "survey", "handoff", "alert_ack"):
            said = {"rating": chance.random() if kind == "survey" else None}
        event = ViewerEvent(
            id=f"e{n if chance.random() < 0.9 else n // 2}",
            kind=kind,
            viewer_id=f"v{viewer}",
            at=at,
            region=chance.choice(REGIONS),
            screen=chance.choice([None, Screen.TV, Screen.MOBILE]),
            **said,
        )
        placed.append(LoggedEvent(source, offset[source], event))
        offset[source] += chance.choice([1, 1, 3])
    return placed


def written(directory: Path, placed: list[LoggedEvent], batch: int = 7) -> EventLog:
    log = EventLog(directory)
    for source in ("t/0", "t/1"):
        own = [one for one in placed if one.source == source]
        for start in range(0, len(own), batch):
            some = own[max(0, start - 2) : start + batch]  # ranges overlap
            log.append(source, some[0].offset, some[-1].offset, some)
    return log


def questions(chance: random.Random, placed: list[LoggedEvent], count: int, span_s: float, viewers: int) -> EntityRows:
    """At any time and, as often, exactly at the time of an event."""
    times = [LANDMARK + chance.uniform(-0.1, 1.3) * span_s for _ in range(count)]
    times = [chance.choice(placed).event.at if placed and chance.random() < 0.5 else at for at in times]
    return EntityRows(
        [f"v{chance.randrange(viewers + 1)}" for _ in times],
        [chance.choice(IDS) for _ in times],
        np.array(times),
        [chance.choice(REGIONS) for _ in times],
        [chance.choice(["tv", "mobile", ""]) for _ in times],
    )


def assert_same(one: np.ndarray, other: np.ndarray) -> None:
    off = ~np.isclose(one, other, rtol=1e-6, atol=1e-6)
    assert not off.any(), [(n, FEATURES[f], one[n, f], other[n, f]) for n, f in np.argwhere(off)[:5]]


@settings(
    max_examples=12,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=[Phase.explicit, Phase.generate],  # each example opens databases: shrinking takes minutes
)
@given(st.integers(0, 10**6), st.sampled_from([3_600.0, 40 * 86_400.0, 900 * 86_400.0]), st.booleans(), st.booleans())
def test_features_are_those_of_a_replay_of_all_before(
    tmp_path_factory: pytest.TempPathFactory, seed: int, span_s: float, forgets: bool, compacted: bool
) -> None:
    chance = random.Random(seed)
    viewers = chance.choice([3, 60])  # some viewers act often and twice, most of many do not
    placed = history(chance, chance.choice([0, 30, 150]), span_s, viewers)
    log = written(tmp_path_factory.mktemp("events"), placed)
    if compacted:
        compact(log)
    asked = questions(chance, placed, 25, span_s, viewers)
    ttl_s = span_s / 8 if forgets else FOREVER
    found = get_historical_features(log, CATALOG, asked, ttl_s=ttl_s, retriever=RETRIEVER)
    assert np.isfinite(found).all()
    assert_same(found, replay_features(placed, CATALOG, asked, ttl_s=ttl_s, retriever=RETRIEVER))


def test_busy_viewers_count_less_here_as_there(tmp_path: Path) -> None:
    """More remembered actions than a state holds: their votes are moderated."""
    placed = [
        LoggedEvent("t/0", n, ViewerEvent(id=f"e{n}", kind="click", viewer_id="v", at=LANDMARK + n, item_id=f"x{n}"))
        for n in range(RECENT_MAX + 5)
    ]
    end = LANDMARK + len(placed)
    placed.append(LoggedEvent("t/0", 900, ViewerEvent(id="z", kind="play", viewer_id="v", at=end, item_id="i1")))
    asked = EntityRows(["v", "w"], ["i1", "i1"], np.array([end, end + 1.0]), ["", ""], ["", ""])
    found = get_historical_features(written(tmp_path, placed), CATALOG, asked)
    assert_same(found, replay_features(placed, CATALOG, asked))
    before, after = found[:, AT["log_popularity"]]
    assert before == 0
    assert 0 < after < 0.01


def test_a_county_is_the_same_to_a_page_and_in_training_however_many_there_are(tmp_path: Path) -> None:
    """Of one item seen all over a country of 2,844 counties, in whatever order they come."""
    chance = random.Random(0)
    counties = [f"cn.p{n % 31}.c{n}" for n in range(2844)] * 2 + [f"cn.p3.c{chance.randrange(31)}" for _ in range(50)]
    chance.shuffle(counties)
    placed = [
        LoggedEvent("t/0", n, ViewerEvent(id=f"e{n}", kind="open", viewer_id=f"v{n}", at=LANDMARK + n, item_id="i0",
                                     region=county))
        for n, county in enumerate(counties)
    ]  # fmt: skip
    votes = [
        one for some in placed for one in deduplicate_and_fold(ViewerState(some.event.viewer_id), [some]).new_events
    ]
    now, online = LANDMARK + len(placed), MemoryStore()
    online.put({item_key("i0", "t/0"): encode_item(fold_item(ItemState("i0"), votes))})
    stats = read_stats(online, CATALOG, now)
    regions = ["cn", *sorted({around for county in counties for around in roll_up(county)} - {"cn"})[::40]]
    asked = EntityRows(
        ["w"] * len(regions), ["i0"] * len(regions), np.full(len(regions), now), regions, ["tv"] * len(regions)
    )
    found = get_historical_features(written(tmp_path, placed), CATALOG, asked)
    row, none = np.zeros(1, np.int32), np.zeros(1, np.float32)
    page = np.vstack([columns(row, none, None, CATALOG, stats, now, region, "tv") for region in regions])
    assert page[:, AT["log_local_popularity"]].min() > 0
    assert_same(page, found)


def test_what_happens_at_the_time_asked_is_not_known(tmp_path: Path) -> None:
    at = LANDMARK + 0.5
    play = LoggedEvent("t/0", 0, ViewerEvent(id="e", kind="play", viewer_id="v", at=at, item_id="i0"))
    log = written(tmp_path, [play])
    asked = EntityRows(["v", "v"], ["i0", "i0"], np.array([at, np.nextafter(at, np.inf)]), ["", ""], ["", ""])
    before, after = get_historical_features(log, CATALOG, asked)[:, [AT["log_popularity"], AT["history"]]]
    assert before.tolist() == [0, 0]
    assert after == pytest.approx([np.log(1.25), np.log(2)])  # a viewer of one item has a quarter of a vote


def test_what_cannot_be_asked_is_named(tmp_path: Path) -> None:
    asked = EntityRows(["v", "v"], ["i0", "gone"], np.array([np.nan, 1.0]), ["", ""], ["", ""])
    with pytest.raises(InvalidInput, match=r"item_id\[1\]: no item 'gone'; at\[0\]: not a time"):
        get_historical_features(EventLog(tmp_path), CATALOG, asked)
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
def test_sums_are_those_of_the_definition(
    came: list[tuple[int, float, float]], asked: list[tuple[int, float]], fast: bool
) -> None:
    group, at, amount = (np.array([one[n] for one in came], [np.int64, np.float64, np.float64][n]) for n in range(3))
    half_life_s = FAST_HALF_LIFE_S if fast else HALF_LIFE_S
    asked += [(one[0], one[1] + 60.0) for one in came]
    kind: Any = FastDecayedSums if fast else DecayedSums
    found = kind(group, at, amount).before(np.array([g for g, _ in asked]), np.array([t for _, t in asked]))
    expected = [sum(a * 2.0 ** ((s - t) / half_life_s) for g2, s, a in came if g2 == g and s < t) for g, t in asked]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
