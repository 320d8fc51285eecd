"""Records as bytes of a spool file: each under a number and a checksum, so that a torn end is told from a whole record.

>>> from features.events.stream.port import Record
>>> data = encode_frame(7, Record("v1", b"{}")) + encode_frame(8, Record("v2", b"[]"))[:-1]
>>> [(frame.number, frame.record.key) for frame in scan_frames(data).whole]
[(7, 'v1')]
"""

from __future__ import annotations

import struct
from typing import NamedTuple
from zlib import crc32

from features.events.stream.port import Record

MAGIC = b"\xf5MS1"
_HEAD = struct.Struct("<4sIIQH")  # magic, length of key and value, checksum of all that follows, number, length of key
_COVERED = 12  # the checksum covers the head from here on
HEAD_BYTES = _HEAD.size


class Frame(NamedTuple):
    """A record and its number."""

    number: int
    record: Record


class FrameScan(NamedTuple):
    """What some bytes hold: whole records, the bytes between them that are none, and where the readable part ends."""

    whole: list[Frame]
    damaged: int
    end: int


def encode_frame(number: int, record: Record) -> bytes:
    """The bytes of one record."""
    key = record.key.encode()
    body = key + record.value
    tail = struct.pack("<QH", number, len(key))
    return _HEAD.pack(MAGIC, len(body), crc32(body, crc32(tail)), number, len(key)) + body


def scan_frames(data: bytes) -> FrameScan:
    """Return every whole record. Damage between records is skipped and counted."""
    whole: list[Frame] = []
    at, end, damaged = 0, 0, 0
    while at + HEAD_BYTES <= len(data):
        magic, length, checksum, number, key_length = _HEAD.unpack_from(data, at)
        stop = at + HEAD_BYTES + length
        body = data[at + HEAD_BYTES : stop]
        if magic == MAGIC and len(body) == length and key_length <= length and _sums(data, at, body, checksum):
            damaged += at - end
            whole.append(Frame(number, Record(body[:key_length].decode(), body[key_length:])))
            at = end = stop
        else:
            at = data.find(MAGIC, at + 1)
            if at < 0:
                break
    return FrameScan(whole, damaged, end)


def _sums(data: bytes, at: int, body: bytes, checksum: int) -> bool:
    return crc32(body, crc32(data[at + _COVERED : at + HEAD_BYTES])) == checksum
