"""What editors do with policies: read, lint, draft, publish, look back, roll back."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from recsys.catalog import within
from recsys.errors import Finding, NotFound, PolicyError
from recsys.guidance.compile import effective
from recsys.guidance.lint import lint
from recsys.guidance.policy import Policy
from recsys.guidance.vocabulary import meant
from recsys.messages import message
from serving.control import ControlPlane, Outlet, PolicyVersion
from serving.control.plane import ancestry
from serving.holders import Holders
from serving.policies import check
from serving.preview.schemas import PreviewRequest
from serving.problems import Place
from serving.profiles import read_policy
from serving.schemas import (
    ControlOut,
    DraftAnswer,
    DraftRequest,
    EffectiveOut,
    Found,
    InForce,
    OutletAnswer,
    PolicyAnswer,
    PolicyText,
    PolicyVersionOut,
    PublishRequest,
    rfc3339,
)

_CONTROL = re.compile(r"controls\[(\d+)\]")

WORTH = 0.1
"""Clicks that a slot's item is taken to be worth before any page was served: generous, so only gross slips are told."""


@dataclass(frozen=True)
class PolicyDesk:
    """Policies of all outlets. Writes go to the control plane; what is in force is what this process serves."""

    control: ControlPlane
    holders: Holders
    clock: Callable[[], float]
    foresee: Callable[[Policy], Iterable[Finding]] = lambda policy: ()  # what the traffic forecast says of a policy
    worth: Callable[[], float | None] = lambda: None  # clicks that a slot's item is worth, on the pages of late

    def outlets(self) -> list[OutletAnswer]:
        """Every outlet, parents before children."""
        known = self.holders.current.outlets.values()
        return [self._outlet(outlet) for outlet in sorted(known, key=lambda outlet: outlet.code)]

    def name_outlet(self, code: str, name: dict[str, str], author: str) -> OutletAnswer:
        """Say what an outlet is called; it exists from then on."""
        return self._outlet(self.control.put_outlet(code, name, author))

    def policy(self, outlet: str) -> PolicyAnswer:
        """What the outlet says and what is in force there. Raises NotFound when the outlet itself says nothing."""
        active = [version for version in self.control.history(outlet) if version.active]
        if not active:
            raise NotFound(message("outlet_without_policy", outlet=outlet))
        return PolicyAnswer(**vars(self.in_force(outlet)), active=version_out(active[0]))

    def in_force(self, outlet: str) -> InForce:
        """The sum of its own policy and its ancestors'. Raises NotFound for an outlet nobody has spoken of."""
        snapshot = self.holders.current
        versions = self.control.history(outlet)
        if outlet not in snapshot.outlets and not versions:
            raise NotFound(message("outlet_not_found", outlet=outlet))
        world = snapshot.worlds.get(outlet)
        in_force = world.policy.effective if world else effective(self.holders.shelf.chain(outlet))
        return InForce(
            outlet=outlet,
            newest_version=versions[0].version if versions else 0,
            effective=EffectiveOut(
                version=in_force.version,
                weights=dict(in_force.weights),
                controls=[
                    ControlOut(
                        origin=o.outlet, control=o.control.model_dump(mode="json", by_alias=True, exclude_defaults=True)
                    )
                    for o in in_force.controls
                ],
            ),
            fault=snapshot.faults.get(outlet),
        )

    def lint(self, outlet: str, said: PolicyText) -> list[Found]:
        """What is wrong or odd about a policy, in editors' words; an unreadable one is only that."""
        try:
            policy = self._parse(outlet, _text(said))
        except PolicyError as error:
            return _found(_places(error.findings or (Finding("", error.said),)))
        return self._lint(policy)

    def to_preview(self, outlet: str, said: PreviewRequest) -> Policy:
        """The policy that a preview asks about: a saved version, or what came along. Raises PolicyError, NotFound."""
        if said.version is None:
            return self._parse(outlet, _text(said))
        if said.text is not None or said.policy is not None:
            raise PolicyError(message("policy_unusable"), [Finding("body", message("body_version_or_policy"))])
        saved = self.control.version(outlet, said.version)
        return self._parse(outlet, saved.text).model_copy(update={"version": saved.version})

    def draft(self, outlet: str, said: DraftRequest) -> DraftAnswer:
        """Save a new version. Raises PolicyError when it cannot be used, Conflict when somebody saved one since."""
        policy = self._usable(outlet, _text(said))
        findings = self._lint(policy)  # before anything is saved: what cannot be looked at is no version
        return DraftAnswer(version=version_out(self._save(outlet, said, policy)), findings=findings)

    def publish(self, outlet: str, said: PublishRequest) -> PolicyVersionOut:
        """Put a saved version in force. Raises NotFound, Conflict, PolicyError when this engine cannot use it."""
        self._usable(outlet, self.control.version(outlet, said.version).text)
        self.control.publish(outlet, said.version, said.author, said.base_version)
        return version_out(self.control.version(outlet, said.version))

    def publish_text(self, outlet: str, said: DraftRequest) -> PolicyVersionOut:
        """Save a policy and put it in force in one step. Raises PolicyError, Conflict."""
        saved = self._save(outlet, said, self._usable(outlet, _text(said)))
        return self.publish(outlet, PublishRequest(version=saved.version, author=said.author))

    def rollback(self, outlet: str, said: PublishRequest) -> PolicyVersionOut:
        """Put a version in force that was in force before. Raises as `publish`, and InvalidInput if it never was."""
        self._usable(outlet, self.control.version(outlet, said.version).text)
        self.control.rollback(outlet, said.version, said.author, said.base_version)
        return version_out(self.control.version(outlet, said.version))

    def history(self, outlet: str) -> list[PolicyVersionOut]:
        """Every version ever saved, newest first."""
        return [version_out(version) for version in self.control.history(outlet)]

    def _save(self, outlet: str, said: DraftRequest, policy: Policy) -> PolicyVersion:
        base = said.base_version
        if base is None:
            base = max((version.version for version in self.control.history(outlet)), default=0)
        return self.control.draft(outlet, _text(said), said.author, said.note or policy.note, base)

    def _parse(self, outlet: str, text: str) -> Policy:
        policy = read_policy(text)
        if policy.outlet != outlet:
            wrong = message("policy_of_other_outlet", outlet=policy.outlet, expected=outlet)
            raise PolicyError(message("policy_unusable"), [Finding("outlet", wrong)])
        return policy

    def _usable(self, outlet: str, text: str) -> Policy:
        """The policy, below the parents that are in force. Raises PolicyError when no page could be made under it."""
        policy = self._parse(outlet, text)
        check([*self._parents(outlet), policy], self.holders.current.catalog)
        return policy

    def _parents(self, outlet: str) -> list[Policy]:
        return [own for code in ancestry(outlet)[:-1] if (own := self.holders.shelf.own(code))]

    def _lint(self, policy: Policy) -> list[Found]:
        """Lint below the parents that are in force."""
        line = [*self._parents(policy.outlet), policy]
        found = lint(line, self.holders.current.catalog, self.clock(), self.worth() or WORTH, time.perf_counter)
        return _found(_places((*self._unknown(policy.outlet), *found, *self.foresee(policy))), policy)

    def _unknown(self, outlet: str) -> Iterator[Finding]:
        """A finding for an outlet of which nobody has heard, nor of any below it."""
        snapshot = self.holders.current
        known = {*snapshot.outlets, *snapshot.worlds}
        if not any(within(code, outlet) for code in known):
            unknown = message("outlet_unknown", outlet=outlet, suggestion=meant(outlet, known, "."))
            yield Finding("outlet", unknown, "warning")

    def _outlet(self, outlet: Outlet) -> OutletAnswer:
        snapshot = self.holders.current
        world = snapshot.worlds.get(outlet.code)
        return OutletAnswer(
            code=outlet.code,
            name=dict(outlet.name),
            policy_version=world.policy.version if world else "none",
            fault=snapshot.faults.get(outlet.code),
        )


