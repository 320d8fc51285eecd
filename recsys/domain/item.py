"""The item schema: the metadata that outlets and catalog importers deliver for each item."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from recsys.domain.errors import ID
from recsys.domain.placement import Screen

Code = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]+(\.[a-z0-9_]+)*$", max_length=100)]
"""A node of the outlet or region tree: `cn.zj.hz` is below `cn.zj`, which is below `cn`."""

Label = Annotated[str, StringConstraints(pattern=r"^[^/\s][^/]*(/[^/]+)*$", max_length=200)]
"""A label as a path: `news/politics` is in the subtree of `news`."""

Id = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=ID)]
Kind = Literal["film", "series", "episode", "video", "article", "audio", "live"]
Status = Literal["published", "review", "withdrawn"]
KINDS: tuple[str, ...] = ("film", "series", "episode", "video", "article", "audio", "live")
STATUSES: tuple[str, ...] = ("published", "review", "withdrawn")
FORMATS: tuple[str, ...] = ("landscape", "portrait", "audio", "text", "image")
ALL_SCREENS: tuple[Screen, ...] = tuple(Screen)


class Window(BaseModel):
    """A rights window: the period, region subtrees and screens in which an item may be shown.

    An empty field does not limit the window.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    start: AwareDatetime | None = None
    until: AwareDatetime | None = None
    regions: tuple[Code, ...] = ()
    screens: tuple[Screen, ...] = ()

    @model_validator(mode="after")
    def _check_order(self) -> Window:
        if self.start and self.until and self.until <= self.start:
            raise ValueError("a rights window must end after it starts")
        return self


class Item(BaseModel):
    """An item that can be shown, as outlets and catalog importers deliver it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Id
    kind: Kind = "video"
    title: Annotated[dict[str, str], Field(min_length=1)]  # language -> text: {"zh": "...", "en": "..."}
    summary: dict[str, str] = {}
    outlet: Code
    provider: str = ""  # who made it; empty: the outlet
    labels: tuple[Label, ...] = ()
    topic: str = ""  # for caps and spacings; empty: the root of the first label
    series: str = ""
    axes: dict[str, Annotated[float, Field(ge=0, le=1)]] = {}  # editorial value of each axis
    region: Code | None = None  # the region it is about; None: no particular region
    rights: tuple[Window, ...] = ()  # empty: everywhere, always
    formats: tuple[Literal["landscape", "portrait", "audio", "text", "image"], ...] = ("landscape",)
    duration_s: Annotated[float, Field(ge=0, lt=10**7)] = 0.0
    published_at: AwareDatetime
    language: str = "zh"
    age_rating: Annotated[int, Field(ge=0, le=21)] = 0
    status: Status = "published"
    link: str = ""  # where to play or read it
    image: str = ""
