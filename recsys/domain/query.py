"""A request for a page."""

from __future__ import annotations

from dataclasses import dataclass

from recsys.domain.placement import Placement


@dataclass(frozen=True, slots=True)
class Query:
    """One request for a page. `now` is the server's clock in unix seconds; `seed` is all the chance there is."""

    request_id: str
    viewer_id: str
    placement: Placement
    region: str
    now: float
    slots: int
    seed: int = 0
    age: int | None = None
    personalised: bool = True
    guided: bool = True
    shown: tuple[str, ...] = ()  # item ids of the session's earlier pages, in slot order: shares hold over the session
