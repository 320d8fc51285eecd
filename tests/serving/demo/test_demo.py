"""The whole demo as a user runs it, with embedded stores and on real servers: exit code, figures and guarantees."""

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

SMALL_TRAINING = """
base = "demo"
refit = false

[examples]
max_moments = 1500

[network]
epochs = 15

[evaluation]
rounds = 200
calibration_moments = 100
"""
"""A training of a few seconds; nightly runs use the demo's own configuration."""


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """The flags of the demo that set its training."""
    if os.environ.get("NIGHTLY_TESTS") == "1":
        return ()
    file = tmp_path_factory.mktemp("training") / "small.toml"
    file.write_text(SMALL_TRAINING)
    return (f"--training-config={file}",)


def command(home: Path, *flags: str) -> list[str]:
    return [sys.executable, "-m", "features.cli", "demo", "--once", "--home", str(home), "--port", "0", *flags]


def environ() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("MAINSTAY_")}


def run(home: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Run `mainstay demo --once` to its end."""
    return subprocess.run(
        command(home, *flags), cwd=ROOT, env=environ(), capture_output=True, text=True, timeout=600, check=False
    )


def demo(home: Path, *flags: str) -> dict:  # type: ignore[type-arg]
    """Run `mainstay demo --once` and return its figures."""
    done = run(home, *flags)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    figures: dict = json.loads(done.stdout.splitlines()[-1])  # type: ignore[type-arg]
    return figures


def check(figures: dict) -> None:  # type: ignore[type-arg]
    """Assert what holds after every run of the demo."""
    ndcg = {name: metrics["ndcg_at_10"] for name, metrics in figures["training"]["models"].items()}
    assert ndcg["als"] > ndcg["popularity"]
    assert ndcg["ranker"] > ndcg["popularity"]
    assert figures["guided_page_keeps_hard_controls"]
    assert figures["controls_broken_undeclared"] == 0
    assert figures["pages"] >= 100
    assert figures["events"] > 0
    assert set(figures["fallback_levels"]) <= {"personal", "segment", "popular"}
    assert figures["fallback_levels"]["personal"] > 0
    assert figures["shares_with_guidance"]["mainstream"] >= 0.2
    assert figures["shares_with_guidance"]["public-service"] >= 0.15


@pytest.mark.timeout(900)
def test_an_interrupted_demo_ends_silently_and_continues_from_its_own_state(
    tmp_path: Path, training: tuple[str, ...]
) -> None:
    """It is interrupted during the training; the next run trains but sends nothing again; the last run does neither."""
    with subprocess.Popen(
        command(tmp_path, *training), cwd=ROOT, env=environ(), stdout=PIPE, stderr=PIPE, text=True
    ) as child:
        assert child.stdout is not None
        lines: list[str] = []
        while "items" not in (lines[-1:] or [""])[0] or "events" not in lines[-1]:  # the trainer's first line
            lines.append(child.stdout.readline())
            assert lines[-1], (lines, child.communicate())
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=60)
    assert (child.returncode, err) == (130, "")
    assert out.endswith("Stopped.\n")

    first = demo(tmp_path, *training)
    check(first)
    second = demo(tmp_path, *training)
    check(second)
    assert second["training"] == first["training"], "the last run trains nothing"
    assert "training" in first["seconds"]
    assert "events" not in first["seconds"], "completed steps are skipped"
    assert not {"events", "training"} & second["seconds"].keys(), "completed steps are skipped"


@pytest.mark.timeout(1200)
def test_the_demo_runs_on_real_servers_from_two_separate_homes(
    tmp_path: Path, training: tuple[str, ...], kafka_url: str, redis_url: str, postgres_url: str
) -> None:
    servers = ("--stream", kafka_url, "--online", redis_url, "--control", postgres_url)
    for home in ("first", "second"):
        check(demo(tmp_path / home, *training, *servers))


@pytest.mark.parametrize(
    ("flag", "error"),
    [
        ("--stream=kafka://127.0.0.1:1", "--stream: the server does not answer: kafka 127.0.0.1:1"),
        ("--online=redis://127.0.0.1:1/0", "--online: the server does not answer: redis 127.0.0.1:1/0"),
        ("--control=postgresql://x@127.0.0.1:1/x", "--control: the server does not answer: control plane: "),
        ("--online=nonsense", "online store 'nonsense': expected "),
    ],
)
def test_an_unavailable_server_is_reported_in_one_line(tmp_path: Path, flag: str, error: str) -> None:
    done = run(tmp_path, flag)
    assert done.returncode == 1
    assert done.stderr.startswith(f"mainstay demo: {error}")
    assert done.stderr.count("\n") == 1
