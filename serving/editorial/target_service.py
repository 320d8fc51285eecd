"""What editors do with exposure targets: look, pause, resume, stop, ask for more or less, begin another like it."""

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
    """Targets in force, as this process pursues them; orders go to the control plane and are on the record."""

    loop: PacingLoop
    control: ControlPlane
    desk: PolicyService

    def all(self, outlet: str | None = None) -> list[TargetOut]:
        """Every target in force, of one outlet's policy or of all, in the order of their ids."""
        wanted = [one for one in self.loop.running.values() if outlet in (None, one.outlet)]
        return [TargetOut(**_out(one)) for one in sorted(wanted, key=lambda one: one.key)]

    def report(self, outlet: str, target_id: str) -> TargetReport:
        """One target with its course. Raises NotFound."""
        one = self._running(outlet, target_id)
        return TargetReport(
            **_out(one),
            course=[
                CurvePoint.model_validate(
                    {"at": rfc3339(at), "planned": planned, "delivered": delivered, "price": price}
                )
                for at, planned, delivered, price in one.state.trail
            ],
            usual_prices=list(one.state.controller.learned_prices()),
            capped_impressions=one.impressions,
            paused=one.override.paused,
            stopped=one.override.stopped,
        )

    def pause(self, outlet: str, target_id: str, said: TargetChange) -> TargetOverride:
        """No push until it is resumed. Raises NotFound, InvalidInput for a stopped one."""
        return self._change(outlet, target_id, said, "target.pause", paused=True)

    def resume(self, outlet: str, target_id: str, said: TargetChange) -> TargetOverride:
        """Push again: what is left is planned anew over the traffic that is left."""
        return self._change(outlet, target_id, said, "target.resume", paused=False)

    def stop(self, outlet: str, target_id: str, said: TargetChange) -> TargetOverride:
        """End it for good; what it delivered stays on the record."""
        return self._change(outlet, target_id, said, "target.stop", stopped=True)

    def amount(self, outlet: str, target_id: str, said: AmountChange) -> TargetOverride:
        """Another amount from here on. Raises InvalidInput for a share above 1 and for a part of an impression."""
        target, wrong = self._running(outlet, target_id).target, None
        if target.share is not None and said.amount > 1:
            wrong = message("amount_share_above_one")
        elif target.share is None and not float(said.amount).is_integer():
            wrong = message("amount_not_whole", amount=said.amount)
        if wrong:
            raise InvalidInput(message("amount_unusable"), [Finding("body.amount", wrong)])
        return self._change(outlet, target_id, said, "target.amount", amount=said.amount)

    def clone(self, outlet: str, target_id: str, said: CloneRequest) -> DraftAnswer:
        """Save the outlet's policy with one more target, which begins with this one's prices; to be published next.

        Without an amount of its own it asks for what this one asks for by now. The editor's YAML stays as it is and
        gets one more entry; where that cannot be, a finding says so.

        Raises NotFound; InvalidInput for an id that is taken, an amount or a window that no target can have.
        """
        one = self._running(outlet, target_id)
        target, amount = one.target, said.amount if said.amount is not None else one.override.amount
        policy = self.desk.holders.policy_cache.own_policy(outlet)
        assert policy is not None, "a target in force has a policy"
        changes: dict[str, Any] = {"id": said.id, "since": said.since, "until": said.until, "like": target.id}
        if amount is not None:
            whole_amount = int(amount) if float(amount).is_integer() else amount  # a fraction is refused
            changes |= {"share": amount} if target.share is not None else {"impressions": whole_amount}
        try:
            again = ExposureTarget.model_validate({**target.model_dump(), **changes})
            whole = Policy.model_validate({**policy.model_dump(), "controls": [*policy.controls, again]})
        except ValidationError as error:
            raise InvalidInput(message("target_not_clonable"), findings_of(error)) from error
        written = self.control.version(outlet, policy.version).text
        text = _appended(written, whole)
        note = said.note or f"{said.id}, like {target.id}"
        answer = self.desk.draft(outlet, DraftRequest(text=text or _rewritten(whole), author=said.author, note=note))
        if text is None and not written.lstrip().startswith("{"):
            answer.findings.append(FindingOut.of(Finding("", message("target_text_rewritten"))))
        return answer

    def _change(self, outlet: str, target_id: str, said: TargetChange, action: str, **changes: Any) -> TargetOverride:
        key = self._running(outlet, target_id).key

        def change(order: TargetOverride) -> TargetOverride:
            if order.stopped:
                raise InvalidInput(message("target_was_stopped", key=key))
            return replace(order, **changes)

        return self.control.target_overrides.update(key, change, said.author, action, {"note": said.note})

    def _running(self, outlet: str, target_id: str) -> TrackedTarget:
        one = self.loop.running.get(f"{outlet}/{target_id}")
        if one is None:
            raise NotFound(message("target_not_found", id=target_id, outlet=outlet))
        return one


def _appended(text: str, whole: Policy) -> str | None:
    """What the editor wrote, with the last control of `whole` after it; None unless it then says just that."""
    more = append_control(text, _said(whole.controls[-1]))
    try:
        return more if more is not None and _said(parse_policy(more)) == _said(whole) else None
    except PolicyError:
        return None


def _rewritten(whole: Policy) -> str:
    return json.dumps(_said(whole), ensure_ascii=False, indent=1)


def _said(part: Policy | Control) -> dict[str, Any]:
    """What was said, without what every saved version gets anew."""
    leave = {"version", "author"} if isinstance(part, Policy) else set()
    return part.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude=leave)


def _out(one: TrackedTarget) -> dict[str, Any]:
    target, s = one.target, one.status
    outlook = projected(s)
    return {
        "id": target.id,
        "outlet": one.outlet,
        "status": status(s),
        "description": describe(s),
        "bound": target.bound,
        "amount": s.amount,
        "share": None if target.share is None else (one.override.amount or target.share),
        "share_so_far": s.share_so_far,
        "delivered": s.delivered,
        "planned": s.planned,
        "progress": s.progress,
        "since": rfc3339(one.state.start),
        "until": target.until,
        "price": s.price,
        "max_price": target.max_price,
        "pacing_error": s.pacing_error,
        "forecast": None
        if outlook is None
        else ForecastOut(
            expected=outlook.expected, low=outlook.low, high=outlook.high, at_risk=outlook.at_risk(s.amount, s.cap)
        ),
        "last_resort": s.last_resort,
        "late_s": s.late_s,
    }
