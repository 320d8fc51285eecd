"""State <-> bytes: one version byte, then MessagePack; and the keys under which the online store holds it.

Version 2 writes structures as arrays, event ids as hashes; version 3, of viewers alone, adds what they voted for,
version 4 a ring of its own for ids of events that only pass by.
States of older versions are read and become the newest with the next event: a fleet may be upgraded while it runs,
readers (serving) before writers (workers).

Bytes that are no state are *damaged* (StateError): they may be set aside (`features.aside`). A state of a *newer*
version (NewerState), after a deployment was rolled back, is none of ours to judge and must be left where it is. So a
version has a form of its own: bytes under a newer number that are just what this engine or an older one writes are
damaged in their first byte.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from features.codec_v1 import ItemStateV1, ViewerStateV1, upgraded_item, upgraded_viewer
from features.codec_v2 import ViewerStateV2, with_votes
from features.codec_v3 import ViewerStateV3, with_rings
from features.keys import ITEMS, VIEWERS
from recsys.errors import MainstayError
from recsys.state import ItemState, ViewerState

VERSION = 4
"""Of viewers' states. Goes up when the form of the bytes changes, and never without that."""

ITEM_VERSION = 2
"""The same of items' states."""

VERSIONS = 32
"""Versions there can ever be are below this; a first byte beyond is no version but damage."""

_MARK = bytes([VERSION])
_MARK_ITEM = bytes([ITEM_VERSION])
_MARK_V1, _MARK_V2, _MARK_V3 = b"\x01", b"\x02", b"\x03"
_encoder = msgspec.msgpack.Encoder()
_viewer = msgspec.msgpack.Decoder(ViewerState)
_item = msgspec.msgpack.Decoder(ItemState)
_viewer_v3 = msgspec.msgpack.Decoder(ViewerStateV3)
_viewer_v2 = msgspec.msgpack.Decoder(ViewerStateV2)
_viewer_v1 = msgspec.msgpack.Decoder(ViewerStateV1)
_item_v1 = msgspec.msgpack.Decoder(ItemStateV1)
S = TypeVar("S")


class StateError(MainstayError):
    """Bytes in the online store that are no state of a version this engine reads."""


class NewerState(StateError):
    """A state that a newer version of this engine wrote."""


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
    return _MARK_ITEM + _encoder.encode(state)


def encode_state(state: object) -> bytes:
    """The bytes of any other state, which has not changed since version 1: a msgspec structure or a dataclass."""
    return _MARK_V1 + _encoder.encode(state)


def decode_state(raw: bytes, decoder: msgspec.msgpack.Decoder[S]) -> S:
    """The state in these bytes. Raises StateError."""
    return _decode(raw, decoder, _MARK_V1)


def decode_viewer(raw: bytes) -> ViewerState:
    """The state in these bytes, of this version or an older one. Raises StateError."""
    if raw[:1] == _MARK_V3:
        return with_rings(_decode(raw, _viewer_v3, _MARK_V3))
    if raw[:1] == _MARK_V2:
        return with_votes(_decode(raw, _viewer_v2, _MARK_V2))
    if raw[:1] == _MARK_V1:
        return upgraded_viewer(_decode(raw, _viewer_v1, _MARK_V1))
    return _decode(raw, _viewer, _MARK, _viewer_v3, _viewer_v2, _viewer_v1)


def decode_item(raw: bytes) -> ItemState:
    """The state in these bytes, of this version or the one before. Raises StateError."""
    if raw[:1] == _MARK_V1:
        return upgraded_item(_decode(raw, _item_v1, _MARK_V1))
    return _decode(raw, _item, _MARK_ITEM, _item_v1)


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


def _decode(raw: bytes, decoder: msgspec.msgpack.Decoder[S], mark: bytes, *older: msgspec.msgpack.Decoder[Any]) -> S:
    if raw[:1] != mark:
        if mark < raw[:1] < bytes([VERSIONS]):
            if any(_written(raw[1:], one) for one in (decoder, *older)):
                raise StateError(f"state of version {mark[0]} or older under the number {raw[0]}")
            raise NewerState(f"state of version {raw[0]}: this engine reads {mark[0]} and older")
        raise StateError(f"state of version {raw[:1].hex() or 'none'}: this engine reads {mark[0]}")
    try:
        return decoder.decode(memoryview(raw)[1:])
    except (msgspec.DecodeError, RecursionError) as error:
        raise StateError(f"broken state: {error}") from error


def _written(rest: bytes, decoder: msgspec.msgpack.Decoder[Any]) -> bool:
    """Whether these bytes are just what this engine writes for the state that the decoder finds in them."""
    try:
        return _encoder.encode(decoder.decode(rest)) == rest
    except (msgspec.DecodeError, RecursionError):
        return False
