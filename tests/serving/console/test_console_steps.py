"""The modules of the console, run by `console_page.mjs` through the steps of an editor. Needs Node, but no browser."""

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
from recsys.preview.bootstrap import Estimate
from recsys.preview.report import ControlReport, Example, PageOfItem, Point, Report, UtilityChange
from serving.schemas.previews import PreviewLine, Sources
from tests.serving.console.test_console_messages import CHINESE

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="needs node")
_PAGE = message("page_of_outlet", screen="tv", surface="home", outlet="cn.zj.hz", region="cn.zj")
MESSAGES = [
    message("weight_zero"),
    message("action_unknown", action="shar", options=["boost", "block", "pin"]),
    message("not_an_option", options=["a", "b"], but=message("not_value", value="c")),
    message("not_a_number", but=message("not_value", value=3)),
    message("weight_too_large", most=0.123456, worth=12, usual=0.0123),
    message("minimum_above_cap", minimum=0.8, maximum=3),
    message("target_unreachable", attention=1234567.8, items=1, most=99.4, required=100000),
    message("target_behind", lag=0.0123, so_far=message("target_so_far", share=0.25)),
    message("target_on_plan", share=0.421, planned=1),
    message(
        "nor_on_pages",
        pages=[message("page_amiss", page=_PAGE, amiss=message("items_missing", count=3))] * 2,
        more=None,
    ),
    message("text", text="a text without a code"),
]
FIGURES = [sign * digit * 10.0**-power for sign in (1, -1) for digit in (1, 4.9, 5.1, 7) for power in range(8)] + [0.0]


