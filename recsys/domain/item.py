"""The item schema: the metadata that outlets and catalog importers deliver for each item."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from recsys.domain.fields import Code, Id, Integer, Label, Name, Number, Text, Time
from recsys.domain.placement import Screen

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

    start: Time | None = None
    until: Time | None = None
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
    title: Annotated[dict[Name, Text], Field(min_length=1)]  # language -> text: {"zh": "...", "en": "..."}
    summary: dict[Name, Text] = {}
    outlet: Code
    provider: Name = ""  # who made it; empty: the outlet
    labels: tuple[Label, ...] = ()
    topic: Name = ""  # for caps and spacings; empty: the root of the first label
    series: Name = ""
    axes: dict[Name, Annotated[Number, Field(ge=0, le=1)]] = {}  # editorial value of each axis
    region: Code | None = None  # the region it is about; None: no particular region
    rights: tuple[Window, ...] = ()  # empty: everywhere, always
    formats: tuple[Literal["landscape", "portrait", "audio", "text", "image"], ...] = ("landscape",)
    duration_s: Annotated[Number, Field(ge=0, lt=10**7)] = 0.0
    published_at: Time
    language: Name = "zh"
    age_rating: Annotated[Integer, Field(ge=0, le=21)] = 0
    status: Status = "published"
    link: Text = ""  # where to play or read it
    image: Text = ""
