"""The schedule of a control: a range of dates, hours of the day and days of the week."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from recsys.domain.fields import Time
from recsys.messages import InvalidValue, message

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_S = 86_400
_RANGE = re.compile(r"(\d\d):(\d\d)-(\d\d):(\d\d)")
_OFFSET = re.compile(r"([+-])(\d\d):(\d\d)")


class Active(BaseModel):
    """A schedule: from `from` (inclusive) until `until` (exclusive), in the `daily` hours, on the `days`.

    An omitted field does not restrict the schedule. Hours and days are local to `offset` ("+08:00"); by default, to the
    offset of `from`, else of `until`, else UTC. Hours past midnight ("22:00-06:00") belong to the day on which they
    begin; "24:00" is the end of the day.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    since: Time | None = Field(None, alias="from")
    until: Time | None = None
    daily: tuple[str, ...] = ()
    days: tuple[Day, ...] = ()
    offset: str | None = None

    @field_validator("daily")
    @classmethod
    def _hours(cls, daily: tuple[str, ...]) -> tuple[str, ...]:
        for hours in daily:
            span_of(hours)
        return daily

    @field_validator("offset")
    @classmethod
    def _offset(cls, offset: str | None) -> str | None:
        if offset is not None:
            _offset_s(offset)
        return offset

    @model_validator(mode="after")
    def _ordered(self) -> Active:
        if self.since and self.until and self.until <= self.since:
            raise InvalidValue(message("dates_reversed"))
        return self

    @property
    def offset_s(self) -> int:
        """Return the offset of local time from UTC in seconds."""
        if self.offset is not None:
            return _offset_s(self.offset)
        for end in (self.since, self.until):
            if end is not None:
                ahead = end.utcoffset()
                return int(ahead.total_seconds()) if ahead else 0
        return 0

    def holds(self, now: float) -> bool:
        """Return whether the schedule is in force at `now` (unix seconds).

        >>> night = Active(daily=("22:00-06:00",), days=("mon",))
        >>> tuesday_5am = 1_767_675_600.0  # 2026-01-06T05:00:00Z
        >>> night.holds(tuesday_5am), night.holds(tuesday_5am + 3600)
        (True, False)
        """
        if self.since and now < self.since.timestamp():
            return False
        if self.until and now >= self.until.timestamp():
            return False
        day, second = divmod(now + self.offset_s, DAY_S)
        for hours in self.daily or ("00:00-24:00",):
            start, end = span_of(hours)
            if start <= second < end and self._on_day(day):
                return True
            if end > DAY_S and second < end - DAY_S and self._on_day(day - 1):
                return True
        return False

    def next(self, now: float) -> float | None:
        """Return the first time from `now` on, in unix seconds, at which the schedule is in force; None if never.

        >>> Active(daily=("06:00-24:00",)).next(0.0)
        21600.0
        """
        first = max(now, self.since.timestamp()) if self.since else now
        midnight = (first + self.offset_s) // DAY_S * DAY_S - self.offset_s
        starts = [0, *(span_of(hours)[0] for hours in self.daily)]
        moments = [first, *sorted(midnight + day * DAY_S + start for day in range(9) for start in starts)]
        return next((at for at in moments if at >= first and self.holds(at)), None)

    def _on_day(self, day: float) -> bool:
        """Return whether the schedule includes the day `day` days after 1970-01-01, a Thursday."""
        return not self.days or DAYS[int(day + 3) % 7] in self.days


@lru_cache(1024)
def span_of(hours: str) -> tuple[int, int]:
    """Return start and end of "HH:MM-HH:MM" in seconds of the day; an end past midnight is above 86,400.

    Raises InvalidValue (a ValueError) for any other text.

    >>> span_of("22:00-06:00")
    (79200, 108000)
    """
    match = _RANGE.fullmatch(hours)
    if not match:
        raise InvalidValue(message("hours_wrong", hours=hours))
    start_h, start_m, end_h, end_m = map(int, match.groups())
    start, end = start_h * 3600 + start_m * 60, end_h * 3600 + end_m * 60
    if start_m > 59 or end_m > 59 or start >= DAY_S or end > DAY_S:
        raise InvalidValue(message("hours_not_a_time", hours=hours))
    if start == end:
        raise InvalidValue(message("hours_empty", hours=hours))
    return start, end if end > start else end + DAY_S


def _offset_s(offset: str) -> int:
    match = _OFFSET.fullmatch(offset)
    if not match or int(match[2]) > 14 or int(match[3]) > 59:
        raise InvalidValue(message("offset_wrong", offset=offset))
    seconds = int(match[2]) * 3600 + int(match[3]) * 60
    return -seconds if match[1] == "-" else seconds
