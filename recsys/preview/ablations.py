"""Variants of a policy: without one control, or at a different strength."""

from __future__ import annotations

from dataclasses import replace

from recsys.guidance.compilation.compile import CompiledPolicy
from recsys.guidance.policy.controls import Boost, Cap, Control, Pin, Quota, Spacing
from recsys.guidance.policy.inheritance import HARD, SourcedControl

STRENGTHS: tuple[float, ...] = (0.0, 0.5, 1.0, 1.5, 2.0)
"""Strengths of the frontier: 0 keeps only legal and mandatory controls, 1 is the policy as written."""


def without(policy: CompiledPolicy, control_id: str) -> CompiledPolicy:
    """Return the policy without a control."""
    rest = tuple(origin for origin in policy.controls if origin.control.id != control_id)
    return replace(policy, effective=replace(policy.effective, controls=rest))


def at_strength(policy: CompiledPolicy, strength: float) -> CompiledPolicy:
    """Return the policy with weights, boosts, and editorial and preferred controls scaled by `strength`.

    Minimums are multiplied. For a maximum given as a share, the excluded part (1 - maximum) is multiplied. Spacings and
    pins apply from strength 0.5. Legal and mandatory controls never change, because editors may not trade them.
    """
    controls = tuple(
        origin if origin.control.enforcement in HARD and not isinstance(origin.control, Boost) else changed
        for origin in policy.controls
        if (changed := _scaled(origin, strength)) is not None
    )
    weights = {axis: weight * strength for axis, weight in policy.effective.weights.items()}
    scaled = replace(policy.effective, controls=controls, weights=weights)
    return replace(policy, effective=scaled, weight_bonus=policy.weight_bonus * strength)


def _scaled(origin: SourcedControl, strength: float) -> SourcedControl | None:
    """Return the scaled control; None if it is dropped at this strength."""
    is_hard = origin.control.enforcement in HARD
    control = _scaled_control(origin.control, strength)
    if control is None:
        return origin if is_hard and not isinstance(origin.control, Boost) else None
    return replace(origin, control=control)


def _scaled_control(control: Control, strength: float) -> Control | None:
    if isinstance(control, Boost):
        return control.model_copy(update={"bonus": control.bonus * strength})
    if isinstance(control, Quota):
        minimum, maximum = _scaled_minimum(control.at_least, strength), _scaled_maximum(control.at_most, strength)
        if minimum is None and maximum is None:
            return None
        return control.model_copy(update={"at_least": minimum, "at_most": maximum})
    if isinstance(control, Cap):
        maximum = _scaled_maximum(control.at_most, strength)
        return None if maximum is None else control.model_copy(update={"at_most": maximum})
    if isinstance(control, Pin | Spacing):
        return control if strength >= 0.5 else None
    return control


def _scaled_minimum(amount: float | None, strength: float) -> float | None:
    """Return a minimum scaled by `strength`; None if nothing is required.

    >>> _scaled_minimum(0.3, 2.0), _scaled_minimum(3, 0.5), _scaled_minimum(0.6, 2.0), _scaled_minimum(0.3, 0.0)
    (0.6, 2, 1.0, None)
    """
    if amount is None or strength == 0:
        return None
    if isinstance(amount, int):
        return round(amount * strength + 1e-9) or None
    return min(amount * strength, 1.0)


def _scaled_maximum(amount: float | None, strength: float) -> float | None:
    """Return a maximum scaled by `strength`; None if nothing is limited.

    >>> _scaled_maximum(0.8, 0.5), _scaled_maximum(0.8, 0.0), _scaled_maximum(4, 2.0)
    (0.9, None, 2)
    """
    if amount is None or strength == 0:
        return None
    if isinstance(amount, int):
        return max(1, round(amount / strength)) if amount else 0
    return min(max(1.0 - (1.0 - amount) * strength, 0.0), 1.0)
