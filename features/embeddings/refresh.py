"""Refreshes the text vectors of a growing catalog: looks each text up in a store and encodes it if it is missing.

The store is an online store (a local file, or one server for all machines), keyed by the encoder's name and the text's
hash. On one machine, one process encodes at a time and the others read its vectors. Two machines may encode the same
text; both get the same vector.
"""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from features.checksum import decode_sealed, seal
from features.embeddings.encoder import Encoder, EncoderError, NoEncoder, text_of
from features.state.keys import VECTORS
from features.state.online.port import OnlineStore
from recsys.domain.catalog import Catalog
from recsys.domain.embeddings import Content
from recsys.domain.errors import DamagedData, Unavailable
from recsys.domain.item import Item
from recsys.domain.types import F32

F16 = npt.NDArray[np.float16]
"""The stored form of a vector. Reading a stored vector returns exactly the bits that were encoded."""

ENCODE_BATCH = 128
"""Maximum texts encoded in one step: about a tenth of a second."""

PROBE_TEXT = "news"
"""A text that every encoder accepts. If encoding it fails, the encoder is down, and no text is at fault."""

LOCK_TIMEOUT_S = 0.2
"""How long to wait for another process to finish its batch."""

LOOKUP_BATCH = 4_000
"""Maximum vectors fetched from the store in one step."""


