"""Controls: the single rules of a policy, one pydantic class for each `action`.

Everything here is data and its checks. Profiles are made of controls, and policies of profiles and controls
(`recsys.guidance.policy.profiles`, `recsys.guidance.policy.policy`).
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, field_validator, model_validator

from recsys.domain.item import Code, Id
from recsys.domain.placement import Screen, Surface
from recsys.domain.query import Query
from recsys.domain.regions import within
from recsys.guidance.policy.conditions import Where
from recsys.guidance.policy.schedule import Active, span_of
from recsys.guidance.policy.yaml_text import Integer, Moment, Number, display_value
from recsys.messages import InvalidValue, message
from recsys.pacing.delivery_curve import Pacing

Enforcement = Literal["legal", "mandatory", "editorial", "preferred"]
ENFORCEMENT_ORDER: tuple[Enforcement, ...] = ("legal", "mandatory", "editorial", "preferred")
"""Most important first: what comes later gives way earlier.

Enforcement says which control gives way to which where a page cannot keep them all; it never says what one may cost. A
`preferred` control is kept as well wherever a page can keep it, whatever its items are worth to viewers. What may cost
only so much is a `boost`, or an exposure target with its `max_price`.
"""

Attribute = Literal["topic", "provider", "series", "outlet", "region", "kind"]

COUNT_MAX = 200
"""Items that a control may count, and slots that it may name: more than any page has."""

_PER_CENT = re.compile(r"(\d{1,3}(?:\.\d+)?) ?[%％]")


def _per_cent(said: object) -> object:
    """A share may also be written "30%" or "30 %".

    >>> _per_cent("30 %"), _per_cent("2.5%"), _per_cent("many"), _per_cent(3)
    (0.3, 0.025, 'many', 3)
    """
    written = _PER_CENT.fullmatch(said) if isinstance(said, str) else None
    return float(written[1]) / 100.0 if written else said


def _amount(said: object) -> object:
    """A number of items or a share; yes and no are not amounts."""
    said = _per_cent(said)
    if isinstance(said, bool) or not isinstance(said, int | float):
        raise InvalidValue(message("amount_wrong"))
    if isinstance(said, float) and not 0.0 <= said <= 1.0:
        raise InvalidValue(message("share_out_of_range", share=display_value(said)))
    if isinstance(said, int) and said < 0:
        raise InvalidValue(message("items_negative"))
    if isinstance(said, int) and said > COUNT_MAX:
        raise InvalidValue(message("items_too_many", maximum=COUNT_MAX, items=said))
    return said


Amount = Annotated[int | float, BeforeValidator(_amount)]
"""A whole number is a number of items; a number with a point (0.3), "30%" or "30 %" is a share."""


class PolicyModel(BaseModel):
    """A part of a policy: immutable, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Scope(PolicyModel):
    """Where a control is in force; unsaid = everywhere."""

    screens: tuple[Screen, ...] = ()
    surfaces: tuple[Surface, ...] = ()
    regions: tuple[Code, ...] = ()  # of the viewer, with all below them
    outlets: tuple[Code, ...] = ()  # whose page it is, with all below them

    def holds(self, query: Query) -> bool:
        """Whether the query's page is one of those meant."""
        here, region = query.placement, query.region
        return (
            (not self.screens or here.screen in self.screens)
            and (not self.surfaces or here.surface in self.surfaces)
            and (not self.regions or any(within(region, root) for root in self.regions))
            and (not self.outlets or any(within(here.outlet, root) for root in self.outlets))
        )


class ControlBase(PolicyModel):
    """What all controls have in common."""

    id: Annotated[Id, StringConstraints(pattern=r"^[^\s@]+$")]  # ID@OUTLET is a parent's form beside a tighter one
    enforcement: Enforcement = "editorial"
    priority: Annotated[Integer, Field(ge=0, le=1000)] = 0  # within an enforcement: larger gives way later
    on: Scope = Scope()
    active: Active = Active()
    legal_ref: str = ""
    note: str = ""

    def holds(self, query: Query) -> bool:
        """Whether the control is in force for this query."""
        return self.on.holds(query) and self.active.holds(query.now)


class Boost(ControlBase):
    """Items lean up (or down) by a few tenths of a click; never a promise."""

    action: Literal["boost"]
    where: Where
    bonus: Annotated[Number, Field(ge=-1, le=1)]  # play equivalents


class Block(ControlBase):
    """Items do not appear at all."""

    action: Literal["block"]
    where: Where


class Pin(ControlBase):
    """One item stands in one slot of the session (1 = the first of its first page), if it may be display_value."""

    action: Literal["pin"]
    item: Id
    slot: Annotated[Integer, Field(ge=1, le=COUNT_MAX)]


