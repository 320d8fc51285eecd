"""What flows through one request: the query that asks, the trace of every stage. The answer is `recsys.page.Page`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from recsys.domain.errors import NotFound

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I16 = npt.NDArray[np.int16]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U32 = npt.NDArray[np.uint32]
Bool = npt.NDArray[np.bool_]

ACTIONS: tuple[str, ...] = ("play", "complete", "like", "dislike")
"""The actions a ranker predicts, in the order of every `p[N, A]` column."""


class Screen(StrEnum):
    """What the page is shown on; decides layout, formats and the attention curve (`recsys.distribution.layouts`)."""

    TV = "tv"
    MOBILE = "mobile"
    TABLET = "tablet"
    WEB = "web"
    CAR = "car"
    AUDIO = "audio"
    OUTDOOR = "outdoor"


class Surface(StrEnum):
    """Where on the screen the page stands."""

    HOME = "home"
    HOT = "hot"
    LIST = "list"
    DETAIL = "detail"
    PUSH = "push"


class FallbackLevel(StrEnum):
    """How much of the engine answered, best first. Every rung passes the same eligibility and guidance."""

    PERSONAL = "personal"
    SEGMENT = "segment"
    POPULAR = "popular"
    EDITORIAL = "editorial"


class DropReason(StrEnum):
    """Why a candidate left the pipeline."""

    UNPUBLISHED = "unpublished"
    RIGHTS = "rights"
    TERRITORY = "territory"
    SCREEN = "screen"
    AGE = "age"
    SEEN = "seen"
    HIDDEN = "hidden"
    BLOCKED = "blocked"
    FREQUENCY_CAPPED = "enough"  # the viewer has seen as much of an exposure target as its frequency cap allows
    SURPLUS = "surplus"  # eligible, but beyond the number of candidates the ranker takes
    UNSELECTED = "unselected"  # ranked, but not among the slots


_OUTLET = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)*")


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a page appears: outlet x screen x surface. Its id reads `cn.zj.hz-tv-home`."""

    outlet: str
    screen: Screen
    surface: Surface

    @property
    def id(self) -> str:
        """`outlet-screen-surface`, the opaque id of the API."""
        return f"{self.outlet}-{self.screen}-{self.surface}"

    @classmethod
    def parse(cls, placement_id: str) -> Placement:
        """Read an id; raises NotFound, naming the part that does not exist.

        >>> Placement.parse("cn.zj.hz-tv-home").screen.value
        'tv'
        """
        if placement_id.count("-") != 2:
            raise NotFound(f"placement {placement_id!r}: expected OUTLET-SCREEN-SURFACE, such as cn.zj-tv-home")
        outlet, _, rest = placement_id.partition("-")
        screen, _, surface = rest.partition("-")
        if not _OUTLET.fullmatch(outlet):
            raise NotFound(f"placement {placement_id!r}: expected OUTLET-SCREEN-SURFACE, such as cn.zj-tv-home")
        if screen not in list(Screen):
            raise NotFound(f"placement {placement_id!r}: no screen {screen!r}; there are {', '.join(Screen)}")
        if surface not in list(Surface):
            raise NotFound(f"placement {placement_id!r}: no surface {surface!r}; there are {', '.join(Surface)}")
        return cls(outlet, Screen(screen), Surface(surface))


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


@dataclass(frozen=True, slots=True)
class StageTrace:
    """What one stage took, kept and dropped. The law of the pipeline: `entered == left + sum(dropped.values())`."""

    name: str
    entered: int
    left: int
    dropped: Mapping[DropReason, int] = field(default_factory=dict)
    error: str | None = None
