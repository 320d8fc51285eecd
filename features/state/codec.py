"""State <-> bytes: one version byte, then MessagePack; and the keys under which the online store holds it.

Bytes that are not a state are *damaged* (StateError) and may be set aside (`features.state.quarantine`). A state of a
*newer* version (NewerState), found after a deployment was rolled back, must be left as it is. To tell the two apart,
bytes under a newer version number that are exactly what this engine writes count as damaged in their first byte.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from features.state.keys import ITEMS, VIEWERS
from recsys.domain.errors import MainstayError
from recsys.domain.item_statistics import ItemState
from recsys.domain.viewer import ViewerState

VERSION = 1
"""Version of all states. It goes up whenever the form of the bytes changes, and only then."""

VERSIONS = 32
"""All versions, present and future, are below this number; a larger first byte is damage."""

_MARK = bytes([VERSION])
_encoder = msgspec.msgpack.Encoder()
_viewer = msgspec.msgpack.Decoder(ViewerState)
_item = msgspec.msgpack.Decoder(ItemState)
S = TypeVar("S")


class StateError(MainstayError):
    """Bytes in the online store that are not a state of the version this engine reads."""


class NewerState(StateError):
    """A state that a newer version of this engine wrote."""


def viewer_key(viewer_id: str) -> str:
    """Where a viewer's state lives. The braces keep all keys of one viewer on one Redis Cluster node."""
    return f"{VIEWERS}{{{viewer_id}}}"


def item_key(item_id: str, source: str) -> str:
    """Where an item's counts of one log partition live (`source` = "topic/partition")."""
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
                raise StateError(f"state of version {VERSION} under the number {raw[0]}")
            raise NewerState(f"state of version {raw[0]}: this engine reads version {VERSION}")
        raise StateError(f"state of version {raw[:1].hex() or 'none'}: this engine reads version {VERSION}")
    try:
        return decoder.decode(memoryview(raw)[1:])
    except (msgspec.DecodeError, RecursionError) as error:
        raise StateError(f"broken state: {error}") from error


def viewer_at(key: str, raw: bytes) -> ViewerState:
    """The viewer's state that was read at this key. Raises StateError, also when it is another viewer's."""
    state = decode_viewer(raw)
    if viewer_key(state.viewer_id) != key:
        raise StateError("the state is another viewer's")
    return state


def item_at(key: str, raw: bytes) -> ItemState:
    """The item's state that was read at this key. Raises StateError, also when it is another item's."""
    state = decode_item(raw)
    if not key.startswith(item_key(state.item_id, "")):
        raise StateError("the state is another item's")
    return state


def _is_written_by_us(body: bytes, decoder: msgspec.msgpack.Decoder[Any]) -> bool:
    """Whether these bytes are exactly what this engine writes for the state that the decoder reads from them."""
    try:
        return _encoder.encode(decoder.decode(body)) == body
    except (msgspec.DecodeError, RecursionError):
        return False
