"""An erased viewer is in no store and no file, stays erased, and other viewers are unchanged."""

from __future__ import annotations

import json
import random
from base64 import b64decode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from features.events.decode import encode
from features.events.schema import ViewerEvent
from features.events.stream.memory import MemoryStream
from features.events.stream.port import Record
from features.history.compaction import compact
from features.history.event_log import EventLog
from features.history.privacy import erase_viewer, export_viewer
from features.state.codec import viewer_key
from features.state.keys import VIEWERS
from features.state.online.memory import MemoryStore
from features.state.online.port import CasEntry
from features.state.online.sqlite import SqliteStore
from features.state.votes import LoggedEvent
from features.worker.rebuild import from_stream, rebuild
from recsys.domain.decay import LANDMARK
from recsys.domain.errors import Unavailable
from tests.features.worker.runs import END, TOPIC, dump, folded, happened, published, worker


@pytest.fixture(scope="module", autouse=True)
def _no_fsync() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda handle: None)
        yield


@settings(
    max_examples=8,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=[Phase.explicit, Phase.generate],
)
@given(st.integers(0, 10**6), st.integers(0, 120), st.booleans())
def test_an_erased_viewer_stays_erased_and_other_viewers_are_unchanged(
    tmp_path_factory: pytest.TempPathFactory, seed: int, before: int, compacted: bool
) -> None:
    """Erase while some events are folded and others still wait in the stream."""
    chance, home = random.Random(seed), tmp_path_factory.mktemp("events")
    stream, online, log = MemoryStream(partitions=3), MemoryStore(), EventLog(home)
    reference, everything = MemoryStore(), happened(chance, 120)
    published(stream, everything[:before])
    folded(stream, online, log)
    if compacted:
        compact(log)
    published(stream, everything[before:])
    erase_viewer(log, online, "viewer-1", END)
    folded(stream, online, log)
    for store in (online, rebuilt := MemoryStore()):
        if store is rebuilt:
            rebuild(worker(stream, rebuilt, log), rebuilt, from_stream(stream, log, TOPIC, print), END, 1e9)
        assert viewer_key("viewer-1") not in dump(store)
    assert b"viewer-1" not in b"".join(file.read_bytes() for file in home.rglob("*") if file.is_file())
    unerased = MemoryStream(partitions=3)
    published(unerased, everything)
    folded(unerased, reference, EventLog(tmp_path_factory.mktemp("others")))
    states = {key: raw for key, raw in dump(reference).items() if key.startswith(VIEWERS)}
    states.pop(viewer_key("viewer-1"), None)
    assert {key: raw for key, raw in dump(online).items() if key.startswith(VIEWERS)} == states
    returning = ViewerEvent(id="new", kind="play", viewer_id="viewer-1", at=END + 1, item_id="i0")
    published(stream, [returning])
    folded(stream, online, log)
    state = [json.loads(line) for line in export_viewer(log, online, "viewer-1")]
    assert [line["event"]["id"] for line in state[1:]] == ["new"]  # the viewer starts from nothing
    assert state[0]["state"]["counts"] == {"play": 1}


def test_an_export_holds_the_dead_letters_of_its_viewer_only(tmp_path: Path) -> None:
    stream, online, log = MemoryStream(partitions=2), MemoryStore(), EventLog(tmp_path)
    early, foreign = (
        ViewerEvent(id=id, kind="play", viewer_id=viewer, at=LANDMARK, client_at=LANDMARK + 9e6, item_id="i0")
        for id, viewer in (("e", "viewer-1"), ("o", "viewer-2"))
    )
    stream.publish(
        TOPIC, [Record(event.viewer_id, encode(event)) for event in (early, foreign)] + [Record("viewer-1", b"?")]
    )
    folded(stream, online, log)
    lines = [json.loads(line) for line in export_viewer(log, online, "viewer-1", stream=stream, topic=TOPIC)]
    assert sorted(b64decode(line["dead_letter"]["raw"]) for line in lines[1:]) == sorted([encode(early), b"?"])
    erase_viewer(log, online, "viewer-1", END, stream=stream, topic=TOPIC)
    assert len([*export_viewer(log, online, "viewer-1", stream=stream, topic=TOPIC)]) == 1


class ErasingStore(MemoryStore):
    """A store that erases a viewer between two calls of a worker."""

    def __init__(self, log: EventLog, after: int) -> None:
        super().__init__()
        self._log, self._after, self.erased = log, after, False

    def _tick(self) -> None:
        self._after -= 1
        if self._after == 0:
            self.erased = True
            erase_viewer(self._log, self, "viewer-1", END)

    def get(self, keys: Sequence[str]) -> list[bytes | None]:
        values = super().get(keys)
        self._tick()
        return values

    def compare_and_set(self, entries: Mapping[str, CasEntry], ttl_s: float | None = None) -> list[str]:
        self._tick()
        return super().compare_and_set(entries, ttl_s)


@pytest.mark.parametrize("after", range(1, 18, 2))
def test_an_erasure_beside_a_worker_leaves_nothing_at_any_step(tmp_path: Path, after: int) -> None:
    stream, log = MemoryStream(partitions=1), EventLog(tmp_path)
    online = ErasingStore(log, after)
    published(stream, happened(random.Random(after), 60))
    running = worker(stream, online, log, batch=20)
    while True:
        try:
            if not running.step(wait_s=0):
                break
        except Unavailable:
            running.close()
    assert online.erased
    assert viewer_key("viewer-1") not in dump(online)
    assert b"viewer-1" not in b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())


def test_states_written_by_a_killed_worker_after_an_erasure_are_deleted(tmp_path: Path) -> None:
    stream, online, log = MemoryStream(partitions=1), MemoryStore(), EventLog(tmp_path)
    event = ViewerEvent(id="e", kind="play", viewer_id="viewer-1", at=LANDMARK, item_id="i0")
    published(stream, [event])
    worker(stream, online, log).refold([LoggedEvent(f"{TOPIC}/0", 0, event)])  # written, not committed
    states = dump(online)
    erase_viewer(log, online, "viewer-1", END)
    online.put(states)
    folded(stream, online, log)
    assert viewer_key("viewer-1") not in dump(online)


def test_the_embedded_store_holds_no_byte_of_an_erased_viewer(tmp_path: Path) -> None:
    stream, log = MemoryStream(partitions=2), EventLog(tmp_path / "events")
    published(stream, happened(random.Random(3), 400))
    with closing(SqliteStore(f"{tmp_path}/online.db")) as online:
        folded(stream, online, log, batch=30)
        with closing(SqliteStore(f"{tmp_path}/online.db")) as second:
            erase_viewer(log, second, "viewer-1", END)
        files = [file for file in tmp_path.rglob("*") if file.is_file()]
        assert not [file for file in files if b"viewer-1" in file.read_bytes()]
        assert [file for file in files if b"viewer-2" in file.read_bytes()]
