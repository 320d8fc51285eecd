"""State <-> bytes, and the keys of states in the online store.

A stored state is a version byte, the CRC-32 of the body with the version as its initial value (four bytes,
little-endian), and the body in MessagePack. All versions share this frame. A wrong checksum means that the bytes are
*corrupt* (StateError), whatever version they name; they may be quarantined (`features.state.quarantine`). Bytes of a
*newer* version with a correct checksum (NewerState), found after a deployment was rolled back, must be left unchanged.
"""

from __future__ import annotations

import struct
from typing import TypeVar
from zlib import crc32

import msgspec

from features.checksum import decode_stored
from features.state.keys import ITEMS, VIEWERS
from recsys.domain.errors import DamagedData
from recsys.domain.item_statistics import ItemState
from recsys.domain.viewer import ViewerState

VERSION = 2
"""Version of all states. It increases whenever the byte format changes, and only then."""

_FRAME = struct.Struct("<BI")  # version, checksum
_encoder = msgspec.msgpack.Encoder()
_viewer = msgspec.msgpack.Decoder(ViewerState)
_item = msgspec.msgpack.Decoder(ItemState)
S = TypeVar("S")


class StateError(DamagedData):
    """Bytes in the online store are damaged, or not the state of their key in the version that this engine reads."""


class NewerState(StateError):
    """A state was written by a newer version of this engine."""


def viewer_key(viewer_id: str) -> str:
    """Return the key of a viewer's state. The braces keep all keys of one viewer on one Redis Cluster node."""
    return f"{VIEWERS}{{{viewer_id}}}"


def item_key(item_id: str, source: str) -> str:
    """Return the key of an item's counts of one log partition (`source` = "topic/partition")."""
    return f"{ITEMS}{{{item_id}}}:{source}"


def item_of_key(key: str) -> str:
    """Return the item of a key that `item_key` returned.

    >>> item_of_key(item_key("a}:b", "topic/0"))
    'a}:b'
    """
    return key.removeprefix(f"{ITEMS}{{").rpartition("}:")[0]


def encode_viewer(state: ViewerState) -> bytes:
    """Return the bytes of a viewer's state; equal histories give equal bytes."""
    return encode_state(state)


def encode_item(state: ItemState) -> bytes:
    """Return the bytes of an item's state; equal histories give equal bytes."""
    return encode_state(state)


def encode_state(state: object) -> bytes:
    """Return the bytes of any state: a msgspec structure or a dataclass."""
    return frame(_encoder.encode(state))


def frame(body: bytes, version: int = VERSION) -> bytes:
    """Return the body after its version and checksum."""
    return _FRAME.pack(version, _checksum(version, body)) + body


def unframe(raw: bytes) -> tuple[int, memoryview]:
    """Return the version and the body of framed bytes. Raises StateError."""
    if len(raw) < _FRAME.size:
        raise StateError(f"the state has only {len(raw)} bytes")
    version, checksum = _FRAME.unpack_from(raw)
    body = memoryview(raw)[_FRAME.size :]
    if checksum != _checksum(version, body):
        raise StateError("the checksum of the state does not match")
    return version, body


def decode_viewer(raw: bytes) -> ViewerState:
    """Return the viewer's state in these bytes. Raises StateError."""
    return decode_state(raw, _viewer)


def decode_item(raw: bytes) -> ItemState:
    """Return the item's state in these bytes. Raises StateError."""
    return decode_state(raw, _item)


def decode_state(raw: bytes, decoder: msgspec.msgpack.Decoder[S]) -> S:
    """Return the state in these bytes. Raises StateError, and NewerState for a state of a newer version."""
    version, body = unframe(raw)
    if version != VERSION:
        error = NewerState if version > VERSION else StateError
        raise error(f"the state has version {version}; this engine reads version {VERSION}")
    try:
        return decode_stored(body, decoder.decode)
    except DamagedData as error:
        raise StateError(str(error)) from error


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


def _checksum(version: int, body: bytes | memoryview) -> int:
    return crc32(body, version)
