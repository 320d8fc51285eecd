"""Rights windows as columns, for items whose windows one time span does not describe exactly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from recsys.domain.item import Window
from recsys.domain.placement import Screen
from recsys.domain.regions import roll_up
from recsys.domain.types import F64, I32, Bool

_SCREENS = tuple(Screen)
_NO_NUMBERS: F64 = np.zeros(0)
_NO_CODES: I32 = np.zeros(0, np.int32)


@dataclass(frozen=True)
class RightsColumns:
    """The rights windows of a catalog: one entry for each region of each window, or one for a window of all regions.

    row           [E]     int32    catalog row
    start, until  [E]     float64  unix seconds; infinite where open
    region        [E]     int32    code of the region; -1 for all regions
    on_screen     [E, S]  bool     screens on which the window applies
    code_of       region -> code
    """

    row: I32 = field(default_factory=lambda: _NO_CODES)
    start: F64 = field(default_factory=lambda: _NO_NUMBERS)
    until: F64 = field(default_factory=lambda: _NO_NUMBERS)
    region: I32 = field(default_factory=lambda: _NO_CODES)
    on_screen: Bool = field(default_factory=lambda: np.zeros((0, len(_SCREENS)), np.bool_))
    code_of: Mapping[str, int] = field(default_factory=dict)

    def patched(self, windows: Mapping[int, tuple[Window, ...]]) -> RightsColumns:
        """Return the columns with the windows of these rows replaced; an empty tuple removes the windows of its row."""
        code_of = dict(self.code_of)
        entries: list[tuple[int, float, float, int, list[bool]]] = []
        for row, listed in windows.items():
            for window in listed:
                start = window.start.timestamp() if window.start else -np.inf
                until = window.until.timestamp() if window.until else np.inf
                screens = [not window.screens or screen in window.screens for screen in _SCREENS]
                codes = [code_of.setdefault(name, len(code_of)) for name in window.regions] or [-1]
                entries += [(row, start, until, code, screens) for code in codes]
        keep = ~np.isin(self.row, list(windows))
        on_screen = np.array([screens for *_, screens in entries], np.bool_).reshape(len(entries), len(_SCREENS))
        return RightsColumns(
            np.concatenate([self.row[keep], np.array([entry[0] for entry in entries], np.int32)]),
            np.concatenate([self.start[keep], np.array([entry[1] for entry in entries], np.float64)]),
            np.concatenate([self.until[keep], np.array([entry[2] for entry in entries], np.float64)]),
            np.concatenate([self.region[keep], np.array([entry[3] for entry in entries], np.int32)]),
            np.concatenate([self.on_screen[keep], on_screen]),
            code_of,
        )

    def closed(self, size: int, now: float, region: str, screen: Screen) -> Bool:
        """Return [size] whether a row has windows, but none for this time, region and screen."""
        closed = np.zeros(size, np.bool_)
        if not len(self.row):
            return closed
        codes = [self.code_of[name] for name in roll_up(region) if name in self.code_of]
        in_region = np.isin(self.region, [-1, *codes])
        open_ = (self.start <= now) & (now < self.until) & in_region & self.on_screen[:, _SCREENS.index(screen)]
        closed[self.row] = True
        closed[self.row[open_]] = False
        return closed
