"""The price of a target, moved by how far delivery is behind its plan: what is needed, plus what catches up.

    lag     = sign * (planned - delivered), as parts of the amount
    needed  = usual(hour) + integral                    the price at which delivery would keep step with its plan
    soon    = lag + what it grows by on the pages that are served and not yet counted
    price   = needed + bandwidth * soon / slope, within [0, max_price]

Delivery answers a price with `slope` (amounts per whole window and play equivalent): at a price above `needed` the lag
falls by slope * (price - needed) per window. So what the lag did, against what it should have done at the prices that
were in force on those very pages, tells where `needed` really is (a disturbance observer): the integral takes a part of
the difference, `notice` per window. And what pages in flight will do is known before counters show it (a Smith
predictor): a price is not raised a second time for a lag that the first rise is already making up for.

`progress` (part of the window's traffic that the counters have seen) is the controller's time. Counters that are late
are late for plan and delivery alike, so lateness is no lag; counters that stop stop the controller, so nothing winds
up; and an update with the same counters changes nothing, so it does not matter which process does it, nor how often.

`usual` is what the price was at this hour on earlier days: what viewers want moves through the day, and what comes
again every day need not be found out again from a lag.

Bandwidth is per window, so kp = bandwidth / slope closes the loop at `bandwidth` whatever the size of the target. Late
counters take bandwidth away (a prediction is only as good as its slope; what oscillates never comes back).

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

MOMENTS = 32
"""Prices that are remembered of the pages in flight, spread over their traffic."""


@dataclass(frozen=True)
class Gains:
    """How the controller behaves; everything is per whole window, so one setting serves an hour and a month.

    bandwidth   1 / (part of the window in which a lag falls to a third); rises towards the deadline
    notice      1 / (part of the window in which two thirds of a change in the audience are noticed); rises with it
    far, firm   a lag beyond `far` of the amount is answered `firm` times as firmly, as far as lateness allows
    late        bandwidth x lateness and notice x lateness are held below this
    stride      an update integrates over at most this part of the window: a gap is no lag
    move        largest move of the price in one update, as part of max_price
    grace_s     counters may stand still this long before the price leaves where it froze
    half_life_s then half of its distance from the forecast price is gone after each of these
    """

    bandwidth: float = 50.0
    notice: float = 40.0
    far: float = 0.01
    firm: float = 3.0
    late: float = 1.0
    stride: float = 0.004
    move: float = 0.1
    grace_s: float = 600.0
    half_life_s: float = 1800.0


@dataclass(frozen=True)
class ControllerState:
    """What the controller remembers of one target.

    progress   of the counters at the last update, in [0, 1]
    price      in force, play equivalents per unit of attention, >= 0
    integral   what today asks for beyond `usual`; with it, the price at which delivery would keep step with its plan
    level      slow mean of the integral: with `usual` the forecast price, where it goes when counters stay away
    usual      [24] price by hour of the day (UTC), from earlier days
    today      [24] sum of price x progress in each hour since midnight
    weight     [24] sum of progress in each hour since midnight
    held       price when the counters stopped
    moved_at   unix second at which the counters last moved
    lag        at the last update; None: not known, or the plan was made anew since
    flight     (progress, price in force from there on), rising, of the pages in flight and those counted last
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
        """Before anything was counted, at a first price: one for all hours, or one for each (yesterday's)."""
        usual = (float(price),) * HOURS if isinstance(price, int | float) else price
        now = usual_at(usual, at)
        return cls(0.0, now, 0.0, 0.0, usual, (0.0,) * HOURS, (0.0,) * HOURS, now, at)

    def learnt(self) -> tuple[float, ...]:
        """[24] the usual prices as they would be if the day ended now: today's and earlier ones, half and half."""
        return tuple(
            (u + t / w) / 2.0 if w > 0 else u
            for u, t, w in zip(self.hourly_price, self.today, self.weight, strict=True)
        )

    def expected(self, at: float) -> float:
        """The forecast price at a unix second."""
        return max(usual_at(self.hourly_price, at) + self.level, 0.0)


@dataclass(frozen=True)
class Measurement:
    """The counters against the plan, at one moment.

    progress   part of the window's traffic that the counters have seen
    planned    part of the amount that should be delivered by then
    delivered  part of the amount that is
    late       part of the window's traffic that was served and is not counted yet
    at         unix second of the reading
    """

    progress: float
    planned: float
    delivered: float
    late: float
    at: float


