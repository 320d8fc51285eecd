"""Controls: the rules of a policy, one pydantic class for each `action`.

This module contains data classes and their validation only. A profile is a set of controls
(`recsys.guidance.policy.profiles`); a policy has profiles and controls of its own (`recsys.guidance.policy.policy`).
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, field_validator, model_validator

from recsys.domain.fields import Code, Id, Integer, Number, Time, display_value
from recsys.domain.placement import Screen, Surface
from recsys.domain.query import Query
from recsys.domain.regions import within
from recsys.guidance.policy.conditions import Where
from recsys.guidance.policy.schedule import Active, span_of
from recsys.messages import InvalidValue, message
from recsys.pacing.delivery_curve import Pacing

Enforcement = Literal["legal", "mandatory", "editorial", "preferred"]
ENFORCEMENT_ORDER: tuple[Enforcement, ...] = ("legal", "mandatory", "editorial", "preferred")
"""Enforcement levels, the strictest first; later levels are relaxed first.

Enforcement decides which control is relaxed if a page cannot meet all of them; it does not limit the utility that a
control may cost. Even a `preferred` control is met wherever a page can meet it, whatever the utility of its items. To
limit the cost, use a `boost`, or an exposure target with a `max_price`.
"""

Attribute = Literal["topic", "provider", "series", "outlet", "region", "kind"]

DEFAULT_MAX_PRICE = 0.5
"""Maximum price of an exposure target without `max_price`, as a part of the mean utility of the page's best items."""

COUNT_MAX = 200
"""Maximum count and slot number in a control: more than any page has."""

_PER_CENT = re.compile(r"(\d{1,3}(?:\.\d+)?) ?[%％]")


def _parse_percent(value: object) -> object:
    """Return the fraction for a text such as "30%" or "30 %", and any other value unchanged.

    >>> _parse_percent("30 %"), _parse_percent("2.5%"), _parse_percent("many"), _parse_percent(3)
    (0.3, 0.025, 'many', 3)
    """
    match = _PER_CENT.fullmatch(value) if isinstance(value, str) else None
    return float(match[1]) / 100.0 if match else value


