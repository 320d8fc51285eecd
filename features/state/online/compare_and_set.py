"""Read, fold, and write back with compare-and-set; repeat for keys that another writer changed in between.

A worker that was paused in the middle of a step (SIGSTOP, a suspended machine) resumes with states that it read before
its partitions moved. A blind write would undo what the new owner folded and bring back erased viewers. So a state is
only ever written in place of the state from which it was folded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

from features.state.online.port import OnlineStore
from recsys.domain.errors import Unavailable

TRIES = 10
S = TypeVar("S")


class Reader(Protocol):
    """A function that decodes the values that were read at keys (None: missing)."""

    def __call__(
        self, values: Mapping[str, bytes | None], decode: Callable[[str, bytes], S], /
    ) -> Mapping[str, S | None]:
        """Return the states by key; `decode(key, value)` raises StateError for a corrupt value."""


def decode_or_raise(values: Mapping[str, bytes | None], decode: Callable[[str, bytes], S]) -> Mapping[str, S | None]:
    """Return the decoded states by key. Raises StateError for a corrupt value."""
    return {key: None if raw is None else decode(key, raw) for key, raw in values.items()}


def update(
    online: OnlineStore,
    keys: Sequence[str],
    decode: Callable[[str, bytes], S],
    fold: Callable[[str, S | None], bytes],
    ttl_s: float | None = None,
    read: Reader = decode_or_raise,
) -> None:
    """Replace each key's state (None: missing) by `fold(key, state)`.

    If another writer changes a key in between, `fold` is called again with the new state, so it must be idempotent.
    Raises Unavailable, also if a key still changes after `TRIES` rounds, and whatever `read` raises.
    """
    pending = list(keys)
    for _ in range(TRIES):
        if not pending:
            return
        values = dict(zip(pending, online.get(pending), strict=True))
        states = read(values, decode)
        pending = online.compare_and_set({key: (raw, fold(key, states[key])) for key, raw in values.items()}, ttl_s)
    if pending:
        raise Unavailable(f"{pending[0]}: another writer changed it during each of {TRIES} attempts")
