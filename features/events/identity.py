"""Event identity: the unique key of an event, and the digests by which a viewer's state detects duplicates.

A CloudEvent is identified by its source and id together (CloudEvents 1.0,
https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md#id). In memory, in the stream and in the event log
an event has a single id, so the intake prefixes the client's id with its source. A viewer's state stores digests of
event ids: eight bytes each, concatenated, the newest last.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b

from features.events.schema import SOURCE

MAPPED_SOURCES = {"segment": "/segment", "activitystreams": "/activitystreams"}
"""Sources of events converted from formats that have no source attribute. Their ids are globally unique."""

ID_MAX = 200
_SEPARATOR = "#"
_ENGINE_SOURCES = frozenset({SOURCE, *MAPPED_SOURCES.values()})
_SOURCE_MAX = 100

SEEN_MAX = 2048  # ids of folded events kept in a viewer's state: twice the maximum batch of one request
PASSED_MAX = 2048  # ids kept of events that skip the state (`features.state.viewer_fold.skips_state`)
DIGEST_BYTES = 8
"""Bytes of a digest. A new id collides with one of 4096 stored ids with probability 4096 / 2^64, once in 4.5e15 events:
at a billion events a day, one event is lost in twelve thousand years."""


def event_key(source: str, id: str) -> str:
    """Return the unique key of an event: `SOURCE#ID`, at most ID_MAX characters.

    A part that is too long or ambiguous is replaced by its hash. An event whose source is the engine (read from the
    stream, an export or the event log) already has its key, and ids of mapped formats are used unchanged. The
    ActivityStreams id `https://m.social/users/x#likes/5` therefore equals the key of id `likes/5` from source
    `https://m.social/users/x`.

    >>> event_key("/apps/tv", "e1"), event_key("/mainstay", "/apps/tv#e1"), event_key("/segment", "m1")
    ('/apps/tv#e1', '/apps/tv#e1', 'm1')
    """
    prefix = _source_prefix(source)
    if not prefix or len(prefix) + len(id) <= ID_MAX:
        return prefix + id
    return prefix + _hash(id)


@lru_cache(maxsize=4096)
def _source_prefix(source: str) -> str:
    if source in _ENGINE_SOURCES:
        return ""
    is_safe = len(source) <= _SOURCE_MAX and source.isprintable() and " " not in source and _SEPARATOR not in source
    return (source if is_safe else _hash(source)) + _SEPARATOR


def _hash(text: str) -> str:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def event_digest(id: str) -> bytes:
    """Return the digest of an event id.

    >>> len(event_digest("e7")), event_digest("e7") == event_digest("e8")
    (8, False)
    """
    return blake2b(id.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).digest()


def ring_index(digest: bytes, ring: bytearray) -> int:
    """Return the byte index of a digest in a ring of digests; -1 if it is not in the ring.

    >>> ring_index(b"56789abc", bytearray(b"123456789abcdefg")), ring_index(b"9abcdefg", bytearray(b"123456789abcdefg"))
    (-1, 8)
    """
    index = ring.find(digest)
    while index > 0 and index % DIGEST_BYTES:
        index = ring.find(digest, index + 1)
    return index
