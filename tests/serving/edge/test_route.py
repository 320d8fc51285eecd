"""Requests are refused before their body is read: by name and origin, then by token, content type and size."""

from __future__ import annotations

import gzip
import itertools
import zlib
from collections.abc import Iterator

import pytest
from fastapi.routing import APIRoute

from serving.edge.body import DEFAULT_LIMIT, LIMITS
from serving.edge.route import EdgeRoute

HOST = {"host": "127.0.0.1:8080"}
JSON = {**HOST, "content-type": "application/json"}
CHUNK = 16 << 10
VIEWER_READS = ("/v1/viewers/viewer_id/export", "/console/choices", "/v1/audit")


def writes(edge) -> list[tuple[str, str]]:
    return [(method, path) for method, path, _ in edge.operations() if method != "GET"]


def with_body(edge) -> list[tuple[str, str]]:
    operations = [(method, path) for method, path in writes(edge) if method != "DELETE"]
    assert len(operations) >= 14
    return operations


def limit_of(path: str) -> int:
    return LIMITS.get(path.replace("cn-tv-home", "{placement_id}").replace("/cn/", "/{outlet}/"), DEFAULT_LIMIT)


def protected(edge) -> list[tuple[str, str]]:
    return [*writes(edge), *(("GET", path) for path in VIEWER_READS)]


def test_every_route_checks_requests_before_it_reads_them() -> None:
    from serving.app import ROUTERS

    routes = [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]
    assert len(routes) > 25
    assert not [route.path for route in routes if not isinstance(route, EdgeRoute)]


def test_a_request_without_the_token_is_refused_before_its_body_is_read(guarded) -> None:
    public = {("POST", "/v1/events"), ("POST", "/v1/placements/cn-tv-home:recommend")}
    refused = [operation for operation in protected(guarded) if operation not in public]
    assert len(refused) >= 16
    for method, path in refused:
        for token in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic s3cret"}):
            assert guarded.send(method, path, {**JSON, "content-length": "150000000", **token}).status == 401, path


def test_a_foreign_page_or_name_is_refused_before_the_body_is_read(edge) -> None:
    foreign = [
        {"host": "evil.example"},  # a DNS name that was changed to the service's address
        {"host": "127.0.0.1:8080", "origin": "http://evil.example"},
        {"host": "127.0.0.1:8080", "origin": "http://127.0.0.1:3000"},  # another program on this machine
        {"host": "127.0.0.1:8080", "origin": "null"},
        {},
    ]
    for method, path in protected(edge):
        for headers in foreign:
            answer = edge.send(method, path, {"content-type": "application/json", "content-length": "9", **headers})
            assert answer.status == 403, f"{method} {path} {headers}"
            assert answer.json()["type"] == "urn:mainstay:problem:forbidden"


def test_names_of_the_allow_lists_are_accepted(edge_of) -> None:
    app = edge_of(allowed_hosts="api.example, *.tv.example", allowed_origins="https://desk.example")
    for headers, status in (
        ({"host": "api.example"}, 422),
        ({"host": "www.tv.example:80"}, 422),
        ({"host": "api.example", "origin": "https://desk.example"}, 422),
        ({"host": "api.example", "origin": "https://api.example"}, 422),
        ({"host": "tv.example"}, 403),
        ({"host": "api.example", "origin": "https://other.example"}, 403),
    ):
        answer = app.send("POST", "/v1/policies/cn/publish", {**headers, "content-type": "application/json"}, [b"{}"])
        assert answer.status == status, headers


def test_a_body_of_another_content_type_is_refused_before_it_is_read(edge) -> None:
    types = ["text/plain; charset=yaml", "application/x-www-form-urlencoded", "multipart/form-data; boundary=json", "",
             "text/json", "application/json; charset=gbk", "yaml", "application/xml"]  # fmt: skip
    for method, path in with_body(edge):
        takes_yaml = path.endswith(("/lint", "/draft", "/publish"))
        for sent in [*types, *([] if takes_yaml else ["application/yaml"])]:
            answer = edge.send(method, path, {**HOST, "content-type": sent, "content-length": "9"})
            assert answer.status == 415, f"{path} {sent}"
            assert answer.json()["findings"][0]["where"] == "header.content-type"


def test_another_content_coding_is_refused_before_the_body_is_read(edge) -> None:
    for (method, path), coding in itertools.product(with_body(edge), ("br", "deflate", "zstd", "gzip, gzip", "x")):
        answer = edge.send(method, path, {**JSON, "content-encoding": coding, "content-length": "9"})
        assert (answer.status, answer.headers["accept-encoding"]) == (415, "gzip"), path
        assert answer.json()["findings"][0]["where"] == "header.content-encoding"


def test_a_body_is_read_up_to_the_limit_of_its_route(edge) -> None:
    for method, path in with_body(edge):
        limit = limit_of(path)
        assert edge.send(method, path, {**JSON, "content-length": str(limit + 1)}).status == 413, path
        answer = edge.send(method, path, JSON | {"transfer-encoding": "chunked"}, itertools.repeat(b"[" * CHUNK))
        assert (answer.status, answer.json()["type"]) == (413, "urn:mainstay:problem:too-large")
        assert answer.bytes_read <= limit + CHUNK


def test_a_body_is_decompressed_up_to_the_limit_of_its_route(edge) -> None:
    def endless() -> Iterator[bytes]:
        compressor = zlib.compressobj(wbits=31)
        while True:
            yield compressor.compress(b"[" * (1 << 20)) + compressor.flush(zlib.Z_SYNC_FLUSH)

    headers = JSON | {"transfer-encoding": "chunked", "content-encoding": "gzip"}
    for method, path in with_body(edge):
        answer = edge.send(method, path, headers, endless())
        assert answer.status == 413, path
        assert answer.bytes_read <= (limit_of(path) >> 20) * 1200 + 2400, (
            "a mebibyte is compressed to about 1,100 bytes"
        )


@pytest.mark.parametrize("path", ["/v1/items", "/v1/events", "/v1/policies/cn/draft", "/v1/policies/cn/rollback"])
def test_content_codings_and_byte_order_marks_do_not_change_the_answer(edge, path: str) -> None:
    """Broken and unusual bodies included: all routes have one parser."""
    bodies = [b'{"a": 1}', b"[]", b"", b"{", b'{"a": NaN}', '{"a": 1}'.encode("utf-16"), b"[" * 5000, b'"\xff"', b"7"]
    for body in bodies:
        plain = edge.send("POST", path, JSON | {"content-length": str(len(body))}, [body])
        for mark, pack in itertools.product((b"", b"\xef\xbb\xbf"), (bytes, gzip.compress)):
            if mark and not body:
                continue
            raw = pack(mark + body)
            coding = {"content-encoding": "GZIP"} if pack is gzip.compress else {}
            chunks = [raw[at : at + 3] for at in range(0, len(raw), 3)]
            kinds = {"content-type": "Application/JSON;charset=UTF-8"}
            answer = edge.send("POST", path, JSON | coding | kinds | {"transfer-encoding": "chunked"}, chunks)
            assert (answer.status, answer.json()) == (plain.status, plain.json()), body
        assert plain.status in (400, 422) or body == b"[]"
