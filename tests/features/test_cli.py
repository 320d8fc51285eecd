"""The command line of `mainstay`: help, exit codes, suggestions, and commands that are loaded only when used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from contextlib import closing
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from cyclopts import App
from sqlalchemy import create_engine, text

from features.cli import GROUP, build_app, main
from features.control.connect import open_control_of
from features.settings import Settings

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
COMMANDS = {name: EntryPoint(name, path, GROUP) for name, path in PROJECT["entry-points"][GROUP].items()}
HEAVY = ("torch", "mlflow", "pyarrow", "duckdb", "numpy", "numba", "pandas", "kafka", "sqlalchemy", "fastapi")
HELP_SCRIPT = """
import contextlib, io, json, sys
from features.cli import main
report = {}
for command in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        code = main([*command, "--help"])
    report[" ".join(command)] = code, out.getvalue(), [name for name in json.loads(sys.argv[2]) if name in sys.modules]
print(json.dumps(report))
"""
RUN_SCRIPT = """
import json, sys
from features.cli import main
code = main(json.loads(sys.argv[1]))
print(json.dumps([code, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which the package is installed with the entry points of pyproject.toml."""
    site = tmp_path_factory.mktemp("site")
    directory = site / "mainstay_recsys-0.1.0.dist-info"
    directory.mkdir()
    (directory / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {PROJECT['name']}\nVersion: 0.1.0\n")
    lines = [f"{command.name} = {command.value}\n" for command in COMMANDS.values()]
    (directory / "entry_points.txt").write_text("".join([f"[{GROUP}]\n", *lines]))
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MAINSTAY_")}
    return clean | {"PYTHONPATH": f"{site}{os.pathsep}{ROOT}", "COLUMNS": "100"}


def run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


def test_help_lists_every_command_in_one_line_and_loads_no_heavy_module(environment: dict[str, str]) -> None:
    done = run(environment, "-c", HELP_SCRIPT, json.dumps([[]]), json.dumps([*HEAVY, "serving.app", "training.job"]))
    assert done.returncode == 0, done.stderr
    code, out, loaded = json.loads(done.stdout)[""]
    assert (code, loaded) == (0, [])
    lines = [line.strip("│ ") for line in out.splitlines()]
    for name in COMMANDS:
        (line,) = [line for line in lines if line.startswith(f"{name} ")]
        assert line.endswith("."), f"the summary of {name} takes more than one line: {line}"
    assert "Exit codes" in out


def test_the_help_of_each_command_loads_no_heavy_module(environment: dict[str, str]) -> None:
    subcommands = {
        "audit": ("list", "verify"),
        "consumer-groups": ("list", "delete"),
        "dlq": ("list", "show", "replay"),
        "quarantine": ("list", "show"),
        "viewers": ("export", "erase"),
    }
    commands = [[name] for name in COMMANDS] + [[name, sub] for name, subs in subcommands.items() for sub in subs]
    done = run(environment, "-c", HELP_SCRIPT, json.dumps(commands), json.dumps(HEAVY))
    assert done.returncode == 0, done.stderr
    for command, (code, out, loaded) in json.loads(done.stdout).items():
        assert (code, loaded) == (0, []), command
        assert f"Usage: mainstay {command}" in out
        if command not in subcommands:
            assert "Exit codes" in out, command
            assert "--config" in out, command


def test_a_command_loads_no_other_program(environment: dict[str, str], tmp_path: Path) -> None:
    done = run(environment, "-c", RUN_SCRIPT, json.dumps(["audit", "list", "--home", str(tmp_path)]))
    code, loaded = json.loads(done.stdout.splitlines()[-1])
    assert code == 0, done.stderr
    assert not {"serving", "training", "torch", "mlflow", "duckdb", "pyarrow"} & set(loaded)


def test_every_entry_point_is_a_command() -> None:
    for command in COMMANDS.values():
        target = command.load()
        assert isinstance(target, App) or callable(target), command


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["verifi"], 'mainstay: Unknown command "verifi". Did you mean "verify"?'),
        (["dlq", "replya"], 'mainstay dlq: Unknown command "replya". Did you mean "replay"?'),
        (["verify", "--hoem", "x"], "mainstay verify: Unknown option: --hoem. Did you mean --home?"),
        (["worker", "--until-idle", "soon"], "mainstay worker: Invalid value for --until-idle"),
        (["serve", "--port", "abc"], "mainstay serve: Invalid value for --port"),
        (["serve", "--port", "70000"], "mainstay serve: invalid settings; --port 70000: must be at most"),
        (["train"], "mainstay train: "),
        (["audit", "list", "--limit", "0"], "mainstay audit: Invalid value"),
        (["viewers", "erase"], "mainstay viewers: "),
        (["verify", "--config", "missing.toml"], "mainstay verify: invalid settings; missing.toml: cannot be read"),
    ],
)
def test_wrong_usage_ends_with_2_and_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith(message)
    assert error.count("\n") == 1


def test_a_command_that_cannot_be_loaded_does_not_break_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    app = build_app([EntryPoint("broken", "no_such_module:command", GROUP), COMMANDS["dlq"]], with_help=True)
    app(["--help"], exit_on_error=False, result_action="return_value")
    out = capsys.readouterr().out
    assert "cannot be loaded" in out
    assert "could not be read" in out


def test_audit_lists_entries_and_finds_an_altered_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--home", str(tmp_path)]
    assert main(["audit", "verify", *flags]) == 0
    assert capsys.readouterr().out == "audit trail is empty\n"
    with closing(open_control_of(Settings(home=str(tmp_path)))) as control:
        for number in range(3):
            control.put_outlet("cn", {"en": f"Name {number}"}, "editor")
    assert main(["audit", "list", "--limit", "2", *flags]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in lines] == ["2", "3"]
    assert [line[2] for line in lines] == ["editor", "editor"]
    assert main(["audit", "verify", *flags]) == 0
    assert capsys.readouterr().out.startswith("audit trail intact: 3 entries, last hash ")
    engine = create_engine(f"sqlite:///{tmp_path}/control.db")
    with engine.begin() as connection:
        connection.execute(text("UPDATE audit SET actor = 'somebody' WHERE seq = 2"))
    engine.dispose()
    assert main(["audit", "verify", *flags]) == 1
    assert "breaks at entry 2, which was altered" in capsys.readouterr().err


def test_audit_verify_finds_a_restored_database_by_the_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings, flags = Settings(home=str(tmp_path / "home")), ["--home", str(tmp_path / "home")]
    database, checkpoint = tmp_path / "home" / "control.db", tmp_path / "home" / "audit.checkpoint"
    with closing(open_control_of(settings)) as control:
        control.put_outlet("cn", {"en": "Name"}, "editor")
    older = database.read_bytes()
    with closing(open_control_of(settings)) as control:
        control.put_outlet("cn", {"en": "Another name"}, "editor")
    elsewhere = checkpoint.rename(tmp_path / "checkpoint")
    database.write_bytes(older)
    assert main(["audit", "verify", *flags]) == 0
    assert main(["audit", "verify", "--checkpoint", str(elsewhere), *flags]) == 1
    assert "breaks at entry 2, which is missing" in capsys.readouterr().err
    elsewhere.rename(checkpoint)
    assert main(["audit", "verify", *flags]) == 1
    (tmp_path / "home" / "audit.key").unlink()
    assert main(["audit", "verify", *flags]) == 1
    assert "set audit_key" in capsys.readouterr().err
