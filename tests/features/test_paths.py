"""Homes of any name: every store of a home lies inside it, and no home reads or writes the files of another."""

from __future__ import annotations

from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import URL, make_url

from features.control.connect import open_control, open_control_of
from features.embeddings.connect import encoder_lock_path
from features.events.schema import ViewerEvent
from features.events.stream.connect import open_stream
from features.events.stream.port import Record
from features.history.compaction import compact, purge
from features.history.erasures import viewer_hash
from features.history.event_log import EventLog
from features.settings import Settings
from features.sqlite import mlflow_uri, sqlite_path, sqlite_url
from features.state.online.connect import open_online
from features.state.votes import LoggedEvent
from recsys.domain.errors import InvalidInput, SettingsError

HOMES = ["x%20y", "x y", "a?b", "a#b", "[ab]", "a*b", "a&b;'c", "湖 南"]
PATTERNS = ["a?b", "[ab]", "a*b", "x'湖 %20"]
AT = 1_780_000_000.0


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1))
def test_the_url_of_a_path_is_that_of_sqlalchemy_and_names_the_same_file(path: str) -> None:
    url = sqlite_url(path)
    assert url == URL.create("sqlite", database=path).render_as_string()
    assert sqlite_path(url) == make_url(url).database == make_url(mlflow_uri(url)).database == path


@pytest.mark.parametrize("url", ["sqlite:///a?b/stream.db", "sqlite:///stream.db?mode=ro"])
def test_a_url_that_could_name_another_file_is_rejected(url: str) -> None:
    for refused in (
        lambda: open_stream(url, partitions=1),
        lambda: open_online(url),
        lambda: open_control(url, b"key"),
    ):
        with pytest.raises(InvalidInput, match="write %3F for a"):
            refused()
    with pytest.raises(InvalidInput, match="write %3F for a"):
        mlflow_uri(url)


def test_an_empty_home_is_refused() -> None:
    with pytest.raises(SettingsError, match="--home"):
        Settings.read(home="")
    with pytest.raises(SettingsError, match="--home"):
        Settings.read(home="a\0b")


def test_homes_of_any_name_share_no_file(tmp_path: Path) -> None:
    """Each home stores its own name in every store and reads only that; nothing is created beside the homes."""
    for name in HOMES:
        use_stores(Settings(home=str(tmp_path / name)), name, first=True)
    for name in HOMES:
        use_stores(Settings(home=str(tmp_path / name)), name, first=False)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted(HOMES)
    expected = {"stream.db", "online.db", "vectors.db", "control.db"}
    for name in HOMES:
        assert {entry.name for entry in (tmp_path / name).iterdir()} >= expected


def use_stores(settings: Settings, name: str, first: bool) -> None:
    """Write the name into every store of a home, or check that each holds this name only."""
    with ExitStack() as stores:
        stream = stores.enter_context(closing(open_stream(settings.stream_url, partitions=1)))
        online = stores.enter_context(closing(open_online(settings.online_url)))
        vectors = stores.enter_context(closing(open_online(settings.vectors_url)))
        control = stores.enter_context(closing(open_control_of(settings, lambda: AT)))
        if first:
            stream.publish("t", [Record("v", name.encode())])
            online.put({"k": name.encode()}, 60)
            vectors.put({"k": name.encode()}, 60)
            control.put_outlet("cn", {"zh": name}, "editor")
        assert [message.value.decode() for message in stream.read("t", 0, 0, 9)] == [name]
        assert online.get(["k"]) == vectors.get(["k"]) == [name.encode()]
        assert [outlet.name["zh"] for outlet in control.outlets(-1)] == [name]
    assert Path(encoder_lock_path(settings)).parent == Path(settings.home)


@pytest.mark.parametrize("name", PATTERNS)
def test_an_event_log_reads_compacts_and_purges_its_own_files_only(name: str, tmp_path: Path) -> None:
    """A log whose directory is a pattern that matches another log, whose files have the same names."""
    logs = [EventLog(tmp_path / directory) for directory in (name, "a1b", "a", "b")]
    for number, log in enumerate(logs):
        for offset in (0, 1):
            event = ViewerEvent(id=f"{number}-{offset}", kind="play", viewer_id="v", at=AT, item_id="i")
            log.append("t/0", offset, offset, [LoggedEvent("t/0", offset, event)])
    ids = {logged.event.id for logged in logs[0].replay()}
    assert ids == {"0-0", "0-1"}
    assert compact(logs[0]).before == 2
    logs[0].erasures.add(viewer_hash("v"), AT + 1)
    purge(logs[0], "v")
    assert list(logs[0].replay()) == []
    assert [len(list(log.replay())) for log in logs[1:]] == [2] * 3


def test_a_log_whose_files_are_gone_does_not_read_those_of_a_log_that_its_path_matches(tmp_path: Path) -> None:
    logs = {directory: EventLog(tmp_path / directory) for directory in ("a*b", "axb")}
    for log in logs.values():
        event = ViewerEvent(id="e", kind="play", viewer_id="v", at=AT, item_id="i")
        log.append("t/0", 0, 0, [LoggedEvent("t/0", 0, event)])
    listed = logs["a*b"].files()
    Path(listed[0]).unlink()
    logs["a*b"].files = lambda since=0.0, until=0.0: listed  # type: ignore[method-assign,assignment]
    with pytest.raises(Exception, match="files changed during"):
        list(logs["a*b"].replay())
