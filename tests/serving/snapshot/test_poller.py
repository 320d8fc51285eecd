"""A follower outlives whatever its step does, says how it goes, and does not eat the machine."""

from __future__ import annotations

import logging
import time

import pytest

from recsys.domain.errors import Unavailable
from serving.snapshot.poller import Poller


def test_it_outlives_every_failure_and_says_what_is_wrong_once(caplog: pytest.LogCaptureFixture, until) -> None:
    moods = [None, Unavailable("gone"), Unavailable("gone"), ZeroDivisionError("odd"), ZeroDivisionError("odd"), None]
    seen: list[str | None] = []

    def step() -> None:
        seen.append(follower.error)
        mood = moods[len(seen) - 1] if len(seen) <= len(moods) else None
        if mood is not None:
            raise mood

    follower = Poller("thing", step, every_s=0.001, share=1.0)
    assert not follower.ok
    with caplog.at_level(logging.INFO, "mainstay.serving"):
        follower.start()
        until(lambda: len(seen) > len(moods))
        follower.stop()
    odd = "ZeroDivisionError: odd"
    assert seen[:7] == ["not asked yet", None, "gone", "gone", odd, odd, None]
    assert follower.ok
    said = [record.getMessage() for record in caplog.records]
    assert said == ["thing: gone", "thing failed", "thing: well again"]


def test_a_slow_step_is_followed_by_a_longer_pause() -> None:
    steps: list[float] = []

    def step() -> None:
        steps.append(time.monotonic())
        time.sleep(0.02)

    follower = Poller("slow", step, every_s=0.0, share=0.1)
    follower.start()
    time.sleep(0.7)
    follower.stop()
    assert 1 <= len(steps) <= 4  # 20 ms of work in 200 ms


def test_it_stops_at_once_even_in_a_long_pause() -> None:
    follower = Poller("idle", lambda: None, every_s=3600)
    follower.start()
    began = time.monotonic()
    follower.stop()
    assert time.monotonic() - began < 1