def version_out(version: PolicyVersion) -> PolicyVersionOut:
    """A saved version as the API shows it."""
    return PolicyVersionOut(
        outlet=version.outlet,
        version=version.version,
        state=version.state,
        active=version.active,
        text=version.text,
        author=version.author,
        note=version.note,
        at=rfc3339(version.at),
        published_at=[rfc3339(at) for at in version.published_at],
    )


def _text(said: PolicyText) -> str:
    """The policy as text. Raises PolicyError unless it came in exactly one form."""
    if (said.text is None) == (said.policy is None):
        raise PolicyError(message("policy_unusable"), [Finding("body", message("body_text_or_policy"))])
    return said.text if said.text is not None else json.dumps(said.policy, ensure_ascii=False, indent=2)


def _found(places: list[Place], policy: Policy | None = None) -> list[Found]:
    """The same places, each inside a control with that control's id, where there is a policy to look it up in."""
    ids = [control.id for control in policy.controls] if policy else []
    numbers = [_CONTROL.match(place.where) if ids else None for place in places]
    return [
        Found(**place.model_dump(), control=ids[int(number[1])] if number else None)
        for place, number in zip(places, numbers, strict=True)
    ]


def _places(findings: Iterable[Finding]) -> list[Place]:
    return [Place.of(finding) for finding in findings]
