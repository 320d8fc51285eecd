"""Corrupt states in the online store never break a response: they are skipped, counted and reported."""

from __future__ import annotations

import json

from features.state.codec import VERSION, frame, item_key, viewer_key
from features.state.exposure_counts import traffic_key
from features.state.quarantine import CorruptState, quarantine
from serving.pollers import BACKLOG_EVERY_S


def test_corrupt_states_are_skipped_and_counted(serve) -> None:
    with serve() as service:
        online, http = service.services.online, service.http
        service.stock()
        corrupt = {
            viewer_key("v1"): b"\x02\xc1",
            viewer_key("v2"): frame(b"of a newer version", VERSION + 1),
            item_key("item-1", "t/0"): b"?",
            traffic_key("cn-tv-home", "cn", 3, "t/0"): b"",
        }
        online.put(corrupt)
        service.services.holders.poll_stats()
        for viewer in ("v1", "v2"):
            assert "online" in service.page(viewer)["degraded_parts"]
            lines = http.get(f"/v1/viewers/{viewer}/export").text.splitlines()
            assert json.loads(lines[0]) == {"state": None}
            assert "corrupt_state" in json.loads(lines[1])
        assert http.get("/console/choices").json()["viewers"] == []
        metrics = http.get("/metrics").text
        assert 'mainstay_corrupt_states_total{kind="item"}' in metrics
        assert 'mainstay_corrupt_states_total{kind="viewer"} 4.0' in metrics
        assert http.delete("/v1/viewers/v1").json()["state"] is True
        assert online.get([viewer_key("v1")]) == [None]


def test_a_gauge_counts_quarantined_states(serve) -> None:
    with serve() as service:
        quarantine(
            service.services.online, [CorruptState(viewer_key(v), "reason", 1.0, True, b"?") for v in ("a", "b")]
        )
        service.services.pollers["quarantine"].run_once()
        assert "mainstay_quarantined_states 2.0" in service.http.get("/metrics").text
        assert BACKLOG_EVERY_S < 60
