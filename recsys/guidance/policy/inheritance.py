"""Parents and children: one effective policy out of those of an outlet and of all outlets above it.

A child adds controls, and may say a parent's control anew under the same id: tighter always, looser only when the
parent's is neither `legal` nor `binding`. Where a child loosens what it may not, the parent's control stays in force
(guidance fails closed) and `lint` tells the child's editors.

Who gives way where a page cannot keep everything is one order for all: what is softer first; within one enforcement what
was said further down the line of outlets, then the lower priority, then what the text has later (a profile's before its
policy's own). Blocks come first within their enforcement: they yield to harder controls only. So no child makes a parent's
control give way by one slot more, but by what is harder, or by a block that is as hard. Where a child asks more of a
firm control under its own id, the parent's own form stays in force beside it, as `ID@OUTLET`; a parent's firm target so
keeps its key, amount and frequency cap on the child's pages.
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

HARD = ("legal", "mandatory")
INDEX = "where and when it is in force may not change"


@dataclass(frozen=True)
class SourcedControl:
    """A control and the outlet whose policy said it, or the profile it comes from (`profile:NAME`).

    depth  how many outlets of the line speak above the one that said it; a profile speaks with its outlet
    place  how many controls were said before it
    """

    control: Control
    outlet: str
    depth: int = 0
    index: int = 0

    @property
    def is_hard(self) -> bool:
        """Whether nobody below may loosen it."""
        return self.control.enforcement in HARD

    @property
    def alias(self) -> str:
        """The id that its own policy gave it, without the outlet that it has beside a child's form."""
        return self.control.id.partition("@")[0]

    @property
    def importance(self) -> tuple[int, bool, int, int, int]:
        """Sorts the most important first; a control that stands later gives way earlier."""
        enforcement = ENFORCEMENT_ORDER.index(self.control.enforcement)
        return enforcement, not isinstance(self.control, Block), self.depth, -self.control.priority, self.index

    def outranks(self, other: SourcedControl) -> bool:
        """Whether its enforcement alone puts it before the other."""
        return ENFORCEMENT_ORDER.index(self.control.enforcement) < ENFORCEMENT_ORDER.index(other.control.enforcement)


@dataclass(frozen=True)
class EffectivePolicy:
    """What is in force for an outlet: weights and controls, the most important control first."""

    version: str  # "cn@3+cn.zj@1", each policy's profiles before it: "profile:mainstream-guidance@1+cn@3"
    weights: Mapping[str, float]
    controls: tuple[SourcedControl, ...]


def resolve_profiles(policy: Policy, profiles: Mapping[str, Profile]) -> Policy:
    """Return the policy with the profiles that it names. Raises PolicyError at the field of one that does not exist."""
    unknown = [
        Finding(
            _profile_field(policy.profile, place),
            f"there is no profile {name!r}; there are {', '.join(profiles) or 'none'}",
        )
        for place, name in enumerate(policy.profile)
        if name not in profiles
    ]
    if unknown:
        raise PolicyError("the policy cannot be used", unknown)
    return policy.with_profiles(tuple(profiles[name] for name in policy.profile))


def _profile_field(names: Sequence[str], place: int) -> str:
    return "profile" if len(names) == 1 else f"profile[{place}]"


def ancestry(policies: Sequence[Policy]) -> list[Policy]:
    """The policies from root to leaf. Raises PolicyError when they are not of one line of outlets."""
    line = sorted(policies, key=lambda policy: policy.outlet.count("."))
    for above, below in pairwise(line):
        if above.outlet == below.outlet or not within(below.outlet, above.outlet):
            raise PolicyError(f"policies of {above.outlet} and {below.outlet} are not of one line of outlets")
    return line


def merge_policies(policies: Sequence[Policy]) -> EffectivePolicy:
    """Fold the policies of one line of outlets, in any order, into one. Raises PolicyError as `chain` does."""
    line = ancestry(policies)
    weights: dict[str, float] = {}
    said = _Merger()
    for depth, policy in enumerate(line):
        for ready in policy.resolved_profiles:
            weights |= ready.weights
            said.add(ready.controls, ready.origin, depth)
        weights |= policy.weights
        said.add(policy.controls, policy.outlet, depth)
    version = "+".join(_named(policy) for policy in line) or "none"
    return EffectivePolicy(version, weights, tuple(sorted(said.all(), key=lambda origin: origin.importance)))


