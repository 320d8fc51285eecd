"""Generate scenarios from a configuration and a seed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from recsys.domain.types import F64, Bool
from recsys.pacing.forecast import MONDAY, Forecast
from training.simulation.guided import GuidedPages
from training.simulation.pages import Pages
from training.simulation.world import DAY_S, I64, QUARTERS, Scenario, ScenarioConfig


def make_scenario(config: ScenarioConfig, seed: int, day: int = 1) -> Scenario:
    """Generate a day; `day` 0 is the previous day, with the same items, viewers and targets.

    Amounts are set as a newsroom would set them, relative to the usual delivery of such items, and are all feasible.
    """
    world_rng, day_rng = np.random.default_rng(seed), np.random.default_rng(seed * 7919 + 13 + day)
    member, is_item_target, bias, outlets = _items(config, world_rng)
    taste = world_rng.normal(0, 0.6, (config.items, 8))
    viewers = world_rng.normal(0, 0.6, (config.viewers, 8))
    active = world_rng.pareto(1.5, config.viewers) + 0.3
    drift = world_rng.normal(0, 0.35, (2, 8))
    count, expected, event = _traffic(config, day_rng)
    quarter = np.repeat(np.arange(QUARTERS), count)
    within = np.concatenate([(np.arange(n) + 0.5) / n for n in count])
    at = MONDAY + (quarter + within) * (DAY_S / QUARTERS)
    viewer = day_rng.choice(config.viewers, len(at), p=active / active.sum())
    phase = 2 * np.pi * quarter / QUARTERS
    interest_shift = np.cos(phase)[:, None] * drift[0] + np.sin(phase)[:, None] * drift[1]
    interest_shift[event[quarter]] += day_rng.normal(0, config.event_mix, 8)
    logit = (viewers[viewer] + interest_shift) @ taste.T + bias + day_rng.normal(0, 0.15, config.items)
    utility = (1.0 / (1.0 + np.exp(-logit))).astype(np.float32)
    attention = 1.0 / np.log2(np.arange(2, config.slots + 2))
    start, embargo = _starts(config, member)
    sign = np.r_[np.ones(member.shape[1] - 1), -1.0]
    forecast = Forecast(np.tile(expected * attention.sum() / (DAY_S / QUARTERS), 7))
    scenario = Scenario(
        config, utility, member, sign, np.zeros(member.shape[1]), start, embargo, is_item_target, outlets, attention,
        at, viewer, forecast,
    )  # fmt: skip
    return replace(scenario, amount=_amounts(scenario))


def _items(config: ScenarioConfig, world_rng: np.random.Generator) -> tuple[Bool, Bool, F64, I64]:
    """Return member [I, C], is_item_target [C], appeal [I] and outlet [I].

    The last two targets are a minimum of public value and a cap.
    """
    n, c = config.items, config.n_item_targets + config.n_outlet_targets + 2
    bias = world_rng.normal(-2.2, 0.7, n)
    outlet = world_rng.integers(0, 40, n)
    member = np.zeros((n, c), np.bool_)
    for t in range(config.n_item_targets):
        member[world_rng.choice(n, 2, replace=False), t] = True
        if config.shared_items and t:
            member[np.flatnonzero(member[:, t - 1])[0], t] = True
    sizes = np.bincount(outlet, minlength=40)
    for t, code in enumerate(world_rng.choice(np.flatnonzero(sizes >= 3), config.n_outlet_targets, replace=False)):
        member[outlet == code, config.n_item_targets + t] = True
        bias[outlet == code] -= 0.5
    member[:, -2] = world_rng.random(n) < 0.25
    bias[member[:, -2]] -= 0.25
    member[:, -1] = (world_rng.random(n) < 0.35) & ~member[:, -2]
    bias[member[:, -1]] += 0.35
    bias[member[:, : config.n_item_targets].any(axis=1)] -= 0.6
    return member, np.arange(c) < config.n_item_targets, bias, outlet


def _traffic(config: ScenarioConfig, day_rng: np.random.Generator) -> tuple[I64, F64, Bool]:
    """Return the number of pages, its forecast and whether the event is on, for each quarter hour."""
    x = np.arange(QUARTERS) / QUARTERS
    usual = 0.35 + 0.65 * np.exp(-(((x - 0.84) / 0.09) ** 2)) + 0.35 * np.exp(-(((x - 0.33) / 0.06) ** 2))
    usual[:16] *= 0.35
    usual /= usual.sum()
    actual = usual * np.exp(day_rng.normal(0, config.noise, QUARTERS))
    actual[: QUARTERS // 2] *= config.morning_factor
    event = np.zeros(QUARTERS, np.bool_)
    first = int(day_rng.integers(30, 80))
    event[first : first + config.event_quarters] = config.event_factor > 1
    actual[event] *= config.event_factor
    count = np.maximum((actual / actual.sum() * config.pages).astype(np.int64), 1)
    return count, usual * config.pages / config.traffic_ratio, event


def _starts(config: ScenarioConfig, member: Bool) -> tuple[F64, F64]:
    """Return the start of each target [C] and the embargo of each item [I], in unix seconds.

    The third item target starts at 6 h and the fourth at 10 h; their items are embargoed until then.
    """
    start = np.full(member.shape[1], float(MONDAY))
    for t, hour in zip(range(2, config.n_item_targets), (6, 10), strict=False):
        start[t] += hour * 3600
    embargo = np.full(len(member), float(MONDAY))
    for t in range(config.n_item_targets):
        embargo[member[:, t]] = np.maximum(embargo[member[:, t]], start[t])
    if config.shared_items:  # a shared item is available from the earlier start on
        for t in range(config.n_item_targets):
            embargo[member[:, t]] = np.minimum(embargo[member[:, t]], start[t])
    return start, embargo


def _amounts(day: Scenario) -> F64:
    """Return the amounts [C], in multiples of organic delivery: 2.5 for item targets, 1.6 for small outlets, etc."""
    config, total = day.config, float(day.attention.sum() * len(day.at))
    pages = GuidedPages(day) if config.hard_controls else Pages(day)
    share = pages.serve_day(np.zeros(len(day.amount))).credit / total
    f = config.n_item_targets
    share[:f] = np.maximum(share[:f] * 2.5, config.min_share)
    share[f:-2] = np.maximum(share[f:-2] * 1.6, 0.02)
    share[-2] = max(0.35, share[-2] * 1.25)
    share[-1] = min(share[-1] * 0.75, 0.40)
    return share * total
