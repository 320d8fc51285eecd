"""Text files that users name on the command line: what is wrong with one, in one line that names file and line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from recsys.domain.errors import InvalidInput

BOM = b"\xef\xbb\xbf"

_MAGIC = {
    b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file",
    b"\x1f\x8b": "a gzip file",
    b"BZh": "a bzip2 file",
    b"\x28\xb5\x2f\xfd": "a zstd file",
    b"PK\x03\x04": "a ZIP or Excel file",
    b"SQLite format 3": "an SQLite database",
    b"\x80\x04\x95": "a pickle",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
}
"""First bytes of a file -> what it is."""


def utf8_lines(file: str | Path, accepted: str) -> Iterator[tuple[int, str]]:
    """Yield the number, from 1, and the text of each line of a UTF-8 file; a byte order mark is skipped.

    Raises InvalidInput with the file, the line, the cause and `accepted`, which says what the file should hold.
    """
    try:
        with open(file, "rb") as lines:
            if kind := binary_kind(lines.peek(16)):
                raise InvalidInput(f"{file}: {kind}; {accepted}")
            for number, raw in enumerate(lines, start=1):
                if fault := utf8_fault(raw, number):
                    raise InvalidInput(f"{file}, {fault}; {accepted}")
                yield number, raw.removeprefix(BOM).decode() if number == 1 else raw.decode()
    except OSError as error:
        raise InvalidInput(f"{file}: {error.strerror}; {accepted}") from error


def utf8_fault(raw: bytes, first_line: int = 1) -> str | None:
    """Return why these bytes are not UTF-8 text, with the number of the line; None if they are.

    >>> utf8_fault("新闻".encode("gbk"), first_line=3)
    'line 3: not UTF-8 text (byte 0xd0), probably GBK'
    """
    if kind := binary_kind(raw[:16]):
        return f"line {first_line}: not UTF-8 text, but {kind}"
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        line = first_line + raw.count(b"\n", 0, error.start)
        return f"line {line}: not UTF-8 text (byte 0x{raw[error.start]:02x}){', probably GBK' if _is_gbk(raw) else ''}"
    return None


def binary_kind(head: bytes) -> str | None:
    """Return the format of a file that begins with these bytes, if it is a well-known one that is not UTF-8 text."""
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None)


def _is_gbk(raw: bytes) -> bool:
    try:
        return any("\u4e00" <= char <= "\u9fff" for char in raw.decode("gbk"))
    except UnicodeDecodeError:
        return False
