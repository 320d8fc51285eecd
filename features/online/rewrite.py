"""Read, fold, write back: again for whatever another writer changed meanwhile, so that no state goes backwards.

A worker that was stopped in the middle of a step (SIGSTOP, a long pause of its machine) wakes up with states that it
read before its partitions moved. Written blindly, they would undo what the new owner folded, and an erased viewer would
come back. So states are only ever swapped for the ones they were folded from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from features.online import OnlineStore
from recsys.errors import Unavailable

TRIES = 10


def rewrite(
    online: OnlineStore, keys: Sequence[str], fold: Callable[[str, bytes | None], bytes], ttl_s: float | None = None
) -> None:
    """Put `fold(key, value)` in the place of each key's value (None: missing).

    `fold` is called again with the new value when another writer was faster, so it must be idempotent. Raises
    Unavailable, also when a key kept changing for `TRIES` rounds.
    """
    left = list(keys)
    for _ in range(TRIES):
        if not left:
            return
        left = online.swap({k: (raw, fold(k, raw)) for k, raw in zip(left, online.get(left), strict=True)}, ttl_s)
    if left:
        raise Unavailable(f"{left[0]}: another worker keeps changing it")
