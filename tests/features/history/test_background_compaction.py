"""The background compaction of a worker continues after failures and logs them."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import pytest

from features.history.event_log import EventLog
from features.worker.retention import background_compaction
from recsys.domain.errors import Unavailable


def _text(record: logging.LogRecord) -> str:
    """Return the message and the exception of a log record; other threads may log concurrently."""
    return f"{record.getMessage()} {record.exc_info[1] if record.exc_info else ''}"


@pytest.mark.parametrize("fault", [Unavailable("a file is no Parquet"), ZeroDivisionError("a bug")])
@pytest.mark.parametrize("fails", ["compact", "also"])
def test_failures_in_background_compaction_are_logged_and_isolated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fails: str, fault: Exception
) -> None:
    ran, twice = dict.fromkeys(("compact", "also"), 0), threading.Event()

    def work(name: str) -> None:
        ran[name] += 1
        if min(ran.values()) >= 2:
            twice.set()
        if name == fails:
            raise fault

    monkeypatch.setattr("features.worker.retention.compact", lambda log, min_files: work("compact"))
    with background_compaction(EventLog(tmp_path), lambda: work("also"), every_s=0.001):
        assert twice.wait(10.0), ran
    logged = [
        record
        for record in caplog.records
        if record.name == "features.worker.retention" and str(fault) in _text(record)
    ]
    assert logged[0].levelname == ("WARNING" if isinstance(fault, Unavailable) else "ERROR")
