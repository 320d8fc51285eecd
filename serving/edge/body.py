"""Reading of request bodies: the size is limited while a body is read and while it is decompressed."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

from fastapi import Request

from features import json_text
from recsys.domain.errors import Finding
from recsys.messages import message
from serving.edge.media_types import GZIP
from serving.schemas.problems import NotJson, TooLarge, UnreadableBody, UnsupportedMediaType

KIB = 1024
DEFAULT_LIMIT = 64 * KIB
"""Maximum size of a body in bytes, decompressed."""

LIMITS = {
    "/v1/events": 8 * KIB**2,
    "/v1/items": 8 * KIB**2,
    "/v1/placements/{placement_id}:recommend": 512 * KIB,  # a page token can have 300,000 characters
    "/v1/policies/{outlet}/lint": 4 * KIB**2,  # a policy can have a million characters
    "/v1/policies/{outlet}/draft": 4 * KIB**2,
    "/v1/policies/{outlet}/publish": 4 * KIB**2,
    "/v1/policies/{outlet}/preview": 4 * KIB**2,
}
"""The limits of routes that take larger bodies, by path."""

MEMBERS_MAX = 100
"""Maximum number of gzip files that a compressed body may consist of."""

_BOM = b"\xef\xbb\xbf"


class ReadRequest(Request):
    """A request whose body has been read.

    raw     the body, decompressed and without a byte order mark
    parsed  its JSON value, if the route takes one
    """

    def __init__(self, request: Request, raw: bytes, parsed: Any = None) -> None:
        super().__init__(request.scope, request.receive)
        self._raw, self._parsed = raw, parsed

    async def stream(self) -> AsyncIterator[bytes]:  # type: ignore[override]
        yield self._raw

    async def body(self) -> bytes:
        return self._raw

    async def json(self) -> Any:
        return self._parsed


def parse_json(raw: bytes) -> Any:
    """Return the JSON value, as `features.json_text.parse_json` does. Raises NotJson."""
    try:
        return json_text.parse_json(raw)
    except ValueError as error:
        raise NotJson(message("body_not_json"), [Finding("body", str(error))]) from error


async def read_body(request: Request, headers: Mapping[bytes, bytes], limit: int) -> bytes:
    """Return the body, decompressed and without a byte order mark, with at most `limit` bytes.

    headers  the headers of the request

    Raises TooLarge as soon as the limit is exceeded (before the first byte if the client states the size),
    UnsupportedMediaType for an unknown content coding, UnreadableBody for damaged gzip data, and ClientDisconnect.
    """
    coding = headers.get(b"content-encoding", b"").decode("latin-1").strip().lower()
    gunzip = _Gunzip() if coding in GZIP else None
    if gunzip is None and coding not in ("", "identity"):
        findings = [Finding("header.content-encoding", message("body_coding_unknown", coding=coding[:60]))]
        raise UnsupportedMediaType(message("body_not_decoded"), findings)
    declared = headers.get(b"content-length", b"")
    if declared.isdigit() and (len(declared) > 18 or int(declared) > limit):
        raise _too_large(limit)
    raw, size = bytearray(), 0
    async for chunk in request.stream():
        size += len(chunk)
        raw += chunk if gunzip is None else gunzip.feed(chunk, limit - len(raw))
        if max(size, len(raw)) > limit:
            raise _too_large(limit)
    if gunzip is not None and size:
        gunzip.check_end()
    return bytes(raw.removeprefix(_BOM))


class _Gunzip:
    """A decompressor of gzip data."""

    def __init__(self) -> None:
        self._member, self._members = zlib.decompressobj(wbits=31), 1

    def feed(self, data: bytes, room: int) -> bytes:
        """Return the next decompressed bytes; at most `room` + 1, and then the rest is discarded."""
        out = bytearray()
        try:
            while data and len(out) <= room:
                if self._member.eof:  # RFC 1952: a gzip file is a series of members
                    if self._members == MEMBERS_MAX:
                        raise _damaged(message("body_gzip_members", maximum=MEMBERS_MAX))
                    self._member, self._members = zlib.decompressobj(wbits=31), self._members + 1
                out += self._member.decompress(data, room + 1 - len(out))
                data = self._member.unused_data
        except zlib.error as error:
            raise _damaged(message("text", text=str(error))) from error
        return bytes(out)

    def check_end(self) -> None:
        """Raise UnreadableBody if the data is incomplete."""
        if not self._member.eof:
            raise _damaged(message("body_gzip_cut"))


def _damaged(problem: Any) -> UnreadableBody:
    return UnreadableBody(message("body_not_gzip"), [Finding("body", problem)])


def _too_large(limit: int) -> TooLarge:
    size = f"{limit // KIB**2} MiB" if limit >= KIB**2 else f"{limit // KIB} KiB"
    return TooLarge(message("body_too_large", maximum=size))
