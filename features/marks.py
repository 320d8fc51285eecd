"""Hashes that stand for event ids in a viewer's state: eight bytes each, one after the other, the newest last."""

from __future__ import annotations

from hashlib import blake2b

SEEN_MAX = 512  # event ids a viewer's state remembers
MARK = 8
"""Bytes of a hash. Among SEEN_MAX ids a new one is taken for a known one once in 3.6e16 times (2^64 / 512): at a
thousand million events a day one event is lost in a hundred thousand years."""


def event_mark(id: str) -> bytes:
    """The hash of an event id.

    >>> len(event_mark("e7")), event_mark("e7") == event_mark("e8")
    (8, False)
    """
    return blake2b(id.encode("utf-8", "surrogatepass"), digest_size=MARK).digest()


def among(mark: bytes, seen: bytearray) -> bool:
    """Whether this hash is one of those in a row.

    >>> among(b"56789abc", bytearray(b"123456789abcdefg"))
    False
    """
    at = seen.find(mark)
    while at > 0 and at % MARK:
        at = seen.find(mark, at + 1)
    return at >= 0
