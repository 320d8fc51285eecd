"""A demo keeps to itself on servers that others use, and a run that was interrupted goes on where it stopped."""

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
from serving.demo import environment as place
from serving.demo import steps
from serving.demo.processes import ProcessGroup

REAL = Settings(
    stream="kafka://h:1", online="redis://me:pw@h/0", control="postgresql+psycopg://me:pw@h/d?sslmode=require"
)


def test_each_home_has_names_of_its_own_on_real_servers_and_keeps_them(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    first, other = place.DemoHome(str(tmp_path / "a")), place.DemoHome(str(tmp_path / "b"))
    assert first.world != other.world
    assert vars(place.DemoHome(str(tmp_path / "a"))) == vars(first)
    own = place.own_settings(REAL, first.world)
    assert own.topic == f"viewer-events-{first.world}"
    assert own.group == f"features-{first.world}"
    assert own.online == f"redis://me:pw@h/0?prefix={first.world}"
    assert own.control == f"postgresql+psycopg://me:pw@h/d?sslmode=require&schema={first.world}"
    assert place.own_settings(own, other.world).control == own.control
    assert "pw" not in place.describe_servers(own)


def test_embedded_parts_need_no_names(tmp_path: Path) -> None:
    assert place.own_settings(Settings(home="x"), "demo1") == Settings(home="x")
    assert place.describe_servers(Settings()) == ""


def test_a_port_that_is_taken_is_told_with_the_one_used_instead(tmp_path: Path, capsys) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = place.prepare(Settings(home=str(tmp_path), port=port))
    assert settings.port != port
    assert f"port {port} is taken, using {settings.port}; PORT=..." in capsys.readouterr().out
    settings = place.prepare(Settings(home=str(tmp_path), port=port))
    assert settings.port == port
    assert capsys.readouterr().out == ""


def test_an_interrupted_replay_goes_on_and_counts_everything_once(tmp_path: Path) -> None:
    total, stop = 5000, threading.Event()
    stream, online, household = MemoryStream(partitions=2), MemoryStore(), ProcessGroup(tmp_path)
    events = [
        ViewerEvent(id=f"e{n}", kind="like", viewer_id="v", at=LANDMARK + n, item_id=f"i{n}") for n in range(total)
    ]
    settings, sent = Settings(), 0

    def note(now: int) -> None:
        nonlocal sent
        sent = now
        if sent == 2000:
            raise KeyboardInterrupt

    log = EventLog(tmp_path)
    worker = Worker(stream, online, log, topic=settings.topic, group=settings.group)
    with pytest.raises(KeyboardInterrupt):
        steps.replay(stream, online, settings, events, {"v": total}, log.erasures, household, sent, note)
    while worker.step(wait_s=0):
        pass
    folding = threading.Thread(target=worker.run, args=(stop,))
    folding.start()
    try:
        assert steps.replay(stream, online, settings, events, {"v": total}, log.erasures, household, sent, note)
        assert not steps.replay(stream, online, settings, events, {"v": total}, log.erasures, household, sent, note)
    finally:
        stop.set()
        folding.join()
    raw = online.get([viewer_key("v")])[0]
    assert raw is not None
    assert decode_viewer(raw).counts["like"] == total


def test_a_replay_waits_for_nobody_who_was_erased(tmp_path: Path) -> None:
    stop, per = threading.Event(), 10
    stream, online, household = MemoryStream(partitions=2), MemoryStore(), ProcessGroup(tmp_path)
    log, settings = EventLog(tmp_path), Settings()
    ratings = dict.fromkeys("abc", per)
    events = [
        ViewerEvent(id=f"{viewer}{n}", kind="like", viewer_id=viewer, at=LANDMARK + n, item_id=f"i{n}")
        for n in range(per)
        for viewer in ratings
    ]
    worker = Worker(stream, online, log, topic=settings.topic, group=settings.group)

    def again(note: Callable[[int], None] = lambda sent: None, sent: int = 0) -> bool:
        return steps.replay(stream, online, settings, events, ratings, log.erasures, household, sent, note)

    def erase(viewer: str) -> None:
        erase_viewer(log, online, viewer, LANDMARK + 1e9)  # as if every event had been received before

    folding = threading.Thread(target=worker.run, args=(stop,))
    folding.start()
    try:
        assert again(lambda sent: erase("a")), "one who is erased while the events are on their way"
        assert not again()
        erase("b")
        erase("nobody")
        assert not again(sent=len(events)), "what stands is not sent again"
    finally:
        stop.set()
        folding.join()
    assert steps.wait_until_folded(online, list(ratings)) == per
