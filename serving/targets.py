"""What editors do with exposure targets: look, pause, resume, stop, ask for more or less, begin another like it."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from recsys.errors import Finding, InvalidInput, NotFound, PolicyError
from recsys.guidance.appended import with_control
from recsys.guidance.documents import findings_of
from recsys.guidance.policy import Control, ExposureTarget, Policy, parse_policy
from recsys.guidance.targets.pursuit import Order
from recsys.guidance.targets.words import foreseen, sentence, status
from recsys.messages import message
from serving.control import ControlPlane
from serving.desk import PolicyDesk
from serving.problems import Place
from serving.pursuits import Running, TargetLoop
from serving.schemas import DraftAnswer, DraftRequest, Found, rfc3339
from serving.target_schemas import (
    AmountOrder,
    CloneOrder,
    ForecastOut,
    Moment,
    TargetOrder,
    TargetOut,
    TargetReport,
)


@dataclass(frozen=True)
class TargetDesk:
    """Targets in force, as this process pursues them; orders go to the control plane and are on the record."""

    loop: TargetLoop
    control: ControlPlane
    desk: PolicyDesk

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
                Moment.model_validate({"at": rfc3339(at), "planned": planned, "delivered": delivered, "price": price})
                for at, planned, delivered, price in one.pursuit.trail
            ],
            usual_prices=list(one.pursuit.steering.learnt()),
            capped_impressions=one.impressions,
            paused=one.order.paused,
            stopped=one.order.stopped,
        )

    def pause(self, outlet: str, target_id: str, said: TargetOrder) -> Order:
        """No push until it is resumed. Raises NotFound, InvalidInput for a stopped one."""
        return self._change(outlet, target_id, said, "target.pause", paused=True)

    def resume(self, outlet: str, target_id: str, said: TargetOrder) -> Order:
        """Push again: what is left is planned anew over the traffic that is left."""
        return self._change(outlet, target_id, said, "target.resume", paused=False)

    def stop(self, outlet: str, target_id: str, said: TargetOrder) -> Order:
        """End it for good; what it delivered stays on the record."""
        return self._change(outlet, target_id, said, "target.stop", stopped=True)

    def amount(self, outlet: str, target_id: str, said: AmountOrder) -> Order:
        """Another amount from here on. Raises InvalidInput for a share above 1 and for a part of an impression."""
        target, wrong = self._running(outlet, target_id).target, None
        if target.share is not None and said.amount > 1:
            wrong = message("amount_share_above_one")
        elif target.share is None and not float(said.amount).is_integer():
            wrong = message("amount_not_whole", amount=said.amount)
        if wrong:
            raise InvalidInput(message("amount_unusable"), [Finding("body.amount", wrong)])
        return self._change(outlet, target_id, said, "target.amount", amount=said.amount)

    def clone(self, outlet: str, target_id: str, said: CloneOrder) -> DraftAnswer:
        """Save the outlet's policy with one more target, which begins with this one's prices; to be published next.

        Without an amount of its own it asks for what this one asks for by now. The editor's YAML stays as it is and
        gets one more entry; where that cannot be, a finding says so.

        Raises NotFound; InvalidInput for an id that is taken, an amount or a window that no target can have.
        """
        one = self._running(outlet, target_id)
        target, amount = one.target, said.amount if said.amount is not None else one.order.amount
        policy = self.desk.holders.shelf.own(outlet)
        assert policy is not None, "a target in force has a policy"
        changes: dict[str, Any] = {"id": said.id, "since": said.since, "by": said.by, "like": target.id}
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
            answer.findings.append(Found(**Place.of(Finding("", message("target_text_rewritten"))).model_dump()))
        return answer

    def _change(self, outlet: str, target_id: str, said: TargetOrder, action: str, **changes: Any) -> Order:
        key = self._running(outlet, target_id).key

        def change(order: Order) -> Order:
            if order.stopped:
                raise InvalidInput(message("target_was_stopped", key=key))
            return replace(order, **changes)

        return self.control.orders.change(key, change, said.author, action, {"note": said.note})

    def _running(self, outlet: str, target_id: str) -> Running:
        one = self.loop.running.get(f"{outlet}/{target_id}")
        if one is None:
            raise NotFound(message("target_not_found", id=target_id, outlet=outlet))
        return one


def _appended(text: str, whole: Policy) -> str | None:
    """What the editor wrote, with the last control of `whole` after it; None unless it then says just that."""
    more = with_control(text, _said(whole.controls[-1]))
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


def _out(one: Running) -> dict[str, Any]:
    target, s = one.target, one.standing
    outlook = foreseen(s)
    return {
        "id": target.id,
        "outlet": one.outlet,
        "status": status(s),
        "says": sentence(s),
        "bound": target.bound,
        "amount": s.amount,
        "share": None if target.share is None else (one.order.amount or target.share),
        "share_so_far": s.so_far,
        "delivered": s.delivered,
        "planned": s.planned,
        "progress": s.progress,
        "since": rfc3339(one.pursuit.start),
        "by": target.by,
        "price": s.price,
        "max_price": target.max_price,
        "pacing_error": s.pacing_error,
        "forecast": None
        if outlook is None
        else ForecastOut(
            expected=outlook.expected, low=outlook.low, high=outlook.high, at_risk=outlook.at_risk(s.amount, s.cap)
        ),
        "last_resort": s.resort,
        "late_s": s.late_s,
    }
