"""Names in `Host` and `Origin`, content types, and text in headers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from features.settings import Settings
from serving.edge.callers import Names, refusal
from serving.edge.header_text import HeaderText
from serving.edge.media_types import kind_of

NAMES = st.sampled_from(["localhost", "127.0.0.1", "127.8.8.8", "[::1]", "tv.example", "a.tv.example", "evil.example"])
PORTS = st.sampled_from(["", ":80", ":8080", ":443"])


@given(NAMES, PORTS, st.none() | st.tuples(st.sampled_from(["http", "https"]), NAMES, PORTS))
def test_only_known_names_and_the_same_origin_are_allowed(name: str, port: str, origin) -> None:
    loopback = name in ("localhost", "127.0.0.1", "127.8.8.8", "[::1]")
    is_known = loopback or name.endswith("tv.example")
    is_same = origin is None
    if origin is not None:
        default = {"http": ":80", "https": ":443"}[origin[0]]
        is_same = (origin[1], origin[2] or default) == (name, port or default)
    sent = None if origin is None else f"{origin[0]}://{origin[1]}{origin[2]}"
    names = Names("10.0.0.1", "tv.example,*.tv.example")
    assert (refusal(name + port, sent, names) is None) == (is_known and is_same)


@given(st.text(max_size=30), st.none() | st.text(max_size=30))
def test_any_other_text_in_host_is_refused(host: str, origin: str | None) -> None:
    """`localhost` and loopback addresses cannot be spelled with other characters."""
    if refusal(host, origin, Names("127.0.0.1")) is None:
        assert set(host.lower()) <= set("localhost127.0:[]1234567890abcdef")


@given(
    st.sampled_from(["application/json", "application/cloudevents-batch+json", "text/yaml", "text/plain", "text/html"]),
    st.booleans(),
    st.sampled_from(["", "; charset=utf-8", ";charset=UTF-8", '; charset="utf-8"', "; profile=x; charset=utf8", "; q"]),
)
def test_case_and_parameters_of_a_content_type_do_not_matter(name: str, upper: bool, parameters: str) -> None:
    expected = "json" if name.endswith("json") else "yaml" if name.endswith("yaml") else "other"
    assert kind_of((name.upper() if upper else name) + parameters) == expected
    assert kind_of(f"{name}; charset=gbk") == "other"


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=50))
def test_text_in_a_header_is_read_as_it_was_sent(text: str) -> None:
    received = text.encode().decode("latin-1")  # as the framework passes it on
    assert TypeAdapter(HeaderText).validate_python(received) == text


@pytest.mark.parametrize("raw", ["Müller".encode("latin-1"), "林越".encode("gbk")])
def test_a_header_in_another_encoding_is_refused(shared, item, raw: bytes) -> None:
    answer = shared.http.post("/v1/items", json=[item(0)], headers={b"X-Author": raw})
    assert answer.status_code == 422
    (finding,) = answer.json()["findings"]
    assert (finding["where"], finding["message"]) == ("header.X-Author", "is not UTF-8 text")


def test_the_author_in_the_audit_trail_is_the_one_of_the_header(service, item) -> None:
    answer = service.http.post("/v1/items", json=[item(900)], headers={b"X-Author": "林越".encode()})
    assert answer.status_code == 200
    assert service.http.get("/v1/audit?order=newest&page_size=1").json()["entries"][0]["actor"] == "林越"


@given(st.text(min_size=1, max_size=20))
def test_every_token_that_is_accepted_can_be_sent(token: str) -> None:
    """RFC 9110: a header value consists of visible ASCII characters; blanks at its ends are no part of it."""
    sendable = token.isascii() and token.isprintable() and " " not in token
    if sendable:
        assert Settings(admin_token=token).admin_token == token
    else:
        with pytest.raises(ValidationError, match="browsers cannot send"):
            Settings(admin_token=token)
