"""Traffic control by a PID controller that shifts ranks: a re-implementation of the method published by PAI-Rec.

Source: github.com/alibaba/pairec (Apache-2.0), `sort/pid_controller.go` and `sort/traffic_control_sort.go`, as of 2026;
no code is copied. The method treats the items of a target as a whole:

* The daily amount is split into cumulative setpoints, linear in between (here: quarter hours of the forecast that the
  delivery plan uses too). The current setpoint is compared with the traffic counted so far:
  `err = 1 - counted / setpoint`. At most once per window of 30 s the output is updated:
  `out = kp err + ki sum(err dt) + kd d(err)/dt`, with dt in seconds. Guaranteed targets at or above their setpoint have
  an output of 0.
* A positive output is amplified for viewers who like the target's items: it is multiplied by `1 + tanh(share)`, where
  `share` is the items' part of all scores, weighted by exp(-0.01 rank). Each item of the target rises by
  `out x exp(score / best)` ranks. A negative output lowers the items by `out x sigmoid(rho rank)` ranks, with
  `rho = 1.6 (1 - tanh(share))` and a sigmoid of 1 / (1 + exp(10 - x)). The shifts of several targets add up, and the
  page shows the items with the best shifted ranks.

The default gains (2, 1, 1) are meant for slower counters and wind up within minutes here, so the benchmark uses the
best gains of a grid search on its tuning scenarios. For a cap only the negative output is used.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from recsys.domain.types import F32, F64, Bool
from training.simulation.day import Counters
from training.simulation.pages import Pages, ServedPages
from training.simulation.world import Scenario

WINDOW_S = 30.0


@dataclass(frozen=True)
class Settings:
    """Gains of the PID controller."""

    kp: float = 2.0
    ki: float = 1.0
    kd: float = 1.0


TUNED = Settings(200.0, 0.03, 0.0)
"""Best gains of a grid search on tuning scenarios (seeds 11 and 12), by the shortfall of the worst target."""


class RankPid:
    """A strategy whose `bonus` returns controller outputs, which `RankPages` turns into rank shifts."""

    def __init__(self, day: Scenario, settings: Settings) -> None:
        self._day, self._settings = day, settings
        self.push: F64 = np.zeros(len(day.amount))
        self._last_s = np.full(len(day.amount), day.start_at)
        self._error = np.zeros(len(day.amount))
        self._sum = np.zeros(len(day.amount))
        self._output = np.zeros(len(day.amount))

    def bonus(self, counters: Counters) -> F64:
        """Return the controller outputs [C] instead of item bonuses."""
        day, gains = self._day, self._settings
        outputs = np.zeros(len(day.amount))
        for c in range(len(day.amount)):
            if counters.now < day.start[c]:
                self._last_s[c] = counters.now
                continue
            whole = day.forecast.mass(float(day.start[c]), day.end)
            setpoint = max(day.amount[c] * day.forecast.mass(float(day.start[c]), counters.now) / whole, 1.0)
            error = 1.0 - counters.delivered[c] / setpoint
            step_s = counters.now - self._last_s[c]
            if step_s >= WINDOW_S or self._output[c] == 0.0:
                step_s = max(step_s, 1.0)
                self._sum[c] += error * step_s
                self._output[c] = (
                    gains.kp * error + gains.ki * self._sum[c] + gains.kd * (error - self._error[c]) / step_s
                )
                self._error[c], self._last_s[c] = error, counters.now
            reached = day.sign[c] > 0 and error <= 0
            outputs[c] = 0.0 if reached or (day.sign[c] < 0 and self._output[c] > 0) else self._output[c]
        self.push = outputs
        return outputs

    def restart(self) -> None:
        """Reset the controller: as published, it does not read the shared state for ten minutes after a start."""
        self._sum[:], self._output[:], self._error[:] = 0.0, 0.0, 0.0


class RankPages(Pages):
    """Pages sorted by shifted ranks; `bonus` holds the outputs [C] of `RankPid`."""

    def serve_with_bonus(self, first: int, last: int, bonus: F64) -> ServedPages:
        """Serve pages `first` up to `last` with controller outputs [C] in place of bonuses."""
        day, credit = self.day, np.zeros(self.day.member.shape[1])
        utility_sum = _serve_shifted(
            day.utility, bonus, day.at, day.embargo, day.attention, day.member, first, last, credit
        )
        return ServedPages(utility_sum, utility_sum, credit)


@njit(cache=True)
def _serve_shifted(
    utility: F32, output: F64, at: F64, embargo: F64, attention: F64, member: Bool, first: int, last: int, credit: F64
) -> float:
    items, targets, slots = utility.shape[1], member.shape[1], len(attention)
    utility_sum = 0.0
    share, shifted_rank = np.empty(targets), np.empty(items)
    for t in range(first, last):
        order = np.argsort(-utility[t])
        best, total = utility[t, order[0]], 0.0
        share[:] = 0.0
        for r in range(items):
            i = order[r]
            score = utility[t, i] * np.exp(-0.01 * r)
            total += score
            for c in range(targets):
                if member[i, c]:
                    share[c] += score
        for r in range(items):
            i = order[r]
            shift = 0.0
            for c in range(targets):
                if member[i, c] and output[c] > 0:
                    shift += output[c] * (1.0 + np.tanh(share[c] / total)) * np.exp(utility[t, i] / best)
                elif member[i, c] and output[c] < 0:
                    rho = 1.6 * (1.0 - np.tanh(share[c] / total))
                    shift += output[c] / (1.0 + np.exp(10.0 - rho * r))
            shifted_rank[i] = 1e9 if at[t] < embargo[i] else r + 1 - shift
        page = np.argsort(shifted_rank)[:slots]
        for k in range(slots):
            utility_sum += attention[k] * utility[t, page[k]]
            for c in range(targets):
                if member[page[k], c]:
                    credit[c] += attention[k]
    return utility_sum
