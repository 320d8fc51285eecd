"""The page that answers a request: its items, the receipt of guidance and the trace of every stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from recsys.domain.trace import FallbackLevel, StageTrace
from recsys.domain.types import F32
from recsys.guidance.receipt.receipt import Receipt
from recsys.pacing.on_page import Delivery


@dataclass(frozen=True, slots=True)
class PageItem:
    """One slot of a page. `reasons` are for the viewer, `control_ids` name the controls that this slot serves."""

    slot: int  # 1-based
    row: int
    item_id: str
    utility: float  # expected worth to the viewer, in play equivalents
    bonus: float  # what the policy adds, in play equivalents
    p: Mapping[str, float]  # calibrated probability per action
    sources: tuple[str, ...]  # which sources proposed it
    reasons: tuple[str, ...]
    control_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """The answer: items in slot order, the rung that answered, the receipt of guidance, the trace of every stage."""

    items: tuple[PageItem, ...]
    fallback_level: FallbackLevel
    receipt: Receipt
    trace: tuple[StageTrace, ...]
    features: F32  # [K, F] features as used, for the impression; zero columns where no ranker answered
    model_version: str
    policy_version: str
    delivered: Mapping[str, Delivery] = field(default_factory=dict)  # what the page did for each exposure target
    engagement: float = 0.0  # sum of attention x utility, in play equivalents
    unguided: float = 0.0  # the same of the best page of these candidates without weights and controls