class Quota(ControlBase):
    """At least / at most so much of the page, and of its beginnings.

    Prefixes: none (the page only), `every`, or a list of lengths; the page itself always counts. A floor is rounded up
    on the page and down on a prefix, a cap the other way round; with `rounding: strict` always to the stricter side.
    """

    action: Literal["quota"]
    where: Where
    at_least: Amount | None = None
    at_most: Amount | None = None
    prefixes: Literal["every"] | tuple[Annotated[Integer, Field(ge=1, le=COUNT_MAX)], ...] = ()
    rounding: Literal["lenient", "strict"] = "lenient"

    @model_validator(mode="after")
    def _limits(self) -> Quota:
        if self.at_least is None and self.at_most is None:
            raise InvalidValue(message("quota_without_limit"))
        if isinstance(self.at_least, int) and self.prefixes == "every":
            raise InvalidValue(message("quota_items_in_every_prefix"))
        return self


class Cap(ControlBase):
    """At most so many items of one value of an attribute (one topic, one provider, ...) on a page."""

    action: Literal["cap"]
    attribute: Attribute
    at_most: Amount


class Spacing(ControlBase):
    """At most so many items of one value of an attribute in any `within` neighbouring slots."""

    action: Literal["spacing"]
    attribute: Attribute
    at_most: Annotated[Integer, Field(ge=1, le=COUNT_MAX)]
    within: Annotated[Integer, Field(ge=2, le=COUNT_MAX)]

    @model_validator(mode="after")
    def _narrower(self) -> Spacing:
        if self.at_most >= self.within:
            raise InvalidValue(message("spacing_allows_all", maximum=self.at_most, within=self.within))
        return self


_PERIOD_S = {"hour": 3600.0, "day": 86_400.0, "week": 604_800.0}


class FrequencyCap(PolicyModel):
    """A viewer sees the items of a target at most so often within any hour, day or week, over all screens."""

    impressions: Annotated[Integer, Field(ge=1, le=50)]
    per: Literal["hour", "day", "week"] = "day"

    @property
    def period_s(self) -> float:
        """Length of the period in seconds."""
        return _PERIOD_S[self.per]


class ExposureTarget(ControlBase):
    """So much of the audience's attention for some items by a deadline; a cap with `bound: at_most`.

    impressions  attention-weighted: an item looked at with certainty counts 1, one far down the page a fraction
    share        of all attention on the pages it is in force for
    pacing       even: in step with the forecast traffic; frontloaded: sooner; asap: at once; by_day_part:
                 as `day_parts` say
    tolerance    so far behind or ahead of the plan, as part of the amount, is still "on plan"
    commitment   guaranteed: `last_resort` may be used; best_effort: never more than the price
    max_price    play equivalents per unit of attention that it may cost at most
    last_resort  least share of (or number of items on) each page, once the price alone will not do; guaranteed only
    like         id of a target of this policy whose prices it begins with
    """

    action: Literal["exposure_target"]
    where: Where
    impressions: Annotated[Integer, Field(gt=0, le=10**12)] | None = None
    share: Annotated[Number, Field(gt=0), BeforeValidator(_per_cent)] | None = None
    bound: Literal["at_least", "at_most"] = "at_least"
    since: Moment | None = Field(None, alias="from")
    until: Moment
    pacing: Pacing = "even"
    day_parts: dict[str, Annotated[Number, Field(gt=0, le=1)]] = {}
    offset_h: Annotated[Number, Field(ge=-12, le=14)] = 0.0  # of the day parts' clock from UTC
    tolerance: Annotated[Number, Field(ge=0.001, le=0.5)] = 0.02
    commitment: Literal["guaranteed", "best_effort"] = "best_effort"
    max_price: Annotated[Number, Field(gt=0, le=10)] = 0.5
    frequency_cap: FrequencyCap | None = None
    last_resort: Amount | None = None
    like: Id | None = None

    @field_validator("share")
    @classmethod
    def _a_part(cls, share: float | None) -> float | None:
        if share is not None and share > 1:
            raise InvalidValue(message("share_above_all_attention", share=display_value(share)))
        return share

    @field_validator("day_parts")
    @classmethod
    def _hours(cls, parts: dict[str, float]) -> dict[str, float]:
        for hours in parts:
            span_of(hours)
        if parts and abs(sum(parts.values()) - 1.0) > 0.005:
            raise InvalidValue(message("day_parts_sum", sum=sum(parts.values())))
        return parts

    @model_validator(mode="after")
    def _sound(self) -> ExposureTarget:
        if (self.impressions is None) == (self.share is None):
            raise InvalidValue(message("target_needs_amount"))
        if self.since and self.until <= self.since:
            raise InvalidValue(message("target_deadline_before_start"))
        if (self.pacing == "by_day_part") != bool(self.day_parts):
            raise InvalidValue(message("target_day_parts"))
        if self.last_resort is not None and (self.commitment != "guaranteed" or self.bound != "at_least"):
            raise InvalidValue(message("target_last_resort"))
        if self.where.about_viewer:
            raise InvalidValue(message("target_about_viewer"))
        return self

    def runs(self, now: float) -> bool:
        """Whether unix second `now` lies in its window."""
        return (self.since is None or self.since.timestamp() <= now) and now < self.until.timestamp()


Control = Annotated[Boost | Block | Pin | Quota | Cap | Spacing | ExposureTarget, Field(discriminator="action")]
PageControl = Pin | Quota | Cap | Spacing
"""The controls that the page solve must keep; boosts and blocks act before it."""
