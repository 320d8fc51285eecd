"""The online store: state by key, read once per page. One port, three adapters, one contract suite.

Laws (`tests/contracts/test_online.py`): every later read by any process sees a write; a batch is returned in the order
of the requested keys, with None for missing ones; an expired key is missing; `scan` lists each live key under a prefix
once; of several concurrent writers that compare-and-set the same value, one succeeds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, TypeAlias, runtime_checkable

CasEntry: TypeAlias = tuple[bytes | None, bytes]
"""The value that was read (None: missing) and the value that replaces it."""


class OnlineStore(Protocol):
    """A store of bytes by key.

    Keys look like `viewer:{id}` and `item:{id}:partition`; the braces are Redis Cluster hash tags.
    """

    def get(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return the values in the order of the keys. Raises Unavailable within the store's timeout; does not retry."""

    def put(self, entries: Mapping[str, bytes], ttl_s: float | None = None) -> None:
        """Write all entries; each key is atomic. `ttl_s` counts from now; with None, entries never expire."""

    def compare_and_set(self, entries: Mapping[str, CasEntry], ttl_s: float | None = None) -> list[str]:
        """Write each entry whose stored value is still the one that was read; return the other keys, in their order.

        Each key is atomic, so a writer that paused between reading and writing overwrites nothing newer. `ttl_s` is as
        in `put`. Raises Unavailable, in which case some entries may be written.
        """

    def delete(self, keys: Sequence[str]) -> None:
        """Delete these keys; missing keys are ignored."""

    def scan(self, prefix: str) -> Iterator[tuple[str, bytes]]:
        """Return every live key under the prefix with its value, in no particular order."""

    def close(self) -> None:
        """Release all resources; idempotent."""


@runtime_checkable
class Sharded(Protocol):
    """An online store whose keys are spread over several nodes."""

    def node_of(self, key: str) -> str:
        """Return the node that holds this key, without a request; empty if unknown or if there is only one node."""
