"""Ready sets of controls for public rules, one YAML file each; a policy takes one up by `profile: NAME`.

A profile is data: adding one needs a file in this folder and no code. The files are read at the edge
(`serving.snapshot.profiles`), since this floor reads none. What page controls cannot express stands in `duties`, with
who keeps it: the engine, the request, the catalogue or the organisation. Profiles are our reading of the rules, not
legal advice.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, ValidationError, model_validator

from recsys.domain.errors import PolicyError
from recsys.domain.item import Label
from recsys.guidance.policy.controls import Control, PolicyModel
from recsys.guidance.policy.yaml_text import Integer, Number, findings_of, read_document
from recsys.messages import InvalidValue, message

ProfileName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=100)]

PREFIX = "profile:"
"""What the origin of a profile's control begins with, where an outlet's code would stand."""


class Duty(PolicyModel):
    """Something a rule asks that no page control can keep, and who keeps it."""

    legal_ref: str
    asks: str
    kept_by: Literal["engine", "request", "catalogue", "organisation"]
    how: str


class Profile(PolicyModel):
    """One ready set. `labels`: what items must be labelled with for its controls to mean anything."""

    name: ProfileName
    version: Annotated[Integer, Field(ge=1)] = 1
    title: Annotated[dict[str, str], Field(min_length=1)]  # language -> text
    about: str
    labels: dict[Label, str] = Field(default_factory=dict)
    weights: dict[str, Annotated[Number, Field(ge=0, le=1)]] = Field(default_factory=dict)
    controls: tuple[Control, ...] = ()
    duties: tuple[Duty, ...] = ()

    @model_validator(mode="after")
    def _refers_to_law(self) -> Profile:
        for place, control in enumerate(self.controls):
            if not control.legal_ref:
                raise InvalidValue(message("legal_ref_missing", place=place, id=control.id))
        return self

    @property
    def origin(self) -> str:
        """What stands as the origin of its controls.

        >>> Profile(name="quiet", title={"en": "Quiet"}, about="Nothing.").origin
        'profile:quiet'
        """
        return PREFIX + self.name


def parse_profile(text: str) -> Profile:
    """A profile from YAML or JSON text. Raises PolicyError whose findings name every field that is wrong."""
    try:
        return Profile.model_validate(read_document(text))
    except ValidationError as error:
        raise PolicyError(message("profile_unreadable"), findings_of(error)) from error
