"""The fault benches in short: real processes, real signals, small counts. `make bench-faults` runs the full counts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.faults.scenarios.audit import control_disk_full
from benchmarks.faults.scenarios.brokers import broker_stopped
from benchmarks.faults.scenarios.clocks import client_clocks
from benchmarks.faults.scenarios.disks import event_log_disk_full, small_disk
from benchmarks.faults.scenarios.kill_points import kill_worker
from benchmarks.faults.scenarios.order import single_event, duplicate_events, out_of_order
from benchmarks.faults.harness.environment import Environments, environments
from benchmarks.faults.scenarios.poison import poison_messages
from benchmarks.faults.scenarios.rebalance import stale_worker
from benchmarks.faults.scenarios.rebuild_and_erase import erase_viewers, rebuild_stores
from benchmarks.faults.report import Line, table


@pytest.fixture
def ground(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Environments]:
    """Environments below the test's directory, on the shared servers where a test is about servers."""
    kind = request.node.callspec.params.get("kind", "servers") if hasattr(request.node, "callspec") else "servers"
    urls = {} if kind == "embedded" else {name: request.getfixturevalue(f"{name}_url") for name in ("kafka", "redis")}
    with environments(tmp_path, **urls) as given:
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
def test_killed_anywhere_everything_is_made_good(ground: Environments, kind: str) -> None:
    passed(kill_worker(ground, kind, kills=4 if kind == "embedded" else 2, lanes=1, seed=3))


def test_a_worker_that_wakes_up_after_its_partitions_moved_undoes_nothing(ground: Environments) -> None:
    passed(stale_worker(ground, "servers", ("read:2",), seed=1))


def test_one_event_alone_is_seen(ground: Environments) -> None:
    (line,) = single_event(ground, "servers", times=3, seed=1)
    assert "equal" in line.measured


@pytest.mark.parametrize("kind", ["embedded"])
def test_repeated_shuffled_and_unreadable_messages(ground: Environments, kind: str) -> None:
    passed(duplicate_events(ground, kind, events=300, seed=1))
    passed(out_of_order(ground, kind, events=300, seed=1))
    first, second = poison_messages(ground, kind, events=500, seed=1)
    assert first.measured.startswith("equal; "), table([first])  # the rest of the line is about time
    passed([second])


@pytest.mark.parametrize("kind", ["embedded"])
def test_stores_are_rebuilt_and_nobody_erased_comes_back(ground: Environments, kind: str) -> None:
    passed(rebuild_stores(ground, kind, events=300, seed=1))
    passed(erase_viewers(ground, kind, viewers=3, seed=1))


@pytest.mark.parametrize("kind", ["embedded"])
def test_a_full_disk_of_the_audit_trail_stops_policies_alone(ground: Environments, kind: str, small_disks: None) -> None:
    passed(control_disk_full(ground, kind, seconds=1.0))


@pytest.mark.parametrize("kind", ["embedded"])
def test_clocks_that_are_wrong(ground: Environments, kind: str) -> None:
    passed(client_clocks(ground, kind, rounds=2))


@pytest.mark.parametrize("kind", ["embedded"])
def test_a_full_disk_of_the_event_log_is_waited_for(ground: Environments, kind: str, small_disks: None) -> None:
    passed(event_log_disk_full(ground, kind, seed=1))


def test_a_broker_that_is_stopped_loses_nothing(ground: Environments) -> None:
    passed(broker_stopped(ground, "servers", seconds=2.0))
