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
from recsys.messages import ENGLISH, message, render
from tests.serving.console.test_console_words import CHINESE

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="needs node")
_PAGE = message("page_of_outlet", screen="tv", surface="home", outlet="cn.zj.hz", region="cn.zj")
MESSAGES = [
    message("weight_zero"),
    message("action_unknown", action="shar", options=["boost", "block", "pin"]),
    message("not_an_option", options=["a", "b"], but=message("not_value", value="c")),
    message("not_a_number", but=message("not_value", value=3)),
    message("weight_too_large", most=0.123456, worth=12, usual=0.0123),
    message("floor_above_cap", minimum=0.8, maximum=3),
    message("target_unreachable", attention=1234567.8, items=1, most=99.4, required=100000),
    message("target_behind", lag=0.0123, so_far=message("target_so_far", share=0.25)),
    message("target_on_plan", share=0.421, planned=1),
    message(
        "nor_on_pages",
        pages=[message("page_amiss", page=_PAGE, amiss=message("items_missing", count=3))] * 2,
        more=None,
    ),
    message("text", text="a text of somebody else"),
]
FIGURES = [sign * digit * 10.0**-power for sign in (1, -1) for digit in (1, 4.9, 5.1, 7) for power in range(8)] + [0.0]


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What the console showed, step by step, on a clock in India."""
    there = tmp_path_factory.mktemp("console")
    for path in Path(serving.console.__file__).parent.glob("*.js*"):
        shutil.copy(path, there)
    (there / "package.json").write_text('{"type": "module"}')
    command = [str(NODE), str(Path(__file__).with_name("console_page.mjs")), str(there)]
    done = subprocess.run(
        command,
        input=json.dumps(
            {"messages": [said.model_dump() for said in MESSAGES], "english": ENGLISH, "figures": FIGURES}
        ),
        env={**os.environ, "TZ": "Asia/Kolkata"},
        capture_output=True,
        text=True,
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
    assert said["english"].endswith("a minimum of 0 has no effect")
    assert said["chinese"].startswith("警告")
    assert said["chinese"].endswith("下限 0 不起作用")


def test_the_console_renders_messages_as_python_does(said: Any) -> None:
    assert said["messages_in_english"] == [*map(str, MESSAGES), "unknown to the catalogue"]
    chinese = [render(one, CHINESE) for one in MESSAGES]
    terms = {"tv": "电视", "home": "首页"}
    for name, word in terms.items():
        chinese = [text.replace(name, word) for text in chinese]
    assert said["messages_in_chinese"] == [*chinese, "unknown to the catalogue"]


def test_deadlines_say_their_offset_and_long_charts_their_year(said: Any) -> None:
    assert "05:30:00 UTC+05:30" in said["time"]
    short, long = said["charts"]
    assert "2026" not in short
    assert "2026" in long
    assert "2030" in long


def test_an_amount_of_play_equivalents_is_what_it_says_to_three_digits(said: Any) -> None:
    for figure, text in zip(FIGURES, said["equivalents"], strict=True):
        if figure == 0:
            assert text == "0"
        elif abs(figure) < 5e-4:
            assert text == "≈ 0", figure
        else:
            assert float(text.replace("−", "-")) == pytest.approx(figure, abs=5.0001e-4)
            assert re.fullmatch(r"−?\d+\.\d{3}", text), text


def test_a_page_speaks_of_outlets_and_moments_not_of_ids(said: Any) -> None:
    assert "Central Desk\u00a01 · cn.zj\u00a03" in said["page"]["summary"], "who has no name keeps the code"
    assert "07:31:41" in said["page"]["summary"], "a model by the moment it was made, on this clock"
    assert "−16.0 %expected plays0.25 → 0.21" in said["page"]["summary"]
    assert "proven bestunder these controls" in said["page"]["summary"]
    assert "play 1 · complete 0.5 · like 2 · dislike −3" in said["page"]["summary"], (
        "the weights of the model in service"
    )
    assert "utility ≈ 0 · p(play) 0.050 · weights +0.004" in said["page"]["with"]
    assert "because of gone" in said["page"]["with"], "a withdrawn item keeps its id"


def test_a_receipt_names_outlets_and_prices_nothing_as_nothing(said: Any) -> None:
    floor, cap, lead = said["receipt"]
    assert [row[1] for row in said["receipt"]] == ["Central Desk", "Central Desk", "cn.zj"]
    assert [row[6] for row in said["receipt"]] == ["≤ 0.007", "0", "≈ 0"]
    assert (floor[3], cap[3], lead[3]) == ("≥ 2", "≥ 2", "slot 1")


def test_each_cell_says_its_own_head_where_rows_stand_as_cards(said: Any) -> None:
    heads, *rows = said["heads"]
    assert len(rows) == 3
    assert all(row == heads for row in rows)


def test_pins_and_the_audit_trail_name_what_they_are_about(said: Any) -> None:
    assert "Juno → slot 1" in said["pins"]
    assert "gone → slot 2" in said["pins"]
    assert "items: 500 · first: film-1, film-2, film-3, …" in said["trail"]
    assert "film-4" not in said["trail"]
    assert "Central Desk" in said["trail"]
    assert "instead of" not in said["trail"], "a first version stands instead of nothing"
