"""State <-> bytes: one version byte, then MessagePack; and the keys under which the online store holds it.

Version 2 writes structures as arrays, event ids as hashes. States of version 1 are read and become version 2 with the
next event: a fleet may be upgraded while it runs, readers (serving) before writers (workers).
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from features.codec_v1 import ItemStateV1, ViewerStateV1, upgraded_item, upgraded_viewer
from recsys.errors import MainstayError
from recsys.state import ItemState, ViewerState

VERSION = 2
ITEMS = "item:"
VIEWERS = "viewer:"

_MARK = bytes([VERSION])
_MARK_V1 = b"\x01"
_encoder = msgspec.msgpack.Encoder()
_viewer = msgspec.msgpack.Decoder(ViewerState)
_item = msgspec.msgpack.Decoder(ItemState)
_viewer_v1 = msgspec.msgpack.Decoder(ViewerStateV1)
_item_v1 = msgspec.msgpack.Decoder(ItemStateV1)
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
    """The bytes of any other state, which has not changed since version 1: a msgspec structure or a dataclass."""
    return _MARK_V1 + _encoder.encode(state)


def decode_state(raw: bytes, decoder: msgspec.msgpack.Decoder[S]) -> S:
    """The state in these bytes. Raises StateError."""
    return _decode(raw, decoder, _MARK_V1)


def decode_viewer(raw: bytes) -> ViewerState:
    """The state in these bytes, of this version or the one before. Raises StateError."""
    if raw[:1] == _MARK_V1:
        return upgraded_viewer(_decode(raw, _viewer_v1, _MARK_V1))
    return _decode(raw, _viewer, _MARK)


def decode_item(raw: bytes) -> ItemState:
    """The state in these bytes, of this version or the one before. Raises StateError."""
    if raw[:1] == _MARK_V1:
        return upgraded_item(_decode(raw, _item_v1, _MARK_V1))
    return _decode(raw, _item, _MARK)


def _decode(raw: bytes, decoder: msgspec.msgpack.Decoder[S], mark: bytes) -> S:
    if raw[:1] != mark:
        raise StateError(f"state of version {raw[:1].hex() or 'none'}: this engine reads {VERSION}")
    try:
        return decoder.decode(memoryview(raw)[1:])
    except (msgspec.DecodeError, RecursionError) as error:
        raise StateError(f"broken state: {error}") from error
