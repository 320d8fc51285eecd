"""What is held of a viewer can be had and be erased over HTTP, with the editors' token."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace

from features.history.event_log import EventLog
from features.state.codec import viewer_key
from features.worker.worker import Worker
from serving.pages.page_service import QUERIES_TTL_S


def test_a_viewer_is_exported_and_erased_for_editors_only(serve) -> None:
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
        told = service.http.get("/v1/viewers/v1/export", headers=editor)
        assert told.headers["content-type"].startswith("application/x-ndjson")
        state, *events = [json.loads(line) for line in told.text.splitlines()]
        assert state["state"]["counts"] == {"play": 1}
        assert [one["event"]["id"] for one in events] == ["/app#e-v1", "/app#e-v1"]
        gone = service.http.delete("/v1/viewers/v1", headers=editor)
        assert gone.json() == {"state": True, "events": 2, "files": len(log.files()), "left": 0, "held_by": {}}
        assert service.http.get("/v1/viewers/v1/export", headers=editor).text == '{"state":null}\n'
        assert services.online.get([viewer_key("v1"), viewer_key("v2")])[1] is not None
        assert [one.event.viewer_id for one in log.replay()] == ["v2"]
        assert [one.viewer_id for one in service.published(1)] == ["v2"]


def test_an_erasure_says_for_whose_sake_messages_stay(serve) -> None:
    """Two of three are not passed by a group that has committed once, none by the workers, who have not begun."""
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
        gone = service.http.delete("/v1/viewers/v1").json()
        assert (gone["left"], gone["held_by"]) == (3, {"audit": 2, group: 3})
        assert service.http.delete("/v1/viewers/v2").json()["held_by"] == {}


def test_an_erased_viewer_leaves_the_process_that_made_the_pages(service) -> None:
    for viewer in ("v1", "v2", "v1"):
        service.page(viewer=viewer)
    feed = service.services.pages
    pages = feed.watch.__self__._pages
    assert [one.viewer_id for one in feed.lately()] == [one[0].viewer_id for one in pages] == ["v1", "v2", "v1"]
    assert service.http.delete("/v1/viewers/v1").status_code == 200
    assert [one.viewer_id for one in feed.lately()] == [one[0].viewer_id for one in pages] == ["v2"]
    aged = replace(feed, clock=lambda: feed.clock() + QUERIES_TTL_S + 1)
    assert aged.lately() == ()
    assert feed.lately() == (), "they share what they remember"


def test_any_id_can_be_exported_and_erased(serve) -> None:
    with serve() as service:
        for viewer in ("https%3A%2F%2Fa%2Fu7", "a/b", "c"):
            assert service.http.get(f"/v1/viewers/{viewer}/export").text == '{"state":null}\n'
            assert service.http.delete(f"/v1/viewers/{viewer}").json()["state"] is False


def test_without_a_token_only_this_machine_may_ask(serve) -> None:
    with serve(settings={"host": "0.0.0.0"}) as service:
        for refused in (service.http.get("/v1/viewers/v1/export"), service.http.delete("/v1/viewers/v1")):
            assert refused.status_code == 401
