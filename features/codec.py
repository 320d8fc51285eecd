"""State <-> bytes: one version byte, then MessagePack; and the keys under which the online store holds it."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from recsys.errors import MainstayError
from recsys.state import ItemState, ViewerState

VERSION = 1
ITEMS = "item:"
VIEWERS = "viewer:"

_MARK = bytes([VERSION])
_encoder = msgspec.msgpack.Encoder()
_viewer = msgspec.msgpack.Decoder(ViewerState)
_item = msgspec.msgpack.Decoder(ItemState)
S = TypeVar("S")


class StateError(MainstayError):
    """Bytes in the online store that are no state of a version this engine reads."""


def viewer_key(viewer_id: str) -> str:
    """Where a viewer's state lives. The braces keep all keys of one viewer on one Redis Cluster node."""
    return f"{VIEWERS}{{{viewer_id}}}"


def item_key(item_id: str, source: str) -> str:
    """Where an item's counts of one log partition live (`source` = "topic/partition")."""
    return f"{ITEMS}{{{item_id}}}:{source}"


def encode_viewer(state: ViewerState) -> bytes:
    """The bytes of a viewer's state; equal histories give equal bytes."""
    return _MARK + _encoder.encode(state)


def encode_item(state: ItemState) -> bytes:
    """The bytes of an item's state; equal histories give equal bytes."""
    return _MARK + _encoder.encode(state)


def encode_state(state: object) -> bytes:
    """The bytes of any other state: a msgspec structure or a dataclass."""
    return _MARK + _encoder.encode(state)


def decode_state(raw: bytes, decoder: msgspec.msgpack.Decoder[S]) -> S:
    """The state in these bytes. Raises StateError."""
    return _decode(raw, decoder)


def decode_viewer(raw: bytes) -> ViewerState:
    """The state in these bytes. Raises StateError."""
    return _decode(raw, _viewer)


def decode_item(raw: bytes) -> ItemState:
    """The state in these bytes. Raises StateError."""
    return _decode(raw, _item)


def _decode(raw: bytes, decoder: msgspec.msgpack.Decoder[S]) -> S:
    if raw[:1] != _MARK:
        raise StateError(f"state of version {raw[:1].hex() or 'none'}: this engine reads {VERSION}")
    try:
        return decoder.decode(memoryview(raw)[1:])
    except (msgspec.DecodeError, RecursionError) as error:
        raise StateError(f"broken state: {error}") from error
