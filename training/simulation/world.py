"""Simulated scenarios: a day of page requests with the difficulties of pacing.

Viewers have Pareto distributed activity, and the value of items differs by viewer. Traffic follows the hour of day with
noise, interests drift through the day, and the appeal of items differs from day to day. An unforecast event multiplies
the traffic for a while and changes viewers' interests. Seeds make scenarios reproducible.
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
"""Number of quarter hours of a day, the resolution of traffic."""


@dataclass(frozen=True)
class ScenarioConfig:
    """The configuration of a scenario. The defaults are the reference day.

    pages, items, viewers, slots   size
    n_item_targets     number of targets on two items each; later ones start during the morning
    n_outlet_targets   number of targets on small outlets
    event_factor       traffic during the event, relative to usual traffic; 1 for no event
    event_quarters     duration of the event in quarter hours
    event_mix          size of the change of interests during the event
    noise              log-normal noise of the traffic in each quarter hour
    traffic_ratio      traffic of the whole day, relative to its forecast
    morning_factor     traffic of the first half of the day, relative to its forecast
    shared_items       neighbouring item targets share an item
    min_share          minimum amount of an item target, as a share of all attention
    hard_controls      pages keep hard controls, by the real page solver (`training.simulation.guided`)
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
"""A smaller day whose pages all keep hard controls."""


@dataclass(frozen=True)
class Scenario:
    """A day with T pages, I items, C targets and K slots.

    utility        [T, I]  utility of each item for the page's viewer, in play equivalents
    member         [I, C]  whether the item counts for the target
    sign           [C]     +1 for a minimum, -1 for a cap
    amount         [C]     attention to reach (or not to exceed) by the end of the day
    start          [C]     unix second at which the target starts
    embargo        [I]     unix second before which the item must not be shown
    is_item_target [C]     whether the target covers only a few items
    outlet         [I]     outlet of the item
    attention      [K]     attention of each slot
    at             [T]     unix second of each page, ascending
    viewer         [T]     viewer of each page
    forecast               attention per second, as forecast before the day
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
        """The unix second at which the day begins."""
        return float(MONDAY)

    @property
    def end(self) -> float:
        """The unix second of every deadline."""
        return float(MONDAY + DAY_S)

    def slice(self, first: int, last: int) -> Scenario:
        """Return a scenario with pages `first` up to `last` and the same targets."""
        cut = slice(first, last)
        return replace(self, utility=self.utility[cut], at=self.at[cut], viewer=self.viewer[cut])
