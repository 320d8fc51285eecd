"""The policy of an outlet: a versioned document in JSON or YAML, written by editors.

A policy has weights (axis -> utility of an editorial value of 1, in play equivalents), profiles and controls
(`recsys.guidance.policy.controls`). This module contains data classes and their validation only; `compilation` turns
policies into arrays, and `lint` checks them against parents and the catalog.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, PrivateAttr, ValidationError, model_validator

from recsys.domain.errors import Finding, PolicyError
from recsys.domain.fields import STORED, Code, Integer, Name, Number
from recsys.guidance.policy.conditions import OneOrMore
from recsys.guidance.policy.controls import Control, PolicyModel
from recsys.guidance.policy.profiles import Profile, ProfileName
from recsys.guidance.policy.yaml_text import findings_of, read_document
from recsys.messages import InvalidValue, message

CONTROLS_MAX = 300
"""Maximum number of controls of a policy: a page takes milliseconds with dozens, but a second with a thousand."""


def _limit_controls(value: object) -> object:
    if isinstance(value, list | tuple) and len(value) > CONTROLS_MAX:
        raise InvalidValue(message("controls_too_many", maximum=CONTROLS_MAX, controls=len(value)))
    return value


class Policy(PolicyModel):
    """A version of the policy of an outlet. `merge_policies` merges it with the policies of its parents.

    profile   names of predefined sets of controls (`recsys.guidance.policy.profiles`), which come before the policy's
              own controls; these may tighten them
    """

    outlet: Code
    profile: Annotated[tuple[ProfileName, ...], OneOrMore] = ()
    version: Annotated[Integer, Field(ge=0)] = 0
    author: str = ""
    note: str = ""
    weights: dict[Name, Annotated[Number, Field(ge=0, le=1)]] = Field(
        default_factory=dict
    )  # axis -> play equivalents of a value of 1
    controls: Annotated[tuple[Control, ...], BeforeValidator(_limit_controls)] = ()
    _resolved: tuple[Profile, ...] | None = PrivateAttr(None)

    @property
    def resolved_profiles(self) -> tuple[Profile, ...]:
        """Return the profiles of the policy. Raises PolicyError unless `resolve_profiles` has loaded them."""
        if self._resolved is None and self.profile:
            raise PolicyError(message("policy_unusable"), [Finding("profile", message("profiles_not_loaded"))])
        return self._resolved or ()

    def with_profiles(self, ready: tuple[Profile, ...]) -> Policy:
        """Return the same policy with its profiles resolved."""
        policy = self.model_copy()
        policy._resolved = ready
        return policy

    @model_validator(mode="after")
    def _ids_once(self) -> Policy:
        index_of: dict[str, int] = {}
        for index, control in enumerate(self.controls):
            if control.id in index_of:
                raise InvalidValue(message("control_id_taken", index=index, id=control.id, other=index_of[control.id]))
            index_of[control.id] = index
        return self


def parse_policy(text: str, stored: bool = False) -> Policy:
    """Parse a policy from JSON or YAML text. Raises PolicyError whose findings name every invalid field.

    stored  the text was accepted by this or an older version (`recsys.domain.fields.STORED`)
    """
    document = read_document(text)
    try:
        return Policy.model_validate(document, context=STORED if stored else None)
    except ValidationError as error:
        raise PolicyError(message("policy_unreadable"), findings_of(error)) from error
