"""The edge of the API: broken text, values of the wrong type, ids with any character, values that no store can hold."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum
from importlib import import_module
from importlib.resources import files
from typing import Annotated, Any
from urllib.parse import quote

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError
from sqlalchemy import make_url

from features.state.codec import encode_viewer, viewer_key
from recsys.domain.item import Item, Window
from recsys.domain.viewer import ViewerState
from recsys.guidance.policy.conditions import Condition, Range
from recsys.guidance.policy.controls import PolicyModel
from recsys.guidance.policy.schedule import Active
from serving.schemas.resources import RequestModel

EVENT = {
    "specversion": "1.0",
    "id": "e",
    "source": "/app",
    "type": "mainstay.viewer.play",
    "subject": "v1",
    "data": {"item_id": "item-1", "session_id": "tv-1"},
}
CALL = {
    "type": "track",
    "event": "Video Content Started",
    "messageId": "m",
    "userId": "v1",
    "properties": {"asset_id": "item-1", "session_id": "tv-1"},
}
ACTIVITY = {"type": "Like", "id": "a1", "actor": "v1", "object": {"id": "item-1", "name": "tv-1"}}
ITEM = {"id": "broken-1", "title": {"en": "tv-1"}, "outlet": "cn", "published_at": "2026-01-01T00:00:00Z"}

BATCHES = {
    "/v1/events": ("events", EVENT),
    "/v1/events?format=segment": ("batch", CALL),
    "/v1/events?format=activitystreams": ("items", ACTIVITY),
    "/v1/items": ("items", ITEM),
}


@pytest.mark.parametrize("wrapped", [False, True], ids=["list", "object"])
@pytest.mark.parametrize("broken", [rb"tv-\ud83d", rb"\udc00", b"tv-\xf0\x9f", b"\xd4\xc4", b"\xed\xa0\xbd"])
@pytest.mark.parametrize("path", BATCHES)
def test_broken_text_refuses_only_its_entry(shared, path: str, broken: bytes, wrapped: bool) -> None:
    """Half of a surrogate pair, bytes that are not UTF-8: as a value and as the name of a field."""
    name, entry = BATCHES[path]
    good = json.dumps(entry).encode()
    as_value = good.replace(b"tv-1", broken)
    as_name = b'{"' + broken + b'": 1, ' + good[1:]
    body = b"[" + b",".join([good, as_value, good, as_name]) + b"]"
    if wrapped:
        body = b'{"' + name.encode() + b'": ' + body + b"}"
    answer = shared.http.post(path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (200, 202), answer.text
    results = answer.json()["results"]
    assert [result["status"] for result in results] == ["accepted", "refused", "accepted", "refused"]
    assert all(finding["where"].startswith(f"{'items' if path == '/v1/items' else 'events'}[{index}]")
               for index in (1, 3) for finding in results[index]["findings"])  # fmt: skip


def operations(schema: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            if "requestBody" in operation:
                yield method, path, operation["requestBody"]["content"]["application/json"]


def resolved(schema: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in schema:
        target: Any = document
        for part in schema["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        return resolved(target, document)
    for option in schema.get("anyOf", ()):
        if resolved(option, document).get("type") != "null":
            return resolved(option, document)
    return schema


def test_every_reference_in_the_openapi_resolves(shared) -> None:
    document = shared.http.get("/openapi.json").json()

    def references(part: Any) -> Iterator[dict[str, Any]]:
        if isinstance(part, dict):
            if isinstance(part.get("$ref"), str):
                yield {"$ref": part["$ref"]}
            for member in part.values():
                yield from references(member)
        elif isinstance(part, list):
            for member in part:
                yield from references(member)

    all_references = list(references({**document, "examples": None}))
    assert len(all_references) > 50
    for reference in all_references:
        assert resolved(reference, document) is not None


@pytest.mark.parametrize("broken", [rb"\ud83d", rb"a\u0000"], ids=["half of a pair", "nul"])
def test_no_text_of_a_body_can_fail_the_service(shared, broken: bytes) -> None:
    """Each text field of each body, and an unknown field, with text that the store cannot hold."""
    document = shared.http.get("/openapi.json").json()
    checked = 0
    for method, path, content in operations(document):
        url = re.sub(r"{placement_id}", "cn-tv-home", re.sub(r"{outlet}", "cn", path))
        url = re.sub(r"{\w+}", "nowhere", url)
        fields = resolved(content["schema"], document).get("properties", {})
        bodies = [{"@@": 1}]
        bodies += [{name: value} for name in fields for value in ("@@", {"en": "@@"}, {"@@": "x"})]
        required = {"author": "a", "id": "b", "viewer_id": "v", "name": {}, "version": 1, "until": END, "amount": 1}
        example = content.get("example") or {name: required[name] for name in required if name in fields}
        for body in bodies:
            raw = json.dumps({**example, **body}).encode().replace(b"@@", broken)
            answer = shared.http.request(method, url, content=raw, headers={"content-type": "application/json"})
            ignored = body == {"@@": 1} and path in ("/v1/events", "/v1/items")  # beside the list of entries
            assert answer.status_code in (400, 404, 422) or ignored or path.endswith("lint"), (
                f"{method} {url} {raw!r}: {answer.status_code} {answer.text}"
            )
            answer.content.decode()
            checked += 1
    assert checked > 100


def models() -> Iterator[type[BaseModel]]:
    for name in ("serving.api.routes.policies", "serving.schemas.targets", "serving.schemas.previews"):
        import_module(name)
    waiting: list[type[BaseModel]] = [Item, Window, PolicyModel, Condition, Range, Active, RequestModel]
    while waiting:
        model = waiting.pop()
        waiting += model.__subclasses__()
        if "Query" not in model.__name__:
            yield model


VALUES: list[Any] = [
    True,
    False,
    0,
    1,
    2,
    12.0,
    0.5,
    "1",
    "0.5",
    "true",
    "yes",
    "on",
    "12",
    1_900_000_000,
    "1900000000",
]


def test_no_field_of_a_body_converts_a_value() -> None:
    """A field that accepts a value keeps it as it is: texts become only times and terms, whole numbers only numbers."""
    models_ = list(models())
    assert {"PageRequest", "AmountChange", "CloneRequest", "PublishRequest", "Item", "Quota"} <= {
        m.__name__ for m in models_
    }
    for model in models_:
        for name, field in model.model_fields.items():
            adapter = TypeAdapter(Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation)
            for value in VALUES:
                for sent in (value, [value], {"x": value}):
                    try:
                        accepted = adapter.validate_python(sent)
                    except ValidationError:
                        continue
                    for a, b in zip(leaves(sent), leaves(accepted), strict=True):
                        same = type(a) is type(b) or (type(a) is int and type(b) is float)
                        assert same or isinstance(b, datetime | StrEnum), f"{model.__name__}.{name}: {a!r} -> {b!r}"


@pytest.mark.parametrize(
    ("field", "value"),
    [("duration_s", "12"), ("duration_s", True), ("age_rating", 12.0), ("age_rating", False), ("axes", {"a": "0.5"}),
     ("axes", {"a": True}), ("published_at", 20991231), ("rights", [{"start": "20991231"}])],
)  # fmt: skip
def test_no_field_of_an_item_that_is_sent_converts_a_value(shared, field: str, value: object) -> None:
    """The reader of a batch validates items as strictly as `Item` does."""
    answer = shared.http.post("/v1/items", json=[ITEM, {**ITEM, "id": "broken-2", field: value}])
    assert [result["status"] for result in answer.json()["results"]] == ["accepted", "refused"], answer.text
    assert answer.json()["results"][1]["findings"][0]["where"].startswith(f"items[1].{field}")


def leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for member in value.values() for leaf in leaves(member)]
    return [leaf for member in value for leaf in leaves(member)] if isinstance(value, list | tuple) else [value]


@pytest.mark.parametrize("value", ["1_0", " 10", "1e1", "0x10", "１０", "10.0", "true", "+10"])
def test_a_number_in_the_query_is_written_in_digits(shared, value: str) -> None:
    answer = shared.http.get("/v1/items", params={"page_size": value})
    assert (answer.status_code, answer.json()["findings"][0]["where"]) == (422, "query.page_size")


@pytest.mark.parametrize("broken", ["%C1%D6", "a%ff", "%ED%A0%BD"])
def test_a_query_that_is_not_utf8_is_refused(shared, broken: str) -> None:
    answer = shared.http.post(
        f"/v1/policies/cn/draft?author={broken}", content="outlet: cn", headers={"content-type": "application/yaml"}
    )
    assert (answer.status_code, answer.json()["findings"][0]["where"]) == (422, "query.author")


END = "2099-01-01T00:00:00Z"
PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))
IDS = [
    "https://tv.example/v/1", "/v/1", "v/1/", "a//b", "a/pause", "a/export", "x/:recommend", "a:recommend", "...",
    "./a", "a/..", "a/../b", "?q=1", "#x", "a%2Fb", "100%", "%", "\\", "新闻/地方", "café", "🎬",
    PRINTABLE, PRINTABLE[::-1],
]  # fmt: skip


def test_every_accepted_id_of_an_item_or_a_viewer_works_on_every_route(serve, item) -> None:
    with serve() as service:
        sent = [item(n, id=id_) for n, id_ in enumerate(IDS)]
        answer = service.http.post("/v1/items", json={"items": sent})
        assert [result["status"] for result in answer.json()["results"]] == ["accepted"] * len(IDS)
        service.caught_up()
        events = [{**EVENT, "id": id_, "subject": id_, "data": {"item_id": id_}} for id_ in IDS]
        assert service.http.post("/v1/events", json=events).json()["accepted"] == len(IDS)
        states = {viewer_key(id_): encode_viewer(ViewerState(id_)) for id_ in IDS}
        service.services.online.put(states)
        for id_ in IDS:
            path = quote(id_, safe="")
            assert service.http.get(f"/v1/items/{path}").json()["item"]["id"] == id_
            assert service.page(viewer=id_)["items"]
            first, *_ = service.http.get(f"/v1/viewers/{path}/export").text.splitlines()
            assert json.loads(first)["state"]["viewer_id"] == id_
            assert service.http.delete(f"/v1/viewers/{path}").json()["state"] is True


def test_every_accepted_id_of_a_target_works_on_every_route(serve, until) -> None:
    target = {"action": "exposure_target", "where": {"label": "film"}, "impressions": 9, "until": END}
    ids = [id_.replace("@", "") for id_ in IDS]
    policy = {"outlet": "cn", "controls": [{**target, "id": id_} for id_ in ids]}
    with serve() as service:
        service.stock(20, json.dumps(policy))
        until(lambda: len(service.services.targets.running) == len(ids))
        for index, id_ in enumerate(ids):
            path = f"/v1/targets/cn/{quote(id_, safe='')}"
            for verb, fields in (("amount", {"amount": 5}), ("pause", {}), ("resume", {}), ("stop", {})):
                answer = service.http.post(f"{path}/{verb}", json={"author": "a", **fields})
                assert answer.status_code == 204, f"{verb} {id_}: {answer.text}"
            clone = {"author": "a", "id": f"clone-{index}", "until": END}
            assert service.http.post(f"{path}/clone", json=clone).status_code == 201
        service.services.targets.step()
        for id_ in ids:
            report = service.http.get(f"/v1/targets/cn/{quote(id_, safe='')}").json()
            assert (report["id"], report["stopped"]) == (id_, True)


@pytest.mark.parametrize("id_", [".", "..", " ", "a b", "a\n", "a\u200b", "\x00", ""])
def test_an_id_that_no_route_can_name_is_refused(shared, item, id_: str) -> None:
    assert shared.http.post("/v1/items", json={"items": [item(1, id=id_)]}).status_code == 422
    page = shared.http.post("/v1/placements/cn-tv-home:recommend", json={"viewer_id": id_})
    assert (page.status_code, page.json()["findings"][0]["where"]) == (422, "body.viewer_id")
    for field in ("subject", "item_id"):
        data = {"item_id": id_ if field == "item_id" else "a"}
        event = {**EVENT, "subject": id_ if field == "subject" else "a", "data": data}
        answer = shared.http.post("/v1/events", json=[event])
        where = "events[0].subject" if field == "subject" else "events[0].data.item_id"
        assert (answer.status_code, answer.json()["findings"][0]["where"]) == (422, where)


def test_an_id_in_another_normal_form_is_the_same_id(service, item) -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    service.http.post("/v1/items", json={"items": [item(1, id=decomposed)]}).raise_for_status()
    assert service.http.get(f"/v1/items/{quote(decomposed)}").json()["item"]["id"] == composed
    service.http.post("/v1/events", json=[{**EVENT, "subject": decomposed, "data": {"item_id": decomposed}}])
    (event,) = service.published(1)
    assert (event.viewer_id, event.item_id) == (composed, composed)
    both = [{**EVENT, "type": "mainstay.viewer.impression", "data": {"items": [composed, decomposed]}}]
    assert "twice" in service.http.post("/v1/events", json=both).json()["findings"][0]["message"]


def test_every_id_in_a_path_of_the_console_is_encoded() -> None:
    codes = {"outlet", "code", "action", "method", "target.outlet", "pathOf(target)"}
    codes |= {f"selection.{part}" for part in ("outlet", "screen", "surface")}
    checked = 0
    for file in files("serving.console").iterdir():
        if file.name.endswith(".js"):
            for path in re.findall(r"`(?:/v1/|\$\{pathOf)[^`]*`", file.read_text("utf-8")):
                for part in re.findall(r"\$\{((?:[^{}]|\{[^}]*\})*)\}", path):
                    assert part in codes or part.startswith("encodeURIComponent("), f"{file.name}: {path}"
                    checked += 1
    assert checked > 10


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_what_the_store_cannot_hold_is_invalid_or_not_found(serve, item, request, unique, database: str) -> None:
    settings = {}
    if database == "postgres":
        url = make_url(request.getfixturevalue("postgres_url")).set(drivername="postgresql+psycopg")
        settings["control"] = url.update_query_dict({"schema": unique}).render_as_string(hide_password=False)
    change = {"author": "a", "note": ""}
    with serve(settings) as service:
        service.stock(1, "outlet: cn")
        for number in (2**31, 2**63, 2**64, 10**100):
            for verb in ("publish", "rollback"):
                for field in ("version", "base_version"):
                    body = {**change, "version": 1, field: number}
                    del body["note"]
                    answer = service.http.post(f"/v1/policies/cn/{verb}", json=body)
                    assert answer.status_code == 422, answer.text
            draft = {**change, "text": "outlet: cn", "base_version": number}
            assert service.http.post("/v1/policies/cn/draft", json=draft).status_code == 422
            assert service.http.post("/v1/policies/cn/preview", json={"version": number}).status_code == 422
            yaml = {"params": {"base_version": number}, "headers": {"content-type": "application/yaml"}}
            assert service.http.post("/v1/policies/cn/draft", content="outlet: cn", **yaml).status_code == 422
        for text in ("\x00", "a\x00b"):
            assert service.http.get(f"/v1/items/{quote(text)}").status_code == 404
            assert service.http.post("/v1/items", json={"items": [item(1, id=text)]}).status_code == 422
            assert service.http.put("/v1/outlets/cn", json={"name": {"en": text}}).status_code == 422
            assert service.http.put("/v1/outlets/cn", json={"name": {}, "author": text}).status_code == 422
            draft = {**change, "text": "outlet: cn"}
            for field in ("author", "note", "text"):
                assert service.http.post("/v1/policies/cn/draft", json={**draft, field: text}).status_code == 422
            yaml = {"params": {"author": text}, "headers": {"content-type": "application/yaml"}}
            assert service.http.post("/v1/policies/cn/publish", content="outlet: cn", **yaml).status_code == 422
