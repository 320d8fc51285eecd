"""What the API takes and answers. Answers carry objects, never bare ids; times are RFC 3339 UTC."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from features.viewer_event import LEVELS_MAX, REGION
from recsys.catalog import Code, Id, Item
from recsys.distribution.screens import SLOTS_MAX
from recsys.guidance.receipt import Receipt
from recsys.messages import Message
from serving.problems import Place

VERDICTS_MAX = 1000
"""Events or items that one request may carry."""

Region = Annotated[Code, Field(min_length=1, pattern=REGION)]
"""Where a viewer is, as the impressions of the pages can say it."""


def rfc3339(at: float) -> datetime:
    """Unix seconds as the API says them."""
    return datetime.fromtimestamp(at, UTC)


class Asked(BaseModel):
    """A request body: what is not known is refused, so that a typing error does not pass for a default."""

    model_config = ConfigDict(extra="forbid")


# -- pages


class PageRequest(Asked):
    """Who asks for a page, from where."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"viewer_id": "v-4711", "region": "cn.zj.hz", "slots": 12},
                {"viewer_id": "v-4711", "region": "cn.zj.hz", "cursor": "eJ...", "trace": True},
            ]
        },
    )

    viewer_id: Id
    region: Region | None = Field(
        None, description=f"where the viewer is, at most {LEVELS_MAX} levels; the outlet's own place when unsaid"
    )
    slots: Annotated[int, Field(ge=1, le=SLOTS_MAX)] | None = Field(
        None, description="the screen's default when unsaid"
    )
    cursor: str | None = Field(None, description="`next_cursor` of the page before: nothing comes twice, shares go on")
    age: Annotated[int, Field(ge=0, le=150)] | None = Field(None, description="unknown viewers count as 17")
    personalised: bool = Field(True, description="false: a page as for somebody of whom nothing is known")
    guided: bool = Field(True, description="false: without the policy, for comparison by editors")
    preview: bool = Field(False, description="true: for editors; no impression is recorded")
    seed: Annotated[int, Field(ge=0, lt=2**31)] | None = Field(None, description="all chance comes from it")
    trace: bool = Field(False, description="true: every stage with what it dropped, and the figures of each slot")


class SlotDetail(BaseModel):
    """The figures behind one slot, with `trace`."""

    utility: float = Field(description="expected worth to the viewer, in clicks")
    bonus: float = Field(description="what the policy adds, in clicks")
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
    entered: int
    left: int
    dropped: dict[str, int]
    error: str | None


class PageAnswer(BaseModel):
    """A page, and everything needed to say later why it was this one."""

    request_id: str
    placement: str
    at: datetime
    rung: str = Field(description="how much of the engine answered: personal, segment, popular or editorial")
    items: list[Slot]
    next_cursor: str | None = Field(description="asks for the next page; null when there was not enough for this one")
    attribution_token: str = Field(description="to be sent back with events as `attributiontoken`")
    model_version: str
    policy_version: str
    missing: list[str] = Field(description="parts that did not answer, so that the page comes from a lower rung")
    receipt: Receipt
    trace: list[StageOut] | None = None


# -- events and items


class Verdict(BaseModel):
    """What became of one event or item of a batch."""

    index: int
    id: str | None
    status: Literal["accepted", "quarantined", "refused"]
    change: Literal["created", "updated", "unchanged"] | None = None
    findings: list[Place] = []


class BatchAnswer(BaseModel):
    """What became of a batch; `verdicts` has one entry for each thing sent, in order."""

    accepted: int
    quarantined: int = Field(description="kept aside because the client's clock is ahead; they count for nothing")
    refused: int
    verdicts: list[Verdict]


class ItemAnswer(BaseModel):
    """One item and the revision of the catalogue at which it last changed."""

    revision: int
    item: Item


class ItemsPage(BaseModel):
    """Items in the order of their last change."""

    items: list[Item]
    next: str | None = Field(description="`after` of the next page; null on the last")


# -- outlets and policies


class OutletAnswer(BaseModel):
    """A tenant of the tree, and what is in force there."""

    code: str
    name: dict[str, str]
    policy_version: str = Field(examples=["cn@3+cn.zj@1"])
    fault: Message | None = Field(description="why its newest policy is not in service; null when it is")


class OutletRequest(Asked):
    """The name of an outlet, by language."""

    name: dict[str, str] = Field(examples=[{"zh": "浙江", "en": "Zhejiang"}])
    author: Annotated[str, Field(min_length=1, max_length=200)] = "api"


Author = Annotated[str, Field(min_length=1, max_length=200, examples=["Lin Yue"])]


class PolicyText(Asked):
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


class PublishRequest(Asked):
    """Which saved version to put in force."""

    version: Annotated[int, Field(ge=1)]
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


class Found(Place):
    """One thing that lint found in a policy."""

    control: str | None = Field(
        None,
        description="id of the control that `where` lies in; left out where it lies in none",
        exclude_if=lambda control: control is None,
    )


class LintAnswer(BaseModel):
    """What lint found, in editors' words; empty when all is well. What has an `error` cannot be saved."""

    findings: list[Found]


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


class History(BaseModel):
    """Every version ever saved, newest first."""

    outlet: str
    versions: list[PolicyVersionOut]


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


class AuditAnswer(BaseModel):
    """A page of the audit trail."""

    rows: list[AuditOut]
    next: int | None = Field(description="`after` of the next page, `before` of one newest first; null on the last")


class PartHealth(BaseModel):
    """How one part of the service is."""

    ok: bool
    detail: str
    version: str | None = Field(None, description="of the model in service; null where there is none")


class Health(BaseModel):
    """`ready`, `degraded` (pages come, from a lower rung or older data), or `not ready`."""

    status: Literal["ready", "degraded", "not ready"]
    parts: dict[str, PartHealth]
