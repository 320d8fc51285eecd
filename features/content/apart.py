"""An encoder in a process of its own, at low priority and with one thread, so that pages feel nothing of it.

Encoders compute in Python and numpy under the interpreter's lock, for milliseconds at a time. The process is started at
the first text, leaves with its parent, and is let go when there was nothing to encode for a while.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

import numpy as np

from features.content import Encoder, EncoderError, NoEncoder
from recsys.types import F32

ANSWERS_WITHIN_S = 120.0
"""An encoder that takes longer for one batch, or to start, is ended."""

IDLE_S = 60.0
"""After so long without a text the process is let go, and gives its memory back."""

NICE = 10
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Apart:
    """The encoder that the callable `MODULE:FACTORY` makes, elsewhere. One call at a time.

    Name and dimensions are asked of it, unless they are known beforehand.
    """

    def __init__(self, said: str, name: str = "", dimensions: int = 0) -> None:
        self._said, self._name, self._dimensions = said, name, dimensions
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None
        self._leaving: threading.Timer | None = None
        self._lock = threading.Lock()
        self._closed = False

    @property
    def name(self) -> str:
        """Name and version. Raises NoEncoder when it cannot be loaded."""
        if not self._name:
            self._ask([])
        return self._name

    @property
    def dimensions(self) -> int:
        """D. Raises NoEncoder when it cannot be loaded."""
        if not self._dimensions:
            self._ask([])
        return self._dimensions

    def encode(self, texts: Sequence[str]) -> F32:
        """[n, D]. Raises EncoderError when it cannot, or did not within its time."""
        return self._ask(list(texts))

    def close(self) -> None:
        """End the process, whatever it is at; idempotent. There is no other afterwards."""
        self._closed = True
        if (process := self._process) is not None:
            with suppress(ValueError):  # it has ended meanwhile
                process.terminate()  # who waits for its answer stops waiting
        self._rest()

    def _rest(self) -> None:
        """Let the process go; the next text starts another."""
        with self._lock:
            self._end()

    def _ask(self, texts: list[str]) -> F32:
        with self._lock:
            if self._closed:
                raise NoEncoder(f"encoder {self._said} is closed")
            if self._leaving is not None:
                self._leaving.cancel()
            try:
                pipe = self._begun()
                pipe.send(texts)
                answer = self._answer(pipe)
            except (OSError, EOFError) as error:
                self._end()
                raise EncoderError(f"encoder {self._said} ended without an answer: {error}") from error
            self._leaving = threading.Timer(IDLE_S, self._rest)
            self._leaving.daemon = True
            self._leaving.start()
        if not isinstance(answer, np.ndarray):
            raise EncoderError(f"encoder {self._said}: {answer}")
        return answer

    def _begun(self) -> Connection:
        """The pipe to the process, started where there is none; it introduces itself first."""
        if self._pipe is None or self._process is None or not self._process.is_alive():
            self._end()
            spawn = multiprocessing.get_context("spawn")
            self._pipe, theirs = spawn.Pipe()
            self._process = spawn.Process(target=_work, args=(theirs, self._said), name="encoder", daemon=True)
            before = {name: os.environ.get(name) for name in _THREADS}
            os.environ.update(dict.fromkeys(_THREADS, "1"))  # inherited; libraries read them when they are loaded
            try:
                self._process.start()
            finally:
                for name, was in before.items():
                    os.environ.pop(name) if was is None else os.environ.update({name: was})
            theirs.close()
            introduced = self._answer(self._pipe)
            if not isinstance(introduced, tuple):
                self._end()
                raise NoEncoder(f"encoder {self._said} cannot be loaded: {introduced}")
            self._name, self._dimensions = introduced
        return self._pipe

    def _answer(self, pipe: Connection) -> F32 | str | tuple[str, int]:
        if not pipe.poll(ANSWERS_WITHIN_S):
            raise EOFError(f"nothing within {ANSWERS_WITHIN_S:.0f} s")
        return pipe.recv()  # type: ignore[no-any-return]

    def _end(self) -> None:
        pipe, process = self._pipe, self._process
        self._pipe = self._process = None
        if pipe is not None:
            pipe.close()
        if process is not None:
            process.terminate()
            process.join(5)
            process.close()


def _work(pipe: Connection, said: str) -> None:
    """The process: say name and dimensions, then answer every list of texts with vectors, or with what went wrong."""
    if hasattr(os, "nice"):
        os.nice(NICE)
    try:
        module, _, factory = said.partition(":")
        encoder: Encoder = getattr(import_module(module), factory)()
        pipe.send((encoder.name, encoder.dimensions))
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {error}")
        return
    while True:
        try:
            texts = pipe.recv()
        except (EOFError, KeyboardInterrupt):  # the parent has ended, or everybody was asked to
            return
        try:
            size = encoder.dimensions
            pipe.send(np.asarray(encoder.encode(texts) if texts else np.zeros((0, size)), np.float32))
        except Exception as error:  # one bad text must not end the encoder
            pipe.send(f"{type(error).__name__}: {error}")