def preview_line() -> PreviewLine:
    """Return the last line of a preview in which one control is met less often, and another as often as before."""
    same, cost = Estimate(mean=0.0, low=0.0, high=0.0), Estimate(mean=0.327, low=0.3, high=0.35)
    change = UtilityChange(unguided=1.0, before=0.7, after=0.7, difference=same, relative=same)
    item = PageOfItem(item_id="film-1", title={"en": "Juno"}, attention=1.0)
    shares = {"same": (0.99, 0.99), "rounds": (0.992, 0.991), "fewer": (0.99, 0.9), "more": (0.4, 0.5)}
    controls = tuple(
        ControlReport(
            id=name, origin="cn", action="quota", enforcement="legal", pages_before=9, pages_after=9, met_before=before,
            met_after=after, active_after=0.5, relaxed_after=1, infeasible_after=0, price=0.0, cost_at_limit=cost,
        )
        for name, (before, after) in shares.items()
    )  # fmt: skip
    points = tuple(
        Point(strength=strength, requests=9, guidance_cost=cost, relaxed=0.1, values={}, quotas={})
        for strength in (0.0, 1.0)
    )
    example = Example(
        placement="cn-tv-home", region="cn", at=0.0, replaced=3, moved=9, utility_before=1.0, utility_after=1.0,
        expected_plays_before=1.0, expected_plays_after=1.0, before=(item,), after=(item,),
    )  # fmt: skip
    report = Report(
        requests=9, of=9, viewers=9, complete=True, policy_before=("cn@1",), policy_after=("cn@2",), changed_pages=1.0,
        replaced_slots=0.25, moved_slots=0.75, utility=change, expected_plays=change, page_value=change,
        guidance_cost_before=cost, guidance_cost_after=cost, actions={}, labels=(), outlets=(), regions=(), axes=(),
        exposure=(), by_screen=(), by_region=(), by_outlet=(), relaxed_before=0.1, relaxed_after=0.1, controls=controls,
        frontier=points, worst_hit=None, off_policy=None, examples=(example,),
    )  # fmt: skip
    return PreviewLine(phase="complete", elapsed_s=1.0, sources=Sources(log=9, memory=0, synthetic=0), report=report)


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What the console shows after each step, in the time zone of India."""
    directory = tmp_path_factory.mktemp("console")
    for path in Path(serving.console.__file__).parent.glob("*.js*"):
        shutil.copy(path, directory)
    (directory / "package.json").write_text('{"type": "module"}')
    command = [str(NODE), str(Path(__file__).with_name("console_page.mjs")), str(directory)]
    done = subprocess.run(
        command,
        input=json.dumps(
            {
                "messages": [text.model_dump() for text in MESSAGES],
                "english": ENGLISH,
                "figures": FIGURES,
                "preview": preview_line().model_dump(mode="json"),
            }
        ),
        env={**os.environ, "TZ": "Asia/Kolkata"},
        capture_output=True,
        text=True,
    )
    assert not done.returncode, done.stderr
    return json.loads(done.stdout)


def test_a_draft_is_based_on_the_version_that_was_opened(output: Any) -> None:
    assert output["opened"] == ["based on version 2", "newer versions: 3 (li)", None]
    assert output["refused"][:3] == output["opened"], "an editor who cancels saves nothing"
    assert "newer versions: 3 (li)" in output["refused"][3]


def test_a_draft_is_saved_over_newer_versions_only_after_the_editor_has_seen_them(output: Any) -> None:
    assert output["conflict"] == 409
    assert output["after_conflict"] == ["based on version 2", "newer versions: 4 (zhao), 3 (li)", 3]
    assert output["saved"] == ["based on version 5", "", 4]
    assert output["later"] == ["based on version 5", "newer versions: 6 (li)", 4]


def test_findings_follow_the_language_of_the_console(output: Any) -> None:
    assert output["english"].startswith("Warnings")
    assert output["english"].endswith("a minimum of 0 has no effect")
    assert output["chinese"].startswith("警告")
    assert output["chinese"].endswith("下限 0 不起作用")


def test_the_console_renders_messages_as_python_does(output: Any) -> None:
    assert output["messages_in_english"] == [*map(str, MESSAGES), "not in the catalog"]
    chinese = [render(text, CHINESE) for text in MESSAGES]
    terms = {"tv": "电视", "home": "首页"}
    for name, word in terms.items():
        chinese = [text.replace(name, word) for text in chinese]
    assert output["messages_in_chinese"] == [*chinese, "not in the catalog"]


def test_deadlines_show_their_utc_offset_and_long_charts_show_years(output: Any) -> None:
    assert "05:30:00 UTC+05:30" in output["time"]
    short, long = output["charts"]
    assert "2026" not in short
    assert "2026" in long
    assert "2030" in long


def test_play_equivalents_are_shown_with_three_decimals(output: Any) -> None:
    for figure, text in zip(FIGURES, output["equivalents"], strict=True):
        if figure == 0:
            assert text == "0"
        elif abs(figure) < 5e-4:
            assert text == "≈ 0", figure
        else:
            assert float(text.replace("−", "-")) == pytest.approx(figure, abs=5.0001e-4)
            assert re.fullmatch(r"−?\d+\.\d{3}", text), text


def test_a_page_shows_outlet_names_and_times_instead_of_ids(output: Any) -> None:
    assert "Central Desk\u00a01 · cn.zj\u00a03" in output["page"]["summary"], (
        "an outlet without a name is shown by its code"
    )
    assert "07:31:41" in output["page"]["summary"], (
        "a model version is shown as its training time in the local time zone"
    )
    assert "−16.0 %expected plays0.25 → 0.21" in output["page"]["summary"]
    assert "proven optimalunder these controls" in output["page"]["summary"]
    assert "play 1 · complete 0.5 · like 2 · dislike −3" in output["page"]["summary"], (
        "the action weights of the model in service"
    )
    assert "utility ≈ 0 · p(play) 0.050 · weights and targets +0.004" in output["page"]["with"]
    assert "similar to gone" in output["page"]["with"], "a withdrawn item is shown by its id"


def test_a_receipt_names_outlets_and_shows_zero_prices_as_zero(output: Any) -> None:
    minimum, cap, lead = output["receipt"]
    assert [row[1] for row in output["receipt"]] == ["Central Desk", "Central Desk", "cn.zj"]
    assert [row[6] for row in output["receipt"]] == ["≤ 0.007", "0", "≈ 0"]
    assert (minimum[3], cap[3], lead[3]) == ("≥ 2", "≥ 2", "slot 1")


def test_each_cell_carries_its_column_heading_for_narrow_screens(output: Any) -> None:
    heads, *rows = output["heads"]
    assert len(rows) == 3
    assert all(row == heads for row in rows)


def test_pins_and_the_audit_trail_name_their_items_and_outlets(output: Any) -> None:
    assert "Juno → slot 1" in output["pins"]
    assert "gone → slot 2" in output["pins"]
    assert "items: 500 · first ids: film-1, film-2, film-3, …" in output["trail"]
    assert "film-4" not in output["trail"]
    assert "Central Desk" in output["trail"]
    assert "replaces" not in output["trail"], "a first version replaces no version"


def test_no_change_is_never_red(output: Any) -> None:
    for text, name in output["changes"]:
        figure = float(text.removesuffix(" %").replace("\u2212", "-"))
        assert name == ("muted" if figure == 0 else "up" if figure > 0 else "out-text"), text
    assert output["red"] == ["90 %"], "only the control that is met on fewer pages than before"


def test_a_preview_states_the_definition_of_each_figure(output: Any) -> None:
    english, chinese = output["preview"]
    for text in (
        "25 %of slots get another item75 % get an item from another slot of the page",
        "32.7 % → 32.7 %",
        "divided by their utility without any guidance",
        "on which at least one control is not fully met",
    ):
        assert text in english["figures"]
    assert english["frontier"].count("32.7 %") == 2
    assert "Strength 1 is the draft, with the same figures as above" in english["frontier"]
    assert "target: costs from 0 to 32.7 %" in english["controls"]
    assert "3 items replaced, 9 moved to another slot" in english["example"]
    assert "除以完全无引导时的页面效用" in chinese["figures"]
    assert "力度 1 即此草案" in chinese["frontier"]
    assert "替换 3 项" in chinese["example"]


def test_a_receipt_shows_the_cost_of_targets(output: Any) -> None:
    assert "hills" in output["target"]
    assert "0.0201.500.013" in output["target"]
    assert "Utility that this page would gain without the price" in output["target"]
    assert "1 / 1items are not on the page without guidance" in output["page"]["summary"]