class EmbeddingRefresher:
    """The vectors of one growing catalog. Call `step` from one thread only.

    refused    item id -> why its text has no vector and is not retried
    n_pending  number of items that have no vector yet
    """

    def __init__(self, encoder: Encoder, store: OnlineStore, lock: str = "") -> None:
        """`lock`: path of the lock file that serializes the processes of one machine; empty for a single process."""
        self.refused: dict[str, str] = {}
        self._encoder, self._store, self._lock = encoder, store, lock
        self._items: tuple[Item, ...] = ()
        self._vectors: F32 = np.zeros((0, 0), np.float32)
        self._pending: dict[int, str] = {}  # row -> its text
        self._order: list[int] = []  # includes all pending rows; the latest published is last
        self._looked_up: set[int] = set()  # pending rows that the store has no vector for

    @property
    def n_pending(self) -> int:
        """The number of items whose vector is still to come."""
        return len(self._pending)

    def step(self, catalog: Catalog) -> Content | None:
        """Look up or encode one batch and return all vectors; None if no vector was added.

        The latest published items come first. Raises Unavailable, NoEncoder.
        """
        self._update_queue(catalog)
        n_before = len(self._pending)
        if rows := self._next_rows(LOOKUP_BATCH, looked_up=False):
            self._looked_up.update(self._load_vectors(rows))
        elif n_before:
            with _encoder_lock(self._lock) as has_lock:
                missing = self._load_vectors(
                    self._next_rows(ENCODE_BATCH if has_lock else LOOKUP_BATCH, looked_up=True)
                )
                if has_lock:
                    self._encode(catalog, missing)
        return self._content() if len(self._pending) < n_before else None

    def complete(self, catalog: Catalog) -> Content:
        """Step until every item has its vector, for example for a training run. Raises Unavailable, NoEncoder."""
        self.step(catalog)
        while self._pending:
            if self.step(catalog) is None:
                time.sleep(LOCK_TIMEOUT_S)  # another process is encoding
        return self._content()

    def close(self) -> None:
        """Close the store and the encoder; idempotent."""
        self._encoder.close()
        self._store.close()

    def _content(self) -> Content:
        return Content(self._encoder.name, self._vectors.copy())

    def _update_queue(self, catalog: Catalog) -> None:
        """Queue the rows that are new or whose text has changed."""
        if self._items is catalog.items:
            return
        previous, self._items = self._items, catalog.items
        grown = np.zeros((len(catalog), self._encoder.dimensions), np.float32)
        if previous:
            grown[: len(previous)] = self._vectors
        self._vectors = grown
        for row, item in enumerate(catalog.items):
            if row >= len(previous) or (item is not previous[row] and text_of(item) != text_of(previous[row])):
                self.refused.pop(item.id, None)
                self._looked_up.discard(row)
                if text := text_of(item):
                    self._pending[row] = text
                else:
                    self._pending.pop(row, None)
                    self._vectors[row] = 0
        self._order = sorted(self._pending, key=lambda row: catalog.published_at[row])

    def _next_rows(self, count: int, looked_up: bool) -> list[int]:
        """Return up to `count` pending rows, the latest published first.

        looked_up  True for rows that the store has no vector for, False for rows not looked up yet
        """
        if not looked_up and len(self._looked_up) == len(self._pending):
            return []
        while self._order and self._order[-1] not in self._pending:
            self._order.pop()
        rows = (row for row in reversed(self._order) if row in self._pending and (row in self._looked_up) == looked_up)
        return list(islice(rows, count))

    def _load_vectors(self, rows: Sequence[int]) -> list[int]:
        """Load stored vectors; return the rows that the store has no vector for."""
        missing = []
        for row, raw in zip(rows, self._store.get([self._key(self._pending[row]) for row in rows]), strict=True):
            vector = None if raw is None else _decode_vector(raw, self._encoder.dimensions)
            if vector is None:
                missing.append(row)
            else:
                self._store_vector(row, vector)
        return missing

    def _encode(self, catalog: Catalog, rows: Sequence[int]) -> None:
        """Encode and store the vectors of these rows; rows with the same text share one vector."""
        texts = list(dict.fromkeys(self._pending[row] for row in rows))
        vectors: dict[str, F16] = {}
        errors: dict[str, str] = {}
        self._encode_by_halves(texts, vectors, errors)
        probe_error = self._probe_error() if errors else None
        self._store.put({self._key(text): seal(vector.tobytes()) for text, vector in vectors.items()})
        for row in rows:
            text = self._pending[row]
            if text in vectors:
                self._store_vector(row, vectors[text])
            elif text in errors and not probe_error:
                self.refused[catalog.ids[row]] = errors[text]
                self._store_vector(row, np.zeros(self._encoder.dimensions, np.float16))
        if probe_error:
            raise Unavailable(f"encoder {self._encoder.name} does not answer: {probe_error}")

    def _probe_error(self) -> str | None:
        """Return why the encoder is down; None if it works."""
        errors: dict[str, str] = {}
        self._encode_by_halves([PROBE_TEXT], {}, errors)
        return errors.get(PROBE_TEXT)

    def _encode_by_halves(self, texts: Sequence[str], encoded: dict[str, F16], errors: dict[str, str]) -> None:
        """Encode a batch. If it fails, encode its halves, until the text that causes the failure is isolated.

        encoded  text -> vector, filled in
        errors   text -> reason, filled in
        """
        if not texts:
            return
        try:
            vectors = self._encoder.encode(texts)
            if vectors.shape != (len(texts), self._encoder.dimensions) or not np.isfinite(vectors).all():
                raise EncoderError(
                    f"{self._encoder.name} returned shape {vectors.shape} or non-finite values; "
                    f"expected finite values of shape {(len(texts), self._encoder.dimensions)}"
                )
        except NoEncoder:
            raise
        except Exception as error:  # encoders are plugins: they may raise anything
            if len(texts) == 1:
                errors[texts[0]] = f"{type(error).__name__}: {error}"
                return
            middle = len(texts) // 2
            self._encode_by_halves(texts[:middle], encoded, errors)
            self._encode_by_halves(texts[middle:], encoded, errors)
            return
        length = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
        encoded.update(zip(texts, (vectors / length).astype(np.float16), strict=True))

    def _store_vector(self, row: int, vector: F16) -> None:
        self._vectors[row] = vector
        del self._pending[row]
        self._looked_up.discard(row)

    def _key(self, text: str) -> str:
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:40]
        return f"{VECTORS}{{{digest}}}:{self._encoder.name}"


def _decode_vector(raw: bytes, dimensions: int) -> F16 | None:
    """Return the stored vector; None if it is damaged or of another length, so that it is encoded again."""
    with suppress(DamagedData):
        vector = decode_sealed(raw, lambda body: np.frombuffer(body, np.float16))
        return vector if len(vector) == dimensions else None
    return None


@contextmanager
def _encoder_lock(lock: str) -> Iterator[bool]:
    """Try to take the machine-wide encoding lock; yields whether this process holds it.

    SQLite provides the lock: it works on every platform, and the operating system releases it when the process ends.
    """
    if not lock:
        yield True
        return
    Path(lock).parent.mkdir(parents=True, exist_ok=True)
    try:
        with closing(sqlite3.connect(lock, timeout=0, isolation_level=None)) as connection:
            try:
                connection.execute("BEGIN EXCLUSIVE")
            except sqlite3.OperationalError:
                yield False
                return
            yield True
    except sqlite3.OperationalError as error:
        raise Unavailable(f"{lock}: {error}") from error
