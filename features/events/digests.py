"""Hashes that stand for event ids in a viewer's state: eight bytes each, one after the other, the newest last."""

from __future__ import annotations

from hashlib import blake2b

SEEN_MAX = 2048  # ids of events that count which a viewer's state remembers: twice what one request may send again
PASSED_MAX = 2048  # the same of events that only pass by (`features.state.viewer_fold.passes`)
MARK = 8
"""Bytes of a hash. Among all these ids a new one is taken for a known one once in 4.5e15 times (2^64 / 4096): at a
thousand million events a day one event is lost in twelve thousand years."""


def event_digest(id: str) -> bytes:
    """The hash of an event id.

    >>> len(event_digest("e7")), event_digest("e7") == event_digest("e8")
    (8, False)
    """
    return blake2b(id.encode("utf-8", "surrogatepass"), digest_size=MARK).digest()


def ring_index(mark: bytes, seen: bytearray) -> int:
    """Where this hash stands in a row of them, in bytes; -1 where it does not.

    >>> ring_index(b"56789abc", bytearray(b"123456789abcdefg")), ring_index(b"9abcdefg", bytearray(b"123456789abcdefg"))
    (-1, 8)
    """
    at = seen.find(mark)
    while at > 0 and at % MARK:
        at = seen.find(mark, at + 1)
    return at
