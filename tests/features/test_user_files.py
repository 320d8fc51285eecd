"""Files that users name: a wrong one is reported in one line: its name, the line, the cause and what is accepted."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.cli import main
from features.events.schema import ViewerEvent
from features.history.compaction import compact
from features.history.event_log import EventLog
from features.history.foreign_files import check_event_log
from features.history.log_epochs import LogEpoch
from features.importers.catalog import read_items
from features.state.online.memory import MemoryStore
from features.state.votes import LoggedEvent
from recsys.domain.errors import InvalidInput

GOOD = '{"id": "i1", "title": {"zh": "新闻"}, "outlet": "cn", "published_at": "2026-01-31T20:00:00Z"}\n'


def parquet(columns: dict[str, list[object]]) -> bytes:
    out = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), out)
    return bytes(out.getvalue())


CATALOGS = {
    "gbk": ((GOOD.replace("新闻", "a") + GOOD).encode("gbk"), ", line 2: not UTF-8 text (byte 0xd0), probably GBK"),
    "csv": (b"id,title\ni1,News\n", ", line 1: not JSON (Expecting value at column 1)"),
    "numbers": (b"1,2\n", ", line 1: not JSON (Extra data at column 2)"),
    "parquet": (parquet({"id": ["i1"]}), ": a Parquet file"),
    "gzip": (gzip.compress(GOOD.encode()), ": a gzip file"),
    "excel": (b"PK\x03\x04\x14\x00\x06", ": a ZIP or Excel file"),
    "utf-16": (GOOD.encode("utf-16"), ": UTF-16 text"),
    "array": (f"[{GOOD.strip()}]".encode(), ", line 1: a JSON list, expected an object"),
    "nested": (b"[" * 100_000, ", line 1: not JSON"),
    "digits": (b"1" * 5_000, ", line 1: not JSON"),
    "empty": (b"\n \n", ": no items"),
    "field": ((GOOD + '{"id": "i2"}\n').encode(), ", line 2.title: "),
}


def fail(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that must fail, and return its only line on stderr."""
    assert main(arguments) in (1, 2)
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith(f"mainstay {arguments[0]}: ")
    assert error.count("\n") == 1, error
    return error


@pytest.mark.parametrize("name", CATALOGS)
@pytest.mark.parametrize("command", ["train", "measure"])
def test_a_wrong_catalog_is_reported_in_one_line(
    command: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    body, cause = CATALOGS[name]
    file = tmp_path / "items.file"
    file.write_bytes(body)
    error = fail([command, "--home", str(tmp_path / "home"), "--encoder", "none", "--catalog", str(file)], capsys)
    assert f"{file}{cause}" in error
    assert name == "field" or "a catalog is a UTF-8 file of JSON lines" in error


@pytest.mark.parametrize("missing", ["none.jsonl", "."])
def test_a_catalog_that_cannot_be_read_is_reported_with_what_is_accepted(
    missing: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / missing
    error = fail(["train", "--home", str(tmp_path / "home"), "--catalog", str(file)], capsys)
    assert f"{file}: " in error
    assert "a catalog is a UTF-8 file of JSON lines" in error


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    file = tmp_path / "items.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert [item.title["zh"] for item in read_items(str(file))] == ["新闻"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=40) | st.binary(max_size=9).map(lambda raw: GOOD.encode() + raw))
def test_any_bytes_are_items_or_one_line_that_names_the_file(tmp_path: Path, raw: bytes) -> None:
    file = tmp_path / "items.jsonl"
    file.write_bytes(raw)
    try:
        assert list(read_items(str(file)))
    except InvalidInput as error:
        text = str(error)
    else:
        return
    assert str(file) in text
    assert len(text.splitlines()) == 1


TOML = {
    "gbk": ('# 新\nport = "新闻"\n'.encode("gbk"), "line 1: not UTF-8 text (byte 0xd0), probably GBK"),
    "parquet": (parquet({"a": [1]}), "a Parquet file"),
    "json": (b'{"port": 1}', "line 1"),
    "nested": (b"a = " + b"[" * 100_000, "TOML"),
    "broken": (b"a = 1\nb = \n", "line 2"),
}


@pytest.mark.parametrize("name", TOML)
def test_a_wrong_settings_file_or_training_configuration_is_reported_in_one_line(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    body, cause = TOML[name]
    file, catalog = tmp_path / "some.toml", tmp_path / "items.jsonl"
    file.write_bytes(body)
    catalog.write_text(GOOD, "utf-8")
    for flags in (["--config", str(file)], ["--training-config", str(file)]):
        error = fail(["train", "--catalog", str(catalog), "--home", str(tmp_path / "home"), *flags], capsys)
        assert str(file) in error
        assert cause in error
        assert "TOML file in UTF-8" in error


def foreign_beside(log: Path) -> Path:
    return log / "events.parquet"


def foreign_within(log: Path) -> Path:
    return log / "day=2026-01-31" / "part-0.parquet"


@pytest.mark.parametrize("foreign", [foreign_beside, foreign_within])
@pytest.mark.parametrize("command", [["train"], ["measure"], ["measure", "--skew"]], ids=" ".join)
def test_a_foreign_file_in_the_event_log_is_named(
    command: list[str], foreign: Callable[[Path], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    catalog, file = tmp_path / "items.jsonl", foreign(tmp_path / "log")
    catalog.write_text(GOOD, "utf-8")
    file.parent.mkdir(parents=True)
    file.write_bytes(parquet({"user": ["u"], "ts": [1]}))
    flags = ["--catalog", str(catalog), "--encoder", "none", "--event-log", str(tmp_path / "log")]
    error = fail([*command, "--home", str(tmp_path / "home"), *flags], capsys)
    assert str(file) in error
    assert "an event log is a directory with day=YYYY-MM-DD/*.parquet" in error


def test_a_file_in_place_of_an_event_log_is_named_and_a_missing_log_is_empty(tmp_path: Path) -> None:
    file = tmp_path / "events.csv"
    file.write_text("a,b\n")
    with pytest.raises(InvalidInput, match=r"events\.csv: a file; an event log is a directory"):
        check_event_log(file)
    check_event_log(tmp_path / "none")


def test_the_files_of_an_event_log_itself_are_not_foreign(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    event = ViewerEvent(id="e", kind="play", viewer_id="v", at=1_780_000_000.0, item_id="i")
    log.epochs.name(MemoryStore(), "t", LogEpoch("identity", 1))
    log.append("t/0", 0, 0, [LoggedEvent("t/0", 0, event)])
    log.erasures.add("hash", 1.0)
    compact(log)
    assert {"erased.jsonl", "log_epochs.json"} <= {file.name for file in tmp_path.iterdir()}
    check_event_log(tmp_path)


def test_a_directory_that_is_no_bundle_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    catalog, bundle = tmp_path / "items.jsonl", tmp_path / "my-bundle"
    catalog.write_text(GOOD, "utf-8")
    flags = ["--skew", "--catalog", str(catalog), "--encoder", "none", "--bundle", str(bundle)]
    for files in ({}, {"tensors.safetensors": b"x", "manifest.json": b"{}", "SHA256SUMS": b""}):
        bundle.mkdir(exist_ok=True)
        for name, body in files.items():
            (bundle / name).write_bytes(body)
        error = fail(["measure", "--home", str(tmp_path / "home"), *flags], capsys)
        assert f"--bundle {bundle}: " in error
        assert "a bundle is a directory with tensors.safetensors, manifest.json, SHA256SUMS" in error
