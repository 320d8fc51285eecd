"""The page that answers a request: its items, the receipt of its policy and the trace of its stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from recsys.domain.trace import FallbackLevel, StageTrace
from recsys.domain.types import F32
from recsys.guidance.receipt.receipt import Receipt
from recsys.pacing.on_page import Delivery


@dataclass(frozen=True, slots=True)
class PageItem:
    """The item in one slot of a page.

    `reasons` are codes for the viewer; `control_ids` name the controls that require the item in this slot.
    """

    slot: int  # 1-based
    row: int
    item_id: str
    utility: float  # expected utility for the viewer, in play equivalents
    bonus: float  # what the policy adds to utility, in play equivalents
    p: Mapping[str, float]  # calibrated probability of each action
    sources: tuple[str, ...]  # the sources that found it
    reasons: tuple[str, ...]
    control_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """A page: items in slot order, fallback level, receipt of the policy, and the trace of every stage."""

    items: tuple[PageItem, ...]
    fallback_level: FallbackLevel
    receipt: Receipt
    trace: tuple[StageTrace, ...]
    features: F32  # [K, F] the ranker's input, recorded in the impression; F is 0 without a ranker
    model_version: str
    policy_version: str
    delivered: Mapping[str, Delivery] = field(default_factory=dict)  # what the page delivers for each exposure target
    engagement: float = 0.0  # sum of attention x utility, in play equivalents
    unguided: float = 0.0  # the same sum for the best page of these candidates without weights and controls
