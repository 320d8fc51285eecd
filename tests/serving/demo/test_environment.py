"""A demo is isolated on shared servers, and an interrupted run continues where it stopped."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from features.events.schema import ViewerEvent
from features.events.stream.memory import MemoryStream
from features.history.event_log import EventLog
from features.history.privacy import erase_viewer
from features.settings import Settings
from features.state.codec import decode_viewer, viewer_key
from features.state.online.memory import MemoryStore
from features.worker.worker import Worker
from recsys.domain.decay import LANDMARK
from serving.demo import environment, steps
from serving.demo.processes import ProcessGroup

REAL = Settings(
    stream="kafka://h:1", online="redis://me:pw@h/0", control="postgresql+psycopg://me:pw@h/d?sslmode=require"
)


def test_each_home_has_its_own_stable_names_on_shared_servers(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    first, second = environment.DemoHome(str(tmp_path / "a")), environment.DemoHome(str(tmp_path / "b"))
    assert first.world != second.world
    assert vars(environment.DemoHome(str(tmp_path / "a"))) == vars(first)
    own = environment.own_settings(REAL, first.world)
    assert own.topic == f"viewer-events-{first.world}"
    assert own.group == f"features-{first.world}"
    assert own.online == f"redis://me:pw@h/0?prefix={first.world}"
    assert own.control == f"postgresql+psycopg://me:pw@h/d?sslmode=require&schema={first.world}"
    assert environment.own_settings(own, second.world).control == own.control
    assert "pw" not in environment.describe_servers(own)


def test_embedded_stores_need_no_names(tmp_path: Path) -> None:
    assert environment.own_settings(Settings(home="x"), "demo1") == Settings(home="x")
    assert environment.describe_servers(Settings()) == ""


def test_a_port_in_use_is_reported_with_its_replacement(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MAINSTAY_PORT", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        settings = environment.prepare(Settings(home=str(tmp_path), port=port))
    assert settings.port != port
    assert f"port {port} is in use, using {settings.port} instead; PORT=..." in capsys.readouterr().out
    settings = environment.prepare(Settings(home=str(tmp_path), port=port))
    assert settings.port == port
    assert capsys.readouterr().out == ""


def test_an_interrupted_replay_continues_and_counts_each_event_once(tmp_path: Path) -> None:
    total, stop = 5000, threading.Event()
    stream, online, processes = MemoryStream(partitions=2), MemoryStore(), ProcessGroup(tmp_path)
    events = [
        ViewerEvent(id=f"e{n}", kind="like", viewer_id="v", at=LANDMARK + n, item_id=f"i{n}") for n in range(total)
    ]
    settings, sent = Settings(), 0

    def save_progress(count: int) -> None:
        nonlocal sent
        sent = count
        if sent == 2000:
            raise KeyboardInterrupt

    log = EventLog(tmp_path)
    worker = Worker(stream, online, log, topic=settings.topic, group=settings.group)
    with pytest.raises(KeyboardInterrupt):
        steps.replay(stream, online, settings, events, {"v": total}, log.erasures, processes, sent, save_progress)
    while worker.step(wait_s=0):
        pass
    folding = threading.Thread(target=worker.run, args=(stop,))
    folding.start()
    try:
        assert steps.replay(
            stream, online, settings, events, {"v": total}, log.erasures, processes, sent, save_progress
        )
        assert not steps.replay(
            stream, online, settings, events, {"v": total}, log.erasures, processes, sent, save_progress
        )
    finally:
        stop.set()
        folding.join()
    raw = online.get([viewer_key("v")])[0]
    assert raw is not None
    assert decode_viewer(raw).counts["like"] == total


def test_a_replay_does_not_wait_for_erased_viewers(tmp_path: Path) -> None:
    stop, per = threading.Event(), 10
    stream, online, processes = MemoryStream(partitions=2), MemoryStore(), ProcessGroup(tmp_path)
    log, settings = EventLog(tmp_path), Settings()
    ratings = dict.fromkeys("abc", per)
    events = [
        ViewerEvent(id=f"{viewer}{n}", kind="like", viewer_id=viewer, at=LANDMARK + n, item_id=f"i{n}")
        for n in range(per)
        for viewer in ratings
    ]
    worker = Worker(stream, online, log, topic=settings.topic, group=settings.group)

    def replay(save_progress: Callable[[int], None] = lambda sent: None, sent: int = 0) -> bool:
        return steps.replay(stream, online, settings, events, ratings, log.erasures, processes, sent, save_progress)

    def erase(viewer: str) -> None:
        erase_viewer(log, online, viewer, LANDMARK + 1e9)  # later than all events

    folding = threading.Thread(target=worker.run, args=(stop,))
    folding.start()
    try:
        assert replay(lambda sent: erase("a")), "a viewer is erased during the replay"
        assert not replay()
        erase("b")
        erase("unknown")
        assert not replay(sent=len(events)), "folded events are not sent again"
    finally:
        stop.set()
        folding.join()
    assert steps.folded_ratings(online, list(ratings)) == per
