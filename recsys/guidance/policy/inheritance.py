"""Merge the policies of an outlet and of all its parents into one effective policy.

A child adds controls, and may redefine a parent's control under the same id. It may always make it stricter, but weaker
only if the parent's control is neither `legal` nor `mandatory`. If a child weakens a firm control, the parent's control
stays in force (guidance fails closed), and `lint` reports it to the child's editors.

If a page cannot meet all controls, they are relaxed in a fixed order: weaker enforcement first; within an enforcement
level, controls of child outlets first, then those of lower priority, then those later in the text (a profile's controls
come before those of its policy). Blocks are the most important controls within their enforcement level: they are
relaxed only for stricter controls. So a child's controls never relax a parent's control any further, unless they are
stricter, or are blocks of the same enforcement. If a child tightens a firm control under the same id, the parent's
version stays in force as `ID@OUTLET`; so a parent's firm target keeps its key, amount and frequency cap on the child's
pages.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from recsys.domain.errors import Finding, PolicyError
from recsys.domain.regions import within
from recsys.guidance.policy.controls import (
    ENFORCEMENT_ORDER,
    Block,
    Boost,
    Cap,
    Control,
    ExposureTarget,
    Pin,
    Quota,
    Spacing,
)
from recsys.guidance.policy.policy import Policy
from recsys.guidance.policy.profiles import Profile
from recsys.guidance.policy.subsumption import subsumes
from recsys.messages import Message, message

HARD = ("legal", "mandatory")
KEEP_SCOPE = message("must_keep_scope")


@dataclass(frozen=True)
class SourcedControl:
    """A control and its source.

    outlet  the outlet whose policy defines the control, or `profile:NAME`
    depth   number of outlets above the source; a profile has the depth of its outlet
    index   number of controls defined before this control
    """

    control: Control
    outlet: str
    depth: int = 0
    index: int = 0

    @property
    def is_hard(self) -> bool:
        """Return whether lower policies must not weaken the control."""
        return self.control.enforcement in HARD

    @property
    def alias(self) -> str:
        """Return the id in the policy that defines the control, without the suffix `@OUTLET`."""
        return self.control.id.partition("@")[0]

    def named(self, outlet: str) -> Message:
        """Return the name of the control for a message about a policy of `outlet`."""
        if self.outlet == outlet:
            return message("control", id=self.control.id)
        return message("control_of_outlet", id=self.control.id, outlet=self.outlet)

    @property
    def importance(self) -> tuple[int, bool, int, int, int]:
        """Return a sort key: the most important control first; later controls are relaxed first."""
        enforcement = ENFORCEMENT_ORDER.index(self.control.enforcement)
        return enforcement, not isinstance(self.control, Block), self.depth, -self.control.priority, self.index

    def outranks(self, rival: SourcedControl) -> bool:
        """Return whether the control has a stricter enforcement than `rival`."""
        return ENFORCEMENT_ORDER.index(self.control.enforcement) < ENFORCEMENT_ORDER.index(rival.control.enforcement)


@dataclass(frozen=True)
class EffectivePolicy:
    """The weights and controls in force for an outlet, the most important control first."""

    version: str  # "cn@3+cn.zj@1"; profiles precede their policy: "profile:mainstream-guidance@1+cn@3"
    weights: Mapping[str, float]
    controls: tuple[SourcedControl, ...]


def resolve_profiles(policy: Policy, profiles: Mapping[str, Profile]) -> Policy:
    """Return the policy with its profiles. Raises PolicyError that names the field of each unknown profile."""
    unknown = [
        Finding(
            _profile_field(policy.profile, index),
            message("profile_unknown", name=name, options=list(profiles) or message("nothing")),
        )
        for index, name in enumerate(policy.profile)
        if name not in profiles
    ]
    if unknown:
        raise PolicyError(message("policy_unusable"), unknown)
    return policy.with_profiles(tuple(profiles[name] for name in policy.profile))


def _profile_field(names: Sequence[str], index: int) -> str:
    return "profile" if len(names) == 1 else f"profile[{index}]"


def ancestry(policies: Sequence[Policy]) -> list[Policy]:
    """Return the policies from root to leaf. Raises PolicyError if their outlets are not one line."""
    line = sorted(policies, key=lambda policy: policy.outlet.count("."))
    for above, below in pairwise(line):
        if above.outlet == below.outlet or not within(below.outlet, above.outlet):
            raise PolicyError(message("policies_not_in_line", above=above.outlet, below=below.outlet))
    return line


def merge_policies(policies: Sequence[Policy]) -> EffectivePolicy:
    """Merge the policies of one line of outlets, in any order. Raises PolicyError as `ancestry` does."""
    line = ancestry(policies)
    weights: dict[str, float] = {}
    merger = _Merger()
    for depth, policy in enumerate(line):
        for profile in policy.resolved_profiles:
            weights |= profile.weights
            merger.add(profile.controls, profile.origin, depth)
        weights |= policy.weights
        merger.add(policy.controls, policy.outlet, depth)
    version = "+".join(_version_of(policy) for policy in line) or "none"
    return EffectivePolicy(version, weights, tuple(sorted(merger.all(), key=lambda origin: origin.importance)))


class _Merger:
    """A merge in progress: profiles and policies are added one after another, the highest first."""

    def __init__(self) -> None:
        self._n_controls = 0
        self._by_id: dict[str, SourcedControl] = {}
        self._parent_versions: list[SourcedControl] = []  # firm controls that a lower policy tightens

    def add(self, controls: Iterable[Control], outlet: str, depth: int) -> None:
        """Add the controls of a profile or policy; they replace higher controls of the same id where permitted."""
        for control in controls:
            above, sourced = self._by_id.get(control.id), SourcedControl(control, outlet, depth, self._n_controls)
            self._n_controls += 1
            if above is None or not above.is_hard:
                self._by_id[control.id] = sourced
            elif not _may_replace(above.control, control):
                continue
            elif isinstance(control, Boost) or (
                _is_same(above.control, control) and not isinstance(control, ExposureTarget)
            ):  # boosts have no outcome to compare; targets are counted for each outlet that defines them
                self._by_id[control.id] = replace(sourced, depth=above.depth, index=above.index)
            else:
                self._by_id[control.id] = sourced
                parent_version = above.control.model_copy(update={"id": f"{control.id}@{above.outlet}"})
                self._parent_versions.append(replace(above, control=parent_version))

    def all(self) -> list[SourcedControl]:
        return [*self._parent_versions, *self._by_id.values()]


def _is_same(a: Control, b: Control) -> bool:
    """Return whether two controls differ in their notes at most."""
    annotations = {"note", "legal_ref"}
    return a.model_dump(exclude=annotations) == b.model_dump(exclude=annotations)


def _version_of(policy: Policy) -> str:
    return "+".join(
        [
            *(f"{profile.origin}@{profile.version}" for profile in policy.resolved_profiles),
            f"{policy.outlet}@{policy.version}",
        ]
    )


def weakening_findings(policies: Sequence[Policy]) -> Iterator[Finding]:
    """Yield findings about controls of the last (lowest) policy that weaken a firm control of a parent.

    Also yield a hint for each target that runs in addition to the parent's target of the same id.
    """
    line = ancestry(policies)
    if not line:
        return
    policy = line[-1]
    bare = policy.model_copy(update={"controls": ()})  # its own profiles rank above its controls too
    above = {origin.control.id: origin for origin in merge_policies([*line[:-1], bare]).controls}
    for index, control in enumerate(policy.controls):
        parent = above.get(control.id)
        if parent is None or not parent.is_hard:
            continue
        if _may_replace(parent.control, control):
            if isinstance(control, ExposureTarget):
                separate = message(
                    "target_beside_parent",
                    policy=_describe_source(parent.outlet),
                    id=control.id,
                    enforcement=parent.control.enforcement,
                    key=f"{control.id}@{parent.outlet}",
                )
                yield Finding(f"controls[{index}].id", separate, "hint")
        else:
            for reason in _all_weakened(parent.control, control):
                loosened = message(
                    "control_loosened",
                    id=control.id,
                    enforcement=parent.control.enforcement,
                    policy=_describe_source(parent.outlet),
                    reason=reason,
                    outlet=parent.outlet,
                    suggestion=_must_repeat(parent.control, control) if reason == KEEP_SCOPE else None,
                )
                yield Finding(f"controls[{index}]", loosened)


def _describe_source(origin: str) -> Message:
    profile = origin.removeprefix("profile:")
    return message("policy_of_outlet", outlet=origin) if profile == origin else message("profile_named", name=profile)


def _may_replace(parent: Control, child: Control) -> bool:
    return parent.enforcement not in HARD or weakens(parent, child) is None


def weakens(parent: Control, child: Control) -> Message | None:
    """Return how the child's version of a control weakens the parent's; None if it does not."""
    return next(_all_weakened(parent, child), None)


def _all_weakened(parent: Control, child: Control) -> Iterator[Message]:
    """Yield the first reason each about importance, scope and amounts."""
    if type(parent) is not type(child):
        yield message("must_keep_action", parent=parent.action, child=child.action)
        return
    reasons = (_weakens_weight(parent, child), _weakens_slot(parent, child), _weakens_amounts(parent, child))
    yield from (reason for reason in reasons if reason)


def _weakens_weight(parent: Control, child: Control) -> Message | None:
    if ENFORCEMENT_ORDER.index(child.enforcement) > ENFORCEMENT_ORDER.index(parent.enforcement):
        return message("must_keep_enforcement", enforcement=child.enforcement)
    if child.enforcement == parent.enforcement and child.priority < parent.priority:
        return message("must_keep_priority", priority=parent.priority)
    return None


def _weakens_slot(parent: Control, child: Control) -> Message | None:
    return None if (child.on, child.active) == (parent.on, parent.active) else KEEP_SCOPE


def _must_repeat(parent: Control, child: Control) -> Message:
    """Return a suggestion for a child with another scope than its parent: the fields to repeat, as YAML."""
    differing = {
        name: getattr(parent, name) for name in ("on", "active") if getattr(parent, name) != getattr(child, name)
    }
    repeated = (
        f"{name}: {_inline_yaml(value.model_dump(mode='json', by_alias=True, exclude_defaults=True))}"
        for name, value in differing.items()
    )
    return message("did_you_mean", word=", ".join(repeated))


def _inline_yaml(value: object) -> str:
    """Return plain data as YAML on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_inline_yaml(member)}" for name, member in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_inline_yaml, value)) + "]"
    return f'"{value}"' if ":" in str(value) else str(value)