class _Merger:
    """What was said so far, by voices that speak one after the other, the highest first."""

    def __init__(self) -> None:
        self._heard = 0
        self._by_id: dict[str, SourcedControl] = {}
        self._beside: list[SourcedControl] = []  # firm controls that somebody below asks more of

    def add(self, controls: Iterable[Control], by: str, depth: int) -> None:
        """Put the controls said by one voice over those said above it, where they may."""
        for control in controls:
            above, said = self._by_id.get(control.id), SourcedControl(control, by, depth, self._heard)
            self._heard += 1
            if above is None or not above.is_hard:
                self._by_id[control.id] = said
            elif not _may_replace(above.control, control):
                continue
            elif isinstance(control, Boost) or (
                _same(above.control, control) and not isinstance(control, ExposureTarget)
            ):  # no page asks how much of it is kept; what is counted is counted for each outlet that says it
                self._by_id[control.id] = replace(said, depth=above.depth, index=above.index)
            else:
                self._by_id[control.id] = said
                held = above.control.model_copy(update={"id": f"{control.id}@{above.outlet}"})
                self._beside.append(replace(above, control=held))

    def all(self) -> list[SourcedControl]:
        return [*self._beside, *self._by_id.values()]


def _same(one: Control, other: Control) -> bool:
    """Whether both ask the same, with the same weight."""
    words = {"note", "legal_ref"}
    return one.model_dump(exclude=words) == other.model_dump(exclude=words)


def _named(policy: Policy) -> str:
    return "+".join(
        [
            *(f"{ready.origin}@{ready.version}" for ready in policy.resolved_profiles),
            f"{policy.outlet}@{policy.version}",
        ]
    )


def weakening_findings(policies: Sequence[Policy]) -> Iterator[Finding]:
    """Every control of the last (lowest) policy that loosens what a parent holds firm, and every target that does not
    take the place of the parent's."""
    line = ancestry(policies)
    if not line:
        return
    policy = line[-1]
    bare = policy.model_copy(update={"controls": ()})  # its profiles stand above its own controls too
    above = {origin.control.id: origin for origin in merge_policies([*line[:-1], bare]).controls}
    for place, control in enumerate(policy.controls):
        parent = above.get(control.id)
        if parent is None or not parent.is_hard:
            continue
        if _may_replace(parent.control, control):
            if isinstance(control, ExposureTarget):
                yield Finding(
                    f"controls[{place}].id",
                    f"{_describe_source(parent.outlet)} has a target {control.id!r} that is {parent.control.enforcement}: it goes "
                    f"on here as {control.id}@{parent.outlet}, and this one is counted and steered beside it",
                    "hint",
                )
        else:
            for how in _all_weakened(parent.control, control):
                yield Finding(
                    f"controls[{place}]",
                    f"{control.id!r} is {parent.control.enforcement} in {_describe_source(parent.outlet)}: {how}; "
                    f"the control of {parent.outlet} stays in force{_must_repeat(parent.control, control, how)}",
                )


def _describe_source(origin: str) -> str:
    return (
        f"the profile {origin.removeprefix('profile:')}" if origin.startswith("profile:") else f"the policy of {origin}"
    )


def _may_replace(parent: Control, child: Control) -> bool:
    return parent.enforcement not in HARD or weakens(parent, child) is None


def weakens(parent: Control, child: Control) -> str | None:
    """What in the child's form of a control asks less than the parent's; None when it asks at least as much."""
    return next(_all_weakened(parent, child), None)


def _all_weakened(parent: Control, child: Control) -> Iterator[str]:
    """How weighty it is, where it is in force and how much it asks: of each the first word that is less."""
    if type(parent) is not type(child):
        yield f"it must stay a {parent.action}, not become a {child.action}"
        return
    less = (_weakens_weight(parent, child), _weakens_slot(parent, child), _weakens_amounts(parent, child))
    yield from (how for how in less if how)


def _weakens_weight(parent: Control, child: Control) -> str | None:
    if ENFORCEMENT_ORDER.index(child.enforcement) > ENFORCEMENT_ORDER.index(parent.enforcement):
        return f"its enforcement may not sink to {child.enforcement}"
    if child.enforcement == parent.enforcement and child.priority < parent.priority:
        return f"its priority may not sink below {parent.priority}"
    return None


def _weakens_slot(parent: Control, child: Control) -> str | None:
    return None if (child.on, child.active) == (parent.on, parent.active) else INDEX


