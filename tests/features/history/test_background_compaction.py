"""What a worker's tidying thread does beside the fold, and what becomes of it when something fails."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import pytest

from features.history.event_log import EventLog
from features.worker.retention import background_compaction
from recsys.domain.errors import Unavailable


def _whole(record: logging.LogRecord) -> str:
    """What was logged, the error that came with it included; other threads of the process may log meanwhile."""
    return f"{record.getMessage()} {record.exc_info[1] if record.exc_info else ''}"


@pytest.mark.parametrize("fault", [Unavailable("a file is no Parquet"), ZeroDivisionError("a bug")])
@pytest.mark.parametrize("fails", ["compact", "also"])
def test_what_fails_while_tidying_up_is_told_and_costs_the_rest_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fails: str, fault: Exception
) -> None:
    ran, twice = dict.fromkeys(("compact", "also"), 0), threading.Event()

    def work(name: str) -> None:
        ran[name] += 1
        if min(ran.values()) >= 2:
            twice.set()
        if name == fails:
            raise fault

    monkeypatch.setattr("features.worker.retention.compact", lambda log, least: work("compact"))
    with background_compaction(EventLog(tmp_path), lambda: work("also"), every_s=0.001):
        assert twice.wait(10.0), ran
    told = [one for one in caplog.records if one.name == "features.worker.retention" and str(fault) in _whole(one)]
    assert told[0].levelname == ("WARNING" if isinstance(fault, Unavailable) else "ERROR")
