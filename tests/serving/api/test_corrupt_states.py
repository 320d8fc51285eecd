"""Damaged states in the online store never break an answer: they are left out, counted and told of."""

from __future__ import annotations

import json

from features.state.codec import VERSION, item_key, viewer_key
from features.state.exposure_counts import traffic_key
from features.state.quarantine import CorruptState, quarantine
from serving.pollers import LETTERS_EVERY_S


def test_no_answer_breaks_on_damaged_states(serve) -> None:
    with serve() as service:
        online, http = service.services.online, service.http
        service.stock()
        bad = {
            viewer_key("v1"): b"\x02\xc1",
            viewer_key("v2"): bytes([VERSION + 1]) + b"of tomorrow",
            item_key("item-1", "t/0"): b"?",
            traffic_key("cn-tv-home", "cn", 3, "t/0"): b"",
        }
        online.put(bad)
        service.services.holders.follow_stats()
        for viewer in ("v1", "v2"):
            assert "online" in service.page(viewer)["degraded_parts"]
            lines = http.get(f"/v1/viewers/{viewer}/export").text.splitlines()
            assert json.loads(lines[0]) == {"state": None}
            assert "corrupt_state" in json.loads(lines[1])
        assert http.get("/console/choices").json()["viewers"] == []
        told = http.get("/metrics").text
        assert 'mainstay_corrupt_states_total{kind="item"}' in told
        assert 'mainstay_corrupt_states_total{kind="viewer"} 4.0' in told
        assert http.delete("/v1/viewers/v1").json()["state"] is True
        assert online.get([viewer_key("v1")]) == [None]


def test_a_gauge_says_how_many_are_set_aside(serve) -> None:
    with serve() as service:
        quarantine(service.services.online, [CorruptState(viewer_key(v), "why", 1.0, True, b"?") for v in ("a", "b")])
        service.services.pollers["aside"].once()
        assert "mainstay_quarantined_states 2.0" in service.http.get("/metrics").text
        assert LETTERS_EVERY_S < 60
