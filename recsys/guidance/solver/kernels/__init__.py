"""The compiled road to a page. `kernel` compiles; every kernel's cache is void when any kernel's source changes.

numba caches a compiled function under its own file's time stamp, though other files' kernels are compiled into it: a
stale cache would answer with yesterday's mathematics. So each cache carries the digest of all sources here.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from importlib.resources import files
from typing import Any, TypeVar

from numba import njit

F = TypeVar("F", bound=Callable[..., Any])


def _digest() -> str:
    sources = sorted((f for f in files(__package__).iterdir() if f.name.endswith(".py")), key=lambda f: f.name)
    return sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()


DIGEST = _digest()


def kernel(function: F) -> F:
    """Compile for numba, without the interpreter's lock; sums may be reordered, infinities are kept."""
    compiled: Any = njit(function, cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz", "arcp"})
    compiled._cache._cache_file._source_stamp = DIGEST
    return compiled  # type: ignore[no-any-return]
