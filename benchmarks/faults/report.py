"""What a bench found, beside what was promised."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from benchmarks.faults.harness.environment import KINDS


@dataclass(frozen=True)
class Line:
    """One measured figure and its criterion."""

    goal: str
    environment: str  # kind of env
    fault: str
    measured: str
    criterion: str  # the criterion in words
    ok: bool


def table(lines: list[Line]) -> str:
    """Markdown, so that it can be pasted."""
    rows = [("goal", "on", "fault", "measured", "pass", ""), ("---",) * 6]
    rows += [(x.goal, KINDS.get(x.environment, x.environment), x.fault, x.measured, x.criterion, "yes" if x.ok else "**NO**") for x in lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def summary(lines: list[Line]) -> dict[str, object]:
    """For the JSON line."""
    return {"failed": sorted({x.goal for x in lines if not x.ok}), "lines": [asdict(x) for x in lines]}
