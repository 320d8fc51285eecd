"""Exposure targets for editors: list, report, pause, resume, stop, change the amount, clone."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from features.control.plane import ControlPlane
from recsys.domain.errors import Finding, InvalidInput, NotFound, PolicyError
from recsys.guidance.policy.controls import Control, ExposureTarget
from recsys.guidance.policy.policy import Policy, parse_policy
from recsys.guidance.policy.yaml_text import append_control, findings_of
from recsys.messages import message
from recsys.pacing.status import describe, projected, status
from recsys.pacing.tracker import TargetOverride
from serving.editorial.pacing_loop import PacingLoop, TrackedTarget
from serving.editorial.policy_service import PolicyService
from serving.schemas.problems import FindingOut
from serving.schemas.resources import DraftAnswer, DraftRequest, rfc3339
from serving.schemas.targets import (
    AmountChange,
    CloneRequest,
    CurvePoint,
    ForecastOut,
    TargetChange,
    TargetOut,
    TargetReport,
)


@dataclass(frozen=True)
class TargetService:
    """The targets in force, as this process paces them. Overrides go to the control plane and its audit log."""

    loop: PacingLoop
    control: ControlPlane
    policies: PolicyService

    def all(self, outlet: str | None = None) -> list[TargetOut]:
        """Return every target in force, ordered by key; of all outlets if `outlet` is None."""
        selected = [tracked for tracked in self.loop.running.values() if outlet in (None, tracked.outlet)]
        return [TargetOut(**_report_fields(tracked)) for tracked in sorted(selected, key=lambda tracked: tracked.key)]

    def report(self, outlet: str, target_id: str) -> TargetReport:
        """Return a target with its delivery curve. Raises NotFound."""
        tracked = self._running(outlet, target_id)
        return TargetReport(
            **_report_fields(tracked),
            course=[
                CurvePoint.model_validate(
                    {"at": rfc3339(at), "planned": planned, "delivered": delivered, "price": price}
                )
                for at, planned, delivered, price in tracked.state.trail
            ],
            usual_prices=list(tracked.state.controller.learned_prices()),
            capped_impressions=tracked.impressions,
            paused=tracked.override.paused,
            stopped=tracked.override.stopped,
        )

    def pause(self, outlet: str, target_id: str, request: TargetChange) -> TargetOverride:
        """Suspend delivery until `resume`. Raises NotFound; InvalidInput for a stopped target."""
        return self._change(outlet, target_id, request, "target.pause", paused=True)

    def resume(self, outlet: str, target_id: str, request: TargetChange) -> TargetOverride:
        """Resume delivery: the remaining amount is planned again over the remaining traffic. Raises like `pause`."""
        return self._change(outlet, target_id, request, "target.resume", paused=False)

    def stop(self, outlet: str, target_id: str, request: TargetChange) -> TargetOverride:
        """Stop a target permanently; its delivered amount stays recorded. Raises like `pause`."""
        return self._change(outlet, target_id, request, "target.stop", stopped=True)

    def amount(self, outlet: str, target_id: str, request: AmountChange) -> TargetOverride:
        """Change the amount. Raises InvalidInput for a share above 1 or a fractional number of impressions."""
        target, problem = self._running(outlet, target_id).target, None
        if target.share is not None and request.amount > 1:
            problem = message("amount_share_above_one")
        elif target.share is None and not float(request.amount).is_integer():
            problem = message("amount_not_whole", amount=request.amount)
        if problem:
            raise InvalidInput(message("amount_unusable"), [Finding("body.amount", problem)])
        return self._change(outlet, target_id, request, "target.amount", amount=request.amount)

    def clone(self, outlet: str, target_id: str, request: CloneRequest) -> DraftAnswer:
        """Save a draft of the outlet's policy with one more target, which starts from the prices of this target.

        The amount defaults to the current amount of this target. The editor's YAML keeps its text and comments and
        gets one more entry; when that is not possible, the text is rewritten and a finding reports it.

        Raises NotFound; InvalidInput for an id in use, or an amount or a window that no target can have.
        """
        tracked = self._running(outlet, target_id)
        target, amount = tracked.target, request.amount if request.amount is not None else tracked.override.amount
        policy = self.policies.holders.policy_cache.own_policy(outlet)
        assert policy is not None, "a target in force has a policy"
        changes: dict[str, Any] = {"id": request.id, "since": request.since, "until": request.until, "like": target.id}
        if amount is not None:
            whole_amount = int(amount) if float(amount).is_integer() else amount  # validation refuses a fraction
            changes |= {"share": amount} if target.share is not None else {"impressions": whole_amount}
        try:
            cloned = ExposureTarget.model_validate({**target.model_dump(), **changes})
            extended = Policy.model_validate({**policy.model_dump(), "controls": [*policy.controls, cloned]})
        except ValidationError as error:
            raise InvalidInput(message("target_not_clonable"), findings_of(error)) from error
        original = self.control.version(outlet, policy.version).text
        text = _append_last_control(original, extended)
        note = request.note or f"{request.id}, like {target.id}"
        answer = self.policies.draft(
            outlet, DraftRequest(text=text or _as_json(extended), author=request.author, note=note)
        )
        if text is None and not original.lstrip().startswith("{"):
            answer.findings.append(FindingOut.of(Finding("", message("target_text_rewritten"))))
        return answer

    def _change(
        self, outlet: str, target_id: str, request: TargetChange, action: str, **changes: Any
    ) -> TargetOverride:
        key = self._running(outlet, target_id).key

        def change(override: TargetOverride) -> TargetOverride:
            if override.stopped:
                raise InvalidInput(message("target_was_stopped", key=key))
            return replace(override, **changes)

        return self.control.target_overrides.update(key, change, request.author, action, {"note": request.note})

    def _running(self, outlet: str, target_id: str) -> TrackedTarget:
        tracked = self.loop.running.get(f"{outlet}/{target_id}")
        if tracked is None:
            raise NotFound(message("target_not_found", id=target_id, outlet=outlet))
        return tracked


def _append_last_control(text: str, policy: Policy) -> str | None:
    """Append the last control of `policy` to the editor's text; return None unless the result parses to `policy`."""
    extended = append_control(text, _explicit_fields(policy.controls[-1]))
    if extended is None:
        return None
    try:
        parsed = parse_policy(extended)
    except PolicyError:
        return None
    return extended if _explicit_fields(parsed) == _explicit_fields(policy) else None


