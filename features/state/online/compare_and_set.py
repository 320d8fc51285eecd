"""Read, fold, write back: again for whatever another writer changed meanwhile, so that no state goes backwards.

A worker that was stopped in the middle of a step (SIGSTOP, a long pause of its machine) wakes up with states that it
read before its partitions moved. Written blindly, they would undo what the new owner folded, and an erased viewer would
come back. So states are only ever swapped for the ones they were folded from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

from features.state.online.port import OnlineStore
from recsys.domain.errors import Unavailable

TRIES = 10
S = TypeVar("S")


class Reader(Protocol):
    """Makes states of what was found at keys (None: missing)."""

    def __call__(
        self, found: Mapping[str, bytes | None], decode: Callable[[str, bytes], S], /
    ) -> Mapping[str, S | None]:
        """By key; `decode(key, value)` raises StateError for what is no state."""


def decode_or_raise(found: Mapping[str, bytes | None], decode: Callable[[str, bytes], S]) -> Mapping[str, S | None]:
    """A reader that raises StateError for a value that is no state."""
    return {key: None if raw is None else decode(key, raw) for key, raw in found.items()}


def update(
    online: OnlineStore,
    keys: Sequence[str],
    decode: Callable[[str, bytes], S],
    fold: Callable[[str, S | None], bytes],
    ttl_s: float | None = None,
    read: Reader = decode_or_raise,
) -> None:
    """Put `fold(key, state)` in the place of each key's state (None: missing).

    `fold` is called again with the new state when another writer was faster, so it must be idempotent. Raises
    Unavailable, also when a key kept changing for `TRIES` rounds, and what `read` raises.
    """
    left = list(keys)
    for _ in range(TRIES):
        if not left:
            return
        found = dict(zip(left, online.get(left), strict=True))
        states = read(found, decode)
        left = online.compare_and_set({key: (raw, fold(key, states[key])) for key, raw in found.items()}, ttl_s)
    if left:
        raise Unavailable(f"{left[0]}: another worker keeps changing it")
