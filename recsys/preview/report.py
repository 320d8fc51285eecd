"""The report of a preview. "Before" is the active policy, "after" the draft, and `difference` is after minus before.

Exposure is weighted by attention: an item in a slot that half of the viewers look at counts as one half.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from recsys.messages import Message
from recsys.preview.bootstrap import Estimate

CAVEAT = (
    "Predicted, not causal: pages are those the engine would have shown; utility and plays are model predictions. "
    "Viewers who see other pages will act differently, and their later pages will differ as well."
)

GUIDANCE_COST = "Utility that guidance takes from the pages, divided by the utility of the pages without any guidance."
RELAXED = "Share of pages on which at least one control is relaxed or infeasible."


class Part(BaseModel):
    """A part of a report."""

    model_config = ConfigDict(frozen=True)


class UtilityChange(Part):
    """The average of one figure of a page.

    relative  difference divided by before

    The intervals of both are over viewers, with the same viewers on both sides.
    """

    unguided: float
    before: float
    after: float
    difference: Estimate
    relative: Estimate


class Share(Part):
    """The share of a group of items (a label subtree, an outlet or a region) in the exposure of all pages."""

    name: str
    before: float
    after: float
    unguided: float
    difference: Estimate


class Exposure(Part):
    """The attention of the items of an outlet per thousand pages; `gained` minus `lost` is the difference."""

    outlet: str
    before: float
    after: float
    difference: Estimate
    gained: float  # on pages where it has more than before
    lost: float  # on pages where it has less than before


class Slice(Part):
    """The requests of one screen, viewers' region or outlet."""

    name: str
    requests: int
    utility: Estimate  # relative difference
    expected_plays: Estimate  # relative difference
    guidance_cost_before: float = Field(description=GUIDANCE_COST)
    guidance_cost_after: float = Field(description=GUIDANCE_COST)
    relaxed_before: float = Field(description=RELAXED)
    relaxed_after: float = Field(description=RELAXED)


class Cause(Part):
    """A cause of relaxation of a control, the number of pages, and the first page."""

    reason: Message
    pages: int
    where: Message


class ControlReport(Part):
    """The report of one control.

    pages_before, pages_after  number of pages where it is active
    met_before, met_after      share of these pages where it is met, whether or not it shaped the page
    active_after               share of these pages that it shaped
    price                      mean price per unit over these pages, in play equivalents
    cost_at_limit              for an exposure target: part of the utility of pages without its price that they lose
                               while the price is at its maximum. Its cost lies between 0 and this
    value                      relative rise of the page's utility if this control alone is dropped; None before it is
                               tried and if it cannot be, in which case `note` gives the reason
    tried                      number of requests replayed without it
    """

    id: str
    origin: str
    action: str
    enforcement: str
    pages_before: int
    pages_after: int
    met_before: float | None
    met_after: float | None
    active_after: float | None
    relaxed_after: int
    infeasible_after: int
    price: float
    value: Estimate | None = Field(
        None, description="Relative rise of utility if this control alone is dropped, over the `tried` requests."
    )
    cost_at_limit: Estimate | None = Field(
        None,
        description="For an exposure target: part of the utility that pages lose while its price is at its maximum, "
        "compared with the pages without it. Its cost lies between 0 and this.",
    )
    tried: int = 0
    causes: tuple[Cause, ...] = ()
    note: Message | None = None


class Point(Part):
    """The cost and effect of the draft at one strength.

    Strength 1 is the draft, so its figures are those of the report. The others are the figures at strength 1 plus the
    difference to strength 1 on a sample of `requests`.

    values         exposure-weighted mean of each weighted axis, 0 to 1
    quotas         control id -> exposure share of the items of each quota with a minimum
    """

    strength: float
    requests: int
    guidance_cost: Estimate = Field(description=GUIDANCE_COST)
    relaxed: float = Field(description=RELAXED)
    values: dict[str, float]
    quotas: dict[str, float]


class WorstHit(Part):
    """The tenth of the viewers whose pages lose most, reported for ten viewers or more.

    screens  share of their requests by screen
    """

    viewers: int
    mean_change_all: float
    mean_change: float
    threshold: float
    screens: dict[str, float]


class OffPolicy(Part):
    """The off-policy estimate of plays per page, by item and slot (Li, Kim & Vassilvitskii 2018).

    support   estimated share of the draft's attention on items that the log could have shown in the same slot of the
              same request; for deterministic pages, the share that the log did show there
    plays     plays per page, inverse-propensity weighted; None if the support is too low
    observed  plays per logged page
    reason    why there is or is not an estimate
    """

    requests: int
    support: float
    plays: Estimate | None
    observed: float
    reason: Message


class PageOfItem(Part):
    """A slot of an example, with the item and its titles by language."""

    item_id: str
    title: dict[str, str]
    attention: float


class Example(Part):
    """A request with its pages before and after.

    at  start of the hour of the request, in unix seconds; the exact time could identify a viewer
    """

    placement: str
    region: str
    at: float
    replaced: int = Field(description="Items of the page after that are not on the page before.")
    moved: int = Field(description="Items of the page after that are on the page before, in another slot.")
    utility_before: float
    utility_after: float
    expected_plays_before: float
    expected_plays_after: float
    before: tuple[PageOfItem, ...]
    after: tuple[PageOfItem, ...]


class Report(Part):
    """The report of a preview so far, over `requests` out of `of` requests.

    Every figure has one definition, wherever it appears; slices and the frontier apply it to their own requests.
    `expected_plays` is the same as `actions["play"]`.
    """

    requests: int
    of: int
    viewers: int
    complete: bool
    policy_before: tuple[str, ...]
    policy_after: tuple[str, ...]
    changed_pages: float = Field(description="Share of pages on which at least one slot has another item than before.")
    replaced_slots: float = Field(description="Share of slots with an item that was not on the page before.")
    moved_slots: float = Field(description="Share of slots with an item that was on the page before, in another slot.")
    utility: UtilityChange = Field(
        description="Mean utility of a page: sum of attention x utility, in play equivalents. `relative` is the change "
        "divided by the utility before."
    )
    expected_plays: UtilityChange = Field(description="Mean number of plays of a page: sum of attention x p(play).")
    page_value: UtilityChange = Field(description="Mean of utility plus bonuses of the policy, which pages maximise.")
    guidance_cost_before: Estimate = Field(description=GUIDANCE_COST)
    guidance_cost_after: Estimate = Field(description=GUIDANCE_COST)
    actions: dict[str, UtilityChange]
    labels: tuple[Share, ...]
    outlets: tuple[Share, ...]
    regions: tuple[Share, ...]
    axes: tuple[Share, ...]
    exposure: tuple[Exposure, ...]
    by_screen: tuple[Slice, ...]
    by_region: tuple[Slice, ...]
    by_outlet: tuple[Slice, ...]
    relaxed_before: float = Field(description=RELAXED)
    relaxed_after: float = Field(description=RELAXED)
    controls: tuple[ControlReport, ...]
    frontier: tuple[Point, ...]
    worst_hit: WorstHit | None
    off_policy: OffPolicy | None
    examples: tuple[Example, ...]
    caveat: str = CAVEAT
