"""Settings: flags over environment over TOML file over defaults, and errors that name the source of each bad value."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import pytest
from pydantic import ValidationError

from features.cli import main
from features.settings import DEFAULT_CONFIG, Settings, find_config
from recsys.domain.errors import SettingsError
from serving.main import refuse_unprotected


@pytest.fixture(autouse=True)
def _empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(text: str, file: Path = DEFAULT_CONFIG) -> Path:
    file.write_text(text, "utf-8")
    return file


@pytest.mark.parametrize(("flag", "variable", "toml"), list(product((False, True), repeat=3)))
def test_a_flag_wins_over_the_environment_over_the_file_over_the_default(
    flag: bool, variable: bool, toml: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if variable:
        monkeypatch.setenv("MAINSTAY_PORT", "2")
    config = write('host = "h"\n' + ("port = 3\n" if toml else ""))
    settings = Settings.read(config, port=1 if flag else None)
    assert settings.port == (1 if flag else 2 if variable else 3 if toml else 8080)
    assert settings.host == "h", "each setting is looked up on its own"


def test_the_constructor_reads_neither_environment_nor_file(monkeypatch: pytest.MonkeyPatch) -> None:
    write("port = 3")
    monkeypatch.setenv("MAINSTAY_PORT", "2")
    assert Settings().port == 8080
    assert Settings.read() == Settings(port=2)
    with pytest.raises(ValidationError, match="frozen"):
        Settings().port = 1  # type: ignore[misc]


def test_the_file_is_that_of_the_flag_or_the_variable_or_the_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_config(None) is None
    write("port = 3")
    assert find_config(None) == DEFAULT_CONFIG
    monkeypatch.setenv("MAINSTAY_CONFIG", "of-variable.toml")
    assert find_config(None) == Path("of-variable.toml")
    assert find_config(Path("of-flag.toml")) == Path("of-flag.toml")
    assert Settings.read().port == 8080, "MAINSTAY_CONFIG is no unknown variable"


def test_every_bad_value_is_reported_with_its_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAINSTAY_PORT", "abc")
    with pytest.raises(SettingsError) as refused:
        Settings.read(write("poll_ms = 1\nchanges = true"), partitions=0)
    assert {finding.where for finding in refused.value.findings} == {
        "--partitions 0",
        "MAINSTAY_PORT 'abc'",
        "mainstay.toml: poll_ms 1",
    }


def test_unknown_names_are_reported_with_the_nearest_known_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAINSTAY_PROT", "1")
    with pytest.raises(SettingsError) as refused:
        Settings.read(write("hots = 'x'\n[zzz]\nport = 1"))
    assert [str(finding) for finding in refused.value.findings] == [
        "MAINSTAY_PROT: unknown environment variable; did you mean MAINSTAY_PORT?",
        "mainstay.toml: hots: unknown setting; did you mean host?",
        "mainstay.toml: zzz: unknown setting",
    ]


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"port = ", "not valid TOML"), (b"\xff", "not UTF-8 text"), (None, "cannot be read: No such file")],
)
def test_an_unreadable_file_is_reported(content: bytes | None, reason: str, tmp_path: Path) -> None:
    file = tmp_path / "some.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingsError, match=reason) as refused:
        Settings.read(file)
    assert refused.value.findings[0].where == str(file)


@pytest.mark.parametrize(
    "arguments", [["worker"], ["serve"], ["demo", "--once"], ["train", "--catalog", "none.jsonl"], ["dlq", "list"]]
)
def test_every_command_reports_a_bad_setting_in_one_line(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MAINSTAY_PORT", "abc")
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"mainstay {arguments[0]}: ")
    assert error.count("\n") == 1
    assert "MAINSTAY_PORT 'abc'" in error
    assert "must be a whole number" in error


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "tv.example"])
@pytest.mark.parametrize("command", ["serve", "demo"])
def test_an_address_that_others_reach_is_not_served_without_a_token(
    command: str, host: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "--host", host, "--home", str(tmp_path / "home")]) == 2
    error = capsys.readouterr().err
    assert f"--host {host}: other machines reach this address" in error
    assert "MAINSTAY_ADMIN_TOKEN" in error
    assert "--insecure" in error
    assert not (tmp_path / "home").exists(), "nothing was started"


def test_such_an_address_is_served_with_a_token_or_if_it_is_meant_to_be_open() -> None:
    for settings in ({"admin_token": "s3cret"}, {"insecure": True}):
        refuse_unprotected(Settings.model_validate({"host": "0.0.0.0", **settings}))
    for host in ("127.0.0.1", "localhost", "::1"):
        refuse_unprotected(Settings(host=host))


@pytest.mark.parametrize("token", ["口令", "two words", "tab\t", "naïve"])
def test_a_token_that_no_client_can_send_is_refused_without_showing_it(
    token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAINSTAY_ADMIN_TOKEN", token)
    with pytest.raises(
        SettingsError, match="MAINSTAY_ADMIN_TOKEN: contains a blank or a character outside ASCII"
    ) as bad:
        Settings.read()
    assert token not in str(bad.value)
    monkeypatch.delenv("MAINSTAY_ADMIN_TOKEN")
    with pytest.raises(SettingsError, match="admin_token: contains"):
        Settings.read(write(f"admin_token = {json.dumps(token)}"))