def _as_json(policy: Policy) -> str:
    return json.dumps(_explicit_fields(policy), ensure_ascii=False, indent=1)


def _explicit_fields(document: Policy | Control) -> dict[str, Any]:
    """Return the fields set by the editor, without those that every saved version sets itself."""
    omitted = {"version", "author"} if isinstance(document, Policy) else set()
    return document.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude=omitted)


def _report_fields(tracked: TrackedTarget) -> dict[str, Any]:
    target, delivery = tracked.target, tracked.status
    outlook = projected(delivery)
    return {
        "id": target.id,
        "outlet": tracked.outlet,
        "status": status(delivery),
        "description": describe(delivery),
        "bound": target.bound,
        "amount": delivery.amount,
        "share": None if target.share is None else (tracked.override.amount or target.share),
        "share_so_far": delivery.share_so_far,
        "delivered": delivery.delivered,
        "planned": delivery.planned,
        "progress": delivery.progress,
        "since": rfc3339(tracked.state.start),
        "until": target.until,
        "price": delivery.price,
        "max_price": target.price_limit,
        "price_unit": "play equivalents" if target.max_price is not None else "item utility",
        "pacing_error": delivery.pacing_error,
        "forecast": None
        if outlook is None
        else ForecastOut(
            expected=outlook.expected,
            low=outlook.low,
            high=outlook.high,
            at_risk=outlook.at_risk(delivery.amount, delivery.cap),
        ),
        "last_resort": delivery.last_resort,
        "counter_lag_s": delivery.counter_lag_s,
    }
