"""What became of a batch, one verdict for each entry; `serving.schemas.BatchAnswer` documents the same form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from recsys.errors import Finding, InvalidInput, Level

Status = Literal["accepted", "quarantined", "refused"]


class Place(msgspec.Struct, frozen=True):
    """One thing to say of an entry: where, what, and how bad it is (as `serving.problems.Place`)."""

    where: str
    code: str
    params: dict[str, Any]
    message: str
    level: Level = "error"

    @classmethod
    def of(cls, finding: Finding, at: str = "") -> Place:
        """The finding as the API shows it, its path below `at`."""
        where = ".".join(filter(None, (at, finding.where)))
        return cls(where, finding.code, finding.params, finding.message, finding.level)


class Verdict(msgspec.Struct):
    """What became of one event or item."""

    index: int
    id: str | None
    status: Status
    change: str | None = None
    findings: list[Place] = []


class Verdicts(msgspec.Struct, frozen=True):
    """What became of all of them, in their order."""

    accepted: int
    quarantined: int
    refused: int
    verdicts: list[Verdict]

    @classmethod
    def of(cls, verdicts: list[Verdict]) -> Verdicts:
        """Counted."""
        refused = sum(one.status == "refused" for one in verdicts)
        quarantined = sum(one.status == "quarantined" for one in verdicts)
        return cls(len(verdicts) - refused - quarantined, quarantined, refused, verdicts)

    @property
    def findings(self) -> Sequence[Place]:
        """Of all entries."""
        return [place for verdict in self.verdicts for place in verdict.findings]


def refused(index: int, said: object, error: InvalidInput, at: str = "") -> Verdict:
    """The verdict on a bad entry, `said` its id, if any; each place begins with `at`, the entry's."""
    findings = error.findings or (Finding("", error.said),)
    places = [Place.of(finding, at) for finding in findings]
    return Verdict(index, said if isinstance(said, str) else None, "refused", findings=places)
