"""Batches of events and items: one result for each entry; an invalid entry does not affect valid ones."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import generate_latest
from pydantic import TypeAdapter

from features.events.decode import decode
from features.events.spool.direct import DirectSpool
from features.events.stream.memory import MemoryStream
from features.events.stream.port import Record
from recsys.domain.errors import EventError, Unavailable
from serving.pages.event_intake import EventIntake
from serving.prometheus import Metrics
from serving.schemas.batch_result import BatchResult
from serving.schemas.tokens import Tokens


class FullStream(MemoryStream):
    """A stream that refuses records while `full` is set."""

    full = True

    def publish(self, topic: str, records: Sequence[Record]) -> Mapping[int, int]:
        if self.full:
            raise Unavailable("stream: queue full")
        return super().publish(topic, records)


def event(id_: str = "e1", kind: str = "play", viewer: str = "v1", **more):
    data = more.pop("data", {"item_id": "item-1"})
    return {
        "specversion": "1.0",
        "id": id_,
        "source": "/app",
        "type": f"mainstay.viewer.{kind}",
        "subject": viewer,
        "data": data,
        **more,
    }


BAD = [
    ("not an object", "events[1]", "JSON object"),
    (event(kind="sneeze"), "events[1].type", "sneeze"),
    (event(data={}), "events[1].data.item_id", "requires"),
    (event(data={"item_id": "x", "percent": 101}), "events[1].data.percent", "100"),
    (event(data={"item_id": "x", "colour": "red"}), "events[1].data.colour", "unknown field"),
    (event(time="yesterday"), "events[1].time", "RFC 3339"),
    (event(attributiontoken="forged.token"), "events[1].attributiontoken", "signature"),
    (event(attributiontoken=5), "events[1].attributiontoken", "text"),
]


def test_event_about_an_unknown_item_is_accepted_with_a_hint_and_counted(service) -> None:
    sent = [event("a"), event("b", data={"item_id": "itme-1"}), event("c", kind="search", data={})]
    body = service.http.post("/v1/events", json={"events": sent}).json()
    assert (body["accepted"], body["refused"]) == (3, 0)
    result, unknown_item, no_item = body["results"]
    assert not result["findings"]
    assert not no_item["findings"]
    assert [finding["where"] for finding in unknown_item["findings"]] == ["events[1].data.item_id"]
    assert "no such item yet" in unknown_item["findings"][0]["message"]
    assert "mainstay_events_unknown_item_total 1.0" in service.http.get("/metrics").text
    assert {event.id for event in service.published(3)} == {"/app#a", "/app#b", "/app#c"}


def test_single_event_is_a_batch_of_one(shared, unique) -> None:
    headers = {"content-type": "application/cloudevents+json"}
    answer = shared.http.post("/v1/events", json=event(unique), headers=headers)
    assert (answer.status_code, answer.json()["accepted"]) == (202, 1)
    assert [result["id"] for result in answer.json()["results"]] == [unique]
    assert f"/app#{unique}" in {event.id for event in shared.published(1)}
    invalid = shared.http.post("/v1/events", json=event(unique) | {"time": 7}, headers=headers)
    assert invalid.status_code == 422
    assert "events[0].time" in {finding["where"] for finding in invalid.json()["findings"]}


@pytest.mark.parametrize(("bad", "field", "problem"), BAD)
@pytest.mark.parametrize("form", ["batch", "object"])
def test_invalid_event_is_reported_by_index_and_field_and_valid_events_are_accepted(
    shared, unique, form, bad, field, problem
) -> None:
    batch = [event(f"{unique}-0"), bad, event(f"{unique}-2", viewer="v2")]
    if form == "batch":
        headers = {"content-type": "application/cloudevents-batch+json"}
        answer = shared.http.post("/v1/events", json=batch, headers=headers)
    else:
        answer = shared.http.post("/v1/events", json={"events": batch})
    assert answer.status_code == 202
    body = answer.json()
    assert (body["accepted"], body["refused"]) == (2, 1)
    assert [(v["index"], v["status"]) for v in body["results"]] == [(0, "accepted"), (1, "refused"), (2, "accepted")]
    (finding,) = body["results"][1]["findings"]
    assert finding["where"] == field
    assert problem in finding["message"]
    ids = {e.id for e in shared.published(2) if unique in e.id}
    assert ids == {f"/app#{unique}-0", f"/app#{unique}-2"}


def test_batch_without_a_valid_event_is_answered_with_a_problem_and_the_results(shared) -> None:
    answer = shared.http.post("/v1/events", json=[event(kind="sneeze")])
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["findings"][0]["where"] == "events[0].type"
    assert answer.json()["results"][0]["status"] == "refused"


def test_empty_batch_is_accepted(shared) -> None:
    answer = shared.http.post("/v1/events", json=[])
    assert (answer.status_code, answer.json()) == (202, {"accepted": 0, "quarantined": 0, "refused": 0, "results": []})


@pytest.mark.parametrize("path", ["/v1/events", "/v1/items"])
@pytest.mark.parametrize(
    ("content", "status", "kind"),
    [
        (b"{", 400, "not-json"),
        (b"[NaN]", 400, "not-json"),
        (b"\xff", 400, "not-json"),
        (b"[" * 5000, 400, "not-json"),
        (b"7", 422, "invalid-input"),
        (b'{"things": []}', 422, "invalid-input"),
        (b"[" + b"0," * 1000 + b"0]", 413, "too-large"),
        (b'"' + b"x" * (9 << 20) + b'"', 413, "too-large"),
    ],
    ids=["cut", "nan", "not utf-8", "deep", "number", "other object", "too many", "too long"],
)
def test_body_that_is_no_batch_is_refused_as_a_whole(shared, path, content, status, kind) -> None:
    answer = shared.http.post(path, content=content, headers={"content-type": "application/json"})
    assert answer.status_code == status
    assert answer.json()["type"] == f"urn:mainstay:problem:{kind}"


def test_full_stream_is_answered_with_503_and_retry_after(serve) -> None:
    stream = FullStream(2)
    with serve(stream=stream) as service:
        answer = service.http.post("/v1/events", json=[event()])
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        assert "queue full" in answer.json()["detail"]
        accepted = 'mainstay_events_total{status="accepted"}'
        assert f"{accepted} " not in service.http.get("/metrics").text, "a refused event is not counted as accepted"
        stream.full = False
        assert service.http.post("/v1/events", json=[event()]).status_code == 202
        assert f"{accepted} 1.0" in service.http.get("/metrics").text


def test_stored_events_are_counted_although_the_request_timed_out(shared) -> None:
    stream, metrics = MemoryStream(1), Metrics()
    spool = DirectSpool(stream, "t")
    intake = EventIntake(spool, shared.services.control, Tokens(b"secret"), metrics, time.time)
    accepted = intake.events(json.dumps([event()]).encode())
    assert accepted.durable is not None

    async def time_out() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.wrap_future(accepted.durable), 0.01)

    asyncio.run(time_out())
    spool.start()
    spool.close(10)
    assert len(stream.read("t", 0, 0, 10)) == 1
    assert b'mainstay_events_total{status="accepted"} 1.0' in generate_latest(metrics._registry)


def test_attribution_token_ties_an_event_to_its_page(service) -> None:
    page = service.page("v1")
    sent = event(attributiontoken=page["attribution_token"])
    assert service.http.post("/v1/events", json=[sent]).status_code == 202
    (play,) = [e for e in service.published(2) if e.kind == "play"]
    assert (play.request_id, play.placement) == (page["request_id"], "cn.zj-mobile-home")
    for mismatch in ({"viewer": "v2"}, {"data": {"item_id": "item-1", "request_id": "another"}}):
        answer = service.http.post("/v1/events", json=[event(**mismatch, attributiontoken=page["attribution_token"])])
        assert answer.status_code == 422


def test_each_item_gets_a_result_and_valid_items_are_served(service, item) -> None:
    sent = [item(100), {"id": "x"}, item(0, summary={"en": "new"}), item(1), item(101, status="gone")]
    answer = service.http.post("/v1/items", json={"items": sent})
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert [v["change"] for v in results] == ["created", None, "updated", "unchanged", None]
    assert {f["where"] for f in results[1]["findings"]} == {
        "items[1].title",
        "items[1].outlet",
        "items[1].published_at",
    }
    assert results[4]["findings"][0]["where"] == "items[4].status"
    service.caught_up()
    assert "item-100" in service.services.holders.current.catalog.row_of
    assert service.http.get("/v1/items/item-0").json()["item"]["summary"] == {"en": "new"}
    assert service.http.get("/v1/items/none").status_code == 404


def test_whole_catalog_can_be_read(shared) -> None:
    from features.importers.catalog import read_items

    assert sorted(item.id for item in read_items(str(shared.http.base_url))) == sorted(f"item-{n}" for n in range(60))
    item_ids, token = [], None
    while True:
        page = shared.http.get("/v1/items", params={"page_size": 7, **({"page_token": token} if token else {})}).json()
        item_ids += [item["id"] for item in page["items"]]
        token = page["next_page_token"]
        if token is None:
            break
    assert len(item_ids) == len(set(item_ids)) == 60


def test_writes_need_the_admin_token_when_one_is_set(serve, item) -> None:
    with serve({"admin_token": "s3cret"}) as service:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic s3cret"}):
            answer = service.http.post("/v1/items", json=[item(1)], headers=headers)
            assert answer.status_code == 401
            assert answer.json()["code"] == ("token_wrong" if headers else "token_required")
            assert answer.json()["type"] == "urn:mainstay:problem:unauthorised"
        headers = {"Authorization": "Bearer s3cret", "X-Author": "importer"}
        assert service.http.post("/v1/items", json=[item(1)], headers=headers).status_code == 200
        assert service.http.get("/v1/audit", headers=headers).json()["entries"][0]["actor"] == "importer"
        assert service.http.post("/v1/events", json=[event()]).status_code == 202


def test_events_without_the_token_count_once_their_viewer_was_served_and_for_few_viewers_of_an_address(serve) -> None:
    with serve({"admin_token": "s3cret", "viewers_per_source": 2}) as service:

        def send(*sent: dict[str, object], token: str = "") -> int:
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            return service.http.post("/v1/events", json=list(sent), headers=headers).status_code

        assert send(event("a", viewer="v1", trust="trusted"), event("b", viewer="v2"), event("c", viewer="v3")) == 202
        assert send(event("d", viewer="v3", data={"item_id": "item-2"}), event("e", viewer="v1", kind="like")) == 202
        assert send(event("f", viewer="v3"), token="s3cret") == 202
        assert send(event("g", viewer="v4"), token="wrong") == 401
        trust = {stored.id.removeprefix("/app#"): stored.trust for stored in service.published(6)}
        assert trust == {"a": "anonymous", "b": "anonymous", "c": "excess", "d": "anonymous", "e": "anonymous",
                         "f": "trusted"}  # fmt: skip


def test_without_a_token_nobody_is_trusted(service) -> None:
    headers = {"Authorization": "Bearer anything"}
    assert service.http.post("/v1/events", json=[event("a")], headers=headers).status_code == 202
    assert [stored.trust for stored in service.published(1)] == ["anonymous"]


def test_events_from_the_future_are_quarantined_and_reported(service) -> None:
    """Events more than five minutes ahead of the server clock are durable but never folded into a state."""
    now = datetime.now(UTC)
    times = [now + timedelta(minutes=6), now + timedelta(days=3653), now - timedelta(days=3653)]
    sent = [event(f"e{n}", time=time.isoformat()) for n, time in enumerate(times)]
    sent += [event("e3", time="9999-12-31T23:59:59Z"), event("e4", time="1970-01-01T00:00:00Z")]
    sent += [event("e5", time="2026-01-01T00:00:00"), event("e6", data={"item_id": "x", "position_s": "NaN"})]
    body = service.http.post("/v1/events", json=sent).json()
    statuses = [result["status"] for result in body["results"]]
    assert statuses == ["quarantined", "quarantined", "accepted", "quarantined", "accepted", "accepted", "refused"]
    assert (body["accepted"], body["quarantined"], body["refused"]) == (3, 3, 1)
    assert body["results"][0]["findings"][0]["where"] == "events[0].time"
    topic, stream = service.services.settings.topic, service.services.stream
    raws = [message.value for p in range(4) for message in stream.read(topic, p, 0, 100)]
    assert len(raws) == 6, "quarantined events are durable too"
    readable_ids = []
    for raw in raws:
        with suppress(EventError):
            readable_ids.append(decode(raw).id)
    assert sorted(readable_ids) == ["/app#e2", "/app#e4", "/app#e5"]
    text = service.http.get("/metrics").text
    assert 'mainstay_events_total{status="quarantined"} 3.0' in text
    answer = service.http.post("/v1/events", json=sent[:1])
    assert answer.status_code == 202, "a quarantined event is accepted"


@pytest.mark.parametrize("time", ["1970-01-01T00:00:00+08:00", "1969-07-20T20:17:40Z", "2026-01-01T00:00:00"])
def test_event_with_an_unusable_time_is_accepted_with_a_hint(shared, unique, time: str) -> None:
    segment = {"type": "track", "event": "Video Playback Started", "userId": "v", "messageId": unique,
               "timestamp": time, "properties": {"asset_id": "item-1"}}  # fmt: skip
    for url, sent in (("/v1/events", event(unique, time=time)), ("/v1/events?format=segment", segment)):
        (result,) = shared.http.post(url, json=[sent]).json()["results"]
        assert result["status"] == "accepted"
        assert [(finding["where"], finding["level"]) for finding in result["findings"]] == [("events[0].time", "hint")]
    (valid,) = shared.http.post("/v1/events", json=[event(unique, time="2026-01-01T00:00:00Z")]).json()["results"]
    assert valid.get("findings", []) == []


def test_batch_results_match_their_schema(shared) -> None:
    for batch in ([], [event("a")], [event("a", kind="x"), event("b")], [event("a", time="9999-01-01T00:00:00Z")]):
        answer = shared.http.post("/v1/events", json=batch)
        documented = TypeAdapter(BatchResult).validate_json(answer.content)
        assert TypeAdapter(BatchResult).dump_python(documented) == answer.json()


def test_event_that_is_not_utf8_does_not_affect_others(shared, unique) -> None:
    good = json.dumps(event(f"{unique}-0")).encode()
    batch = b"[" + good + b', {"id": "\xff"}, ' + good.replace(b"-0", b"-1") + b"]"
    answer = shared.http.post("/v1/events", content=batch, headers={"content-type": "application/json"})
    assert [result["status"] for result in answer.json()["results"]] == ["accepted", "refused", "accepted"]
    assert "not JSON" in answer.json()["results"][1]["findings"][0]["message"]


def test_segment_and_activitystreams_events_are_accepted(service) -> None:
    call = {
        "type": "track",
        "event": "Video Content Completed",
        "messageId": "m1",
        "userId": "v1",
        "properties": {"asset_id": "item-1"},
    }
    answer = service.http.post("/v1/events?format=segment", json=[call, {**call, "event": "Video Ad Started"}])
    assert [result["status"] for result in answer.json()["results"]] == ["accepted", "refused"]
    assert answer.json()["results"][1]["findings"][0]["where"] == "events[1].event"
    without_item = service.http.post("/v1/events?format=segment", json=[{**call, "properties": {}}])
    assert without_item.json()["findings"][0]["where"] == "events[0].properties.asset_id"
    activity = {"type": "Like", "id": "a1", "actor": "v1", "object": "item-2"}
    assert service.http.post("/v1/events?format=activitystreams", json={"events": [activity]}).status_code == 202
    assert sorted((e.id, e.kind, e.item_id) for e in service.published(2)) == [
        ("a1", "like", "item-2"),
        ("m1", "complete", "item-1"),
    ]
    collected = {"type": "OrderedCollection", "orderedItems": [activity | {"id": "a2"}]}
    for form, body in (
        ("segment", call | {"messageId": "m2"}),
        ("segment", {"batch": [call | {"messageId": "m3"}]}),
        ("activitystreams", activity | {"id": "a3"}),
        ("activitystreams", collected),
    ):
        assert service.http.post(f"/v1/events?format={form}", json=body).json()["accepted"] == 1
    assert {e.id for e in service.published(6)} >= {"a2", "a3", "m2", "m3"}
    for form, body in (("segment", {"batch": 7}), ("segment", {}), ("activitystreams", 3)):
        assert service.http.post(f"/v1/events?format={form}", json=body).status_code == 422
    assert service.http.post("/v1/events?format=xml", json=[]).status_code == 422


def test_client_cannot_forge_an_impression_of_the_engine(service) -> None:
    """No endpoint accepts an impression with a context, and the id of the engine's impression cannot be guessed."""
    page = service.page("v1")
    forged = {"items": ["item-1"], "context": {"targets": {"cn/a": [1.0, 1.0, 1]}}}
    sent = event(type="mainstay.viewer.impression", data=forged, attributiontoken=page["attribution_token"])
    spaced = json.dumps([sent | {"unknown": 1}]).encode()  # an unknown field selects the slower decoder
    for content in (json.dumps([sent]).encode(), spaced):
        answer = service.http.post("/v1/events", content=content, headers={"content-type": "application/json"})
        assert answer.status_code == 422
        assert "data.context" in answer.text
    confirmed = sent | {"data": {"items": ["item-1"]}, "id": f"page-{page['request_id']}"}
    assert service.http.post("/v1/events", json=[confirmed]).status_code == 202
    impressions = [event for event in service.published(2) if event.kind == "impression"]
    assert [bool(event.context) for event in impressions].count(True) == 1
    assert len({event.id for event in impressions}) == 2
    assert {event.request_id for event in impressions} == {page["request_id"]}
