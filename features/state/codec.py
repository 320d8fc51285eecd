"""State <-> bytes: one version byte, then MessagePack; and the keys of states in the online store.

Bytes that do not decode are *corrupt* (StateError) and may be quarantined (`features.state.quarantine`). A state of a
*newer* version (NewerState), found after a deployment was rolled back, must be left unchanged. To distinguish the two,
bytes with a newer version number whose body is exactly what this engine writes count as corrupt in their first byte.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from features.state.keys import ITEMS, VIEWERS
from recsys.domain.errors import MainstayError
from recsys.domain.item_statistics import ItemState
from recsys.domain.viewer import ViewerState

VERSION = 2
"""Version of all states. It increases whenever the byte format changes, and only then."""

VERSIONS = 32
"""All versions, present and future, are below this number; a larger first byte means corruption."""

_MARK = bytes([VERSION])
_encoder = msgspec.msgpack.Encoder()
_viewer = msgspec.msgpack.Decoder(ViewerState)
_item = msgspec.msgpack.Decoder(ItemState)
S = TypeVar("S")


class StateError(MainstayError):
    """Bytes in the online store do not decode as a state of the version that this engine reads."""


class NewerState(StateError):
    """A state was written by a newer version of this engine."""


def viewer_key(viewer_id: str) -> str:
    """Return the key of a viewer's state. The braces keep all keys of one viewer on one Redis Cluster node."""
    return f"{VIEWERS}{{{viewer_id}}}"


def item_key(item_id: str, source: str) -> str:
    """Return the key of an item's counts of one log partition (`source` = "topic/partition")."""
    return f"{ITEMS}{{{item_id}}}:{source}"


def encode_viewer(state: ViewerState) -> bytes:
    """Return the bytes of a viewer's state; equal histories give equal bytes."""
    return encode_state(state)


def encode_item(state: ItemState) -> bytes:
    """Return the bytes of an item's state; equal histories give equal bytes."""
    return encode_state(state)


def encode_state(state: object) -> bytes:
    """Return the bytes of any state: a msgspec structure or a dataclass."""
    return _MARK + _encoder.encode(state)


def decode_viewer(raw: bytes) -> ViewerState:
    """Return the viewer's state in these bytes. Raises StateError."""
    return decode_state(raw, _viewer)


def decode_item(raw: bytes) -> ItemState:
    """Return the item's state in these bytes. Raises StateError."""
    return decode_state(raw, _item)


def decode_state(raw: bytes, decoder: msgspec.msgpack.Decoder[S]) -> S:
    """Return the state in these bytes. Raises StateError, and NewerState for a state of a newer version."""
    if raw[:1] != _MARK:
        if _MARK < raw[:1] < bytes([VERSIONS]):
            if _is_written_by_us(raw[1:], decoder):
                raise StateError(f"corrupt version byte {raw[0]}: the body is a state of version {VERSION}")
            raise NewerState(f"the state has version {raw[0]}; this engine reads version {VERSION}")
        raise StateError(f"the state has version {raw[:1].hex() or 'none'}; this engine reads version {VERSION}")
    try:
        return decoder.decode(memoryview(raw)[1:])
    except (msgspec.DecodeError, RecursionError) as error:
        raise StateError(f"the state cannot be decoded: {error}") from error


def viewer_at(key: str, raw: bytes) -> ViewerState:
    """Return the viewer's state that was read at this key. Raises StateError, also for the state of another viewer."""
    state = decode_viewer(raw)
    if viewer_key(state.viewer_id) != key:
        raise StateError("the state belongs to another viewer")
    return state


def item_at(key: str, raw: bytes) -> ItemState:
    """Return the item's state that was read at this key. Raises StateError, also for the state of another item."""
    state = decode_item(raw)
    if not key.startswith(item_key(state.item_id, "")):
        raise StateError("the state belongs to another item")
    return state


def _is_written_by_us(body: bytes, decoder: msgspec.msgpack.Decoder[Any]) -> bool:
    """Return whether these bytes are exactly what this engine writes for the state that the decoder reads from them."""
    try:
        return _encoder.encode(decoder.decode(body)) == body
    except (msgspec.DecodeError, RecursionError):
        return False
