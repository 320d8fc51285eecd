"""Damaged states set aside: bytes that were found in the place of a state and are none.

Each is kept under a key of its own, `damaged:KEY:HASH`, for thirty days (`mainstay quarantine list`), or until the online
store is rebuilt. The fold goes on from a state made again from the event log or, where that would take too long, from
an empty one: then `mainstay verify` names it, and a rebuild mends it (`features.worker.repair`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b

import msgspec

from features.state.codec import StateError, decode_state, encode_state
from features.state.keys import QUARANTINE
from features.state.online.port import OnlineStore
from recsys.domain.viewer import DAY_S

QUARANTINE_TTL_S = 30 * DAY_S


class CorruptState(msgspec.Struct, frozen=True):
    """What stood at a key. `at`: unix second at which it was found; `mended`: whether its place was taken by all that
    was ever folded into it, or else by an empty state or one that may lack events."""

    key: str
    cause: str
    at: float
    repaired: bool
    raw: bytes


_damaged = msgspec.msgpack.Decoder(CorruptState)


def quarantine(online: OnlineStore, found: Iterable[CorruptState]) -> None:
    """Keep these. The same bytes found again at the same key are kept once. Raises Unavailable."""
    if entries := {_name(one): encode_state(one) for one in found}:
        online.put(entries, QUARANTINE_TTL_S)


def quarantined(online: OnlineStore, key: str | None = None) -> Iterator[CorruptState]:
    """All that is set aside, or what was found at one key. Raises Unavailable."""
    return (one for _, one in _quarantine_key(online, key))


def discard(online: OnlineStore, keys: Sequence[str] | None = None) -> int:
    """Forget what was found at these keys, or all; returns how many there were. Raises Unavailable."""
    wanted = None if keys is None else set(keys)
    within = next(iter(wanted)) if wanted is not None and len(wanted) == 1 else None  # some stores look at all keys
    names = [name for name, one in _quarantine_key(online, within) if wanted is None or one.key in wanted]
    online.delete(names)
    return len(names)


def _quarantine_key(online: OnlineStore, key: str | None) -> Iterator[tuple[str, CorruptState]]:
    for name, raw in online.scan(QUARANTINE if key is None else f"{QUARANTINE}{key}:"):
        try:
            one = decode_state(raw, _damaged)
        except StateError as error:  # damaged in its turn
            one = CorruptState(name.removeprefix(QUARANTINE).rpartition(":")[0], str(error), 0.0, False, raw)
        if key in (None, one.key):
            yield name, one


def _name(one: CorruptState) -> str:
    return f"{QUARANTINE}{one.key}:{blake2b(one.raw, digest_size=8).hexdigest()}"
