"""The trace of a page: its fallback level, and the number of candidates that each stage dropped, by reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class FallbackLevel(StrEnum):
    """The method that ranked the page, best level first. Eligibility and guidance are the same at every level."""

    PERSONAL = "personal"
    SEGMENT = "segment"
    POPULAR = "popular"
    EDITORIAL = "editorial"


class DropReason(StrEnum):
    """The reason for which a stage dropped a candidate."""

    UNPUBLISHED = "unpublished"
    RIGHTS = "rights"
    TERRITORY = "territory"
    SCREEN = "screen"
    AGE = "age"
    SEEN = "seen"
    HIDDEN = "hidden"
    BLOCKED = "blocked"
    FREQUENCY_CAPPED = "enough"  # the frequency cap of an exposure target is reached for the viewer
    SURPLUS = "surplus"  # eligible, but beyond the maximum number of ranked candidates
    UNSELECTED = "unselected"  # ranked, but not selected for a slot


@dataclass(frozen=True, slots=True)
class StageTrace:
    """The candidates that entered a stage, left it, and were dropped: `entered == left + sum(dropped.values())`."""

    name: str
    candidates_in: int
    candidates_out: int
    dropped: Mapping[DropReason, int] = field(default_factory=dict)
    error: str | None = None


def unbalanced_stages(trace: tuple[StageTrace, ...]) -> Mapping[str, int]:
    """Return the stages for which `entered - left - dropped` is not 0, with the difference; empty for a sound trace."""
    missing = {stage.name: stage.candidates_in - stage.candidates_out - sum(stage.dropped.values()) for stage in trace}
    return {name: count for name, count in missing.items() if count}
