"""A poller survives failed steps, reports its health and limits its share of the time."""

from __future__ import annotations

import logging
import time

import pytest

from recsys.domain.errors import Unavailable
from serving.snapshot.poller import NOT_POLLED, Poller


def test_a_poller_survives_failures_and_logs_each_error_once(caplog: pytest.LogCaptureFixture, until) -> None:
    outcomes = [
        None,
        Unavailable("gone"),
        Unavailable("gone"),
        ZeroDivisionError("odd"),
        ZeroDivisionError("odd"),
        None,
    ]
    errors: list[str | None] = []

    def step() -> None:
        errors.append(poller.error)
        outcome = outcomes[len(errors) - 1] if len(errors) <= len(outcomes) else None
        if outcome is not None:
            raise outcome

    poller = Poller("online", step, every_s=0.001, share=1.0)
    assert not poller.ok
    with caplog.at_level(logging.INFO, "mainstay.serving"):
        poller.start()
        until(lambda: len(errors) > len(outcomes))
        poller.stop()
    odd = "ZeroDivisionError: odd"
    assert errors[:7] == [NOT_POLLED, None, "gone", "gone", odd, odd, None]
    assert poller.ok
    messages = [record.getMessage() for record in caplog.records]
    assert messages == [
        "poller online failed: gone; retrying",
        "poller online failed; retrying",
        "poller online recovered",
    ]


def test_a_slow_step_is_followed_by_a_longer_pause() -> None:
    steps: list[float] = []

    def step() -> None:
        steps.append(time.monotonic())
        time.sleep(0.02)

    poller = Poller("slow", step, every_s=0.0, share=0.1)
    poller.start()
    time.sleep(0.7)
    poller.stop()
    assert 1 <= len(steps) <= 4  # at most 20 ms of work in 200 ms


def test_a_poller_stops_immediately_during_a_long_pause() -> None:
    poller = Poller("idle", lambda: None, every_s=3600)
    poller.start()
    started = time.monotonic()
    poller.stop()
    assert time.monotonic() - started < 1