def _weakens_amounts(parent: Control, child: Control) -> Message | None:
    if isinstance(parent, Quota) and isinstance(child, Quota):
        return _weakens_quota(parent, child)
    if isinstance(parent, Cap) and isinstance(child, Cap):
        if parent.attribute != child.attribute:
            return message("must_keep_attribute", attribute=parent.attribute)
        return _above("at_most", parent.at_most, child.at_most)
    if isinstance(parent, Spacing) and isinstance(child, Spacing):
        if parent.attribute != child.attribute:
            return message("must_keep_attribute", attribute=parent.attribute)
        if child.within < parent.within:
            return message("must_keep_within", within=parent.within)
        return _above("at_most", parent.at_most, child.at_most)
    if isinstance(parent, Pin) and isinstance(child, Pin):
        return None if (parent.item, parent.slot) == (child.item, child.slot) else message("must_keep_pin")
    if isinstance(parent, Boost) and isinstance(child, Boost):
        return None if (parent.where, parent.bonus) == (child.where, child.bonus) else message("must_keep_bonus")
    if isinstance(parent, Block) and isinstance(child, Block):
        return None if subsumes(child.where, parent.where) else message("must_widen_condition")
    if isinstance(parent, ExposureTarget) and isinstance(child, ExposureTarget):
        return _weakens_target(parent, child)
    raise TypeError(f"no comparison of {type(parent).__name__}")


