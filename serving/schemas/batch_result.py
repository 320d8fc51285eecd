"""The result of a batch of events or items: one result for each entry, in the order in which they were sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import Field

from recsys.domain.errors import Finding, InvalidInput
from serving.schemas.problems import FindingOut

BATCH_MAX = 1000
"""Events or items that one request may carry."""

Status = Literal["accepted", "quarantined", "refused"]


@dataclass(slots=True)
class ItemResult:
    """The result of one event or item of a batch."""

    index: int
    id: str | None
    status: Status
    change: Literal["created", "updated", "unchanged"] | None = None
    findings: Sequence[FindingOut] = ()


@dataclass(frozen=True, slots=True)
class BatchResult:
    """The result of a batch; `results` has one entry for each event or item sent, in order."""

    accepted: int
    quarantined: Annotated[
        int, Field(description="set aside because the client's clock is ahead; they count for nothing")
    ]
    refused: int
    results: Sequence[ItemResult]

    @classmethod
    def of(cls, results: Sequence[ItemResult]) -> BatchResult:
        """Return the results with the count of each status."""
        refused = sum(result.status == "refused" for result in results)
        quarantined = sum(result.status == "quarantined" for result in results)
        return cls(len(results) - refused - quarantined, quarantined, refused, results)

    @property
    def findings(self) -> list[FindingOut]:
        """The findings of all entries."""
        return [finding for result in self.results for finding in result.findings]


def refusal(index: int, item_id: object, error: InvalidInput, prefix: str = "") -> ItemResult:
    """Return the result of a bad entry; `prefix` is its path in the body, which each finding then starts with."""
    findings = error.findings or (Finding("", error.text),)
    paths = (".".join(filter(None, (prefix, finding.where))) for finding in findings)
    return ItemResult(
        index,
        item_id if isinstance(item_id, str) else None,
        "refused",
        findings=[FindingOut.of(replace(finding, where=path)) for finding, path in zip(findings, paths, strict=True)],
    )
