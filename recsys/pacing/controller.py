"""The price controller of a target: the price that keeps delivery on plan, plus a correction for the current lag.

    lag           = sign * (planned - delivered), as a fraction of the amount
    needed        = hourly_price(hour) + integral         the price that keeps delivery on plan
    expected_lag  = lag + its predicted growth on pages in flight (served, but not yet counted)
    price         = needed + bandwidth * expected_lag / slope, within [0, max_price]

Delivery responds to the price with `slope` (fraction of the amount per window, for each play equivalent): at a price
above `needed`, the lag falls by slope * (price - needed) per window. The difference between the observed change of the
lag and the change expected at the prices in force on those pages shows the error in `needed` (a disturbance observer);
the integral absorbs it at `observer_rate` per window. The effect of pages in flight is predicted before the counters
show it (a Smith predictor), so the price is not raised twice for the same lag.

The controller's time is `progress`, the fraction of the window's traffic that the counters cover. Delayed counters are
delayed for plan and delivery alike, so delay is not lag. If the counters stop, the controller stops, so the integral
does not wind up. An update with the same counters changes nothing, so any process may update, any number of times.

`hourly_price` is the price at this hour on earlier days. Demand varies over the day, and a daily pattern need not be
learned again from a lag each day.

Bandwidth is per window, so kp = bandwidth / slope closes the loop at `bandwidth` for a target of any size. Delayed
counters reduce the bandwidth, because a prediction is only as good as its slope and the loop must not oscillate.

Source: dead-time compensation and gains for an integrating process (Smith, Closer control of loops with dead time,
1957; Astrom and Hagglund, Advanced PID Control, 2006, chapters 3, 6 and 8; Skogestad, Simple analytic rules for model
reduction and PID controller tuning, 2003); disturbance observer (Ohnishi, 1987; Chen et al., Disturbance-observer-based
control and related methods, 2016); prices as dual variables of an online allocation (Balseiro, Lu and Mirrokni, 2020).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

HOURS = 24
DAY_S = 86_400

IN_FLIGHT_MAX = 32
"""Number of prices stored for the pages in flight, spread over their traffic."""


@dataclass(frozen=True)
class Gains:
    """Gains of the controller. Rates are per whole window, so the same gains suit an hour and a month.

    bandwidth         1 / (part of the window in which a lag falls to a third); rises towards the deadline
    observer_rate     1 / (part of the window in which two thirds of a change in the audience are absorbed); rises
                      towards the deadline
    large_lag         part of the amount beyond which a lag is large
    large_lag_factor  factor on the bandwidth for the part of a lag beyond `large_lag`, as far as counter delay allows
    delay_limit       upper limit of bandwidth x uncounted traffic and of observer_rate x uncounted traffic
    max_step          largest part of the window over which an update integrates, so that a gap is not taken for lag
    max_move          largest change of the price in one update, as a part of max_price
    grace_s           seconds that the price stays frozen after the counters stop
    half_life_s       afterwards, seconds in which its distance to the forecast price halves
    """

    bandwidth: float = 50.0
    observer_rate: float = 40.0
    large_lag: float = 0.01
    large_lag_factor: float = 3.0
    delay_limit: float = 1.0
    max_step: float = 0.004
    max_move: float = 0.1
    grace_s: float = 600.0
    half_life_s: float = 1800.0


@dataclass(frozen=True)
class ControllerState:
    """The controller state of one target.

    progress       of the counters at the last update, in [0, 1]
    price          price in force, in play equivalents per unit of attention, >= 0
    integral       correction to `hourly_price` that keeps delivery on plan today
    level          slow mean of the integral; added to `hourly_price` it gives the forecast price
    hourly_price   [24] price by hour of the day (UTC), from earlier days
    today          [24] sum of price x progress in each hour since midnight
    weight         [24] sum of progress in each hour since midnight
    limited_price  price when the counters last moved, within the limit
    moved_at       unix second at which the counters last moved
    lag            lag at the last update; None: unknown, or the plan has changed since
    in_flight      (progress, price in force from that progress on) in rising order, for the pages in flight and the
                   latest counted pages
    """

    progress: float
    price: float
    integral: float
    level: float
    hourly_price: tuple[float, ...]
    today: tuple[float, ...]
    weight: tuple[float, ...]
    limited_price: float
    moved_at: float
    lag: float | None = None
    in_flight: tuple[tuple[float, float], ...] = ()

    @classmethod
    def first(cls, price: float | tuple[float, ...], at: float) -> ControllerState:
        """Return the initial state at a price for all hours, or at one price per hour (for example yesterday's)."""
        hourly_price = (float(price),) * HOURS if isinstance(price, int | float) else price
        price_now = hourly_price_at(hourly_price, at)
        return cls(0.0, price_now, 0.0, 0.0, hourly_price, (0.0,) * HOURS, (0.0,) * HOURS, price_now, at)

    def learned_prices(self) -> tuple[float, ...]:
        """Return [24] the hourly prices if the day ended now: the mean of today's and the earlier prices."""
        return tuple(
            (u + t / w) / 2.0 if w > 0 else u
            for u, t, w in zip(self.hourly_price, self.today, self.weight, strict=True)
        )

    def forecast_price(self, at: float) -> float:
        """Return the forecast price at a unix second."""
        return max(hourly_price_at(self.hourly_price, at) + self.level, 0.0)


@dataclass(frozen=True)
class Measurement:
    """A reading of the counters, compared with the plan.

    progress   part of the window's traffic that the counters cover
    planned    part of the amount that is planned at that progress
    delivered  part of the amount that is delivered
    uncounted  part of the window's traffic that is served but not yet counted
    at         unix second of the reading
    """

    progress: float
    planned: float
    delivered: float
    uncounted: float
    at: float


def update(
    state: ControllerState,
    measurement: Measurement,
    *,
    sign: int,
    max_price: float,
    slope: float,
    gains: Gains | None = None,
) -> ControllerState:
    """Return the state after a reading.

    sign   +1 for a minimum, -1 for a maximum, whose price is subtracted from the utility of its items
    slope  response of delivery to the price, > 0: fraction of the amount delivered per window, for each play equivalent

    Laws: the price stays in [0, max_price]. It changes by at most `gains.max_move * max_price`, except that a lowered
    limit applies at once. The same reading again changes nothing. While the counters stand still, the price stays
    between its frozen value and the forecast price.
    """
    gains = gains or Gains()
    if state.price > max_price or state.limited_price > max_price:  # the limit was lowered
        state = replace(state, price=min(state.price, max_price), limited_price=min(state.limited_price, max_price))
    if measurement.progress <= state.progress:
        return _coast(state, measurement, max_price, gains)
    state = roll_over_day(state, measurement.at)
    step = min(measurement.progress - state.progress, gains.max_step)
    lag = sign * (measurement.planned - measurement.delivered)
    hourly = hourly_price_at(state.hourly_price, measurement.at)
    previous_needed = needed = hourly + state.integral
    if state.lag is not None:
        expected_growth = _lag_growth(state.in_flight, state.progress, measurement.progress, needed, sign, slope)
        error = (lag - state.lag - expected_growth) / (measurement.progress - state.progress)
        needed += error / slope * -math.expm1(-_limited_rate(gains.observer_rate, measurement, gains) * step)
    needed = min(max(needed, 0.0), max_price)
    expected_lag = lag + _lag_growth(
        state.in_flight, measurement.progress, measurement.progress + measurement.uncounted, needed, sign, slope
    )
    band, large_lag_band = bandwidth(measurement, gains), bandwidth(measurement, gains, gains.large_lag_factor)
    desired = needed + (band * expected_lag + (large_lag_band - band) * _excess(expected_lag, gains.large_lag)) / slope
    if desired > max_price:
        needed = min(needed, max(previous_needed, 0.0))  # anti-windup
    integral = needed - hourly
    max_change = gains.max_move * max_price
    price = min(max(desired, 0.0, state.price - max_change), max_price, state.price + max_change)
    level = state.level + min(step * 20.0, 1.0) * (integral - state.level)
    hour = int(measurement.at % DAY_S // 3600)
    today, weight = _added(state.today, hour, price * step), _added(state.weight, hour, step)
    in_flight = _extended_flight(state.in_flight, measurement, price)
    return ControllerState(
        measurement.progress,
        price,
        integral,
        level,
        state.hourly_price,
        today,
        weight,
        price,
        measurement.at,
        lag,
        in_flight,
    )


def bandwidth(measurement: Measurement, gains: Gains, factor: float = 1.0) -> float:
    """Return the bandwidth of the loop: higher towards the deadline, lower when the counters are delayed."""
    return _limited_rate(factor * gains.bandwidth, measurement, gains)


def _limited_rate(rate: float, measurement: Measurement, gains: Gains) -> float:
    """Return a rate, raised towards the deadline and limited by the counter delay."""
    remaining = max(1.0 - measurement.progress, 0.02)
    return min(rate * max(1.0, min(0.1 / remaining, 4.0)), gains.delay_limit / max(measurement.uncounted, 1e-9))


def _lag_growth(
    in_flight: tuple[tuple[float, float], ...], since: float, until: float, needed: float, sign: int, slope: float
) -> float:
    """Return the growth of the lag between two points of progress at the prices in force.

    The lag grows at prices below `needed` and falls at prices above it. It grows by at most the whole plan, because
    delivery cannot be negative.
    """
    starts = [max(at, since) for at, _ in in_flight[1:]]
    growth = 0.0
    for first, last, (_, price) in zip([since, *starts], [*starts, until], in_flight, strict=False):
        growth += max(min(last, until) - first, 0.0) * sign * min(sign * slope * (needed - price), 1.0)
    return growth


def _extended_flight(
    in_flight: tuple[tuple[float, float], ...], measurement: Measurement, price: float
) -> tuple[tuple[float, float], ...]:
    """Return the prices in flight with `price` appended; of the counted prices only the latest remains."""
    now = measurement.progress + measurement.uncounted
    first = max((n for n, (at, _) in enumerate(in_flight) if at <= measurement.progress), default=0)
    retained = tuple(entry for entry in in_flight[first:] if entry[0] < now)
    if len(retained) > 1 and now - retained[-1][0] < measurement.uncounted / IN_FLIGHT_MAX:
        now, retained = retained[-1][0], retained[:-1]
    return (*retained, (now, price))[-2 * IN_FLIGHT_MAX :]


def hourly_price_at(prices: tuple[float, ...], at: float) -> float:
    """Return the price at a unix second, interpolated linearly between the middles of the hours.

    >>> prices = (0.0, 1.0) + (0.0,) * 22
    >>> hourly_price_at(prices, 3600.0), hourly_price_at(prices, 5400.0)
    (0.5, 1.0)
    """
    position = at % DAY_S / 3600.0 - 0.5
    hour = math.floor(position)
    fraction = position - hour
    return (1.0 - fraction) * prices[hour % HOURS] + fraction * prices[(hour + 1) % HOURS]


def _excess(lag: float, threshold: float) -> float:
    """Return the part of a lag beyond `threshold`, with its sign."""
    return math.copysign(max(abs(lag) - threshold, 0.0), lag)


def _coast(state: ControllerState, measurement: Measurement, max_price: float, gains: Gains) -> ControllerState:
    """Freeze the price while counters are idle, then let it drift to the forecast price; depends on the clock only."""
    idle_s = measurement.at - state.moved_at - gains.grace_s
    if idle_s <= 0:
        return state
    forecast = min(state.forecast_price(measurement.at), max_price)
    return replace(state, price=forecast + (state.limited_price - forecast) * math.exp2(-idle_s / gains.half_life_s))


def _added(sums: tuple[float, ...], hour: int, amount: float) -> tuple[float, ...]:
    return (*sums[:hour], sums[hour] + amount, *sums[hour + 1 :])


def roll_over_day(state: ControllerState, at: float) -> ControllerState:
    """At midnight (UTC), merge the day's prices into the hourly prices without changing the price in force."""
    if at // DAY_S == state.moved_at // DAY_S or not any(state.weight):
        return state
    prices = state.learned_prices()
    shift = hourly_price_at(prices, at) - hourly_price_at(state.hourly_price, at)
    zeros = (0.0,) * HOURS
    return replace(
        state,
        hourly_price=prices,
        today=zeros,
        weight=zeros,
        integral=state.integral - shift,
        level=state.level - shift,
    )
