"""The fault benches in short: real processes, real signals, small counts. `make bench-faults` runs the full counts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.faults.audit import control_full
from benchmarks.faults.brokers import stopped
from benchmarks.faults.clocks import clocks
from benchmarks.faults.disks import log_full, small_disk
from benchmarks.faults.kill_points import killed
from benchmarks.faults.order import alone, repeats, shuffled
from benchmarks.faults.place import Places, places
from benchmarks.faults.poison import poison
from benchmarks.faults.rebalance import stale
from benchmarks.faults.rebuild_and_erase import erased, rebuilt
from benchmarks.faults.report import Line, table


@pytest.fixture
def ground(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Places]:
    """Places below the test's directory, on the shared servers where a test is about servers."""
    kind = request.node.callspec.params.get("kind", "servers") if hasattr(request.node, "callspec") else "servers"
    urls = {} if kind == "embedded" else {name: request.getfixturevalue(f"{name}_url") for name in ("kafka", "redis")}
    with places(tmp_path, **urls) as given:
        yield given


@pytest.fixture
def small_disks(tmp_path: Path) -> None:
    """Skips where no file system may be mounted."""
    try:
        with small_disk(tmp_path / "probe"):
            pass
    except PermissionError as error:
        pytest.skip(str(error))


def passed(lines: list[Line], *, leave_out: str = "from death") -> None:
    """All lines but those about time: a busy machine must fail no test."""
    wrong = [line for line in lines if not line.ok and leave_out not in line.fault]
    assert not wrong, table(wrong)


@pytest.mark.parametrize("kind", ["embedded", "servers"])
def test_killed_anywhere_everything_is_made_good(ground: Places, kind: str) -> None:
    passed(killed(ground, kind, kills=4 if kind == "embedded" else 2, lanes=1, seed=3))


def test_a_worker_that_wakes_up_after_its_partitions_moved_undoes_nothing(ground: Places) -> None:
    passed(stale(ground, "servers", ("read:2",), seed=1))


def test_one_event_alone_is_seen(ground: Places) -> None:
    (line,) = alone(ground, "servers", times=3, seed=1)
    assert "equal" in line.measured


@pytest.mark.parametrize("kind", ["embedded"])
def test_repeated_shuffled_and_unreadable_messages(ground: Places, kind: str) -> None:
    passed(repeats(ground, kind, events=300, seed=1))
    passed(shuffled(ground, kind, events=300, seed=1))
    first, second = poison(ground, kind, events=500, seed=1)
    assert first.measured.startswith("equal; "), table([first])  # the rest of the line is about time
    passed([second])


@pytest.mark.parametrize("kind", ["embedded"])
def test_stores_are_rebuilt_and_nobody_erased_comes_back(ground: Places, kind: str) -> None:
    passed(rebuilt(ground, kind, events=300, seed=1))
    passed(erased(ground, kind, viewers=3, seed=1))


@pytest.mark.parametrize("kind", ["embedded"])
def test_a_full_disk_of_the_audit_trail_stops_policies_alone(ground: Places, kind: str, small_disks: None) -> None:
    passed(control_full(ground, kind, seconds=1.0))


@pytest.mark.parametrize("kind", ["embedded"])
def test_clocks_that_are_wrong(ground: Places, kind: str) -> None:
    passed(clocks(ground, kind, rounds=2))


@pytest.mark.parametrize("kind", ["embedded"])
def test_a_full_disk_of_the_event_log_is_waited_for(ground: Places, kind: str, small_disks: None) -> None:
    passed(log_full(ground, kind, seed=1))


def test_a_broker_that_is_stopped_loses_nothing(ground: Places) -> None:
    passed(stopped(ground, "servers", seconds=2.0))
