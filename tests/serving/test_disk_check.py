"""A disk that accepts no data is named in the health report, and so is a registry that does not answer."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from features.settings import Settings
from recsys.domain.errors import Unavailable
from serving import disk_check
from serving.disk_check import check_disks, data_directories
from serving.snapshot.poller import Poller


def test_all_directories_with_data_are_checked(tmp_path: Path) -> None:
    settings = Settings(home=str(tmp_path), spool=str(tmp_path / "spool"), online=f"sqlite:///{tmp_path}/o/online.db")
    assert set(data_directories(settings)) == {tmp_path, tmp_path / "spool", tmp_path / "events", tmp_path / "o"}
    check_disks(data_directories(settings))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_named_in_the_health_report(serve, until, monkeypatch) -> None:
    monkeypatch.setattr("serving.pollers.DISK_EVERY_S", 0.02)
    with serve() as service:
        until(lambda: service.http.get("/health/ready").json()["parts"]["disk"]["ok"])
        monkeypatch.setattr(disk_check.os, "fsync", _no_space)
        until(lambda: not service.http.get("/health/ready").json()["parts"]["disk"]["ok"])
        report = service.http.get("/health/ready").json()
        assert "No space left on device" in report["parts"]["disk"]["detail"]
        assert report["status"] != "ready"


def test_a_nearly_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_check, "MIN_FREE_BYTES", 1 << 62)
    with pytest.raises(Unavailable, match="nearly full"):
        check_disks([tmp_path, tmp_path / "missing"])


def test_a_registry_that_does_not_answer_is_named_while_the_step_hangs(serve, until, monkeypatch) -> None:
    monkeypatch.setattr("serving.snapshot.poller.Poller.__init__.__defaults__", (0.5, 0.2), raising=False)
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        serve({"registry": f"http://127.0.0.1:{silent.getsockname()[1]}"}) as service,
    ):
        until(
            lambda: "no answer" in service.http.get("/health/ready").json()["parts"]["registry"]["detail"], within_s=60
        )


def test_a_step_that_hangs_is_an_error_until_it_ends(until) -> None:
    hang = threading.Event()
    poller = Poller("slow", hang.wait, every_s=0.01, stall_s=0.05)
    poller.start()
    until(lambda: "no answer" in (poller.error or ""))
    assert not poller.ok
    hang.set()
    until(lambda: poller.ok)
    poller.stop()


def _no_space(handle: int) -> None:
    raise OSError(28, "No space left on device")
