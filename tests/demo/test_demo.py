"""The whole demo as a user runs it, embedded and on real servers: exit code, figures, and the promises behind them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def demo(home: Path, *flags: str) -> tuple[dict, float]:  # type: ignore[type-arg]
    """Run `recsys-demo --once`; its figures and how long it took."""
    environ = {name: worth for name, worth in os.environ.items() if not name.startswith("MAINSTAY_")}
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "serving.demo.main", "--once", "--home", str(home), "--port", "0", *flags],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1]), time.monotonic() - began


def check(told: dict) -> None:  # type: ignore[type-arg]
    """What holds after every run of the demo."""
    ndcg = {name: figures["ndcg_at_10"] for name, figures in told["training"]["models"].items()}
    assert ndcg["als"] > ndcg["popularity"]
    assert ndcg["ranker"] > ndcg["popularity"]
    assert told["guided_page_keeps_hard_controls"]
    assert told["controls_broken_undeclared"] == 0
    assert told["pages"] >= 100
    assert told["events"] > 0
    assert set(told["rungs"]) <= {"personal", "segment", "popular"}
    assert told["rungs"]["personal"] > 0
    assert told["shares_with_guidance"]["mainstream"] >= 0.2
    assert told["shares_with_guidance"]["public-service"] >= 0.15


@pytest.mark.timeout(900)
def test_the_demo_embedded_and_again_on_its_own_state(tmp_path: Path) -> None:
    first, _ = demo(tmp_path)
    check(first)
    second, took_s = demo(tmp_path)
    check(second)
    assert second["training"] == first["training"], "the second run trains nothing"
    assert second["seconds"]["events"] < first["seconds"]["events"]
    assert took_s < 60


@pytest.mark.timeout(900)
def test_the_demo_on_real_servers(tmp_path: Path, kafka_url: str, redis_url: str, postgres_url: str) -> None:
    told, _ = demo(tmp_path, "--stream", kafka_url, "--online", redis_url, "--control", postgres_url)
    check(told)
