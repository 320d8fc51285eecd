"""Errors as RFC 9457, an OpenAPI that leaves nothing unsaid, and a console that needs nobody else."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import get_args

import pytest

from recsys.catalog import KINDS
from recsys.errors import Level
from recsys.guidance.policy import Attribute, Hardness
from recsys.guidance.receipt import Status as ReceiptStatus
from recsys.guidance.schedule import DAYS
from recsys.guidance.targets.words import Status
from recsys.types import Screen, Surface

CONSOLE = [file.name for file in files("serving.console").iterdir() if file.name.endswith((".js", ".css"))]
METHODS = {"get", "post", "put", "delete", "patch"}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nowhere", 404), ("DELETE", "/v1/items", 405), ("GET", "/v1/items?limit=0", 422)],
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


def test_an_unforeseen_error_is_a_problem_that_gives_nothing_away(service, monkeypatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("secret of the house")

    monkeypatch.setattr(service.parts.control, "item", broken)
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
    named = schema["components"]["schemas"]
    said = dict(operations(schema))
    assert len(said) >= 18
    for name, operation in said.items():
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
            body = named[content["schema"]["$ref"].rpartition("/")[2]]
            shown = {field for field, schema in body["properties"].items() if "examples" in schema}
            assert "examples" in body or (shown and shown >= set(body.get("required", ()))), name


def test_every_refusal_is_one_that_the_openapi_names(shared) -> None:
    """Unknown names in the path, and bodies that lack every field."""
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
    named = shared.http.get("/openapi.json").json()["components"]["schemas"]
    for name in set(re.findall(r'"#/components/schemas/([^"]+)"', text)):
        assert name in named


def test_the_console_needs_nothing_from_elsewhere(shared) -> None:
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


def test_the_console_says_everything_in_both_languages() -> None:
    folder = files("serving.console")
    words = dict(
        re.findall(
            r'^  "?([\w. ]+?)"?: \[\s*("[^"]+",\s*"[^"]+")', folder.joinpath("words.js").read_text("utf-8"), re.M
        )
    )
    for both in words.values():
        assert re.search("[一-鿿。；、]", both.rsplit('"', 2)[1]), both
    page = folder.joinpath("console.html").read_text("utf-8")
    used = set(re.findall(r'data-word="(\w+)"', page))
    for name in CONSOLE:
        used |= set(re.findall(r'(?:say\.)?word\("(\w+)"\)', folder.joinpath(name).read_text("utf-8")))
    used |= {f"hardness_{one}" for one in get_args(Hardness)} | set(get_args(Status)) | set(get_args(ReceiptStatus))
    kinds = {"screen": Screen, "surface": Surface, "kind": KINDS, "of": get_args(Attribute), "level": get_args(Level)}
    kinds |= {"action": ("boost", "block", "pin", "share", "cap", "space", "exposure_target"), "day": DAYS}
    used |= {f"{kind}_{one}" for kind, all_of_it in kinds.items() for one in all_of_it}
    acts = ("policy.draft", "policy.publish", "policy.rollback", "items.upsert", "outlet.put")
    used |= {f"did_{one}" for one in (*acts, *(f"target.{one}" for one in ("pause", "resume", "stop", "amount")))}
    assert not used - words.keys()


def test_the_console_offers_viewers_of_whom_something_is_known(service) -> None:
    from features.codec import encode_viewer, viewer_key
    from recsys.state import Recent, ViewerState

    states = [ViewerState(f"v{n}", tuple(Recent("item-1", "play", 1.0) for _ in range(n))) for n in range(4)]
    service.parts.online.put({viewer_key(state.viewer_id): encode_viewer(state) for state in states})
    choices = service.http.get("/console/choices").json()
    assert [viewer["id"] for viewer in choices["viewers"]] == ["v3", "v2", "v1", "v0"]
    assert "tv" in choices["screens"]