def _must_repeat(parent: Control, child: Control, how: str) -> str:
    """Of a control that is in force elsewhere than the parent's: what of it must be said again, as YAML."""
    if how != INDEX:
        return ""
    said = {name: getattr(parent, name) for name in ("on", "active") if getattr(parent, name) != getattr(child, name)}
    again = (
        f"{name}: {_inline_yaml(one.model_dump(mode='json', by_alias=True, exclude_defaults=True))}"
        for name, one in said.items()
    )
    return f"; did you mean '{', '.join(again)}'?"


def _inline_yaml(said: object) -> str:
    """Plain values as YAML on one line."""
    if isinstance(said, dict):
        return "{" + ", ".join(f"{name}: {_inline_yaml(one)}" for name, one in said.items()) + "}"
    if isinstance(said, list | tuple):
        return "[" + ", ".join(map(_inline_yaml, said)) + "]"
    return f'"{said}"' if ":" in str(said) else str(said)


def _weakens_amounts(parent: Control, child: Control) -> str | None:
    if isinstance(parent, Quota) and isinstance(child, Quota):
        return _weakens_quota(parent, child)
    if isinstance(parent, Cap) and isinstance(child, Cap):
        if parent.attribute != child.attribute:
            return f"it must stay about {parent.attribute}"
        return _above("at_most", parent.at_most, child.at_most)
    if isinstance(parent, Spacing) and isinstance(child, Spacing):
        if parent.attribute != child.attribute:
            return f"it must stay about {parent.attribute}"
        if child.within < parent.within:
            return f"within may not sink below {parent.within}"
        return _above("at_most", parent.at_most, child.at_most)
    if isinstance(parent, Pin) and isinstance(child, Pin):
        return None if (parent.item, parent.slot) == (child.item, child.slot) else "its item and slot may not change"
    if isinstance(parent, Boost) and isinstance(child, Boost):
        return None if (parent.where, parent.bonus) == (child.where, child.bonus) else "its bonus may not change"
    if isinstance(parent, Block) and isinstance(child, Block):
        return None if subsumes(child.where, parent.where) else "its condition may only widen: any: [the parent's, ...]"
    if isinstance(parent, ExposureTarget) and isinstance(child, ExposureTarget):
        return _weakens_target(parent, child)
    raise TypeError(f"no comparison of {type(parent).__name__}")


def _weakens_quota(parent: Quota, child: Quota) -> str | None:
    if parent.where != child.where:
        return "its condition may not change"
    if parent.rounding == "strict" and child.rounding != "strict":
        return "its rounding must stay strict"
    if parent.prefixes == "every" and child.prefixes != "every":
        return "it must stay on every prefix"
    if child.at_least is not None and child.at_most is not None and _contradicts(child.at_least, child.at_most):
        return f"its cap of {child.at_most:g} is below its own floor of {child.at_least:g}"
    if child.prefixes != "every" and not set(parent.prefixes) <= set(child.prefixes):
        return "it must keep all its prefixes"
    if parent.at_least is not None:
        if child.at_least is None:
            return "its floor may not go"
        if type(child.at_least) is not type(parent.at_least):
            return "a share must stay a share, a number of items a number of items"
        if child.at_least < parent.at_least:
            return f"a child may raise the floor of {parent.at_least:g}, not lower it to {child.at_least:g}"
    return _above("at_most", parent.at_most, child.at_most)


def _contradicts(floor: float, cap: float) -> bool:
    """Whether a floor and a cap on the same items exclude each other on every page."""
    return cap < floor if type(cap) is type(floor) else cap == 0 < floor


def _weakens_target(parent: ExposureTarget, child: ExposureTarget) -> str | None:
    """Whose amount may be tightened, and all else stays."""
    free = {"id", "enforcement", "priority", "note", "impressions", "share", "max_price", "tolerance"}
    if parent.model_dump(exclude=free) != child.model_dump(exclude=free):
        return "of an exposure target only amount, tolerance and price may change"
    asked, wanted = parent.impressions or parent.share, child.impressions or child.share
    if (parent.share is None) != (child.share is None) or asked is None or wanted is None:
        return "a share must stay a share, an amount an amount"
    tighter = wanted >= asked if parent.bound == "at_least" else wanted <= asked
    if not tighter:
        return f"a child may ask more than {asked:g} of the target, not less"
    return None if child.max_price >= parent.max_price else f"max_price may not sink below {parent.max_price:g}"


def _above(name: str, parent: float | None, child: float | None) -> str | None:
    if parent is None:
        return None
    if child is None:
        return "its cap may not go"
    if type(child) is not type(parent):
        return "a share must stay a share, a number of items a number of items"
    return f"a child may lower {name} from {parent:g}, not raise it to {child:g}" if child > parent else None
