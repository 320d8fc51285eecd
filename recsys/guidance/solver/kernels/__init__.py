"""Numba kernels of the page solver.

Decorate every kernel with `kernel`. Numba invalidates a cached function by the time stamp of the file that defines it,
although kernels from other files are compiled into it; a stale cache would then run outdated code. The cache stamp of
every kernel is therefore a digest of all sources in this package.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from hashlib import sha256
from importlib.resources import files
from typing import Any, TypeVar

from numba import njit

F = TypeVar("F", bound=Callable[..., Any])


def _digest() -> str:
    sources = sorted((f for f in files(__package__).iterdir() if f.name.endswith(".py")), key=lambda f: f.name)
    return sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()


DIGEST = _digest()


def _load_index(load: Callable[[], dict[Any, str]]) -> dict[Any, str]:
    """Load a numba cache index; return an empty one if it was written by sources with other class or module names."""
    try:
        return load()
    except (AttributeError, ImportError):
        return {}


def kernel(function: F) -> F:
    """Compile a function with numba, without the GIL. Sums may be reordered; infinities are preserved."""
    compiled: Any = njit(function, cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz", "arcp"})
    cache_file = compiled._cache._cache_file
    cache_file._source_stamp = DIGEST
    cache_file._load_index = partial(_load_index, cache_file._load_index)
    return compiled  # type: ignore[no-any-return]
