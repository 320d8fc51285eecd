"""Settings: flags over environment, and every wrong one named in one line."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from features.settings import Settings
from features.worker.main import main as work
from recsys.domain.errors import SettingsError
from serving.demo.main import main as demo
from serving.main import main as serve
from training.main import main as train


def test_a_flag_wins_over_the_environment_and_none_says_nothing() -> None:
    environ = {"MAINSTAY_PORT": "1", "MAINSTAY_HOST": "there", "HOME": "x"}
    assert Settings.read(environ, port=2, host=None).model_dump(include={"port", "host"}) == {
        "port": 2,
        "host": "there",
    }


def test_every_wrong_setting_is_named() -> None:
    with pytest.raises(SettingsError) as refused:
        Settings.read({"MAINSTAY_PORT": "abc", "MAINSTAY_POLL_MS": "1"}, partitions=0)
    assert [finding.where for finding in refused.value.findings] == ["--partitions 0", "--port 'abc'", "--poll-ms '1'"]


@pytest.mark.parametrize(
    ("main", "arguments"), [(work, []), (serve, []), (demo, ["--once"]), (train, ["--catalog", "none.jsonl"])]
)
def test_every_command_says_so_in_one_line(
    main: Callable[[Sequence[str]], int],
    arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MAINSTAY_PORT", "abc")
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "--port 'abc'" in said
    assert "must be a whole number" in said
