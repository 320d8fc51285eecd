"""Measures of real pages: as gauges while they are served, and the same again from their log."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from features.events import ViewerEvent
from features.fold import Placed
from features.measure import main
from features.offline.log import EventLog


def gauges(service, name: str) -> dict[str, float]:
    text = service.http.get("/metrics").text
    return {labels: float(figure) for labels, figure in re.findall(rf"^{name}{{(.*)}} (.*)$", text, re.MULTILINE)}


def test_served_pages_are_measured_live_and_again_from_the_log(service, capsys, tmp_path: Path) -> None:
    pages = [service.page(viewer=f"v{n}", region="cn.zj", slots=8) for n in range(6)]
    service.page(viewer="v1", guided=False)
    assert service.parts.followers["measures"].once(), service.parts.followers["measures"].error
    said = gauges(service, "mainstay_measure")
    here = 'measure="{}",outlet="cn.zj",placement="cn.zj-mobile-home"'
    assert said[here.format("pages")] == 6
    assert 0 < said[here.format("value_against_unguided")] <= 1
    control = gauges(service, "mainstay_control_measure")
    floor = 'control="floor",measure="{}",outlet="cn.zj",placement="cn.zj-mobile-home"'
    kept = [line["by"] == 0 for page in pages for line in page["receipt"]["controls"] if line["id"] == "floor"]
    assert control[floor.format("satisfied")] == pytest.approx(sum(kept) / 6)
    assert 0 <= gauges(service, "mainstay_cocoon_index")['region="cn.zj"'] <= 1

    events = [event for event in service.published(6) if event.kind == "impression"]
    play = ViewerEvent(id="p", kind="play", viewer_id="v1", at=events[0].at - 10, item_id="item-1")
    log = EventLog(service.parts.settings.event_log_dir)
    log.append("t/0", 0, 99, [Placed("t/0", n, event) for n, event in enumerate([play, *events])])
    items = tmp_path / "items.jsonl"
    items.write_text("\n".join(item.model_dump_json() for item in service.parts.holders.current.catalog.items))
    assert main(["--event-log", str(log._directory), "--catalog", str(items)]) == 0
    printed = capsys.readouterr().out
    told = json.loads(printed.splitlines()[-1])
    groups = told["groups"]
    assert groups["group"] == ["cn.zj-mobile-home"]
    for measure in ("pages", "value_against_unguided", "exposure_gini_outlets", "cocoon_index", "radio_representation"):
        assert groups[measure][0] == pytest.approx(said[here.format(measure)], abs=1e-5), measure
    assert 0 <= groups["miscalibration_history"][0] <= 1
    assert told["controls"]["floor"]["satisfied"] == pytest.approx(sum(kept) / 6)


def test_a_catalogue_that_cannot_be_read_is_told(tmp_path: Path, capsys) -> None:
    assert main(["--home", str(tmp_path), "--catalog", str(tmp_path / "none.jsonl")]) == 1
    assert "recsys-measure" in capsys.readouterr().err
