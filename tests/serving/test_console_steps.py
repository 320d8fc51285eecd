"""The console's own modules, asked by `console_page.mjs` to do what an editor does; needs Node, and no browser."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

import serving.console
from tests.serving.test_console_words import PAIRS, in_chinese

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="needs node")
TEXTS = [
    *(re.sub(r"\{\w+[*!=]?\}", "'x'", english) for english, _ in PAIRS),
    "there is no action 'shar'; there are boost, block, pin",
    "cannot be kept on tv home in cn: it asks for 9 of 8 slots; nor on web hot of cn.zj in cn (3 too few), "
    "on car list in cn.js (2 too many of one topic together) and in 6 more places",
]


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What the console showed, step by step, on a clock in India."""
    there = tmp_path_factory.mktemp("console")
    for path in Path(serving.console.__file__).parent.glob("*.js*"):
        shutil.copy(path, there)
    (there / "package.json").write_text('{"type": "module"}')
    command = [str(NODE), str(Path(__file__).with_name("console_page.mjs")), str(there)]
    done = subprocess.run(
        command, input=json.dumps(TEXTS), env={**os.environ, "TZ": "Asia/Kolkata"}, capture_output=True, text=True
    )
    assert not done.returncode, done.stderr
    return json.loads(done.stdout)


def test_a_draft_is_based_on_the_version_that_was_opened(said: Any) -> None:
    assert said["opened"] == ["based on version 2", "newer versions: 3 (li)", None]
    assert said["refused"][:3] == said["opened"], "whoever does not want to save beside newer ones saves nothing"
    assert "newer versions: 3 (li)" in said["refused"][3]


def test_only_versions_that_the_editor_was_told_of_are_passed_over(said: Any) -> None:
    assert said["conflict"] == 409
    assert said["told"] == ["based on version 2", "newer versions: 4 (zhao), 3 (li)", 3]
    assert said["saved"] == ["based on version 5", "", 4]
    assert said["later"] == ["based on version 5", "newer versions: 6 (li)", 4]


def test_findings_change_their_language_with_the_console(said: Any) -> None:
    assert said["english"].startswith("Warnings")
    assert said["english"].endswith("a floor of 0 asks for nothing")
    assert said["chinese"].startswith("警告")
    assert said["chinese"].endswith("下限 0 没有要求任何东西")


def test_the_console_reads_templates_as_these_tests_do(said: Any) -> None:
    assert said["texts"] == [in_chinese(text) for text in TEXTS]


def test_deadlines_say_their_offset_and_long_charts_their_year(said: Any) -> None:
    assert "05:30:00 UTC+05:30" in said["time"]
    short, long = said["charts"]
    assert "2026" not in short
    assert "2026" in long
    assert "2030" in long
