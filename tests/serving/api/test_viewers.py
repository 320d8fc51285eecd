"""Editors can export and erase the data of a viewer over HTTP."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace

from features.history.event_log import EventLog
from features.state.codec import viewer_key
from features.worker.worker import Worker
from serving.pages.page_service import QUERIES_TTL_S


def test_only_editors_can_export_and_erase_a_viewer(serve) -> None:
    with serve(settings={"admin_token": "secret"}) as service:
        services, editor = service.services, {"authorization": "Bearer secret"}
        for viewer in ("v1", "v2", "v1"):
            sent = {"specversion": "1.0", "id": f"e-{viewer}", "source": "/app", "type": "mainstay.viewer.play"}
            sent |= {"subject": viewer, "data": {"item_id": "item-1"}}
            service.http.post("/v1/events", json={"events": [sent]}).raise_for_status()
        service.published(3)
        log = EventLog(services.settings.event_log_dir)
        topic, group = services.settings.topic, services.settings.group
        with closing(Worker(services.stream, services.online, log, topic=topic, group=group)) as worker:
            while worker.step(wait_s=0):
                pass
        for refused in (service.http.get("/v1/viewers/v1/export"), service.http.delete("/v1/viewers/v1")):
            assert refused.status_code == 401
        export = service.http.get("/v1/viewers/v1/export", headers=editor)
        assert export.headers["content-type"].startswith("application/x-ndjson")
        state, *events = [json.loads(line) for line in export.text.splitlines()]
        assert state["state"]["counts"] == {"play": 1}
        assert [line["event"]["id"] for line in events] == ["/app#e-v1", "/app#e-v1"]
        erasure = service.http.delete("/v1/viewers/v1", headers=editor)
        assert erasure.json() == {
            "state": True,
            "events": 2,
            "files": len(log.files()),
            "messages_left": 0,
            "damaged_files": [],
            "unread_by_group": {},
        }
        assert service.http.get("/v1/viewers/v1/export", headers=editor).text == '{"state":null}\n'
        assert services.online.get([viewer_key("v1"), viewer_key("v2")])[1] is not None
        assert [logged.event.viewer_id for logged in log.replay()] == ["v2"]
        assert [event.viewer_id for event in service.published(1)] == ["v2"]


def test_an_erasure_names_the_groups_that_have_not_read_the_messages(serve) -> None:
    """A group that has committed the first of three messages has two unread; the workers have not started."""
    with serve() as service:
        topic, group = service.services.settings.topic, service.services.settings.group
        for n in range(3):
            sent = {"specversion": "1.0", "id": f"e{n}", "source": "/app", "type": "mainstay.viewer.play"}
            sent |= {"subject": "v1", "data": {"item_id": "item-1"}}
            service.http.post("/v1/events", json={"events": [sent]}).raise_for_status()
        service.published(3)
        with closing(service.services.stream.consumer(topic, "audit")) as reader:
            first = reader.poll(1, 5.0)[0]
            reader.commit({first.partition: first.offset})
        erasure = service.http.delete("/v1/viewers/v1").json()
        assert (erasure["messages_left"], erasure["unread_by_group"]) == (3, {"audit": 2, group: 3})
        assert service.http.delete("/v1/viewers/v2").json()["unread_by_group"] == {}


def test_an_erasure_removes_the_viewer_from_the_memory_of_the_process(service) -> None:
    for viewer in ("v1", "v2", "v1"):
        service.page(viewer=viewer)
    page_service = service.services.pages
    pages = service.services.live_metrics._pages
    assert (
        [query.viewer_id for query in page_service.recent_queries()]
        == [query.viewer_id for query, _, _ in pages]
        == ["v1", "v2", "v1"]
    )
    assert service.http.delete("/v1/viewers/v1").status_code == 200
    assert (
        [query.viewer_id for query in page_service.recent_queries()]
        == [query.viewer_id for query, _, _ in pages]
        == ["v2"]
    )
    aged = replace(page_service, clock=lambda: page_service.clock() + QUERIES_TTL_S + 1)
    assert aged.recent_queries() == ()
    assert page_service.recent_queries() == (), "both share their memory"


def test_any_id_can_be_exported_and_erased(serve) -> None:
    with serve() as service:
        for viewer in ("https%3A%2F%2Fa%2Fu7", "a/b", "c"):
            assert service.http.get(f"/v1/viewers/{viewer}/export").text == '{"state":null}\n'
            assert service.http.delete(f"/v1/viewers/{viewer}").json()["state"] is False


def test_without_a_token_a_reachable_service_rejects_viewer_requests(serve) -> None:
    with serve(settings={"host": "0.0.0.0"}) as service:
        for refused in (service.http.get("/v1/viewers/v1/export"), service.http.delete("/v1/viewers/v1")):
            assert refused.status_code == 401
