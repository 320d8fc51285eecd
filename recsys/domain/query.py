"""A request for a page."""

from __future__ import annotations

from dataclasses import dataclass

from recsys.domain.placement import Placement


@dataclass(frozen=True, slots=True)
class Query:
    """A request for a page.

    now    time of the request by the server's clock, unix seconds
    seed   the only source of randomness
    shown  item ids of the earlier pages of the session, in slot order; quotas hold over the whole session
    """

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
    shown: tuple[str, ...] = ()
