"""Run a simulated day page by page; a strategy only sees what the delayed counters show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from recsys.domain.types import F64
from training.simulation.pages import Pages
from training.simulation.world import I64, Scenario


@dataclass(frozen=True)
class Counters:
    """The counters as shown to a strategy before a batch of pages.

    page           number of the next page
    now            unix second of its request
    delivered [C]  attention delivered to each target, as counted
    served    [C]  attention of all pages since the start of each target, as counted
    counted_until  unix second of the newest counted page
    """

    page: int
    now: float
    delivered: F64
    served: F64
    counted_until: float


class Strategy(Protocol):
    """A strategy for delivering the targets. `push` [C]: current strength of the push per target, 0 for none."""

    push: F64

    def bonus(self, counters: Counters) -> F64:
        """Return the bonus [I] added to the utility of each item on the next pages, in play equivalents."""

    def restart(self) -> None:
        """Simulate a restart of all serving processes."""


@dataclass(frozen=True)
class Disturbance:
    """Faults of a simulated day.

    delay_pages    number of pages until an impression is counted
    outage         first and last fraction of the day during which the counters stand still; None for no outage
    restart_after  fraction of the day after which every process is restarted; None for no restart
    """

    delay_pages: int = 50
    outage: tuple[float, float] | None = None
    restart_after: float | None = None


@dataclass(frozen=True)
class DayRecord:
    """The outcome of a day. P = 200 points in time, spread evenly over the pages.

    utility           sum of play equivalents x attention over all pages
    credit     [C]    attention delivered to each target
    page       [P]    number of pages served so far
    delivered  [P, C] attention delivered so far
    available  [P, C] attention of all pages since the start of each target
    push       [P, C] strength of the push per target: its price, for strategies with prices
    """

    utility: float
    credit: F64
    page: I64
    delivered: F64
    available: F64
    push: F64


def run_day(
    day: Scenario,
    strategy: Strategy,
    disturbance: Disturbance | None = None,
    *,
    every: int = 50,
    pages: Pages | None = None,
) -> DayRecord:
    """Serve all pages of the day. `every` is the number of pages between two reads of the counters."""
    disturbance, pages = disturbance or Disturbance(), pages or Pages(day)
    n_pages, n_targets = len(day.at), len(day.amount)
    firsts = np.arange(0, n_pages, every)
    sampled = set(np.unique(np.linspace(0, len(firsts) - 1, 200).astype(int)).tolist())
    first_page = np.searchsorted(day.at, day.start)
    delivered, history = np.zeros(n_targets), [np.zeros(n_targets)]
    utility, restarted = 0.0, False
    record: dict[str, list[object]] = {"page": [], "delivered": [], "available": [], "push": []}
    per_page = float(day.attention.sum())
    for b, first in enumerate(firsts.tolist()):
        last = min(first + every, n_pages)
        if disturbance.restart_after is not None and first >= disturbance.restart_after * n_pages and not restarted:
            strategy.restart()
            restarted = True
        counted = _counted_pages(first, disturbance, n_pages)
        served = np.maximum(counted - first_page, 0) * per_page
        counted_until = float(day.at[counted - 1]) if counted else day.start_at
        now = float(day.at[first])
        bonus = strategy.bonus(Counters(first, now, history[counted // every], served, counted_until))
        batch = pages.serve_with_bonus(first, last, bonus)
        utility, delivered = utility + batch.utility, delivered + batch.credit
        history.append(delivered)
        if b in sampled:
            record["page"].append(last)
            record["delivered"].append(delivered)
            record["available"].append(np.maximum(last - first_page, 0) * per_page)
            record["push"].append(np.abs(strategy.push))
    return DayRecord(
        utility,
        delivered,
        np.array(record["page"]),
        np.array(record["delivered"]),
        np.array(record["available"]),
        np.array(record["push"]),
    )


def _counted_pages(page: int, disturbance: Disturbance, n_pages: int) -> int:
    """Return how many pages the counters include when `page` pages have been served."""
    if disturbance.outage is not None:
        first, last = (int(fraction * n_pages) for fraction in disturbance.outage)
        if first <= page < last:
            page = first
    return max(page - disturbance.delay_pages, 0)
