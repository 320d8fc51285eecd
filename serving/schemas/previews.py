"""The request and the response lines of a policy preview."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from recsys.domain.fields import Integer, Time
from recsys.messages import Message
from recsys.preview.report import Report
from serving.schemas.resources import PolicyText, Version

MAX_REQUESTS = 2_000
"""Maximum number of replayed requests. A report keeps the exposure of all groups on all pages in memory."""


class PreviewRequest(PolicyText):
    """A draft, as a saved `version` or as `text` or `policy` as for lint, and the number of requests to replay."""

    version: Version | None = Field(None, description="A saved version, instead of `text` or `policy`.")
    requests: Annotated[Integer, Field(ge=1, le=MAX_REQUESTS)] = Field(
        1000, description="Number of recent requests to replay."
    )
    at: Time | None = Field(
        None,
        description="Replay the requests at about this time, for drafts that take effect later. Requests are moved by "
        "whole weeks.",
    )
    seed: Annotated[Integer, Field(ge=0, lt=2**31)] = Field(0, description="Seed of the bootstrap intervals.")


class Sources(BaseModel):
    """The number of requests from each source: the event log, the memory of this process, or synthetic requests."""

    log: int
    memory: int
    synthetic: int


class PreviewLine(BaseModel):
    """A line of the response, with the results so far.

    The last line has the phase `complete`, or `failed` with a `detail`.
    """

    phase: Literal["so far", "complete", "failed"]
    elapsed_s: float
    sources: Sources
    report: Report | None
    detail: Message | None = None
