"""The whole demo as a user runs it, embedded and on real servers: exit code, figures, and the promises behind them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE

import pytest

ROOT = Path(__file__).parents[3]


def command(home: Path, *flags: str) -> list[str]:
    return [sys.executable, "-m", "features.cli", "demo", "--once", "--home", str(home), "--port", "0", *flags]


def environ() -> dict[str, str]:
    return {name: worth for name, worth in os.environ.items() if not name.startswith("MAINSTAY_")}


def run(home: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """`mainstay demo --once`, to its end."""
    return subprocess.run(
        command(home, *flags), cwd=ROOT, env=environ(), capture_output=True, text=True, timeout=600, check=False
    )


def demo(home: Path, *flags: str) -> dict:  # type: ignore[type-arg]
    """Run `mainstay demo --once`; its figures."""
    done = run(home, *flags)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    told: dict = json.loads(done.stdout.splitlines()[-1])  # type: ignore[type-arg]
    return told


def check(told: dict) -> None:  # type: ignore[type-arg]
    """What holds after every run of the demo."""
    ndcg = {name: figures["ndcg_at_10"] for name, figures in told["training"]["models"].items()}
    assert ndcg["als"] > ndcg["popularity"]
    assert ndcg["ranker"] > ndcg["popularity"]
    assert told["guided_page_keeps_hard_controls"]
    assert told["controls_broken_undeclared"] == 0
    assert told["pages"] >= 100
    assert told["events"] > 0
    assert set(told["fallback_levels"]) <= {"personal", "segment", "popular"}
    assert told["fallback_levels"]["personal"] > 0
    assert told["shares_with_guidance"]["mainstream"] >= 0.2
    assert told["shares_with_guidance"]["public-service"] >= 0.15


@pytest.mark.timeout(900)
def test_the_demo_embedded_and_again_on_its_own_state(tmp_path: Path) -> None:
    first = demo(tmp_path)
    check(first)
    second = demo(tmp_path)
    check(second)
    assert second["training"] == first["training"], "the second run trains nothing"
    assert {"events", "training"} <= first["seconds"].keys()
    assert not {"events", "training"} & second["seconds"].keys(), "what stands already is not done again"


@pytest.mark.timeout(1200)
def test_the_demo_on_real_servers_and_again_from_a_new_home(
    tmp_path: Path, kafka_url: str, redis_url: str, postgres_url: str
) -> None:
    for home in ("first", "second"):
        told = demo(tmp_path / home, "--stream", kafka_url, "--online", redis_url, "--control", postgres_url)
        check(told)


@pytest.mark.parametrize(
    ("flag", "named"),
    [
        ("--stream=kafka://127.0.0.1:1", "what --stream names does not answer: kafka 127.0.0.1:1"),
        ("--online=redis://127.0.0.1:1/0", "what --online names does not answer: redis 127.0.0.1:1/0"),
        ("--control=postgresql://x@127.0.0.1:1/x", "what --control names does not answer: control plane: "),
        ("--online=nonsense", "online store 'nonsense': expected "),
    ],
)
def test_a_server_that_is_down_is_named_in_one_line(tmp_path: Path, flag: str, named: str) -> None:
    done = run(tmp_path, flag)
    assert done.returncode == 1
    assert done.stderr.startswith(f"mainstay demo: {named}")
    assert done.stderr.count("\n") == 1


def test_interrupted_while_it_trains_it_ends_without_a_word_of_error(tmp_path: Path) -> None:
    with subprocess.Popen(command(tmp_path), cwd=ROOT, env=environ(), stdout=PIPE, stderr=PIPE, text=True) as child:
        assert child.stdout is not None
        lines: list[str] = []
        while "items" not in (lines[-1:] or [""])[0] or "events" not in lines[-1]:  # the trainer's first line
            lines.append(child.stdout.readline())
            assert lines[-1], (lines, child.communicate())
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=60)
    assert (child.returncode, err) == (130, "")
    assert out.endswith("Stopped.\n")
