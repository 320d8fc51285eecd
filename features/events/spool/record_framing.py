"""Record framing of the spool: each record is stored with a sequence number and a checksum, so that torn writes and
damaged bytes are detected.

>>> from features.events.stream.port import Record
>>> data = encode_frame(7, Record("v1", b"{}")) + encode_frame(8, Record("v2", b"[]"))[:-1]
>>> [(frame.number, frame.record.key) for frame in scan_frames(data).frames]
[(7, 'v1')]
"""

from __future__ import annotations

import struct
from typing import NamedTuple
from zlib import crc32

from features.events.stream.port import Record

MAGIC = b"\xf5MS1"
_HEADER = struct.Struct("<4sIIQH")  # magic, length of key and value, checksum of the rest, number, length of key
_CHECKSUM_START = 12  # offset in the header from which the checksum covers it
HEADER_BYTES = _HEADER.size


class Frame(NamedTuple):
    """A record and its sequence number."""

    number: int
    record: Record


class FrameScan(NamedTuple):
    """The frames in a byte string, the number of damaged bytes between them, and the end of the last frame."""

    frames: list[Frame]
    damaged_bytes: int
    end: int


def encode_frame(number: int, record: Record) -> bytes:
    """Encode a record with its sequence number."""
    key = record.key.encode()
    body = key + record.value
    tail = struct.pack("<QH", number, len(key))
    return _HEADER.pack(MAGIC, len(body), crc32(body, crc32(tail)), number, len(key)) + body


def scan_frames(data: bytes) -> FrameScan:
    """Return all complete frames. Damage between frames is skipped and counted."""
    frames: list[Frame] = []
    start, end, damaged_bytes = 0, 0, 0
    while start + HEADER_BYTES <= len(data):
        magic, length, checksum, number, key_length = _HEADER.unpack_from(data, start)
        frame_end = start + HEADER_BYTES + length
        body = data[start + HEADER_BYTES : frame_end]
        if (
            magic == MAGIC
            and len(body) == length
            and key_length <= length
            and _checksum_matches(data, start, body, checksum)
        ):
            damaged_bytes += start - end
            frames.append(Frame(number, Record(body[:key_length].decode(), body[key_length:])))
            start = end = frame_end
        else:
            start = data.find(MAGIC, start + 1)
            if start < 0:
                break
    return FrameScan(frames, damaged_bytes, end)


def _checksum_matches(data: bytes, start: int, body: bytes, checksum: int) -> bool:
    return crc32(body, crc32(data[start + _CHECKSUM_START : start + HEADER_BYTES])) == checksum
