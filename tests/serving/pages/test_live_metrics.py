"""Measures of real pages: as gauges while they are served, and the same again from their log."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from features.cli import main
from features.events.schema import ViewerEvent
from features.history.event_log import EventLog
from features.state.votes import LoggedEvent
from serving.pages.live_metrics import WINDOW_S


def gauges(service, name: str) -> dict[str, float]:
    text = service.http.get("/metrics").text
    return {labels: float(figure) for labels, figure in re.findall(rf"^{name}{{(.*)}} (.*)$", text, re.MULTILINE)}


def test_served_pages_are_measured_live_and_again_from_the_log(service, capsys, tmp_path: Path) -> None:
    pages = [service.page(viewer=f"v{n}", region="cn.zj", slots=8) for n in range(20)]
    service.page(viewer="v1", guided=False)
    assert service.services.pollers["metrics"].run_once(), service.services.pollers["metrics"].error
    said = gauges(service, "mainstay_page_metric")
    here = 'metric="{}",outlet="cn.zj",placement="cn.zj-mobile-home"'
    assert said[here.format("pages")] == 20
    assert 0 < said[here.format("value_against_unguided")] <= 1
    control = gauges(service, "mainstay_control_metric")
    floor = 'control="floor",metric="{}",outlet="cn.zj",placement="cn.zj-mobile-home"'
    kept = [line["by"] == 0 for page in pages for line in page["receipt"]["controls"] if line["id"] == "floor"]
    assert control[floor.format("satisfied")] == pytest.approx(sum(kept) / 20)
    assert 0 <= gauges(service, "mainstay_concentration_index")['region="cn.zj"'] <= 1

    events = [event for event in service.published(20) if event.kind == "impression"]
    play = ViewerEvent(id="p", kind="play", viewer_id="v1", at=events[0].at - 10, item_id="item-1")
    log = EventLog(service.services.settings.event_log_dir)
    log.append("t/0", 0, 99, [LoggedEvent("t/0", n, event) for n, event in enumerate([play, *events])])
    items = tmp_path / "items.jsonl"
    items.write_text("\n".join(item.model_dump_json() for item in service.services.holders.current.catalog.items))
    assert main(["measure", "--event-log", str(log.directory), "--catalog", str(items)]) == 0
    printed = capsys.readouterr().out
    told = json.loads(printed.splitlines()[-1])
    groups = told["groups"]
    assert groups["group"] == ["cn.zj-mobile-home"]
    for measure in (
        "pages",
        "value_against_unguided",
        "exposure_gini_outlets",
        "concentration_index",
        "radio_representation",
    ):
        assert groups[measure][0] == pytest.approx(said[here.format(measure)], abs=1e-5), measure
    assert 0 <= groups["miscalibration_history"][0] <= 1
    assert told["controls"]["floor"]["satisfied"] == pytest.approx(sum(kept) / 20)


def test_gauges_name_known_regions_tell_of_many_viewers_and_end_with_their_pages(service) -> None:
    """A region is the client's free text: it must not become a series of its own."""
    live = service.services.pollers["metrics"]
    for n in range(20):
        service.page(viewer=f"v{n}", region=f"cn.zj.village_{n}", slots=4)
        service.page(viewer=f"v{n % 19}", region="of_my_own", slots=4, placement="cn.zj-tv-home")
    assert live.run_once(), live.error
    assert set(gauges(service, "mainstay_concentration_index")) <= {'region="cn.zj"', 'region="cn"'}
    assert len(gauges(service, "mainstay_concentration_index")) == 1, "nineteen viewers from elsewhere are too few"
    of = 'metric="concentration_index",outlet="cn.zj",placement="cn.zj-{}-home"'
    assert of.format("mobile") in gauges(service, "mainstay_page_metric")
    assert of.format("tv") not in gauges(service, "mainstay_page_metric")
    live._step.__self__._pages.clear()
    assert live.run_once(), live.error
    for name in ("mainstay_page_metric", "mainstay_control_metric", "mainstay_concentration_index"):
        assert gauges(service, name) == {}, "no page, no figure"


def test_pages_older_than_the_window_are_let_go(service) -> None:
    """A viewer's state is not kept for longer than it is measured."""
    service.page()
    live = service.services.pollers["metrics"]._step.__self__
    assert live._pages
    replace(live, clock=lambda: live.clock() + WINDOW_S + 1).step()
    assert not live._pages


def test_a_catalogue_that_cannot_be_read_is_told(tmp_path: Path, capsys) -> None:
    assert main(["measure", "--home", str(tmp_path), "--catalog", str(tmp_path / "none.jsonl")]) == 1
    assert "mainstay measure" in capsys.readouterr().err
