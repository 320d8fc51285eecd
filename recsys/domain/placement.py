"""Where a page appears: its outlet, its screen and its surface."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from recsys.domain.errors import NotFound


class Screen(StrEnum):
    """The kind of screen that shows the page; `recsys.distribution.layouts` has its layout."""

    TV = "tv"
    MOBILE = "mobile"
    TABLET = "tablet"
    WEB = "web"
    CAR = "car"
    AUDIO = "audio"
    OUTDOOR = "outdoor"


class Surface(StrEnum):
    """The part of the app in which the page appears."""

    HOME = "home"
    HOT = "hot"
    LIST = "list"
    DETAIL = "detail"
    PUSH = "push"


_OUTLET = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)*")


@dataclass(frozen=True, slots=True)
class Placement:
    """The location of a page: outlet x screen x surface, with an id such as `cn.zj.hz-tv-home`."""

    outlet: str
    screen: Screen
    surface: Surface

    @property
    def id(self) -> str:
        """The id in the API: `outlet-screen-surface`."""
        return f"{self.outlet}-{self.screen}-{self.surface}"

    @classmethod
    def parse(cls, placement_id: str) -> Placement:
        """Parse an id. Raises NotFound with the part of the id that does not exist.

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
            raise NotFound(
                f"placement {placement_id!r}: unknown screen {screen!r}, expected one of {', '.join(Screen)}"
            )
        if surface not in list(Surface):
            raise NotFound(
                f"placement {placement_id!r}: unknown surface {surface!r}, expected one of {', '.join(Surface)}"
            )
        return cls(outlet, Screen(screen), Surface(surface))
