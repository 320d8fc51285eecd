"""Worlds from a recipe and a seed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from recsys.domain.types import F64, Bool
from recsys.pacing.forecast import MONDAY, Forecast
from training.simulation.guided import GuidedPages
from training.simulation.pages import Pages
from training.simulation.world import DAY_S, I64, QUARTERS, Scenario, ScenarioConfig


def make_scenario(recipe: ScenarioConfig, seed: int, day: int = 1) -> Scenario:
    """A day of the world with this seed: `day` 0 is yesterday, with the same items, viewers and targets.

    Amounts are set as a newsroom would: by what such items usually get, and they can all be reached.
    """
    lasting, chance = np.random.default_rng(seed), np.random.default_rng(seed * 7919 + 13 + day)
    member, few, bias, outlets = _items(recipe, lasting)
    taste = lasting.normal(0, 0.6, (recipe.items, 8))
    viewers = lasting.normal(0, 0.6, (recipe.viewers, 8))
    active = lasting.pareto(1.5, recipe.viewers) + 0.3
    drift = lasting.normal(0, 0.35, (2, 8))
    count, expected, event = _traffic(recipe, chance)
    quarter = np.repeat(np.arange(QUARTERS), count)
    within = np.concatenate([(np.arange(n) + 0.5) / n for n in count])
    at = MONDAY + (quarter + within) * (DAY_S / QUARTERS)
    viewer = chance.choice(recipe.viewers, len(at), p=active / active.sum())
    phase = 2 * np.pi * quarter / QUARTERS
    moved = np.cos(phase)[:, None] * drift[0] + np.sin(phase)[:, None] * drift[1]
    moved[event[quarter]] += chance.normal(0, recipe.event_mix, 8)
    logit = (viewers[viewer] + moved) @ taste.T + bias + chance.normal(0, 0.15, recipe.items)
    utility = (1.0 / (1.0 + np.exp(-logit))).astype(np.float32)
    attention = 1.0 / np.log2(np.arange(2, recipe.slots + 2))
    start, embargo = _starts(recipe, member)
    made = Scenario(
        recipe, utility, member, np.r_[np.ones(member.shape[1] - 1), -1.0], np.zeros(member.shape[1]), start, embargo,
        few, outlets, attention, at, viewer, Forecast(np.tile(expected * attention.sum() / (DAY_S / QUARTERS), 7)),
    )  # fmt: skip
    return replace(made, amount=_amounts(made))


def _items(recipe: ScenarioConfig, lasting: np.random.Generator) -> tuple[Bool, Bool, F64, I64]:
    """[I, C] members, [C] which are on few items, [I] appeal, [I] outlets. The last two: public value, a cap."""
    n, c = recipe.items, recipe.n_item_targets + recipe.n_outlet_targets + 2
    bias = lasting.normal(-2.2, 0.7, n)
    outlet = lasting.integers(0, 40, n)
    member = np.zeros((n, c), np.bool_)
    for t in range(recipe.n_item_targets):
        member[lasting.choice(n, 2, replace=False), t] = True
        if recipe.shared_items and t:
            member[np.flatnonzero(member[:, t - 1])[0], t] = True
    sizes = np.bincount(outlet, minlength=40)
    for t, code in enumerate(lasting.choice(np.flatnonzero(sizes >= 3), recipe.n_outlet_targets, replace=False)):
        member[outlet == code, recipe.n_item_targets + t] = True
        bias[outlet == code] -= 0.5
    member[:, -2] = lasting.random(n) < 0.25
    bias[member[:, -2]] -= 0.25
    member[:, -1] = (lasting.random(n) < 0.35) & ~member[:, -2]
    bias[member[:, -1]] += 0.35
    bias[member[:, : recipe.n_item_targets].any(axis=1)] -= 0.6
    return member, np.arange(c) < recipe.n_item_targets, bias, outlet


def _traffic(recipe: ScenarioConfig, chance: np.random.Generator) -> tuple[I64, F64, Bool]:
    """Pages of each quarter, pages forecast for it, and whether the event is on."""
    x = np.arange(QUARTERS) / QUARTERS
    usual = 0.35 + 0.65 * np.exp(-(((x - 0.84) / 0.09) ** 2)) + 0.35 * np.exp(-(((x - 0.33) / 0.06) ** 2))
    usual[:16] *= 0.35
    usual /= usual.sum()
    real = usual * np.exp(chance.normal(0, recipe.noise, QUARTERS))
    real[: QUARTERS // 2] *= recipe.morning_factor
    event = np.zeros(QUARTERS, np.bool_)
    first = int(chance.integers(30, 80))
    event[first : first + recipe.event_quarters] = recipe.event_factor > 1
    real[event] *= recipe.event_factor
    count = np.maximum((real / real.sum() * recipe.pages).astype(np.int64), 1)
    return count, usual * recipe.pages / recipe.traffic_ratio, event


def _starts(recipe: ScenarioConfig, member: Bool) -> tuple[F64, F64]:
    """Of the targets on few items the third begins at 6 h, the fourth at 10 h, with their items."""
    start = np.full(member.shape[1], float(MONDAY))
    for t, hour in zip(range(2, recipe.n_item_targets), (6, 10), strict=False):
        start[t] += hour * 3600
    embargo = np.full(len(member), float(MONDAY))
    for t in range(recipe.n_item_targets):
        embargo[member[:, t]] = np.maximum(embargo[member[:, t]], start[t])
    if recipe.shared_items:  # an item of two targets is there from the first one's start
        for t in range(recipe.n_item_targets):
            embargo[member[:, t]] = np.minimum(embargo[member[:, t]], start[t])
    return start, embargo


def _amounts(day: Scenario) -> F64:
    """What is asked: 2.5 times what few items would get by themselves, 1.6 times for small outlets, and so on."""
    recipe, whole = day.config, float(day.attention.sum() * len(day.at))
    pages = GuidedPages(day) if recipe.hard_controls else Pages(day)
    share = pages.serve_day(np.zeros(len(day.amount))).credit / whole
    f = recipe.n_item_targets
    share[:f] = np.maximum(share[:f] * 2.5, recipe.min_share)
    share[f:-2] = np.maximum(share[f:-2] * 1.6, 0.02)
    share[-2] = max(0.35, share[-2] * 1.25)
    share[-1] = min(share[-1] * 0.75, 0.40)
    return share * whole
