"""Errors follow RFC 9457, the OpenAPI document is complete, and the console loads no external files."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import get_args

import pytest

from recsys.domain.errors import Level
from recsys.domain.item import KINDS
from recsys.domain.placement import Screen, Surface
from recsys.guidance.policy.controls import Attribute, Enforcement
from recsys.guidance.policy.schedule import DAYS
from recsys.guidance.receipt.control_report import Status as ReceiptStatus
from recsys.pacing.status import Status

CONSOLE = [file.name for file in files("serving.console").iterdir() if file.name.endswith((".js", ".css"))]
METHODS = {"get", "post", "put", "delete", "patch"}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nowhere", 404), ("DELETE", "/v1/items", 405), ("GET", "/v1/items?page_size=0", 422)],
)
def test_every_error_is_a_problem(shared, method: str, path: str, status: int) -> None:
    answer = shared.http.request(method, path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == status
    assert body["type"].startswith("urn:mainstay:problem:")
    assert body["instance"] == path.partition("?")[0]
    assert {"title", "detail", "findings"} <= body.keys()
    if status == 405:
        assert "GET" in answer.headers["allow"] or "POST" in answer.headers["allow"]


def test_an_unexpected_error_is_a_problem_without_internal_details(service, monkeypatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(service.services.control, "item", broken)
    answer = service.http.get("/v1/items/item-1")
    assert answer.status_code == 500
    assert answer.json()["type"] == "urn:mainstay:problem:internal"
    assert "secret" not in answer.text


def operations(schema):
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            if method in METHODS:
                yield f"{method.upper()} {path}", operation


def test_every_route_has_a_summary_an_example_of_its_body_and_its_errors(shared) -> None:
    schema = shared.http.get("/openapi.json").json()
    components = schema["components"]["schemas"]
    documented = dict(operations(schema))
    assert len(documented) >= 18
    for name, operation in documented.items():
        assert operation.get("summary"), name
        assert operation.get("tags"), name
        errors = {status for status in operation["responses"] if status >= "400"}
        takes_input = "parameters" in operation or "requestBody" in operation
        assert ("422" in errors) == takes_input, name
        for status in errors - {"503"} if "health" in name else errors:
            content = operation["responses"][status]["content"]
            assert "application/problem+json" in content, f"{name} {status}"
        for content in operation.get("requestBody", {}).get("content", {}).values():
            if "example" in content:
                continue
            body = components[content["schema"]["$ref"].rpartition("/")[2]]
            shown = {field for field, schema in body["properties"].items() if "examples" in schema}
            assert "examples" in body or (shown and shown >= set(body.get("required", ()))), name


def test_every_error_status_is_documented_in_the_openapi(shared) -> None:
    """Requests with unknown names in the path and with empty bodies."""
    statuses = set()
    for name, operation in operations(shared.http.get("/openapi.json").json()):
        method, path = name.split(" ")
        if not path.startswith("/v1/") or method == "DELETE":
            continue
        answer = shared.http.request(
            method, re.sub(r"{\w+}", "nowhere", path), json={} if "requestBody" in operation else None
        )
        assert str(answer.status_code) in operation["responses"], f"{name}: {answer.text}"
        statuses.add(answer.status_code)
    assert {404, 422} <= statuses


def test_every_reference_in_the_openapi_exists(shared) -> None:
    text = shared.http.get("/openapi.json").text
    components = shared.http.get("/openapi.json").json()["components"]["schemas"]
    for name in set(re.findall(r'"#/components/schemas/([^"]+)"', text)):
        assert name in components


def test_the_console_loads_no_external_files(shared) -> None:
    page = shared.http.get("/console")
    assert page.status_code == 200
    assert "default-src 'self'" in page.headers["content-security-policy"]
    linked = re.findall(r'(?:src|href)="([^"#]+)"', page.text)
    assert len([link for link in linked if link.startswith("/console/static/")]) == 2
    for name in CONSOLE:
        asset = shared.http.get(f"/console/static/{name}")
        assert asset.status_code == 200
        assert "://" not in asset.text
        for module in re.findall(r'from "\./([^"]+)"', asset.text):
            assert shared.http.get(f"/console/static/{module}").status_code == 200
    assert all(link.startswith(("/console/static/", "data:")) for link in linked)
    assert shared.http.get("/console/static/routes.py").status_code == 404


def test_every_label_of_the_console_exists_in_both_languages() -> None:
    folder = files("serving.console")
    labels = dict(
        re.findall(
            r'^  "?([\w. ]+?)"?: \[\s*("[^"]+",\s*"[^"]+")', folder.joinpath("labels.js").read_text("utf-8"), re.M
        )
    )
    for texts in labels.values():
        assert re.search("[一-鿿。；、]", texts.rsplit('"', 2)[1]), texts
    page = folder.joinpath("console.html").read_text("utf-8")
    used = set(re.findall(r'data-label="(\w+)"', page))
    for name in CONSOLE:
        used |= set(re.findall(r'label\("(\w+)"', folder.joinpath(name).read_text("utf-8")))
    used |= {f"enforcement_{level}" for level in get_args(Enforcement)}
    used |= set(get_args(Status)) | set(get_args(ReceiptStatus))
    kinds = {"screen": Screen, "surface": Surface, "kind": KINDS, "of": get_args(Attribute), "level": get_args(Level)}
    kinds |= {"action": ("boost", "block", "pin", "quota", "cap", "spacing", "exposure_target"), "day": DAYS}
    used |= {f"{kind}_{value}" for kind, values in kinds.items() for value in values}
    actions = ("policy.draft", "policy.publish", "policy.rollback", "items.upsert", "outlet.put")
    used |= {
        f"audit_{action}"
        for action in (*actions, *(f"target.{name}" for name in ("pause", "resume", "stop", "amount")))
    }
    assert not used - labels.keys()


def test_the_console_offers_viewers_with_stored_state(service) -> None:
    from features.state.codec import encode_viewer, viewer_key
    from recsys.domain.viewer import Recent, ViewerState

    states = [ViewerState(f"v{n}", tuple(Recent("item-1", "play", 1.0) for _ in range(n))) for n in range(4)]
    service.services.online.put({viewer_key(state.viewer_id): encode_viewer(state) for state in states})
    choices = service.http.get("/console/choices").json()
    assert [viewer["id"] for viewer in choices["viewers"]] == ["v3", "v2", "v1", "v0"]
    assert "tv" in choices["screens"]


LISTS = {
    "/v1/items": ("items", "id"),
    "/v1/outlets": ("outlets", "code"),
    "/v1/profiles": ("profiles", "name"),
    "/v1/audit": ("entries", "seq"),
    "/v1/audit?order=newest": ("entries", "seq"),
    "/v1/vocabulary": ("terms", "name"),
    "/v1/policies/cn/history": ("versions", "version"),
    "/v1/targets": ("targets", "id"),
}


@pytest.mark.parametrize("path", LISTS)
def test_a_list_read_page_by_page_is_the_whole_list(shared, path: str) -> None:
    noun, key = LISTS[path]
    url = path + ("&" if "?" in path else "?")
    whole = shared.http.get(f"{url}page_size=1000").json()
    assert whole["next_page_token"] is None
    entries: list[object] = []
    token: str | None = ""
    while token is not None:
        page = shared.http.get(f"{url}page_size=2{f'&page_token={token}' if token else ''}").json()
        assert len(page[noun]) <= 2
        entries += page[noun]
        token = page["next_page_token"]
    assert [entry[key] for entry in entries] == [entry[key] for entry in whole[noun]]


@pytest.mark.parametrize("path", [path for path in LISTS if "?" not in path])
def test_a_list_rejects_page_tokens_of_other_lists(shared, path: str) -> None:
    other_path = "/v1/items" if path != "/v1/items" else "/v1/profiles"
    foreign = shared.http.get(other_path, params={"page_size": 1}).json()["next_page_token"]
    for token, reason in ((foreign, "another list"), ("7", "invalid signature"), ("", "not a token")):
        answer = shared.http.get(path, params={"page_token": token})
        assert (answer.status_code, answer.json()["type"]) == (400, "urn:mainstay:problem:page-token-error")
        (finding,) = answer.json()["findings"]
        assert finding["where"] == "query.page_token"
        assert reason in finding["message"]
    for size in (0, 1001):
        assert shared.http.get(path, params={"page_size": size}).status_code == 422
    unknown = shared.http.get(path, params={"limit": 1}).json()["findings"]
    assert unknown[0]["where"] == "query.limit"
