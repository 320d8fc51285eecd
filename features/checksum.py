"""Checksums of stored bytes, so that damage is detected before anything is decoded.

A CRC-32 (zlib) finds every damage within 32 consecutive bits, hence every damaged byte. It is no protection against
an attacker.

>>> unseal(seal(b"[1, 2]"))
b'[1, 2]'
>>> seal(b"[1, 2]")
b'61c9e7ff [1, 2]'
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from zlib import crc32

from recsys.domain.errors import DamagedData

_HEX_DIGITS = 8
_CHUNK_BYTES = 1 << 20
T = TypeVar("T")
Raw = TypeVar("Raw", bytes, memoryview, str)


def seal(body: bytes) -> bytes:
    """Return the body after its checksum, eight hexadecimal digits and a blank, so that text remains text."""
    return b"%08x %s" % (crc32(body), body)


def unseal(raw: bytes) -> bytes:
    """Return the body of sealed bytes. Raises DamagedData."""
    body = raw[_HEX_DIGITS + 1 :]
    if raw[: _HEX_DIGITS + 1] != b"%08x " % crc32(body):
        raise DamagedData("the checksum does not match")
    return body


def decode_stored(raw: Raw, decode: Callable[[Raw], T]) -> T:
    """Decode bytes or a text that the engine stored itself. Raises DamagedData, whatever `decode` raises.

    >>> decode_stored(b"7.5", float)
    7.5
    """
    try:
        return decode(raw)
    except (ValueError, TypeError, OverflowError, RecursionError, MemoryError) as error:
        # ValueError includes the errors of msgspec for a wrong type and its UnicodeDecodeError for a wrong byte
        raise DamagedData(f"cannot be decoded: {error}") from error


def decode_sealed(raw: bytes, decode: Callable[[bytes], T]) -> T:
    """Check the checksum of sealed bytes and decode their body. Raises DamagedData."""
    return decode_stored(unseal(raw), decode)


def file_checksum(path: Path) -> str:
    """Return the checksum of a file's content in hexadecimal. May raise OSError."""
    checksum = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            checksum = crc32(chunk, checksum)
    return f"{checksum:08x}"
