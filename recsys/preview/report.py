"""The figures of a preview. Before = the active policy, after = the draft; `difference` is always after minus before.

Exposure is counted by attention: an item in a slot that half the viewers look at counts one half.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from recsys.messages import Message
from recsys.preview.bootstrap import Estimate

CAVEAT = (
    "Predicted, not causal: pages are those the engine would have shown, utility and plays are what the model expects. "
    "Viewers who see other pages will act, and be remembered, otherwise."
)


class Part(BaseModel):
    """A part of a report."""

    model_config = ConfigDict(frozen=True)


class UtilityChange(Part):
    """One figure of a page, on average.

    relative  difference over before; what the intervals of both mean is the same viewers on both sides
    """

    unguided: float
    before: float
    after: float
    difference: Estimate
    relative: Estimate


class Share(Part):
    """A group of items (a label with all below it, an outlet, a region) in the exposure of all pages."""

    name: str
    before: float
    after: float
    unguided: float
    difference: Estimate


class Exposure(Part):
    """Attention that the items of an outlet get, per thousand pages; `won` minus `lost` is the difference."""

    outlet: str
    before: float
    after: float
    difference: Estimate
    gained: float  # on pages where it got more than before
    lost: float  # on pages where it got less


class Slice(Part):
    """The requests of one screen, viewers' region or outlet."""

    name: str
    requests: int
    utility: Estimate  # relative difference
    expected_plays: Estimate  # relative difference
    guidance_cost_before: float  # share of the unguided pages' utility
    guidance_cost_after: float
    relaxed_before: float  # share of pages on which a control gave way
    relaxed_after: float


class Cause(Part):
    """Why a control gave way, on how many pages, and where first."""

    reason: Message
    pages: int
    where: Message


class ControlReport(Part):
    """One control. Kept = met or active, as a share of the pages where it was in force.

    price    mean price per unit, in play equivalents, over the pages where it was in force, after
    worth    by how much the page's utility would rise if this control alone were dropped, relative; None until it was
             tried, and where it cannot be: `note` says why
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
    value: Estimate | None = None
    tried: int = 0
    causes: tuple[Cause, ...] = ()
    note: Message | None = None


class Point(Part):
    """The draft at one strength, on a sample: what it costs and what it brings.

    guidance_cost  share of the unguided pages' utility
    values         exposure-weighted mean of each weighted axis, 0 to 1
    floors         exposure share of what each floor asks for, by control
    """

    strength: float
    requests: int
    guidance_cost: Estimate
    relaxed: float
    values: dict[str, float]
    quotas: dict[str, float]


class WorstHit(Part):
    """The tenth of the viewers whose pages lose most; told of ten or more. `screens`: their requests by screen."""

    viewers: int
    mean_change_all: float
    mean_change: float
    threshold: float
    screens: dict[str, float]


class OffPolicy(Part):
    """What the log itself says of plays per page, by item and slot (Li, Kim & Vassilvitskii 2018).

    support     share of the draft's attention that falls on items which the log could have shown in that very slot of
                that request, estimated; where pages are deterministic, what it has shown
    plays       plays per page, inverse-propensity weighted; None where the log cannot say
    observed    plays per logged page, as they happened
    """

    requests: int
    support: float
    plays: Estimate | None
    observed: float
    reason: Message


class PageOfItem(Part):
    """One slot of an example: item and titles by language."""

    item_id: str
    title: dict[str, str]
    attention: float


class Example(Part):
    """One request, before and after; `changed` slots hold another item. `at` is the hour: it tells of no one viewer."""

    placement: str
    region: str
    at: float
    changed: int
    utility_before: float
    utility_after: float
    expected_plays_before: float
    expected_plays_after: float
    before: tuple[PageOfItem, ...]
    after: tuple[PageOfItem, ...]


class Report(Part):
    """Everything a preview has to say so far, of `requests` out of `of`.

    utility         sum of attention x utility of a page, in play equivalents
    expected_plays  sum of attention x p(play) of a page; the same as `actions["play"]`
    page_value      utility and what the policies add: what the pages were chosen for
    """

    requests: int
    of: int
    viewers: int
    complete: bool
    policy_before: tuple[str, ...]
    policy_after: tuple[str, ...]
    changed_pages: float
    changed_slots: float
    utility: UtilityChange
    expected_plays: UtilityChange
    page_value: UtilityChange
    guidance_cost_before: Estimate
    guidance_cost_after: Estimate
    actions: dict[str, UtilityChange]
    labels: tuple[Share, ...]
    outlets: tuple[Share, ...]
    regions: tuple[Share, ...]
    axes: tuple[Share, ...]
    exposure: tuple[Exposure, ...]
    by_screen: tuple[Slice, ...]
    by_region: tuple[Slice, ...]
    by_outlet: tuple[Slice, ...]
    relaxed_before: float
    relaxed_after: float
    controls: tuple[ControlReport, ...]
    frontier: tuple[Point, ...]
    worst_hit: WorstHit | None
    off_policy: OffPolicy | None
    examples: tuple[Example, ...]
    caveat: str = CAVEAT
