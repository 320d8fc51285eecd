"""Measured results beside their criteria, as a Markdown table and as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from benchmarks.faults.harness.environment import KINDS


@dataclass(frozen=True)
class Line:
    """A measured result and its criterion."""

    goal: str
    environment: str  # a key of KINDS
    fault: str
    measured: str
    criterion: str
    ok: bool


def table(lines: list[Line]) -> str:
    """Return the results as a Markdown table."""
    rows = [("goal", "environment", "fault", "measured", "criterion", "met"), ("---",) * 6]
    rows += [
        (x.goal, KINDS.get(x.environment, x.environment), x.fault, x.measured, x.criterion, "yes" if x.ok else "**NO**")
        for x in lines
    ]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def summary(lines: list[Line]) -> dict[str, object]:
    """Return the failed goals and all results, for the JSON line."""
    return {"failed": sorted({x.goal for x in lines if not x.ok}), "lines": [asdict(x) for x in lines]}
