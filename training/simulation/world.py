"""Made-up audiences: a day of page requests with all that makes pacing hard.

A world has viewers whose activity is Pareto distributed, items with values that differ by viewer, traffic that follows
the hour with noise on it, interests that drift through the day and items whose appeal differs from day to day. An event
nobody forecast multiplies the traffic for a while and changes what viewers want. Seeds make everything repeatable.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from recsys.domain.types import F32, F64, Bool
from recsys.pacing.forecast import MONDAY, Forecast

I64 = npt.NDArray[np.int64]

DAY_S = 86_400
QUARTERS = 96
"""Traffic is drawn by quarter hours."""


@dataclass(frozen=True)
class ScenarioConfig:
    """What kind of world. The defaults are the reference day; other worlds are differences from it.

    pages, items, viewers, slots   size
    few, floors        targets on two items each, of which the later ones begin at noon or so; targets on small outlets
    event              traffic during the event, relative to usual (1 = no event); event_quarters, how long
    event_mix          how far interests move during the event
    noise              log-normal noise of each quarter's traffic
    misjudged          how far the whole day's traffic is from its forecast (1 = as forecast)
    late_start         traffic of the first half of the day, relative to forecast
    shared             the targets on few items share an item with their neighbour
    least              share of all attention that a target on few items asks at least
    hard               pages keep hard controls, by the real page solver (`training.simulation.guided`)
    """

    name: str = "reference day"
    pages: int = 60_000
    items: int = 300
    viewers: int = 6_000
    slots: int = 20
    n_item_targets: int = 4
    n_outlet_targets: int = 4
    event_factor: float = 2.0
    event_quarters: int = 5
    event_mix: float = 0.5
    noise: float = 0.10
    traffic_ratio: float = 1.0
    morning_factor: float = 1.0
    shared_items: bool = False
    min_share: float = 0.008
    hard_controls: bool = False


SCENARIOS: tuple[ScenarioConfig, ...] = (
    ScenarioConfig(),
    ScenarioConfig("breaking news", event_factor=3.0, event_quarters=8, event_mix=0.7, noise=0.2),
    ScenarioConfig("wrong forecast", traffic_ratio=0.7, morning_factor=0.6, event_factor=1.0, noise=0.25),
    ScenarioConfig(
        "shared items", shared_items=True, n_item_targets=6, n_outlet_targets=3, items=200, slots=12, pages=50_000
    ),
)

GUIDED_SCENARIO = ScenarioConfig(
    "hard controls",
    pages=4_000,
    items=120,
    viewers=800,
    slots=12,
    n_item_targets=2,
    n_outlet_targets=2,
    min_share=0.04,
    hard_controls=True,
)
"""A smaller day whose every page keeps hard controls."""


@dataclass(frozen=True)
class Scenario:
    """One day. T pages, I items, C targets, K slots.

    utility    [T, I]  utility of each item for the page's viewer, in play equivalents
    member     [I, C]  the item counts for the target
    sign       [C]     +1 at least, -1 at most
    amount     [C]     attention to reach (or not to exceed) by the end of the day
    start      [C]     unix second at which the target begins
    embargo    [I]     unix second before which the item may not be shown
    few        [C]     a target on a few items only
    outlet     [I]     whose item it is
    attention  [K]     of each slot
    at         [T]     unix second of each page, rising
    viewer     [T]     who asks
    forecast           attention per second, as known before the day
    """

    config: ScenarioConfig
    utility: F32
    member: Bool
    sign: F64
    amount: F64
    start: F64
    embargo: F64
    is_item_target: Bool
    outlet: I64
    attention: F64
    at: F64
    viewer: I64
    forecast: Forecast

    @property
    def start_at(self) -> float:
        """Unix second at which the day begins."""
        return float(MONDAY)

    @property
    def end(self) -> float:
        """Unix second of every deadline."""
        return float(MONDAY + DAY_S)

    def slice(self, first: int, last: int) -> Scenario:
        """Pages `first` up to `last`; targets as they are."""
        cut = slice(first, last)
        return replace(self, utility=self.utility[cut], at=self.at[cut], viewer=self.viewer[cut])