def _weakens_quota(parent: Quota, child: Quota) -> Message | None:
    if parent.where != child.where:
        return message("must_keep_condition")
    if parent.rounding == "strict" and child.rounding != "strict":
        return message("must_keep_rounding")
    if parent.prefixes == "every" and child.prefixes != "every":
        return message("must_keep_every_prefix")
    if child.at_least is not None and child.at_most is not None and _contradicts(child.at_least, child.at_most):
        return message("must_keep_cap_above_minimum", maximum=child.at_most, minimum=child.at_least)
    if child.prefixes != "every" and not set(parent.prefixes) <= set(child.prefixes):
        return message("must_keep_prefixes")
    if parent.at_least is not None:
        if child.at_least is None:
            return message("must_keep_minimum")
        if type(child.at_least) is not type(parent.at_least):
            return message("must_keep_unit")
        if child.at_least < parent.at_least:
            return message("must_not_lower_minimum", parent=parent.at_least, child=child.at_least)
    return _above("at_most", parent.at_most, child.at_most)


def _contradicts(floor: float, cap: float) -> bool:
    """Return whether a minimum and a maximum of the same items contradict each other on every page."""
    return cap < floor if type(cap) is type(floor) else cap == 0 < floor


def _weakens_target(parent: ExposureTarget, child: ExposureTarget) -> Message | None:
    """Compare two versions of a target, of which a child may tighten the amount only."""
    adjustable = {"id", "enforcement", "priority", "note", "impressions", "share", "max_price", "tolerance"}
    if parent.model_dump(exclude=adjustable) != child.model_dump(exclude=adjustable):
        return message("target_must_keep_rest")
    parent_amount, child_amount = parent.impressions or parent.share, child.impressions or child.share
    if (parent.share is None) != (child.share is None) or parent_amount is None or child_amount is None:
        return message("target_must_keep_unit")
    tighter = child_amount >= parent_amount if parent.bound == "at_least" else child_amount <= parent_amount
    if not tighter:
        return message("target_must_not_be_eased", amount=parent_amount)
    if parent.max_price is None:
        return None if child.max_price is None else message("target_must_keep_default_price")
    if child.max_price is None or child.max_price < parent.max_price:
        return message("target_must_keep_price", price=parent.max_price)
    return None


def _above(name: str, parent: float | None, child: float | None) -> Message | None:
    if parent is None:
        return None
    if child is None:
        return message("must_keep_cap")
    if type(child) is not type(parent):
        return message("must_keep_unit")
    return message("must_not_raise_cap", field=name, parent=parent, child=child) if child > parent else None
