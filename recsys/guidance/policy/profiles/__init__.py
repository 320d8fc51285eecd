"""Predefined sets of controls for public regulation, one YAML file each; a policy includes one by `profile: NAME`.

A profile is data: to add one, add a file to this folder; no code is needed. `serving.snapshot.profiles` reads the
files, because `recsys` does no input or output. Requirements that page controls cannot express are listed in `duties`,
each with the party that fulfils it. Profiles are our reading of the regulation, not legal advice.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, ValidationError, model_validator

from recsys.domain.errors import PolicyError
from recsys.domain.fields import Integer, Label, Name, Number
from recsys.guidance.policy.controls import Control, PolicyModel
from recsys.guidance.policy.yaml_text import findings_of, read_document
from recsys.messages import InvalidValue, message

ProfileName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=100)]

PREFIX = "profile:"
"""Prefix of the origin of a profile's controls, in place of an outlet."""


class Duty(PolicyModel):
    """A requirement of a regulation that no page control can meet, with the party that fulfils it."""

    legal_ref: str
    asks: str
    owner: Literal["engine", "request", "catalog", "organization"]
    how: str


class Profile(PolicyModel):
    """A predefined set of controls.

    labels  label -> meaning: the labels that items need for the controls to have an effect
    """

    name: ProfileName
    version: Annotated[Integer, Field(ge=1)] = 1
    title: Annotated[dict[str, str], Field(min_length=1)]  # language -> text
    about: str
    labels: dict[Label, str] = Field(default_factory=dict)
    weights: dict[Name, Annotated[Number, Field(ge=0, le=1)]] = Field(default_factory=dict)
    controls: tuple[Control, ...] = ()
    duties: tuple[Duty, ...] = ()

    @model_validator(mode="after")
    def _refers_to_law(self) -> Profile:
        for index, control in enumerate(self.controls):
            if not control.legal_ref:
                raise InvalidValue(message("legal_ref_missing", index=index, id=control.id))
        return self

    @property
    def origin(self) -> str:
        """Return the origin of the profile's controls.

        >>> Profile(name="quiet", title={"en": "Quiet"}, about="Nothing.").origin
        'profile:quiet'
        """
        return PREFIX + self.name


def parse_profile(text: str) -> Profile:
    """Parse a profile from YAML or JSON text. Raises PolicyError whose findings name every invalid field."""
    try:
        return Profile.model_validate(read_document(text))
    except ValidationError as error:
        raise PolicyError(message("profile_unreadable"), findings_of(error)) from error
