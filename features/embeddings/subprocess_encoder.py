"""An encoder that runs in a worker process at low priority, so that encoding does not delay pages.

The process starts with the first text. It exits with its parent, or after IDLE_S without a text.
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

ENCODE_TIMEOUT_S = 120.0
"""An encoder that takes longer to start, or to encode one batch, is killed."""

IDLE_S = 60.0
"""The process exits after this time without a text, to free its memory."""

MAX_ERROR_LENGTH = 1_000


class SubprocessEncoder:
    """A proxy for the encoder that the callable `MODULE:FACTORY` returns. It encodes one batch at a time.

    The name and dimensions are read from the encoder unless the caller passes them.
    """

    def __init__(self, factory: str, name: str = "", dimensions: int = 0) -> None:
        self._factory, self._name, self._dimensions = factory, name, dimensions
        self._pool: ProcessPoolExecutor | None = None
        self._closed = False
        self._lock = threading.Lock()  # held during a batch
        self._pool_lock = (
            threading.Lock()
        )  # held only while the pool is used or replaced, so that `close` never waits for a batch

    @property
    def name(self) -> str:
        """Name and version. Raises NoEncoder if the encoder cannot be loaded."""
        if not self._name:
            self.encode([])
        return self._name

    @property
    def dimensions(self) -> int:
        """The length D of each vector. Raises NoEncoder if the encoder cannot be loaded."""
        if not self._dimensions:
            self.encode([])
        return self._dimensions

    def encode(self, texts: Sequence[str]) -> F32:
        """Return [n, D] vectors.

        Raises EncoderError if the encoder fails, dies or exceeds ENCODE_TIMEOUT_S, and NoEncoder if it is closed or
        cannot be loaded.
        """
        with self._lock, TemporaryDirectory(prefix="mainstay-encoder-") as folder:
            file = Path(folder) / "vectors.npy"
            try:
                self._name, self._dimensions = self._submit(list(texts), file).result(ENCODE_TIMEOUT_S)
                vectors: F32 = np.load(file)
                return vectors
            except NoEncoder:
                self._discard_pool()  # the next batch retries in a new process
                raise
            except TimeoutError as error:
                self._discard_pool()
                raise EncoderError(f"encoder {self._factory} did not answer within {ENCODE_TIMEOUT_S:.0f} s") from error
            except (RuntimeError, OSError) as error:  # the pool is broken, or `close` shut it down
                self._discard_pool()
                raise EncoderError(f"encoder {self._factory}: its process ended before it answered") from error

    def close(self) -> None:
        """Kill the process, even during a batch; idempotent. Later calls of `encode` raise NoEncoder."""
        self._closed = True
        self._discard_pool()

    def _submit(self, texts: list[str], file: Path) -> Future[tuple[str, int]]:
        with self._pool_lock:
            if self._closed:
                raise NoEncoder(f"encoder {self._factory} is closed")
            if self._pool is None:
                self._pool = low_priority_pool(1, IDLE_S)
            future: Future[tuple[str, int]] = self._pool.submit(_encode, self._factory, texts, str(file))
            return future

    def _discard_pool(self) -> None:
        with self._pool_lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(kill_workers=True)


def _encode(factory: str, texts: list[str], file: str) -> tuple[str, int]:
    """Encode in the worker process: write the vectors to `file`, return the encoder's name and dimensions.

    The vectors do not travel through the pool's pipe: if a worker is killed while it sends a result larger than the
    pipe's buffer, loky waits forever for the rest. Errors become EncoderError, which can be pickled.
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