def update(
    state: ControllerState, seen: Measurement, *, sign: int, max_price: float, slope: float, gains: Gains | None = None
) -> ControllerState:
    """The state after a reading.

    sign   +1 for at least, -1 for at most (the price then pushes down: it is subtracted from its items' utility)
    slope  change of delivery by the price: amounts per whole window and play equivalent, > 0

    Laws: the price stays in [0, max_price]; it moves by at most `gains.move * max_price` (a lowered limit is kept to at
    once); the same reading again
    changes nothing; with counters standing still it never leaves the span between where it froze and the forecast.
    """
    gains = gains or Gains()
    if state.price > max_price or state.limited_price > max_price:  # the limit was lowered
        state = replace(state, price=min(state.price, max_price), limited_price=min(state.limited_price, max_price))
    if seen.progress <= state.progress:
        return _waiting(state, seen, max_price, gains)
    state = day_over(state, seen.at)
    step = min(seen.progress - state.progress, gains.stride)
    lag = sign * (seen.planned - seen.delivered)
    usual = usual_at(state.hourly_price, seen.at)
    before = needed = usual + state.integral
    if state.lag is not None:
        expected = _price_needed(state.in_flight, state.progress, seen.progress, needed, sign, slope)
        surprise = (lag - state.lag - expected) / (seen.progress - state.progress)
        needed += surprise / slope * -math.expm1(-_limited_rate(gains.notice, seen, gains) * step)
    needed = min(max(needed, 0.0), max_price)
    soon = lag + _price_needed(state.in_flight, seen.progress, seen.progress + seen.late, needed, sign, slope)
    band, firm = bandwidth(seen, gains), bandwidth(seen, gains, gains.firm)
    wanted = needed + (band * soon + (firm - band) * _beyond(soon, gains.far)) / slope
    if wanted > max_price:
        needed = min(needed, max(before, 0.0))  # anti-windup
    integral = needed - usual
    reach = gains.move * max_price
    price = min(max(wanted, 0.0, state.price - reach), max_price, state.price + reach)
    level = state.level + min(step * 20.0, 1.0) * (integral - state.level)
    hour = int(seen.at % DAY_S // 3600)
    today, weight = _added(state.today, hour, price * step), _added(state.weight, hour, step)
    flight = _under(state.in_flight, seen, price)
    return ControllerState(
        seen.progress, price, integral, level, state.hourly_price, today, weight, price, seen.at, lag, flight
    )


def bandwidth(seen: Measurement, gains: Gains, firm: float = 1.0) -> float:
    """How fast the loop may answer: faster towards the deadline, slower when counters are late."""
    return _limited_rate(firm * gains.bandwidth, seen, gains)


def _limited_rate(usual: float, seen: Measurement, gains: Gains) -> float:
    """A speed, raised towards the deadline and held down by lateness."""
    left = max(1.0 - seen.progress, 0.02)
    return min(usual * max(1.0, min(0.1 / left, 4.0)), gains.late / max(seen.late, 1e-9))


def _price_needed(
    flight: tuple[tuple[float, float], ...], since: float, until: float, needed: float, sign: int, slope: float
) -> float:
    """By how much the lag grows between two points of progress, under the prices in force there.

    Below `needed` it grows, above it falls; but of what is not delivered at all nothing more is missing.
    """
    starts = [max(at, since) for at, _ in flight[1:]]
    growth = 0.0
    for first, last, (_, price) in zip([since, *starts], [*starts, until], flight, strict=False):
        growth += max(min(last, until) - first, 0.0) * sign * min(sign * slope * (needed - price), 1.0)
    return growth


def _under(flight: tuple[tuple[float, float], ...], seen: Measurement, price: float) -> tuple[tuple[float, float], ...]:
    """The flight after pages from now on are served under `price`; what is counted is forgotten, but for the last."""
    now = seen.progress + seen.late
    first = max((n for n, (at, _) in enumerate(flight) if at <= seen.progress), default=0)
    kept = tuple(moment for moment in flight[first:] if moment[0] < now)
    if len(kept) > 1 and now - kept[-1][0] < seen.late / MOMENTS:
        now, kept = kept[-1][0], kept[:-1]
    return (*kept, (now, price))[-2 * MOMENTS :]


def usual_at(usual: tuple[float, ...], at: float) -> float:
    """A price by hours, read at a unix second: straight lines between the middles of the hours.

    >>> usual_at((0.0, 1.0) + (0.0,) * 22, 3600.0), usual_at((0.0, 1.0) + (0.0,) * 22, 5400.0)
    (0.5, 1.0)
    """
    place = at % DAY_S / 3600.0 - 0.5
    hour = math.floor(place)
    ahead = place - hour
    return (1.0 - ahead) * usual[hour % HOURS] + ahead * usual[(hour + 1) % HOURS]


def _beyond(lag: float, far: float) -> float:
    """The part of a lag that lies beyond `far`, with its sign."""
    return math.copysign(max(abs(lag) - far, 0.0), lag)


def _waiting(state: ControllerState, seen: Measurement, max_price: float, gains: Gains) -> ControllerState:
    """Counters that stand still: freeze, then drift towards the forecast price; a function of the clock alone."""
    still_s = seen.at - state.moved_at - gains.grace_s
    if still_s <= 0:
        return state
    goal = min(state.expected(seen.at), max_price)
    return replace(state, price=goal + (state.limited_price - goal) * math.exp2(-still_s / gains.half_life_s))


def _added(sums: tuple[float, ...], hour: int, more: float) -> tuple[float, ...]:
    return (*sums[:hour], sums[hour] + more, *sums[hour + 1 :])


def day_over(state: ControllerState, at: float) -> ControllerState:
    """At midnight (UTC) the day's prices enter the usual ones, and the price in force does not notice."""
    if at // DAY_S == state.moved_at // DAY_S or not any(state.weight):
        return state
    usual = state.learnt()
    moved = usual_at(usual, at) - usual_at(state.hourly_price, at)
    none = (0.0,) * HOURS
    return replace(
        state, hourly_price=usual, today=none, weight=none, integral=state.integral - moved, level=state.level - moved
    )
