"""Policies for editors: read, lint, draft, publish, list versions, roll back."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from features.control.plane import ControlPlane
from features.control.rows import Outlet, PolicyVersion
from recsys.domain.errors import Finding, NotFound, PolicyError
from recsys.domain.regions import ancestry, within
from recsys.guidance.lint.lint import lint
from recsys.guidance.lint.page_work import PAGE_WORK, page_work_findings
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

BELOW_MAX = 4
"""Maximum number of outlets below, those with most controls, whose pages are checked before a policy is published."""

DEFAULT_ITEM_VALUE = 0.1
"""Assumed utility of a slot's item, in play equivalents, before any page is served.

It is high, so that lint reports only gross mistakes.
"""


@dataclass(frozen=True)
class PolicyService:
    """The policies of all outlets.

    Writes go to the control plane. The policies in force are those of the snapshot that this process serves.

    forecast_findings  returns findings about targets that cannot be reached according to the traffic forecast
    item_value         returns the utility of a slot's item on recent pages, in play equivalents; None without pages
    page_work          counted work that a page may take under a policy that is published
    """

    control: ControlPlane
    holders: SnapshotHolder
    clock: Callable[[], float]
    forecast_findings: Callable[[Policy], Iterable[Finding]] = lambda policy: ()
    item_value: Callable[[], float | None] = lambda: None
    page_work: float = PAGE_WORK

    def outlets(self) -> list[OutletAnswer]:
        """Return every outlet, parents before children."""
        outlets = self.holders.current.outlets.values()
        return [self._outlet(outlet) for outlet in sorted(outlets, key=lambda outlet: outlet.code)]

    def name_outlet(self, code: str, name: dict[str, str], author: str) -> OutletAnswer:
        """Set the display name of an outlet; create the outlet if it does not exist."""
        return self._outlet(self.control.put_outlet(code, name, author))

    def policy(self, outlet: str) -> PolicyAnswer:
        """Return the active and the effective policy of an outlet. Raises NotFound when it has no policy of its own."""
        active = [version for version in self.control.history(outlet) if version.active]
        if not active:
            raise NotFound(message("outlet_without_policy", outlet=outlet))
        return PolicyAnswer(**vars(self.in_force(outlet)), active=version_out(active[0]))

    def in_force(self, outlet: str) -> InForce:
        """Return the outlet's own policy merged with its ancestors'. Raises NotFound for an unknown outlet."""
        snapshot = self.holders.current
        versions = self.control.history(outlet)
        if outlet not in snapshot.outlets and not versions:
            raise NotFound(message("outlet_not_found", outlet=outlet))
        serving_snapshot = snapshot.serving_snapshots.get(outlet)
        in_force = (
            serving_snapshot.policy.effective
            if serving_snapshot
            else merge_policies(self.holders.policy_cache.chain(outlet))
        )
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

    def lint(self, outlet: str, request: PolicyText, cancelled: Callable[[], bool] = lambda: False) -> list[FindingOut]:
        """Return the findings about a policy; only the parse errors when it cannot be parsed.

        cancelled  returns whether the client has left, so that the rest of the work can be skipped
        """
        try:
            policy = self._parse(outlet, _text(request))
        except PolicyError as error:
            return [FindingOut.of(finding) for finding in error.findings or (Finding("", error.text),)]
        return self._lint(policy, cancelled)

    def to_preview(self, outlet: str, request: PreviewRequest) -> Policy:
        """Return the policy to preview: a saved version or the text in the request. Raises PolicyError, NotFound."""
        if request.version is None:
            return self._parse(outlet, _text(request))
        if request.text is not None or request.policy is not None:
            raise PolicyError(message("policy_unusable"), [Finding("body", message("body_version_or_policy"))])
        saved = self.control.version(outlet, request.version)
        return self._parse(outlet, saved.text).model_copy(update={"version": saved.version})

    def draft(self, outlet: str, request: DraftRequest, cancelled: Callable[[], bool] = lambda: False) -> DraftAnswer:
        """Save a new version. Raises PolicyError when it cannot be used, Conflict when a newer version was saved.

        If the client leaves, fewer findings are computed, but the version is saved.
        """
        policy = self._usable(outlet, _text(request))
        findings = self._lint(
            policy, cancelled
        )  # before saving: a policy that cannot be linted must not become a version
        return DraftAnswer(version=version_out(self._save(outlet, request, policy)), findings=findings)

    def publish(self, outlet: str, request: PublishRequest) -> PolicyVersionOut:
        """Put a saved version in force. Raises NotFound, Conflict; PolicyError when this engine cannot use it.

        A policy under which pages, also of outlets below, exceed their budget of counted work cannot be used.
        """
        policy = self._usable(outlet, self.control.version(outlet, request.version).text)
        if findings := list(self._page_work(policy)):
            raise PolicyError(message("policy_unusable"), findings)
        return self._publish(outlet, request)

    def _publish(self, outlet: str, request: PublishRequest) -> PolicyVersionOut:
        self.control.publish(outlet, request.version, request.author, request.base_version)
        return version_out(self.control.version(outlet, request.version))

    def publish_text(self, outlet: str, request: DraftRequest) -> PolicyVersionOut:
        """Save a policy and put it in force in one step. Raises PolicyError, Conflict."""
        policy = self._usable(outlet, _text(request))
        if findings := list(self._page_work(policy)):
            raise PolicyError(message("policy_unusable"), findings)
        saved = self._save(outlet, request, policy)
        return self._publish(outlet, PublishRequest(version=saved.version, author=request.author))

    def rollback(self, outlet: str, request: PublishRequest) -> PolicyVersionOut:
        """Put an earlier version back in force. Raises like `publish`; InvalidInput when it was never in force."""
        self._usable(outlet, self.control.version(outlet, request.version).text)
        self.control.rollback(outlet, request.version, request.author, request.base_version)
        return version_out(self.control.version(outlet, request.version))

    def history(self, outlet: str) -> list[PolicyVersionOut]:
        """Return every saved version, newest first."""
        return [version_out(version) for version in self.control.history(outlet)]

    def _save(self, outlet: str, request: DraftRequest, policy: Policy) -> PolicyVersion:
        base = request.base_version
        if base is None:
            base = max((version.version for version in self.control.history(outlet)), default=0)
        return self.control.draft(outlet, _text(request), request.author, request.note or policy.note, base)

    def _parse(self, outlet: str, text: str) -> Policy:
        policy = read_policy(text)
        if policy.outlet != outlet:
            problem = message("policy_of_other_outlet", outlet=policy.outlet, expected=outlet)
            raise PolicyError(message("policy_unusable"), [Finding("outlet", problem)])
        return policy

    def _usable(self, outlet: str, text: str) -> Policy:
        """Parse a policy and check it under its parents in force. Raises PolicyError when it allows no page."""
        policy = self._parse(outlet, text)
        check([*self._parents(outlet), policy], self.holders.current.catalog)
        return policy

    def _parents(self, outlet: str) -> list[Policy]:
        return [parent for code in ancestry(outlet)[:-1] if (parent := self.holders.policy_cache.own_policy(code))]

    def _page_work(self, policy: Policy) -> Iterator[Finding]:
        """Yield a finding if pages of the outlet, or of an outlet below it, exceed the counted work under a policy."""
        cache, catalog, now = self.holders.policy_cache, self.holders.current.catalog, self.clock()
        for code in (policy.outlet, *cache.below(policy.outlet)[:BELOW_MAX]):
            own = {own.outlet: own for own in cache.chain(code)} | {policy.outlet: policy}
            chain = [own[ancestor] for ancestor in ancestry(code) if ancestor in own]
            for finding in page_work_findings(chain, catalog, now, self.page_work):
                yield finding
                return

    def _lint(self, policy: Policy, cancelled: Callable[[], bool]) -> list[FindingOut]:
        """Lint a policy under its parents in force."""
        chain = [*self._parents(policy.outlet), policy]
        findings = lint(
            chain,
            self.holders.current.catalog,
            self.clock(),
            self.item_value() or DEFAULT_ITEM_VALUE,
            time.thread_time,
            cancelled,
        )
        work = () if cancelled() else (replace(finding, level="warning") for finding in self._page_work(policy))
        findings = (*self._unknown(policy.outlet), *work, *findings, *self.forecast_findings(policy))
        return _with_controls(findings, policy)

    def _unknown(self, outlet: str) -> Iterator[Finding]:
        """Yield a finding when neither the outlet nor any outlet below it exists."""
        snapshot = self.holders.current
        known_outlets = {*snapshot.outlets, *snapshot.serving_snapshots}
        if not any(within(code, outlet) for code in known_outlets):
            problem = message("outlet_unknown", outlet=outlet, suggestion=did_you_mean(outlet, known_outlets, "."))
            yield Finding("outlet", problem, "warning")

    def _outlet(self, outlet: Outlet) -> OutletAnswer:
        snapshot = self.holders.current
        serving_snapshot = snapshot.serving_snapshots.get(outlet.code)
        return OutletAnswer(
            code=outlet.code,
            name=dict(outlet.name),
            policy_version=serving_snapshot.policy.version if serving_snapshot else "none",
            fault=snapshot.faults.get(outlet.code),
        )


def version_out(version: PolicyVersion) -> PolicyVersionOut:
    """Convert a saved version to its API form."""
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


def _text(request: PolicyText) -> str:
    """Return the policy as text. Raises PolicyError unless the request has exactly one of `text` and `policy`."""
    if (request.text is None) == (request.policy is None):
        raise PolicyError(message("policy_unusable"), [Finding("body", message("body_text_or_policy"))])
    return request.text if request.text is not None else json.dumps(request.policy, ensure_ascii=False, indent=2)


def _with_controls(findings: Iterable[Finding], policy: Policy) -> list[FindingOut]:
    """Convert findings to their API form, each with the id of the control it is about, if any."""
    controls = [(finding, _CONTROL.match(finding.where)) for finding in findings]
    return [
        FindingOut.of(finding, policy.controls[int(number[1])].id if number else None) for finding, number in controls
    ]
