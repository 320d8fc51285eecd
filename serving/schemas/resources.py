"""What the API takes and answers. Answers carry objects, never bare ids; times are RFC 3339 UTC."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from features.events.schema import REGION
from recsys.distribution.layouts import SLOTS_MAX
from recsys.domain.item import Code, Id, Item
from recsys.domain.regions import MAX_REGION_LEVELS
from recsys.guidance.receipt.receipt import Receipt
from recsys.messages import Message
from serving.schemas.problems import FindingOut

Region = Annotated[Code, Field(min_length=1, pattern=REGION)]
"""Where a viewer is, as the impressions of the pages can say it."""


def rfc3339(at: float) -> datetime:
    """Unix seconds as the API says them."""
    return datetime.fromtimestamp(at, UTC)


class RequestModel(BaseModel):
    """Base of request bodies and queries: unknown fields are rejected, so that a typo is not silently ignored."""

    model_config = ConfigDict(extra="forbid")


# -- pages


class PageRequest(RequestModel):
    """Who asks for a page, from where."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"viewer_id": "v-4711", "region": "cn.zj.hz", "slots": 12},
                {"viewer_id": "v-4711", "region": "cn.zj.hz", "page_token": ".eJ...", "trace": True},
            ]
        },
    )

    viewer_id: Id
    region: Region | None = Field(
        None, description=f"where the viewer is, at most {MAX_REGION_LEVELS} levels; the outlet's own place when unsaid"
    )
    slots: Annotated[int, Field(ge=1, le=SLOTS_MAX)] | None = Field(
        None, description="the screen's default when unsaid"
    )
    page_token: str | None = Field(
        None, description="`next_page_token` of the page before: nothing comes twice, shares go on"
    )
    age: Annotated[int, Field(ge=0, le=150)] | None = Field(None, description="unknown viewers count as 17")
    personalised: bool = Field(True, description="false: a page as for somebody of whom nothing is known")
    guided: bool = Field(True, description="false: without the policy, for comparison by editors")
    preview: bool = Field(False, description="true: for editors; no impression is recorded")
    seed: Annotated[int, Field(ge=0, lt=2**31)] | None = Field(None, description="all chance comes from it")
    trace: bool = Field(False, description="true: every stage with what it dropped, and the figures of each slot")


class SlotDetail(BaseModel):
    """The figures behind one slot, with `trace`."""

    utility: float = Field(description="expected utility for the viewer, in play equivalents")
    bonus: float = Field(description="what the policy adds, in play equivalents")
    p: dict[str, float] = Field(description="calibrated probability of each action")
    sources: tuple[str, ...] = Field(description="what proposed the item")


class Slot(BaseModel):
    """One slot of a page."""

    slot: int = Field(description="1 is first")
    item: Item
    reasons: tuple[str, ...] = Field(description="why it is here, for the viewer", examples=[["similar_to:film-3"]])
    control_ids: tuple[str, ...] = Field(description="the policy's controls that it serves")
    detail: SlotDetail | None = None


class StageOut(BaseModel):
    """One stage of the pipeline: `entered` = `left` + everything in `dropped`."""

    name: str
    candidates_in: int
    candidates_out: int
    dropped: dict[str, int]
    error: str | None


class PageAnswer(BaseModel):
    """A page, and everything needed to say later why it was this one."""

    request_id: str
    placement: str
    at: datetime
    fallback_level: str = Field(description="how much of the engine answered: personal, segment, popular or editorial")
    items: list[Slot]
    next_page_token: str | None = Field(
        description="asks for the next page; null when there was not enough for this one"
    )
    attribution_token: str = Field(description="to be sent back with events as `attributiontoken`")
    model_version: str
    policy_version: str
    degraded_parts: list[str] = Field(
        description="parts that did not answer, so that the page comes from a lower fallback level"
    )
    receipt: Receipt
    trace: list[StageOut] | None = None


# -- items


class ItemAnswer(BaseModel):
    """One item and the revision of the catalogue at which it last changed."""

    revision: int
    item: Item


# -- outlets and policies


class OutletAnswer(BaseModel):
    """A tenant of the tree, and what is in force there."""

    code: str
    name: dict[str, str]
    policy_version: str = Field(examples=["cn@3+cn.zj@1"])
    fault: Message | None = Field(description="why its newest policy is not in service; null when it is")


class OutletRequest(RequestModel):
    """The name of an outlet, by language."""

    name: dict[str, str] = Field(examples=[{"zh": "浙江", "en": "Zhejiang"}])
    author: Annotated[str, Field(min_length=1, max_length=200)] = "api"


Author = Annotated[str, Field(min_length=1, max_length=200, examples=["Lin Yue"])]


class PolicyText(RequestModel):
    """A policy as YAML or JSON text, or as an object."""

    text: str | None = Field(None, examples=["outlet: cn.zj\nweights: {locality: 0.003}\n"])
    policy: dict[str, JsonValue] | None = Field(None, examples=[{"outlet": "cn.zj", "weights": {"locality": 0.003}}])


class DraftRequest(PolicyText):
    """A new version of an outlet's policy."""

    author: Author
    note: Annotated[str, Field(max_length=2000)] = ""
    base_version: Annotated[int, Field(ge=0)] | None = Field(
        None, description="the newest version the author has seen; another one saved since is then a conflict"
    )


class PublishRequest(RequestModel):
    """Which saved version to put in force."""

    version: Annotated[int, Field(ge=1, examples=[3])]
    author: Author
    base_version: Annotated[int, Field(ge=0)] | None = Field(
        None, description="the version the author believes in force, 0 for none; another one is then a conflict"
    )


class PolicyVersionOut(BaseModel):
    """One saved version of a policy."""

    outlet: str
    version: int
    state: Literal["draft", "published"]
    active: bool
    text: str
    author: str
    note: str
    at: datetime
    published_at: list[datetime]


class LintAnswer(BaseModel):
    """What lint found, in editors' words; empty when all is well. What has an `error` cannot be saved."""

    findings: list[FindingOut]


class DraftAnswer(LintAnswer):
    """The version saved, and what lint has to say of it."""

    version: PolicyVersionOut


class ControlOut(BaseModel):
    """A control in force and the outlet whose policy said it."""

    origin: str
    control: dict[str, Any]


class EffectiveOut(BaseModel):
    """The sum of an outlet's own policy and its ancestors', as this process serves it."""

    version: str
    weights: dict[str, float]
    controls: list[ControlOut]


class InForce(BaseModel):
    """What is in force at an outlet: its own policy and its ancestors', folded together."""

    outlet: str
    newest_version: int = Field(description="of its own, drafts included; 0 for none")
    effective: EffectiveOut
    fault: Message | None = Field(description="why its newest policy is not in service; null when it is")


class PolicyAnswer(InForce):
    """What an outlet says itself, and what is in force there."""

    active: PolicyVersionOut


class AuditOut(BaseModel):
    """Who did what when; `hash` covers the row and the hash of the row before."""

    seq: int
    at: datetime
    actor: str
    action: str
    subject: str
    detail: dict[str, Any]
    previous: str
    hash: str


class PartHealth(BaseModel):
    """How one part of the service is."""

    ok: bool
    detail: str
    version: str | None = Field(None, description="of the model in service; null where there is none")


class Health(BaseModel):
    """`ready`, `degraded` (pages come from a lower fallback level or older data), or `not ready`."""

    status: Literal["ready", "degraded", "not ready"]
    parts: dict[str, PartHealth]
