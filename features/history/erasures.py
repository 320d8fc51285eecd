"""Erasures of viewers: one line per erasure, with a hash of the viewer id, in a file of the event log.

Each line, and each copy in the online store, begins with its checksum. A damaged line is restored from the copy, and a
damaged copy from the line.

An event of an erased viewer that the server received at the time of the erasure or earlier is dropped wherever it
appears: in the stream, in a spool, in a dead letter, in a file of the log that is being written. A viewer who returns
later under the same id is a new viewer. The hash of a guessable id reveals the id to anyone who guesses it, so viewer
ids should be random.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from features.checksum import decode_sealed, decode_stored, seal
from features.state.keys import ERASURES
from features.state.online.port import OnlineStore
from features.state.votes import LoggedEvent
from recsys.domain.errors import DamagedData, Unavailable

FILE_NAME = "erased.jsonl"
"""File of the erasures. The online store holds copies, which survive the loss of the log."""


class Erasure(msgspec.Struct, frozen=True):
    """The erasure of one viewer.

    viewer_hash  SHA-256 of the viewer id, in hexadecimal
    at           unix seconds
    had_data     whether there was any data of the viewer
    """

    viewer_hash: str
    at: float
    had_data: bool = True


_decode = msgspec.json.Decoder(Erasure).decode
logger = logging.getLogger(__name__)


def viewer_hash(viewer_id: str) -> str:
    """Return the hash that identifies an erased viewer."""
    return hashlib.sha256(viewer_id.encode()).hexdigest()


class ErasureList:
    """The erasures of one event log. Every method reads the file again if it has grown."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / FILE_NAME
        self._size, self._erased_at, self._with_data = -1, dict[str, float](), dict[str, float]()

    def all(self) -> Mapping[str, float]:
        """Return hash -> unix second of the latest erasure. Raises Unavailable."""
        try:
            size = self._file.stat().st_size
            if size != self._size:
                (self._erased_at, self._with_data), self._size = _read(self._file.read_bytes()), size
        except FileNotFoundError:
            self._erased_at, self._with_data, self._size = {}, {}, -1
        except OSError as error:
            raise Unavailable(f"{self._file}: {error}") from error
        return self._erased_at

    def with_data(self) -> Mapping[str, float]:
        """Return the entries of `all` whose viewers had data to erase. Raises Unavailable."""
        self.all()
        return self._with_data

    def add(self, hash_: str, at: float, had_data: bool = True) -> None:
        """Add an erasure; it is durable on return. Raises Unavailable."""
        line = b"\n" + _encode(Erasure(hash_, at, had_data)) + b"\n"  # a new line even after a torn write
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                if os.write(handle, line) != len(line):
                    raise OSError("incomplete write: the disk may be full")
                os.fsync(handle)
            finally:
                os.close(handle)
            folder = os.open(self._file.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise Unavailable(f"{self._file}: {error}") from error

    def erased_at(self, viewer_id: str) -> float:
        """Return the unix second of the viewer's latest erasure, or -1 for none."""
        erased = self.all()
        return erased.get(viewer_hash(viewer_id), -1.0) if erased else -1.0

    def without_erased(self, events: Iterable[LoggedEvent]) -> list[LoggedEvent]:
        """Return the events that are not erased."""
        erased = self.all()
        if not erased:
            return list(events)
        return [logged for logged in events if logged.event.at > erased.get(viewer_hash(logged.event.viewer_id), -1.0)]

    def sync_with(self, online: OnlineStore) -> None:
        """Copy missing erasures from the online store to the file, and from the file to the store.

        A copy that is damaged, and of which the file has no line, counts as an erasure of this moment: the viewer's
        data must not come back.
        """
        local, stored = self.all(), dict[str, Erasure]()
        for key, raw in online.scan(ERASURES):
            hash_ = key.removeprefix(ERASURES)
            try:
                stored[hash_] = _read_one(raw)
            except DamagedData as error:
                logger.error("online store: the copy of an erasure, %s, is damaged and written again: %s", key, error)
                if hash_ not in local:
                    self.add(hash_, time.time())
        for hash_, erasure in stored.items():
            if erasure.at > local.get(hash_, -1.0):
                self.add(hash_, erasure.at, erasure.had_data)
        missing = {hash_: at for hash_, at in self.all().items() if hash_ not in stored or stored[hash_].at < at}
        if missing:
            with_data = self.with_data()
            copies = {hash_: Erasure(hash_, at, hash_ in with_data) for hash_, at in missing.items()}
            online.put({ERASURES + hash_: _encode(copy) for hash_, copy in copies.items()})


def _encode(erasure: Erasure) -> bytes:
    return seal(msgspec.json.encode(erasure))


def _read_one(raw: bytes) -> Erasure:
    """Return an erasure, which older versions stored without a checksum. Raises DamagedData."""
    return decode_stored(raw, _decode) if raw[:1] == b"{" else decode_sealed(raw, _decode)


def _read(lines: bytes) -> tuple[dict[str, float], dict[str, float]]:
    """Return the latest erasure time of each hash, and the same for erasures with data.

    A line that is damaged or was torn by a crash is skipped. The writer of a torn line never reported success.
    """
    erased: dict[str, float] = {}
    with_data: dict[str, float] = {}
    for line in filter(None, lines.split(b"\n")):
        try:
            erasure = _read_one(line)
        except DamagedData:
            continue
        for times in (erased, with_data) if erasure.had_data else (erased,):
            times[erasure.viewer_hash] = max(erasure.at, times.get(erasure.viewer_hash, -1.0))
    return erased, with_data
