"""An encoder in a worker process at low priority, so that encoding does not delay pages.

The process starts at the first text, exits with its parent, and exits after a while without a text.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from functools import cache
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from features.embeddings.encoder import Encoder, EncoderError, NoEncoder
from features.low_priority_pool import low_priority_pool
from recsys.domain.types import F32

if TYPE_CHECKING:
    from loky import ProcessPoolExecutor

ANSWERS_WITHIN_S = 120.0
"""An encoder that takes longer for one batch, or to start, is killed."""

IDLE_S = 60.0
"""The process exits after this time without a text, which frees its memory."""

MAX_ERROR_LENGTH = 1_000


class SubprocessEncoder:
    """The encoder that the callable `MODULE:FACTORY` returns, run in a worker process. Encodes one batch at a time.

    Name and dimensions are read from the encoder unless they are given.
    """

    def __init__(self, factory: str, name: str = "", dimensions: int = 0) -> None:
        self._factory, self._name, self._dimensions = factory, name, dimensions
        self._pool: ProcessPoolExecutor | None = None
        self._closed = False
        self._lock = threading.Lock()  # held during a batch
        self._pool_lock = threading.Lock()  # held only while the pool is used or replaced: `close` never waits for long

    @property
    def name(self) -> str:
        """Name and version. Raises NoEncoder when the encoder cannot be loaded."""
        if not self._name:
            self.encode([])
        return self._name

    @property
    def dimensions(self) -> int:
        """D. Raises NoEncoder when the encoder cannot be loaded."""
        if not self._dimensions:
            self.encode([])
        return self._dimensions

    def encode(self, texts: Sequence[str]) -> F32:
        """[n, D]. Raises EncoderError when the encoder fails, dies, or exceeds its time; NoEncoder when it is closed or
        cannot be loaded.
        """
        with self._lock, TemporaryDirectory(prefix="mainstay-encoder-") as folder:
            file = Path(folder) / "vectors.npy"
            try:
                self._name, self._dimensions = self._submit(list(texts), file).result(ANSWERS_WITHIN_S)
                vectors: F32 = np.load(file)
                return vectors
            except NoEncoder:
                self._end()  # the next batch tries again in a fresh process
                raise
            except TimeoutError as error:
                self._end()
                raise EncoderError(f"encoder {self._factory} did not answer within {ANSWERS_WITHIN_S:.0f} s") from error
            except (RuntimeError, OSError) as error:  # a broken pool, or one that `close` has shut down
                self._end()
                raise EncoderError(f"encoder {self._factory}: its process ended before it answered") from error

    def close(self) -> None:
        """Kill the process, even during a batch; idempotent. Later calls of `encode` raise NoEncoder."""
        self._closed = True
        self._end()

    def _submit(self, texts: list[str], file: Path) -> Future[tuple[str, int]]:
        with self._pool_lock:
            if self._closed:
                raise NoEncoder(f"encoder {self._factory} is closed")
            if self._pool is None:
                self._pool = low_priority_pool(1, IDLE_S)
            future: Future[tuple[str, int]] = self._pool.submit(_encode, self._factory, texts, str(file))
            return future

    def _end(self) -> None:
        with self._pool_lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(kill_workers=True)


def _encode(factory: str, texts: list[str], file: str) -> tuple[str, int]:
    """Encode in the worker: write the vectors to `file` and return the encoder's name and dimensions.

    The vectors do not travel through the pool's pipe: loky waits forever for the rest of a result that is longer than
    the pipe's buffer when its worker is killed while sending it. Errors become EncoderError, which can be pickled.
    """
    try:
        encoder = _load(factory)
        name, dimensions = str(encoder.name), int(encoder.dimensions)
    except BaseException as error:
        raise NoEncoder(f"encoder {factory} cannot be loaded: {_text_of(error)}") from None
    try:
        vectors = encoder.encode(texts) if texts else np.zeros((0, dimensions))
        np.save(file, np.asarray(vectors, np.float32), allow_pickle=False)
    except BaseException as error:
        raise EncoderError(f"encoder {factory}: {_text_of(error)}") from None
    return name, dimensions


@cache
def _load(factory: str) -> Encoder:
    module, _, function = factory.partition(":")
    encoder: Encoder = getattr(import_module(module), function)()
    return encoder


def _text_of(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:MAX_ERROR_LENGTH]
