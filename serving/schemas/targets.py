"""Exposure targets on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, Field

from recsys.domain.item import Id
from recsys.guidance.policy.yaml_text import Number
from recsys.messages import Message
from recsys.pacing.status import Status
from serving.schemas.resources import Author, RequestModel


class ForecastOut(BaseModel):
    """Where a target will stand at its deadline, as part of its amount; `low` to `high` in nine cases of ten."""

    expected: float
    low: float
    high: float
    at_risk: float = Field(description="attention that may be missing; of a cap, that may be above it")


class TargetOut(BaseModel):
    """An exposure target and how it stands. Amounts are attention-weighted impressions."""

    id: str = Field(examples=["harvest"])
    outlet: str = Field(description="whose policy says it", examples=["cn.zj.hz"])
    status: Status
    description: Message = Field(description="how it stands, with figures")
    bound: str
    amount: float = Field(description="by the deadline; of a share target as far as traffic is foreseen")
    share: float | None = Field(description="of all attention, for a share target")
    share_so_far: float | None = Field(description="that it has so far, for a share target; null before any was seen")
    delivered: float
    planned: float = Field(description="that should be delivered by now")
    progress: float = Field(description="part of the window's traffic that was served")
    since: datetime = Field(description="when it began")
    until: datetime
    price: float = Field(description="play equivalents per unit of attention, in force now")
    max_price: float
    pacing_error: float = Field(description="mean distance from the plan so far, as part of the amount")
    forecast: ForecastOut | None = Field(
        description="null where nothing is foreseen: before anything of it was seen, and once it has ended"
    )
    last_resort: bool = Field(description="whether its last resort is in force")
    late_s: float = Field(description="how far the counters are behind")


class CurvePoint(BaseModel):
    """One moment of a target's course."""

    at: datetime
    planned: float
    delivered: float
    price: float


class TargetReport(TargetOut):
    """A target with its course, its usual prices and what editors told it."""

    course: list[CurvePoint]
    usual_prices: list[float] = Field(description="play equivalents per unit of attention by hour of the day, UTC")
    capped_impressions: int = Field(description="impressions counted towards frequency caps; 0 without one")
    paused: bool
    stopped: bool


class TargetChange(RequestModel):
    """An order to a running target."""

    author: Author
    note: Annotated[str, Field(max_length=2000)] = ""


class AmountChange(TargetChange):
    """Another amount in flight: the rest of the plan is made anew from what is delivered."""

    amount: Annotated[
        Number,
        Field(
            gt=0,
            le=1e12,
            allow_inf_nan=False,
            description="impressions, a whole number, or a share target's share",
            examples=[50_000],
        ),
    ]


class CloneRequest(TargetChange):
    """A new target like this one, as a draft of the outlet's next policy version."""

    id: Id = Field(description="of the new target", examples=["harvest-2"])
    since: AwareDatetime | None = Field(None, alias="from")
    until: AwareDatetime = Field(examples=["2027-03-01T00:00:00+08:00"])
    amount: Annotated[Number, Field(gt=0, le=1e12, allow_inf_nan=False)] | None = Field(
        None, description="impressions, a whole number, or share; unsaid = what the first one asks for by now"
    )
