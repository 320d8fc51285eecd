"""What each screen can show: slots, formats, and how much attention each slot gets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recsys.domain.placement import Screen, Surface
from recsys.domain.types import F64


@dataclass(frozen=True)
class ScreenLayout:
    """How a page lies on a screen.

    slots    default number of slots
    formats  what can be played or read there; an item needs one of them
    row      slots per row: attention falls within a row and from row to row
    decay    attention of the next slot in a row, relative to the one before
    """

    slots: int
    formats: tuple[str, ...]
    row: int
    decay: float

    def attention(self, slots: int) -> F64:
        """[K] attention of each slot, falling, the first being 1.

        Rows start lower than the row above by the same factor that two steps along it take, and a running minimum
        keeps the order of slots the order of attention, which the page solver presumes.

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
"""Surfaces whose number of slots does not depend on the screen."""

SLOTS_MAX = 50
"""No page is longer: what needs more asks for the next page."""


def screen_layout(screen: Screen) -> ScreenLayout:
    """The layout of a screen."""
    return LAYOUTS[screen]


def default_slots(screen: Screen, surface: Surface) -> int:
    """Slots of a page when the request does not say."""
    return SLOTS.get(surface, LAYOUTS[screen].slots)
