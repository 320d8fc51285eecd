"""The skew audit passes for served pages, and reports each feature that the log does not reproduce."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.features.served import ITEMS, _item, _model, run
from features.cli import main
from features.history.erasures import viewer_hash
from features.history.event_log import EventLog
from features.measurement.report import EXIT_INCONCLUSIVE
from features.measurement.skew import SkewReport, audit_skew
from recsys.domain.catalog import Catalog
from recsys.domain.item import Item
from recsys.models.bundle import pack

SEED = 3
Audit = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create a log of served pages, with the model bundle that served them."""
    home = tmp_path_factory.mktemp("served")
    run(home, rows=400, seed=SEED)
    (home / "bundle").mkdir()
    for name, body in pack(_model(SEED).bundle).items():
        (home / "bundle" / name).write_bytes(body)
    return home


@pytest.fixture
def audit(home: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Audit:
    """Return a function that runs the command and returns its exit code and output."""

    def command(*arguments: str, items: list[Item] | None = None) -> tuple[int, str]:
        catalog = tmp_path / "items.jsonl"
        catalog.write_text("\n".join(item.model_dump_json() for item in items or map(_item, range(ITEMS))))
        flags = ["--event-log", str(home / "log"), "--catalog", str(catalog), "--days", "4000", "--encoder", "none"]
        code = main(["measure", "--skew", *flags, "--viewer-ttl-days", "1", *arguments])
        return code, capsys.readouterr().out

    return command


def test_audit_passes_for_served_features(audit: Audit, home: Path) -> None:
    code, out = audit("--bundle", str(home / "bundle"))
    report = json.loads(out.splitlines()[-1])
    assert code == 0
    assert (report["rows"] >= 300, report["unknown"], report["unmodelled"]) == (True, 0, 0)
    assert all(column["compared"] == report["rows"] and not column["differing"] for column in report["columns"])
    assert sum(column["lagging"] for column in report["columns"]) > 0


def test_affinity_is_not_compared_without_its_model(audit: Audit) -> None:
    code, out = audit()
    report = json.loads(out.splitlines()[-1])
    assert (code, report["unmodelled"] > 0) == (0, True)
    compared = {column["feature"]: column["compared"] for column in report["columns"]}
    assert compared["affinity"] < compared["log_popularity"]


def test_skew_is_reported_by_feature(audit: Audit) -> None:
    """The durations in the catalog changed after the pages were served."""
    items = [_item(n).model_copy(update={"duration_s": 77_777.0}) for n in range(ITEMS)]
    code, out = audit(items=items)
    report = json.loads(out.splitlines()[-1])
    assert code == 1
    assert {column["feature"] for column in report["columns"] if column["differing"]} == {"log_duration_min"}


def test_an_item_without_catalog_entry_is_counted(audit: Audit) -> None:
    code, out = audit(items=[_item(n) for n in range(ITEMS // 2)])
    report = json.loads(out.splitlines()[-1])
    assert report["unknown"] > 0
    assert "no longer in the catalog" in out
    assert code in (0, 1)  # histories lack the removed items, too


def test_pages_that_record_no_features_are_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    catalog = tmp_path / "items.jsonl"
    catalog.write_text(_item(0).model_dump_json())
    flags = ["--event-log", str(tmp_path / "log"), "--catalog", str(catalog), "--encoder", "none"]
    assert main(["measure", "--skew", *flags]) == 1
    assert "no impression of this period records" in capsys.readouterr().err


def test_differences_after_an_erasure_are_inconclusive(audit: Audit, home: Path, tmp_path: Path) -> None:
    EventLog(home / "log").erasures.add(viewer_hash("viewer-1"), 4e9, had_data=True)
    try:
        code, out = audit()
    finally:
        (home / "log" / "erased.jsonl").unlink(missing_ok=True)
    report = json.loads(out.splitlines()[-1])
    assert report["erased"] == 1
    assert code == EXIT_INCONCLUSIVE
    assert "inconclusive: 1 viewers were erased" in out


def test_audit_function_and_command_agree(home: Path) -> None:
    catalog = Catalog.of([_item(n) for n in range(ITEMS)])
    report = audit_skew(EventLog(home / "log"), catalog, {}, ttl_s=86_400.0)
    assert isinstance(report, SkewReport)
    assert report.differing == 0
