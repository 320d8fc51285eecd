"""The result of a batch of events or items, with one result for each entry, in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import Field

from recsys.domain.errors import Finding, InvalidInput
from recsys.domain.fields import printable
from recsys.messages import message
from serving.schemas.problems import FindingOut

MAX_BATCH = 1000
"""Maximum number of events or items in a request."""

FINDINGS_MAX = 1000
"""Maximum number of findings of a response, beyond the first one of each entry."""

Status = Literal["accepted", "quarantined", "refused"]


@dataclass(slots=True)
class ItemResult:
    """The result of an event or item of a batch."""

    index: int
    id: str | None
    status: Status
    change: Literal["created", "updated", "unchanged"] | None = None
    findings: Sequence[FindingOut] = ()


@dataclass(frozen=True, slots=True)
class BatchResult:
    """The result of a batch. `results` contains one entry for each event or item of the request, in order."""

    accepted: int
    quarantined: Annotated[
        int,
        Field(description="Number of events without effect, stored separately because the client's clock is ahead."),
    ]
    refused: int
    results: Sequence[ItemResult]

    @classmethod
    def of(cls, results: Sequence[ItemResult]) -> BatchResult:
        """Return the results with the number of entries of each status, without findings beyond FINDINGS_MAX."""
        _limit_findings(results)
        refused = sum(result.status == "refused" for result in results)
        quarantined = sum(result.status == "quarantined" for result in results)
        return cls(len(results) - refused - quarantined, quarantined, refused, results)

    @property
    def findings(self) -> list[FindingOut]:
        """Return the findings of all entries."""
        return [finding for result in self.results for finding in result.findings]


def _limit_findings(results: Sequence[ItemResult]) -> None:
    """Shorten the findings of entries once the response has FINDINGS_MAX of them."""
    room = FINDINGS_MAX
    for result in results:
        further = len(result.findings) - 1
        if further > room:
            listed = 1 + room
            more = Finding(f"[{result.index}]", message("findings_more", listed=listed))
            result.findings = [*result.findings[:listed], FindingOut.of(more)]
            further = room
        room -= max(further, 0)


def refusal(index: int, item_id: object, error: InvalidInput, prefix: str = "") -> ItemResult:
    """Return the result of an invalid entry. `prefix` is the path of the entry in the body."""
    findings = error.findings or (Finding("", error.text),)
    paths = (".".join(filter(None, (prefix, finding.where))) for finding in findings)
    return ItemResult(
        index,
        printable(item_id) if isinstance(item_id, str) else None,
        "refused",
        findings=[FindingOut.of(replace(finding, where=path)) for finding, path in zip(findings, paths, strict=True)],
    )
