"""Many objects at once without the search for circles among them, which CPython begins again and again as they grow."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused_gc() -> Iterator[None]:
    """A fold makes hundreds of thousands of objects and no circle among them: looking for circles again and again
    while they grow in number took half of its time. They are looked for again when the block is left, if before."""
    searching = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if searching:
            gc.enable()
