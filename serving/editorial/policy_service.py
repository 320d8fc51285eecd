"""What editors do with policies: read, lint, draft, publish, look back, roll back."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from features.control.plane import ControlPlane
from features.control.rows import Outlet, PolicyVersion
from recsys.domain.errors import Finding, NotFound, PolicyError
from recsys.domain.regions import ancestry, within
from recsys.guidance.lint.lint import lint
from recsys.guidance.lint.unknown_terms import did_you_mean
from recsys.guidance.policy.inheritance import merge_policies
from recsys.guidance.policy.policy import Policy
from recsys.messages import message
from serving.schemas.previews import PreviewRequest
from serving.schemas.problems import FindingOut
from serving.schemas.resources import (
    ControlOut,
    DraftAnswer,
    DraftRequest,
    EffectiveOut,
    InForce,
    OutletAnswer,
    PolicyAnswer,
    PolicyText,
    PolicyVersionOut,
    PublishRequest,
    rfc3339,
)
from serving.snapshot.holders import SnapshotHolder
from serving.snapshot.policy_cache import check
from serving.snapshot.profiles import read_policy

_CONTROL = re.compile(r"controls\[(\d+)\]")

DEFAULT_ITEM_VALUE = 0.1
"""Utility of a slot's item, in play equivalents, before any page was served: generous, so only gross slips are told."""


@dataclass(frozen=True)
class PolicyService:
    """Policies of all outlets. Writes go to the control plane; what is in force is what this process serves."""

    control: ControlPlane
    holders: SnapshotHolder
    clock: Callable[[], float]
    forecast_findings: Callable[[Policy], Iterable[Finding]] = (
        lambda policy: ()
    )  # what the traffic forecast says of a policy
    item_value: Callable[[], float | None] = lambda: None  # utility of a slot's item on recent pages

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
        world = snapshot.serving_snapshots.get(outlet)
        in_force = world.policy.effective if world else merge_policies(self.holders.policy_cache.chain(outlet))
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

    def lint(self, outlet: str, said: PolicyText) -> list[FindingOut]:
        """What is wrong or odd about a policy, in editors' words; an unreadable one is only that."""
        try:
            policy = self._parse(outlet, _text(said))
        except PolicyError as error:
            return [FindingOut.of(finding) for finding in error.findings or (Finding("", error.text),)]
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
        return [own for code in ancestry(outlet)[:-1] if (own := self.holders.policy_cache.own_policy(code))]

    def _lint(self, policy: Policy) -> list[FindingOut]:
        """Lint below the parents that are in force."""
        line = [*self._parents(policy.outlet), policy]
        found = lint(
            line, self.holders.current.catalog, self.clock(), self.item_value() or DEFAULT_ITEM_VALUE, time.perf_counter
        )
        return _with_controls((*self._unknown(policy.outlet), *found, *self.forecast_findings(policy)), policy)

    def _unknown(self, outlet: str) -> Iterator[Finding]:
        """A finding for an outlet of which nobody has heard, nor of any below it."""
        snapshot = self.holders.current
        known = {*snapshot.outlets, *snapshot.serving_snapshots}
        if not any(within(code, outlet) for code in known):
            unknown = message("outlet_unknown", outlet=outlet, suggestion=did_you_mean(outlet, known, "."))
            yield Finding("outlet", unknown, "warning")

    def _outlet(self, outlet: Outlet) -> OutletAnswer:
        snapshot = self.holders.current
        world = snapshot.serving_snapshots.get(outlet.code)
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


def _with_controls(findings: Iterable[Finding], policy: Policy) -> list[FindingOut]:
    """Return findings as the API shows them, each with the id of the control that it lies in, if any."""
    controls = [(finding, _CONTROL.match(finding.where)) for finding in findings]
    return [
        FindingOut.of(finding, policy.controls[int(number[1])].id if number else None) for finding, number in controls
    ]
