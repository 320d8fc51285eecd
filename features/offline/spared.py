"""pandas is not imported where nobody asked for it.

pyarrow imports it when it makes its first array, to know a Series from a list: a started worker that has events waiting
paid for that before its first commit. Told once that there is none, it does not look again until something needs it
(`to_pandas` still works).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

import pyarrow as pa  # type: ignore[import-untyped]

ABSENT = "pandas"


class _Absent(MetaPathFinder):
    """Finds none."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == ABSENT:
            raise ModuleNotFoundError(fullname, name=ABSENT)
        return None


def without_pandas() -> None:
    """Let pyarrow make its first array as if there were no pandas; no effect where it is imported already."""
    if ABSENT in sys.modules:
        return
    absent = _Absent()
    sys.meta_path.insert(0, absent)
    try:
        pa.array([0])
    finally:
        sys.meta_path.remove(absent)
