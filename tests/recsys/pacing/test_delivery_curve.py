"""Forecasts and delivery curves: progress is 1 at the deadline, and plans follow traffic."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.pacing.delivery_curve import day_part_weights, planned, progress
from recsys.pacing.forecast import HOUR_S, MONDAY, WEEK_S, Forecast, fit

rates = st.lists(st.floats(0, 100), min_size=24, max_size=24).map(lambda r: Forecast(np.tile(np.array(r), 7)))
instants = st.floats(0, 4 * WEEK_S)


@given(rates, instants, instants, instants)
def test_forecast_mass_is_additive(forecast: Forecast, a: float, b: float, c: float) -> None:
    a, b, c = sorted((a, b, c))
    assert forecast.mass(a, b) + forecast.mass(b, c) == pytest.approx(forecast.mass(a, c), rel=1e-6, abs=1e-3)


@given(rates, st.floats(0, 1000), st.floats(0, 100_000))
def test_progress_is_in_unit_interval_and_one_at_the_deadline(forecast: Forecast, served: float, at: float) -> None:
    done = progress(served, 0.0, at, 100_000.0, forecast)
    assert 0 <= done <= 1
    assert progress(served, 0.0, 100_000.0, 100_000.0, forecast) == 1.0
    after = progress(served + 1.0, 0.0, at, 100_000.0, forecast)
    assert after >= done - 1e-9


@given(st.floats(0.3, 4), st.floats(0, 1))
def test_forecast_wrong_by_a_factor_is_corrected(factor: float, part: float) -> None:
    """Traffic is always `factor` times the forecast; from the middle on, progress is nearly correct."""
    forecast, at = Forecast.flat(1.0), 500.0 + 500.0 * part
    done = progress(factor * at, 0.0, at, 1000.0, forecast)
    assert done == pytest.approx(at / 1000.0, abs=0.12)


def test_forecast_is_the_mean_of_counts_by_hour_and_weekday() -> None:
    first = MONDAY // HOUR_S
    counted = {first + hour: float(hour % 24 + 100 * (hour // 24 % 7 == 5)) for hour in range(4 * 168)}
    forecast = fit(counted, (first + 4 * 168) * HOUR_S)
    assert forecast.mass(MONDAY + 7 * HOUR_S, MONDAY + 8 * HOUR_S) == pytest.approx(7.0)
    saturday = MONDAY + 5 * 86_400
    assert forecast.mass(saturday + 7 * HOUR_S, saturday + 8 * HOUR_S) == pytest.approx(107.0)


def test_forecast_starts_on_the_second_day_and_excludes_the_current_hour() -> None:
    first = MONDAY // HOUR_S
    counted = {first + hour: float(hour) for hour in range(24)} | {first + 24: 1000.0}
    forecast = fit(counted, (first + 24.5) * HOUR_S)
    assert forecast.mass(MONDAY + 3 * 86_400 + 7 * HOUR_S, MONDAY + 3 * 86_400 + 8 * HOUR_S) == pytest.approx(7.0)
    assert fit({}, 0.0).rate.tolist() == Forecast.flat().rate.tolist()


@given(st.sampled_from(["even", "frontloaded", "asap"]), st.floats(0, 1), st.floats(0, 1))
def test_delivery_curves_are_monotonic_and_end_at_one(shape: str, a: float, b: float) -> None:
    a, b = sorted((a, b))
    assert planned(shape, a) <= planned(shape, b)  # type: ignore[arg-type]
    assert planned(shape, 1.0) == 1.0  # type: ignore[arg-type]
    assert planned(shape, a) >= a - 1e-12  # type: ignore[arg-type]


def test_day_parts_get_their_share_of_every_day() -> None:
    forecast = Forecast(np.tile(np.arange(24.0) + 1, 7))
    weighted = forecast.weighted(day_part_weights({"06:00-18:00": 0.3, "22:00-02:00": 0.7}, 0.0, forecast))
    day = weighted.mass(MONDAY, MONDAY + 86_400)
    assert weighted.mass(MONDAY + 6 * HOUR_S, MONDAY + 18 * HOUR_S) / day == pytest.approx(0.3)
    assert weighted.mass(MONDAY + 22 * HOUR_S, MONDAY + 26 * HOUR_S) / day == pytest.approx(0.7)
    assert weighted.mass(MONDAY + 3 * HOUR_S, MONDAY + 5 * HOUR_S) == 0
