"""The policy: what editors of one outlet say, as a versioned document in JSON or YAML.

A policy has weights (axis -> how much an editorial value counts, in clicks) and controls (one rule each). Everything
here is data and its checks; `compile` turns it into numbers, `lint` compares it with parents and the catalogue.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from recsys.catalog import Code, Id, within
from recsys.errors import Finding, PolicyError
from recsys.guidance.conditions import OneOrMore, Where
from recsys.guidance.documents import Moment, Number, Whole, findings_of, read_document, shown
from recsys.guidance.schedule import Active, span_of
from recsys.guidance.targets.plan import Shape
from recsys.messages import InvalidValue, message
from recsys.types import Query, Screen, Surface

if TYPE_CHECKING:
    from recsys.guidance.profiles import Profile

Hardness = Literal["legal", "binding", "editorial", "soft"]
HARDNESS: tuple[Hardness, ...] = ("legal", "binding", "editorial", "soft")
"""Most important first: what comes later gives way earlier.

Hardness says which control gives way to which where a page cannot keep them all; it never says what one may cost. A
`soft` control is kept as well wherever a page can keep it, whatever its items are worth to viewers. What may cost only
so much is a `boost`, or an exposure target with its `max_price`.
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
        raise InvalidValue(message("share_out_of_range", share=shown(said)))
    if isinstance(said, int) and said < 0:
        raise InvalidValue(message("items_negative"))
    if isinstance(said, int) and said > COUNT_MAX:
        raise InvalidValue(message("items_too_many", maximum=COUNT_MAX, items=said))
    return said


Amount = Annotated[int | float, BeforeValidator(_amount)]
"""A whole number is a number of items; a number with a point (0.3), "30%" or "30 %" is a share."""


