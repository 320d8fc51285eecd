"""What a preview takes and answers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, Field

from recsys.messages import Message
from recsys.preview.report import Report
from serving.schemas.resources import PolicyText

REQUESTS_MAX = 2_000
"""Bounded by memory: a report lays the exposure of all groups on all pages out at once."""


class PreviewRequest(PolicyText):
    """A draft: a saved `version`, or `text` or `policy` as for lint; and how much to replay."""

    version: Annotated[int, Field(ge=1)] | None = Field(None, description="a saved version instead of a text")
    requests: Annotated[int, Field(ge=1, le=REQUESTS_MAX)] = Field(1000, description="recent requests to replay")
    at: AwareDatetime | None = Field(
        None,
        description="replay as if about this time: requests are moved by whole weeks. For drafts that begin later",
    )
    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(0, description="of the bootstrap intervals")


class Sources(BaseModel):
    """How many requests came from where: the offline log, this process's memory, or made up for want of both."""

    log: int
    memory: int
    made_up: int


class PreviewLine(BaseModel):
    """One line of the stream: the figures so far; the last line has phase `complete`, or `failed` and a detail."""

    phase: Literal["so far", "complete", "failed"]
    elapsed_s: float
    sources: Sources
    report: Report | None
    detail: Message | None = None
