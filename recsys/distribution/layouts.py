"""Screen layouts: the slots of each screen, the formats it can show, and the attention that each slot gets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recsys.domain.placement import Screen, Surface
from recsys.domain.types import F64


@dataclass(frozen=True)
class ScreenLayout:
    """The layout of a page on a screen.

    slots    default number of slots
    formats  formats that the screen can show; an item needs at least one of them
    row      slots per row; attention falls along a row and from row to row
    decay    attention of a slot relative to the previous slot in its row
    """

    slots: int
    formats: tuple[str, ...]
    row: int
    decay: float

    def attention(self, slots: int) -> F64:
        """Return [K] the attention of each slot. The first slot has 1, and attention never rises.

        A row starts as far below the previous row as two steps along a row. A running minimum makes attention fall in
        order of slots, which the page solver requires.

        >>> LAYOUTS[Screen.MOBILE].attention(3).round(3)
        array([1.   , 0.92 , 0.846])
        """
        k = np.arange(slots)
        steps = (k % self.row) + 2 * (k // self.row)
        falling: F64 = np.minimum.accumulate(self.decay**steps)
        return falling


LAYOUTS: dict[Screen, ScreenLayout] = {
    Screen.TV: ScreenLayout(24, ("landscape",), 6, 0.94),
    Screen.MOBILE: ScreenLayout(12, ("landscape", "portrait", "text", "image", "audio"), 1000, 0.92),
    Screen.TABLET: ScreenLayout(16, ("landscape", "portrait", "text", "image", "audio"), 4, 0.93),
    Screen.WEB: ScreenLayout(20, ("landscape", "text", "image", "audio"), 4, 0.94),
    Screen.CAR: ScreenLayout(6, ("audio",), 1000, 0.85),
    Screen.AUDIO: ScreenLayout(8, ("audio",), 1000, 0.85),
    Screen.OUTDOOR: ScreenLayout(4, ("landscape", "portrait", "image"), 1000, 0.8),
}

SLOTS: dict[Surface, int] = {Surface.PUSH: 1}
"""Number of slots of surfaces on which it does not depend on the screen."""

SLOTS_MAX = 50
"""Maximum number of slots of a page; clients request further pages for more."""


def screen_layout(screen: Screen) -> ScreenLayout:
    """Return the layout of a screen."""
    return LAYOUTS[screen]


def default_slots(screen: Screen, surface: Surface) -> int:
    """Return the number of slots of a page for requests that do not set it."""
    return SLOTS.get(surface, LAYOUTS[screen].slots)