class Said(BaseModel):
    """A part of a policy: immutable, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Scope(Said):
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


class Rule(Said):
    """What all controls have in common."""

    id: Annotated[Id, StringConstraints(pattern=r"^[^\s@]+$")]  # ID@OUTLET is a parent's form beside a tighter one
    hardness: Hardness = "editorial"
    priority: Annotated[Whole, Field(ge=0, le=1000)] = 0  # within a hardness: larger gives way later
    on: Scope = Scope()
    active: Active = Active()
    legal_ref: str = ""
    note: str = ""

    def holds(self, query: Query) -> bool:
        """Whether the control is in force for this query."""
        return self.on.holds(query) and self.active.holds(query.now)


class Boost(Rule):
    """Items lean up (or down) by a few tenths of a click; never a promise."""

    action: Literal["boost"]
    where: Where
    bonus: Annotated[Number, Field(ge=-1, le=1)]  # clicks


class Block(Rule):
    """Items do not appear at all."""

    action: Literal["block"]
    where: Where


class Pin(Rule):
    """One item stands in one slot of the session (1 = the first of its first page), if it may be shown."""

    action: Literal["pin"]
    item: Id
    slot: Annotated[Whole, Field(ge=1, le=COUNT_MAX)]


class Share(Rule):
    """At least / at most so much of the page, and of its beginnings.

    Prefixes: none (the page only), `every`, or a list of lengths; the page itself always counts. A floor is rounded up
    on the page and down on a prefix, a cap the other way round; with `rounding: strict` always to the stricter side.
    """

    action: Literal["share"]
    where: Where
    at_least: Amount | None = None
    at_most: Amount | None = None
    prefixes: Literal["every"] | tuple[Annotated[Whole, Field(ge=1, le=COUNT_MAX)], ...] = ()
    rounding: Literal["lenient", "strict"] = "lenient"

    @model_validator(mode="after")
    def _limits(self) -> Share:
        if self.at_least is None and self.at_most is None:
            raise InvalidValue(message("share_without_limit"))
        if isinstance(self.at_least, int) and self.prefixes == "every":
            raise InvalidValue(message("share_items_in_every_prefix"))
        return self


class Cap(Rule):
    """At most so many items of one value of an attribute (one topic, one provider, ...) on a page."""

    action: Literal["cap"]
    attribute: Attribute
    at_most: Amount


class Space(Rule):
    """At most so many items of one value of an attribute in any `within` neighbouring slots."""

    action: Literal["space"]
    attribute: Attribute
    at_most: Annotated[Whole, Field(ge=1, le=COUNT_MAX)]
    within: Annotated[Whole, Field(ge=2, le=COUNT_MAX)]

    @model_validator(mode="after")
    def _narrower(self) -> Space:
        if self.at_most >= self.within:
            raise InvalidValue(message("space_allows_all", maximum=self.at_most, within=self.within))
        return self


_PERIOD_S = {"hour": 3600.0, "day": 86_400.0, "week": 604_800.0}


class FrequencyCap(Said):
    """A viewer sees the items of a target at most so often within any hour, day or week, over all screens."""

    impressions: Annotated[Whole, Field(ge=1, le=50)]
    per: Literal["hour", "day", "week"] = "day"

    @property
    def period_s(self) -> float:
        """Length of the period in seconds."""
        return _PERIOD_S[self.per]


class ExposureTarget(Rule):
    """So much of the audience's attention for some items by a deadline; a cap with `bound: at_most`.

    impressions  attention-weighted: an item looked at with certainty counts 1, one far down the page a fraction
    share        of all attention on the pages it is in force for
    plan         even: in step with the forecast traffic; front: sooner; asap: at once; by_day_part: as `day_parts` say
    tolerance    so far behind or ahead of the plan, as part of the amount, is still "on plan"
    logic        guaranteed: `last_resort` may be used; best_effort: never more than the price
    max_price    clicks per unit of attention that it may cost at most
    last_resort  least share of (or number of items on) each page, once the price alone will not do; guaranteed only
    like         id of a target of this policy whose prices it begins with
    """

    action: Literal["exposure_target"]
    where: Where
    impressions: Annotated[Whole, Field(gt=0, le=10**12)] | None = None
    share: Annotated[Number, Field(gt=0), BeforeValidator(_per_cent)] | None = None
    bound: Literal["at_least", "at_most"] = "at_least"
    since: Moment | None = Field(None, alias="from")
    by: Moment
    plan: Shape = "even"
    day_parts: dict[str, Annotated[Number, Field(gt=0, le=1)]] = {}
    offset_h: Annotated[Number, Field(ge=-12, le=14)] = 0.0  # of the day parts' clock from UTC
    tolerance: Annotated[Number, Field(ge=0.001, le=0.5)] = 0.02
    logic: Literal["guaranteed", "best_effort"] = "best_effort"
    max_price: Annotated[Number, Field(gt=0, le=10)] = 0.5
    frequency_cap: FrequencyCap | None = None
    last_resort: Amount | None = None
    like: Id | None = None

    @field_validator("share")
    @classmethod
    def _a_part(cls, share: float | None) -> float | None:
        if share is not None and share > 1:
            raise InvalidValue(message("share_above_all_attention", share=shown(share)))
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
        if self.since and self.by <= self.since:
            raise InvalidValue(message("target_deadline_before_start"))
        if (self.plan == "by_day_part") != bool(self.day_parts):
            raise InvalidValue(message("target_day_parts"))
        if self.last_resort is not None and (self.logic != "guaranteed" or self.bound != "at_least"):
            raise InvalidValue(message("target_last_resort"))
        if self.where.about_viewer:
            raise InvalidValue(message("target_about_viewer"))
        return self

    def runs(self, now: float) -> bool:
        """Whether unix second `now` lies in its window."""
        return (self.since is None or self.since.timestamp() <= now) and now < self.by.timestamp()


Control = Annotated[Boost | Block | Pin | Share | Cap | Space | ExposureTarget, Field(discriminator="action")]
PageControl = Pin | Share | Cap | Space
"""The controls that the page solve must keep; boosts and blocks act before it."""


CONTROLS_MAX = 300
"""Controls of one policy: a page is made in milliseconds under some dozens, and took a second under a thousand."""


def _so_many(said: object) -> object:
    if isinstance(said, list | tuple) and len(said) > CONTROLS_MAX:
        raise InvalidValue(message("controls_too_many", maximum=CONTROLS_MAX, controls=len(said)))
    return said


ProfileName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=100)]


class Policy(Said):
    """One version of what one outlet says. Parents' policies are folded in by `inherit.effective`.

    profile   ready sets of controls that stand before its own (`recsys.guidance.profiles`); its own may tighten them
    """

    outlet: Code
    profile: Annotated[tuple[ProfileName, ...], OneOrMore] = ()
    version: Annotated[Whole, Field(ge=0)] = 0
    author: str = ""
    note: str = ""
    weights: dict[str, Annotated[Number, Field(ge=0, le=1)]] = {}  # axis -> clicks for a full value of 1
    controls: Annotated[tuple[Control, ...], BeforeValidator(_so_many)] = ()
    _ready: tuple[Profile, ...] | None = PrivateAttr(None)

    @property
    def ready(self) -> tuple[Profile, ...]:
        """The profiles it names. Raises PolicyError when nobody has looked them up (`profiles.take_up`)."""
        if self._ready is None and self.profile:
            raise PolicyError(message("policy_unusable"), [Finding("profile", message("profiles_not_loaded"))])
        return self._ready or ()

    def with_profiles(self, ready: tuple[Profile, ...]) -> Policy:
        """The same policy with its profiles at hand."""
        policy = self.model_copy()
        policy._ready = ready
        return policy

    @model_validator(mode="after")
    def _ids_once(self) -> Policy:
        seen: dict[str, int] = {}
        for place, control in enumerate(self.controls):
            if control.id in seen:
                raise InvalidValue(message("control_id_taken", place=place, id=control.id, other=seen[control.id]))
            seen[control.id] = place
        return self


def parse_policy(text: str) -> Policy:
    """A policy from JSON or YAML text. Raises PolicyError whose findings name every field that is wrong."""
    document = read_document(text)
    try:
        return Policy.model_validate(document)
    except ValidationError as error:
        raise PolicyError(message("policy_unreadable"), findings_of(error)) from error
