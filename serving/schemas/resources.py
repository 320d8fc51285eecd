"""The models of API requests and responses. Responses contain objects, not bare ids; times are RFC 3339 in UTC."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from features.events.schema import REGION
from features.json_text import find_unstorable
from recsys.distribution.layouts import SLOTS_MAX
from recsys.domain.fields import Boolean, Code, Id, Integer, Name, Text
from recsys.domain.item import Item
from recsys.domain.regions import MAX_REGION_LEVELS
from recsys.guidance.receipt.receipt import Receipt
from recsys.messages import InvalidValue, Message, message
from serving.schemas.problems import FindingOut

Region = Annotated[Code, Field(min_length=1, pattern=REGION)]
"""The region of a viewer, in the form that impressions record."""

Version = Annotated[Integer, Field(ge=1, lt=2**31)]
"""The number of a saved version of a policy."""

BaseVersion = Annotated[Integer, Field(ge=0, lt=2**31)]
"""The number of the version on which a change is based; 0 for none."""

Author = Annotated[Text, Field(min_length=1, max_length=200, examples=["Lin Yue"])]


def rfc3339(at: float) -> datetime:
    """Return Unix seconds as a time in UTC."""
    return datetime.fromtimestamp(at, UTC)


class RequestModel(BaseModel):
    """The base of request bodies and queries. Unknown fields are rejected, so that a typo is not silently ignored."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _check_names(cls, value: Any) -> Any:
        """Reject names of fields that are not Unicode, which pydantic cannot report."""
        if isinstance(value, dict) and (path := find_unstorable(value, names_only=True)) is not None:
            raise InvalidValue(message("finding_at", where=path, finding=message("text_not_storable")))
        return value


# -- pages


class PageRequest(RequestModel):
    """A request for a page."""

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
        None,
        description=f"Region of the viewer, with at most {MAX_REGION_LEVELS} levels. Default: that of the outlet.",
    )
    slots: Annotated[Integer, Field(ge=1, le=SLOTS_MAX)] | None = Field(
        None, description="Number of items on the page. The default depends on the screen."
    )
    page_token: Text | None = Field(
        None,
        description="The `next_page_token` of the previous page. No item comes twice; quotas cover the whole session.",
    )
    age: Annotated[Integer, Field(ge=0, le=150)] | None = Field(
        None, description="Age of the viewer. The default is 17."
    )
    personalised: Boolean = Field(True, description="If false, the page does not use the viewer's state.")
    guided: Boolean = Field(True, description="If false, the page does not apply the policy. For editors, to compare.")
    preview: Boolean = Field(False, description="If true, no impressions are recorded. For editors.")
    seed: Annotated[Integer, Field(ge=0, lt=2**31)] | None = Field(None, description="Seed of all random choices.")
    trace: Boolean = Field(False, description="If true, the response contains `trace` and the `detail` of each slot.")


class SlotDetail(BaseModel):
    """The scores of a slot, if the request has `trace`."""

    utility: float = Field(description="Expected utility for the viewer, in play equivalents.")
    bonus: float = Field(description="Bonus that the policy adds, in play equivalents.")
    p: dict[str, float] = Field(description="Calibrated probability of each action.")
    sources: tuple[str, ...] = Field(description="Candidate sources that retrieved the item.")


class Slot(BaseModel):
    """A slot of a page."""

    slot: int = Field(description="Number of the slot, starting at 1.")
    item: Item
    reasons: tuple[str, ...] = Field(
        description="Explanations of the item for the viewer.", examples=[["similar_to:film-3"]]
    )
    control_ids: tuple[str, ...] = Field(description="Ids of the policy controls to which the item contributes.")
    detail: SlotDetail | None = None


class StageOut(BaseModel):
    """A stage of the pipeline. `candidates_in` is `candidates_out` plus the sum of `dropped`."""

    name: str
    candidates_in: int
    candidates_out: int
    dropped: dict[str, int]
    error: str | None