def _amount(value: object) -> object:
    """Validate a number of items or a share; booleans are not amounts."""
    value = _parse_percent(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidValue(message("amount_wrong"))
    if isinstance(value, float) and not 0.0 <= value <= 1.0:
        raise InvalidValue(message("share_out_of_range", share=display_value(value)))
    if isinstance(value, int) and value < 0:
        raise InvalidValue(message("items_negative"))
    if isinstance(value, int) and value > COUNT_MAX:
        raise InvalidValue(message("items_too_many", maximum=COUNT_MAX, items=value))
    return value


Amount = Annotated[int | float, BeforeValidator(_amount)]
"""A whole number is a number of items; a number with a decimal point (0.3), "30%" or "30 %" is a share."""


class PolicyModel(BaseModel):
    """The base class of all parts of a policy: immutable, and unknown fields are rejected."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Scope(PolicyModel):
    """The pages on which a control is in force; an empty field does not restrict them."""

    screens: tuple[Screen, ...] = ()
    surfaces: tuple[Surface, ...] = ()
    regions: tuple[Code, ...] = ()  # of the viewer, including lower levels
    outlets: tuple[Code, ...] = ()  # of the page, including lower levels

    def holds(self, query: Query) -> bool:
        """Return whether the scope includes the page of the query."""
        placement, region = query.placement, query.region
        return (
            (not self.screens or placement.screen in self.screens)
            and (not self.surfaces or placement.surface in self.surfaces)
            and (not self.regions or any(within(region, root) for root in self.regions))
            and (not self.outlets or any(within(placement.outlet, root) for root in self.outlets))
        )


class ControlBase(PolicyModel):
    """The fields that all controls have in common."""

    id: Annotated[Id, StringConstraints(pattern=r"^[^\s@]+$")]  # ID@OUTLET is reserved for a parent's version
    enforcement: Enforcement = "editorial"
    priority: Annotated[Integer, Field(ge=0, le=1000)] = 0  # within an enforcement level: larger is relaxed later
    on: Scope = Scope()
    active: Active = Active()
    legal_ref: str = ""
    note: str = ""

    def in_scope(self, query: Query) -> bool:
        """Return whether the page of the query is one on which the control can be in force."""
        return self.on.holds(query)

    def holds(self, query: Query) -> bool:
        """Return whether the control is in force for this query."""
        return self.in_scope(query) and self.active.holds(query.now)


class Boost(ControlBase):
    """A control that adds a bonus to the utility of items; it guarantees no placement."""

    action: Literal["boost"]
    where: Where
    bonus: Annotated[Number, Field(ge=-1, le=1)]  # play equivalents


class Block(ControlBase):
    """A control that keeps items off the page."""

    action: Literal["block"]
    where: Where


class Pin(ControlBase):
    """A control that puts an item into a slot of the session, if the item may be shown.

    slot  1-based, counted from the first slot of the session's first page
    """

    action: Literal["pin"]
    item: Id
    slot: Annotated[Integer, Field(ge=1, le=COUNT_MAX)]


class Quota(ControlBase):
    """A control that sets a minimum and a maximum of items on the page and on prefixes of the page.

    prefixes  lengths of the prefixes, or `every`; the limits always apply to the whole page as well
    rounding  lenient: a minimum share is rounded up on the page and down on a prefix, a maximum share the other way
              round; strict: both are always rounded to the stricter side
    """

    action: Literal["quota"]
    where: Where
    at_least: Amount | None = None
    at_most: Amount | None = None
    prefixes: (
        Literal["every"]
        | Annotated[tuple[Annotated[Integer, Field(ge=1, le=COUNT_MAX)], ...], Field(max_length=COUNT_MAX)]
    ) = ()
    rounding: Literal["lenient", "strict"] = "lenient"

    @model_validator(mode="after")
    def _limits(self) -> Quota:
        if self.at_least is None and self.at_most is None:
            raise InvalidValue(message("quota_without_limit"))
        if isinstance(self.at_least, int) and self.prefixes == "every":
            raise InvalidValue(message("quota_items_in_every_prefix"))
        return self


class Cap(ControlBase):
    """A control that limits the items with the same value of an attribute (topic, provider, ...) on a page."""

    action: Literal["cap"]
    attribute: Attribute
    at_most: Amount


class Spacing(ControlBase):
    """A control that limits the items with the same value of an attribute in any `within` consecutive slots."""

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
    """A maximum number of impressions of a target's items per viewer and period, over all screens."""

    impressions: Annotated[Integer, Field(ge=1, le=50)]
    per: Literal["hour", "day", "week"] = "day"

    @property
    def period_s(self) -> float:
        """Return the length of the period in seconds."""
        return _PERIOD_S[self.per]


class ExposureTarget(ControlBase):
    """A control that delivers an amount of the audience's attention to items by a deadline.

    With `bound: at_most`, the amount is a maximum.

    impressions  amount in attention-weighted impressions: an item in a slot that is seen with certainty counts 1, an
                 item far down the page a fraction
    share        amount as a share of all attention on the pages where the target is in force
    pacing       even: in step with the forecast traffic; frontloaded: earlier; asap: as soon as possible; by_day_part:
                 as set by `day_parts`
    tolerance    deviation from the plan that still counts as "on plan", as a fraction of the amount
    commitment   guaranteed: `last_resort` may be used; best_effort: the price is the only means
    max_price    maximum price, in play equivalents per unit of attention; default: DEFAULT_MAX_PRICE times the mean
                 utility of the best items of the page, so that a target takes at most this part of a page's utility
    last_resort  minimum share or number of items of each page, used if the price alone does not suffice; requires
                 `commitment: guaranteed`
    like         id of a target of this policy whose prices are used at the start
    """

    action: Literal["exposure_target"]
    where: Where
    impressions: Annotated[Integer, Field(gt=0, le=10**12)] | None = None
    share: Annotated[Number, Field(gt=0), BeforeValidator(_parse_percent)] | None = None
    bound: Literal["at_least", "at_most"] = "at_least"
    since: Time | None = Field(None, alias="from")
    until: Time
    pacing: Pacing = "even"
    day_parts: dict[str, Annotated[Number, Field(gt=0, le=1)]] = {}
    offset_h: Annotated[Number, Field(ge=-12, le=14)] = 0.0  # of the day parts' clock from UTC
    tolerance: Annotated[Number, Field(ge=0.001, le=0.5)] = 0.02
    commitment: Literal["guaranteed", "best_effort"] = "best_effort"
    max_price: Annotated[Number, Field(gt=0, le=10)] | None = None
    frequency_cap: FrequencyCap | None = None
    last_resort: Amount | None = None
    like: Id | None = None

    @field_validator("share")
    @classmethod
    def _is_share(cls, share: float | None) -> float | None:
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
    def _consistent(self) -> ExposureTarget:
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

    @property
    def price_limit(self) -> float:
        """Return the maximum price; without `max_price` it is a part of the utility of an item on the page."""
        return DEFAULT_MAX_PRICE if self.max_price is None else self.max_price

    def in_scope(self, query: Query) -> bool:
        """Return whether the scope includes the page. Notifications are included only if `on` names them."""
        return super().in_scope(query) and (bool(self.on.surfaces) or query.placement.surface is not Surface.PUSH)

    def runs(self, now: float) -> bool:
        """Return whether the target runs at `now` (unix seconds)."""
        return (self.since is None or self.since.timestamp() <= now) and now < self.until.timestamp()


Control = Annotated[Boost | Block | Pin | Quota | Cap | Spacing | ExposureTarget, Field(discriminator="action")]
PageControl = Pin | Quota | Cap | Spacing
"""The controls that become page constraints; boosts and blocks act before the page is solved."""
