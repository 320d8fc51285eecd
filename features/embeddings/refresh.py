"""Keeps a catalogue's text vectors complete: found by text where they were made before, else encoded, each once.

Vectors are kept in an online store under the encoder's name and the text's hash: a file beside the others, or one
server for all machines. Of the processes on one machine one encodes at a time, and the others find its vectors; of
several machines two may encode the same text, to the same vector.
"""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from features.embeddings.encoder import Encoder, EncoderError, NoEncoder, text_of
from features.state.keys import VECTORS
from features.state.online.port import OnlineStore
from recsys.domain.catalog import Catalog
from recsys.domain.embeddings import Content
from recsys.domain.errors import Unavailable
from recsys.domain.item import Item
from recsys.domain.types import F32

F16 = npt.NDArray[np.float16]
"""As vectors are kept: what is found is what was made, to the last bit."""

ENCODE_BATCH = 128
"""Texts encoded in one step: about a tenth of a second."""

PROBE_TEXT = "news"
"""No encoder can find fault with this text: where even it has no vector, the encoder is away, and no text is wrong."""

LOCK_TIMEOUT_S = 0.2
"""How long to wait for another process's turn to end."""

LOOKUP_BATCH = 4_000
"""Vectors fetched in one step."""


class EmbeddingRefresher:
    """The vectors of one growing catalogue. `step` is for one thread.

    refused  item id -> why its text has no vector and is not tried again
    waiting  how many items have none yet
    """

    def __init__(self, encoder: Encoder, kept: OnlineStore, lock: str = "") -> None:
        """`lock`: a file by which processes of one machine take turns; none where there is only one."""
        self.refused: dict[str, str] = {}
        self._encoder, self._kept, self._lock = encoder, kept, lock
        self._items: tuple[Item, ...] = ()
        self._vectors: F32 = np.zeros((0, 0), np.float32)
        self._waiting: dict[int, str] = {}  # row -> its text
        self._order: list[int] = []  # rows that wait, and others: the latest published last
        self._sought: set[int] = set()  # of those that wait: nothing was kept of them

    @property
    def waiting(self) -> int:
        """Items without a vector that will have one."""
        return len(self._waiting)

    def step(self, catalog: Catalog) -> Content | None:
        """The vectors as they are after some more were found or made; None when there were none.

        New items come first, the latest published of them before all. Raises Unavailable, NoEncoder.
        """
        self._update_queue(catalog)
        waited = len(self._waiting)
        if rows := self._next(LOOKUP_BATCH, sought=False):
            self._sought.update(self._find(rows))
        elif waited:
            with _encoder_lock(self._lock) as mine:
                missing = self._find(self._next(ENCODE_BATCH if mine else LOOKUP_BATCH, sought=True))
                if mine:
                    self._encode(catalog, missing)
        return self._content() if len(self._waiting) < waited else None

    def complete(self, catalog: Catalog) -> Content:
        """Step until every item has its vector, as a training run wants it. Raises Unavailable, NoEncoder."""
        self.step(catalog)
        while self._waiting:
            if self.step(catalog) is None:
                time.sleep(LOCK_TIMEOUT_S)  # another process has its turn
        return self._content()

    def close(self) -> None:
        """Let go of what is kept, and of the encoder; idempotent."""
        self._encoder.close()
        self._kept.close()

    def _content(self) -> Content:
        return Content(self._encoder.name, self._vectors.copy())

    def _update_queue(self, catalog: Catalog) -> None:
        """See which rows are new or say something else."""
        if self._items is catalog.items:
            return
        before, self._items = self._items, catalog.items
        grown = np.zeros((len(catalog), self._encoder.dimensions), np.float32)
        if before:
            grown[: len(before)] = self._vectors
        self._vectors = grown
        for row, item in enumerate(catalog.items):
            if row >= len(before) or (item is not before[row] and text_of(item) != text_of(before[row])):
                self.refused.pop(item.id, None)
                self._sought.discard(row)
                if text := text_of(item):
                    self._waiting[row] = text
                else:
                    self._waiting.pop(row, None)
                    self._vectors[row] = 0
        self._order = sorted(self._waiting, key=lambda row: catalog.published_at[row])

    def _next(self, count: int, sought: bool) -> list[int]:
        """At most `count` of the rows that wait, the latest published first: sought before in what is kept, or not."""
        if not sought and len(self._sought) == len(self._waiting):
            return []
        while self._order and self._order[-1] not in self._waiting:
            self._order.pop()
        fitting = (row for row in reversed(self._order) if row in self._waiting and (row in self._sought) == sought)
        return list(islice(fitting, count))

    def _find(self, rows: Sequence[int]) -> list[int]:
        """Take what was encoded before; the rows of which nothing is kept."""
        missing = []
        for row, raw in zip(rows, self._kept.get([self._key(self._waiting[row]) for row in rows]), strict=True):
            if raw is None or len(raw) != 2 * self._encoder.dimensions:
                missing.append(row)
            else:
                self._store_vector(row, np.frombuffer(raw, np.float16))
        return missing

    def _encode(self, catalog: Catalog, rows: Sequence[int]) -> None:
        """Make vectors and keep them; rows with the same text share one."""
        texts = list(dict.fromkeys(self._waiting[row] for row in rows))
        made: dict[str, F16] = {}
        wrong: dict[str, str] = {}
        self._encode_singly(texts, made, wrong)
        away = self._retry_later() if wrong else None
        self._kept.put({self._key(text): vector.tobytes() for text, vector in made.items()})
        for row in rows:
            text = self._waiting[row]
            if text in made:
                self._store_vector(row, made[text])
            elif text in wrong and not away:
                self.refused[catalog.ids[row]] = wrong[text]
                self._store_vector(row, np.zeros(self._encoder.dimensions, np.float16))
        if away:
            raise Unavailable(f"the encoder {self._encoder.name} does not answer: {away}")

    def _retry_later(self) -> str | None:
        """Why the encoder answers nothing at all; None when it does answer."""
        wrong: dict[str, str] = {}
        self._encode_singly([PROBE_TEXT], {}, wrong)
        return wrong.get(PROBE_TEXT)

    def _encode_singly(self, texts: Sequence[str], made: dict[str, F16], wrong: dict[str, str]) -> None:
        """Encode; where that fails, by halves, until the text that it fails on stands alone."""
        if not texts:
            return
        try:
            vectors = self._encoder.encode(texts)
            if vectors.shape != (len(texts), self._encoder.dimensions) or not np.isfinite(vectors).all():
                raise EncoderError(f"{self._encoder.name} answered {vectors.shape}, or a number that is not finite")
        except NoEncoder:
            raise
        except Exception as error:  # an encoder is anybody's code
            if len(texts) == 1:
                wrong[texts[0]] = f"{type(error).__name__}: {error}"
                return
            middle = len(texts) // 2
            self._encode_singly(texts[:middle], made, wrong)
            self._encode_singly(texts[middle:], made, wrong)
            return
        length = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
        made.update(zip(texts, (vectors / length).astype(np.float16), strict=True))

    def _store_vector(self, row: int, vector: F16) -> None:
        self._vectors[row] = vector
        del self._waiting[row]
        self._sought.discard(row)

    def _key(self, text: str) -> str:
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:40]
        return f"{VECTORS}{{{digest}}}:{self._encoder.name}"


@contextmanager
def _encoder_lock(lock: str) -> Iterator[bool]:
    """Whether this process may encode now. The lock is SQLite's: it works everywhere and ends with its holder."""
    if not lock:
        yield True
        return
    Path(lock).parent.mkdir(parents=True, exist_ok=True)
    try:
        with closing(sqlite3.connect(lock, timeout=0, isolation_level=None)) as held:
            try:
                held.execute("BEGIN EXCLUSIVE")
            except sqlite3.OperationalError:
                yield False
                return
            yield True
    except sqlite3.OperationalError as error:
        raise Unavailable(f"{lock}: {error}") from error