class PageAnswer(BaseModel):
    """A page, with the data that explains how it was made."""

    request_id: str
    placement: str
    at: datetime
    fallback_level: str = Field(
        description="Level of the engine that made the page: personal, segment, popular or editorial."
    )
    items: list[Slot]
    next_page_token: Text | None = Field(
        description="Token for the next page; null if there were too few items to fill this page."
    )
    attribution_token: str = Field(description="Token to send with events of this page as `attributiontoken`.")
    model_version: str
    policy_version: str
    degraded_parts: list[str] = Field(
        description="Parts of the service that were unavailable, so that the page comes from a lower fallback level."
    )
    receipt: Receipt
    trace: list[StageOut] | None = None


# -- items


class ItemAnswer(BaseModel):
    """An item, and the revision of the catalog at which it last changed."""

    revision: int
    item: Item


# -- outlets and policies


class OutletAnswer(BaseModel):
    """An outlet and its effective policy version."""

    code: str
    name: dict[str, str]
    policy_version: str = Field(examples=["cn@3+cn.zj@1"])
    fault: Message | None = Field(description="Reason why the newest policy is not in service; null if it is.")


class OutletRequest(RequestModel):
    """The name of an outlet, by language."""

    name: dict[Name, Text] = Field(examples=[{"zh": "浙江", "en": "Zhejiang"}])
    author: Author = "api"


class PolicyText(RequestModel):
    """A policy as YAML or JSON text, or as an object."""

    text: Text | None = Field(None, examples=["outlet: cn.zj\nweights: {locality: 0.003}\n"])
    policy: dict[str, JsonValue] | None = Field(None, examples=[{"outlet": "cn.zj", "weights": {"locality": 0.003}}])


class DraftRequest(PolicyText):
    """A new version of an outlet's policy."""

    author: Author
    note: Annotated[Text, Field(max_length=2000)] = ""
    base_version: BaseVersion | None = Field(
        None, description="Version on which the draft is based. If a newer version exists, the request fails with 409."
    )


class PublishRequest(RequestModel):
    """The saved version to publish."""

    version: Annotated[Version, Field(examples=[3])]
    author: Author
    base_version: BaseVersion | None = Field(
        None,
        description="Version that the author expects to be in force, 0 for none. If another version is in force, the "
        "request fails with 409.",
    )


class PolicyVersionOut(BaseModel):
    """A saved version of a policy."""

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
    """The findings of lint. A policy with a finding of level `error` cannot be saved."""

    findings: list[FindingOut]


class DraftAnswer(LintAnswer):
    """The saved version and the findings of lint."""

    version: PolicyVersionOut


class ControlOut(BaseModel):
    """A control in force, and the outlet whose policy defines it."""

    origin: str
    control: dict[str, Any]


class EffectiveOut(BaseModel):
    """The combination of an outlet's own policy with those of its ancestors, as this process applies it."""

    version: str
    weights: dict[str, float]
    controls: list[ControlOut]


class InForce(BaseModel):
    """The effective policy of an outlet."""

    outlet: str
    newest_version: int = Field(
        description="Newest version of the outlet's own policy, including drafts; 0 if there is none."
    )
    effective: EffectiveOut
    fault: Message | None = Field(description="Reason why the newest policy is not in service; null if it is.")


class PolicyAnswer(InForce):
    """The outlet's own policy and its effective policy."""

    active: PolicyVersionOut


class AuditOut(BaseModel):
    """An entry of the audit trail. `hash` covers the entry and the hash of the previous entry."""

    seq: int
    at: datetime
    actor: str
    action: str
    subject: str
    detail: dict[str, Any]
    previous: str
    hash: str


class PartHealth(BaseModel):
    """The health of a part of the service."""

    ok: bool
    detail: str
    version: str | None = Field(None, description="Version of the model in service; null if there is none.")


class Health(BaseModel):
    """The health of the service. `degraded` means that pages come from a lower fallback level or from older data."""

    status: Literal["ready", "degraded", "not ready"]
    parts: dict[str, PartHealth]
