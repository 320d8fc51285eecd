"""The online store: state by key, read once per page. One port, three adapters, one law suite.

Laws (`tests/contracts/test_online.py`): a put is seen by every later get of any process; a batch is returned in the
order asked, None for what is missing; an expired key is missing; `scan` lists each live key under a prefix once; of
several writers that swap what they read, one succeeds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, TypeAlias, runtime_checkable

CasEntry: TypeAlias = tuple[bytes | None, bytes]
"""A value as it was read (None: missing) and the one to stand in its place."""


class OnlineStore(Protocol):
    """Bytes by key. Keys look like `viewer:{id}` and `item:{id}:partition`; the braces are Redis Cluster hash tags."""

    def get(self, keys: Sequence[str]) -> list[bytes | None]:
        """Values in the order of keys. Raises Unavailable within the store's time-out; no retries."""

    def put(self, entries: Mapping[str, bytes], ttl_s: float | None = None) -> None:
        """Write all; each key is atomic. `ttl_s` counts from now; None keeps for ever."""

    def compare_and_set(self, entries: Mapping[str, CasEntry], ttl_s: float | None = None) -> list[str]:
        """Write each entry whose value is still the one that was read; returns the keys of the others, in their order.

        Each key is atomic: whoever slept between reading and writing overwrites nothing newer. `ttl_s` as in `put`.
        Raises Unavailable; some may be written then.
        """

    def delete(self, keys: Sequence[str]) -> None:
        """Forget; keys that do not exist are fine."""

    def scan(self, prefix: str) -> Iterator[tuple[str, bytes]]:
        """Every live key under the prefix with its value, in no particular order."""

    def close(self) -> None:
        """Let go; idempotent."""


@runtime_checkable
class Sharded(Protocol):
    """What an online store says besides when several nodes hold its keys."""

    def node_of(self, key: str) -> str:
        """The node that holds this key, as far as it is known without asking; empty when it is not, or there is one."""
