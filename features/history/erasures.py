"""Who asked to be forgotten, and when: a line for each in a file of the event log, by hash and not by name.

An event of such a viewer that the server received at that moment or earlier is gone for good, wherever it may still
turn up: in the stream, in a spool, in a dead letter, in a file of the log that is being written. Whoever comes back
under the same id later is a stranger. A hash of an id that can be guessed tells who it was to whoever guesses it: ids
should be random.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from features.state.keys import ERASURES
from features.state.online.port import OnlineStore
from features.state.votes import LoggedEvent
from recsys.domain.errors import Unavailable

NAME = "erased.jsonl"
"""Prefix of the copies in the online store, where they outlive a log that was lost."""


class Erasure(msgspec.Struct, frozen=True):
    """One viewer's wish. `who` is the SHA-256 of the id in hexadecimal, `at` unix seconds; `held`: whether anything of
    such a viewer was there."""

    viewer_hash: str
    at: float
    held: bool = True


_decoder = msgspec.json.Decoder(Erasure)


def hashed(viewer_id: str) -> str:
    """The hash under which an erased viewer is remembered."""
    return hashlib.sha256(viewer_id.encode()).hexdigest()


class ErasureList:
    """The erasures of one log. Every question reads the file again if it has grown."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / NAME
        self._size, self._known, self._held = -1, dict[str, float](), dict[str, float]()

    def all(self) -> Mapping[str, float]:
        """Hash -> unix second of the latest erasure. Raises Unavailable."""
        try:
            size = self._file.stat().st_size
            if size != self._size:
                (self._known, self._held), self._size = _read(self._file.read_bytes()), size
        except FileNotFoundError:
            self._known, self._held, self._size = {}, {}, -1
        except OSError as error:
            raise Unavailable(f"{self._file}: {error}") from error
        return self._known

    def pending(self) -> Mapping[str, float]:
        """As `all`, of those alone of whom there was anything to erase. Raises Unavailable."""
        self.all()
        return self._held

    def add(self, who: str, at: float, held: bool = True) -> None:
        """Remember a hash; on the disk on return. Raises Unavailable."""
        line = b"\n" + msgspec.json.encode(Erasure(who, at, held)) + b"\n"  # begins a line even after a torn one
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                if os.write(handle, line) != len(line):
                    raise OSError("no room for a whole line")
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

    def of(self, viewer_id: str) -> float:
        """When the viewer was last erased, unix seconds; -1 for never."""
        known = self.all()
        return known.get(hashed(viewer_id), -1.0) if known else -1.0

    def without_erased(self, placed: Iterable[LoggedEvent]) -> list[LoggedEvent]:
        """Without what was erased."""
        known = self.all()
        if not known:
            return list(placed)
        return [one for one in placed if one.event.at > known.get(hashed(one.event.viewer_id), -1.0)]

    def agree_with(self, online: OnlineStore) -> None:
        """Whatever one of file and online store has forgotten of erasures, it is told by the other."""
        there = {key.removeprefix(ERASURES): _decoder.decode(raw) for key, raw in online.scan(ERASURES)}
        here = self.all()
        for who, erasure in there.items():
            if erasure.at > here.get(who, -1.0):
                self.add(who, erasure.at, erasure.held)
        missing = {who: at for who, at in self.all().items() if who not in there or there[who].at < at}
        if missing:
            held = self.pending()
            copies = {who: Erasure(who, at, who in held) for who, at in missing.items()}
            online.put({ERASURES + who: msgspec.json.encode(copy) for who, copy in copies.items()})


def _read(lines: bytes) -> tuple[dict[str, float], dict[str, float]]:
    """The latest moment for each hash, and the latest at which anything was held; a line that a crash tore is none: its
    writer never said that it was done."""
    known: dict[str, float] = {}
    held: dict[str, float] = {}
    for line in lines.splitlines():
        if line.strip():
            try:
                erasure = _decoder.decode(line)
            except msgspec.DecodeError:
                continue
            for moments in (known, held) if erasure.held else (known,):
                moments[erasure.viewer_hash] = max(erasure.at, moments.get(erasure.viewer_hash, -1.0))
    return known, held
