"""A body is read as it was sent, whatever its coding and its chunks, or refused for the reason that applies."""

from __future__ import annotations

import asyncio
import gzip
from typing import Any

import pytest
from fastapi import Request
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import ClientDisconnect

from serving.edge.body import MEMBERS_MAX, read_body
from serving.schemas.problems import TooLarge, UnreadableBody

MARK = b"\xef\xbb\xbf"


def read(chunks: list[bytes], limit: int, coding: str = "", complete: bool = True) -> bytes:
    """Return the body of a request that arrives in these chunks."""
    messages: list[dict[str, Any]] = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    messages.append({"type": "http.request"} if complete else {"type": "http.disconnect"})

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    headers = {b"content-encoding": coding.encode()} if coding else {}
    return asyncio.run(read_body(Request({"type": "http", "headers": list(headers.items())}, receive), headers, limit))


def cut(raw: bytes, sizes: list[int]) -> list[bytes]:
    chunks = []
    for size in sizes:
        chunks.append(raw[:size])
        raw = raw[size:]
    return [*chunks, raw]


@given(
    st.lists(st.binary(max_size=300), min_size=1, max_size=3),
    st.booleans(),
    st.booleans(),
    st.lists(st.integers(1, 40), max_size=20),
    st.integers(0, 900),
)
def test_a_body_is_read_as_it_was_sent_or_is_too_large(
    parts: list[bytes], marked: bool, compressed: bool, sizes: list[int], limit: int
) -> None:
    parts = [MARK * marked + parts[0], *parts[1:]]
    body = b"".join(parts)
    raw = b"".join(map(gzip.compress, parts)) if compressed else body
    chunks = cut(raw, sizes)
    if max(len(raw), len(body)) > limit:
        with pytest.raises(TooLarge):
            read(chunks, limit, "gzip" if compressed else "")
    else:
        assert read(chunks, limit, "gzip" if compressed else "") == body.removeprefix(MARK)


@given(st.binary(min_size=1, max_size=200), st.data())
def test_damaged_gzip_data_is_refused(body: bytes, data: st.DataObject) -> None:
    raw = gzip.compress(body)
    at = data.draw(st.integers(1, len(raw) - 1))
    with pytest.raises(UnreadableBody):
        read([raw[:at]], 1000, "gzip")
    with pytest.raises(UnreadableBody):
        read([raw, b"\x00" * at], 1000, "gzip")


def test_a_body_of_many_gzip_members_is_refused() -> None:
    empty = gzip.compress(b"")
    assert read([empty * MEMBERS_MAX], 1 << 20, "gzip") == b""
    with pytest.raises(UnreadableBody, match="more than 100 members"):
        read([empty * (MEMBERS_MAX + 1)], 1 << 20, "gzip")


def test_a_body_that_its_client_does_not_complete_is_not_read() -> None:
    with pytest.raises(ClientDisconnect):
        read([b"{}"], 10, complete=False)
