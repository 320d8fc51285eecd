"""What a page records about its making: the fallback level, and for each stage the candidates that it dropped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class FallbackLevel(StrEnum):
    """How much of the engine answered, best first. Every rung passes the same eligibility and guidance."""

    PERSONAL = "personal"
    SEGMENT = "segment"
    POPULAR = "popular"
    EDITORIAL = "editorial"


class DropReason(StrEnum):
    """Why a candidate left the pipeline."""

    UNPUBLISHED = "unpublished"
    RIGHTS = "rights"
    TERRITORY = "territory"
    SCREEN = "screen"
    AGE = "age"
    SEEN = "seen"
    HIDDEN = "hidden"
    BLOCKED = "blocked"
    FREQUENCY_CAPPED = "enough"  # the viewer has seen as much of an exposure target as its frequency cap allows
    SURPLUS = "surplus"  # eligible, but beyond the number of candidates the ranker takes
    UNSELECTED = "unselected"  # ranked, but not among the slots


@dataclass(frozen=True, slots=True)
class StageTrace:
    """What one stage took, kept and dropped. The law of the pipeline: `entered == left + sum(dropped.values())`."""

    name: str
    candidates_in: int
    candidates_out: int
    dropped: Mapping[DropReason, int] = field(default_factory=dict)
    error: str | None = None


def unbalanced_stages(trace: tuple[StageTrace, ...]) -> Mapping[str, int]:
    """Stages that break the law `entered == left + dropped`, by how much; empty when all is well."""
    off = {stage.name: stage.candidates_in - stage.candidates_out - sum(stage.dropped.values()) for stage in trace}
    return {name: missing for name, missing in off.items() if missing}
