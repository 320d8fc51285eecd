"""The API models of exposure targets."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from recsys.domain.fields import Id, Number, Text, Time
from recsys.messages import Message
from recsys.pacing.status import Status
from serving.schemas.resources import Author, RequestModel


class ForecastOut(BaseModel):
    """The expected delivery at the deadline, as a fraction of the amount. `low` to `high` is a 90 % interval."""

    expected: float
    low: float
    high: float
    at_risk: float = Field(
        description="Attention that may be missing at the deadline; for a cap, attention that may exceed it."
    )


class TargetOut(BaseModel):
    """An exposure target and its status. Amounts are attention-weighted impressions."""

    id: str = Field(examples=["harvest"])
    outlet: str = Field(description="Outlet whose policy defines the target.", examples=["cn.zj.hz"])
    status: Status
    description: Message = Field(description="Description of the status, with numbers.")
    bound: str
    amount: float = Field(
        description="Amount to deliver by the deadline. For a share target, it follows from the traffic forecast."
    )
    share: float | None = Field(description="For a share target: the fraction of all attention.")
    share_so_far: float | None = Field(
        description="For a share target: the fraction delivered so far; null before any traffic."
    )
    delivered: float
    planned: float = Field(description="Amount that the plan delivers up to now.")
    progress: float = Field(description="Fraction of the expected traffic of the window that was served.")
    since: datetime = Field(description="Start of the window.")
    until: datetime = Field(description="End of the window: the deadline.")
    price: float = Field(description="Current price per unit of attention, in `price_unit`.")
    max_price: float = Field(description="Maximum of the price, in `price_unit`.")
    price_unit: Literal["play equivalents", "item utility"] = Field(
        description="`item utility` for a target without `max_price` in its policy: the mean utility of the best "
        "items of each page, without guidance. A price of 0.5 then is worth half an item of the page."
    )
    pacing_error: float = Field(description="Mean distance from the plan so far, as a fraction of the amount.")
    forecast: ForecastOut | None = Field(
        description="Forecast of the delivery; null before the first delivery and after the end."
    )
    last_resort: bool = Field(description="Whether the last resort of the target is in force.")
    counter_lag_s: float = Field(description="Delay of the delivery counters, in seconds.")


class CurvePoint(BaseModel):
    """A point of the delivery curve of a target."""

    at: datetime
    planned: float
    delivered: float
    price: float


class TargetReport(TargetOut):
    """A target with its delivery curve, its usual prices and its overrides by editors."""

    course: list[CurvePoint]
    usual_prices: list[float] = Field(
        description="Usual price for each hour of the day in UTC, per unit of attention, in `price_unit`."
    )
    capped_impressions: int = Field(description="Impressions counted towards the frequency cap; 0 without a cap.")
    paused: bool
    stopped: bool


class TargetChange(RequestModel):
    """A change to a running target."""

    author: Author
    note: Annotated[Text, Field(max_length=2000)] = ""


class AmountChange(TargetChange):
    """A new amount of a running target. The rest of the plan is computed again from the amount delivered so far."""

    amount: Annotated[
        Number,
        Field(
            gt=0,
            le=1e12,
            allow_inf_nan=False,
            description="A whole number of impressions, or the share of a share target.",
            examples=[50_000],
        ),
    ]


class CloneRequest(TargetChange):
    """A copy of a target, as a draft of the outlet's next policy version."""

    id: Id = Field(description="Id of the new target.", examples=["harvest-2"])
    since: Time | None = Field(None, alias="from")
    until: Time = Field(examples=["2027-03-01T00:00:00+08:00"])
    amount: Annotated[Number, Field(gt=0, le=1e12, allow_inf_nan=False)] | None = Field(
        None,
        description="A whole number of impressions, or a share. The default is the current amount of the target.",
    )
