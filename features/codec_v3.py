"""Viewers as version 3 wrote them, and what they are now. For reading only: nothing writes them any more."""

from __future__ import annotations

import msgspec

from recsys.state import Position, Recent, Session, Shown, ViewerState


class ViewerStateV3(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A viewer, of whose events all ids stand in one row."""

    viewer_id: str
    recent: tuple[Recent, ...] = ()
    positions: dict[str, Position] = {}
    done: dict[str, float] = {}
    hidden: dict[str, float] = {}
    shown: dict[str, Shown] = {}
    counts: dict[str, int] = {}
    offsets: dict[str, int] = {}
    exposed: dict[str, tuple[float, ...]] = {}
    seen_ids: bytes = b""
    at: float = 0.0
    screens: dict[str, float] = {}
    outlets: dict[str, float] = {}
    hours: dict[int, float] = {}
    session: Session = Session()
    pleased: float = 0.0
    displeased: float = 0.0
    voted: bytes = b""


def with_rings(old: ViewerStateV3) -> ViewerState:
    """The same viewer. Ids of what only passed by stay where they are until newer ones push them out."""
    return ViewerState(*msgspec.structs.astuple(old))
