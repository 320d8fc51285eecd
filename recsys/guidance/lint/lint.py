"""What editors should know about a policy before it is published, each finding at its field, in their words.

The policy itself is looked at first (words that mean nothing, rules that never act, parents loosened); then it is put
to the test: pages are solved from all that may be shown now, for every screen and region it speaks of, and whatever
gives way there could never be kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from recsys.domain.catalog import Catalog
from recsys.domain.errors import Finding, PolicyError
from recsys.guidance.compilation.compile import compile_policy
from recsys.guidance.lint.blocked_floors import blocks_starving_minimums
from recsys.guidance.lint.contradictions import contradictions, unreachable_slots
from recsys.guidance.lint.dry_run import dry_run
from recsys.guidance.lint.unknown_terms import did_you_mean, unknown_terms
from recsys.guidance.policy.controls import Block, Boost, Cap, ExposureTarget, Quota
from recsys.guidance.policy.inheritance import ancestry, weakening_findings
from recsys.guidance.policy.policy import Policy
from recsys.messages import message
from recsys.pacing.checks import check_target

PREFERRED_MIN_WARN = 0.5
"""A `soft` floor above this share of the page is worth a word: whoever writes it may think that it yields to cost."""


def lint(
    policies: Sequence[Policy],
    catalog: Catalog,
    now: float,
    worth: float | None = None,
    clock: Callable[[], float] | None = None,
) -> tuple[Finding, ...]:
    """Findings about the last (lowest) policy of one line of outlets, below its parents, on the present catalogue.

    A finding does not forbid publishing, so it is a warning (a control will not do what it says) or a hint (it does
    nothing that shows): inventory changes, and what cannot be kept gives way on the receipt. Only policies that are not
    of one line are an error.

    clock  seconds, to bound how long pages are rehearsed (`rehearse`)
    worth  utility of the item in a slot, about, in play equivalents; None: not known, so that no weight is too large
    """
    try:
        line = ancestry(policies)
    except PolicyError as error:
        return (Finding("outlet", error.text),)
    if not line:
        return ()
    policy = line[-1]
    found = (
        *weakening_findings(line),
        *_weights(policy, catalog, worth),
        *_controls(policy, now),
        *unknown_terms(policy, catalog),
        *_without_effect(line, catalog),
        *blocks_starving_minimums(line, catalog),
        *_dry_run_findings(line, catalog, now, clock),
    )
    return tuple(one if one.level == "hint" else replace(one, level="warning") for one in found)


def _dry_run_findings(
    line: Sequence[Policy], catalog: Catalog, now: float, clock: Callable[[], float] | None
) -> Iterator[Finding]:
    """What shows only when all controls act at once. A floor that is larger than its pages is told alone, and the
    others are put to the test as if it asked for nothing: what it would push away is not their fault."""
    policy = line[-1]
    beyond = unreachable_slots(policy)
    yield from beyond.values()
    controls = tuple(
        control.model_copy(update={"at_least": 0}) if place in beyond else control
        for place, control in enumerate(policy.controls)
    )
    rest = [*line[:-1], policy.model_copy(update={"controls": controls})]
    for finding in (*contradictions(rest, catalog), *dry_run(rest, catalog, now, clock)):
        if not any(finding.where.startswith(f"controls[{place}]") for place in beyond):
            yield finding


def _weights(policy: Policy, catalog: Catalog, worth: float | None) -> Iterator[Finding]:
    for axis, weight in policy.weights.items():
        if axis not in catalog.axes.code:
            close = did_you_mean(axis, catalog.axes.names, "")
            unknown = message("weight_axis_unknown", suggestion=close)
            yield Finding(f"weights.{axis}", unknown, "warning" if close else "hint")
        elif len(catalog) and np.ptp(catalog.axis[:, catalog.axes.code[axis]]) == 0:
            yield Finding(f"weights.{axis}", message("weight_axis_constant"), "hint")
        elif weight == 0:
            yield Finding(f"weights.{axis}", message("weight_zero"), "hint")
        elif worth and (most := weight * float(catalog.axis[:, catalog.axes.code[axis]].max())) > worth:
            large = message("weight_too_large", most=most, utility=worth, usual=worth / 10)
            yield Finding(f"weights.{axis}", large)


def _controls(policy: Policy, now: float) -> Iterator[Finding]:
    """What is odd about a control all by itself."""
    for place, control in enumerate(policy.controls):
        here = f"controls[{place}]"
        until = control.active.until
        if until is not None and until.timestamp() <= now:
            yield Finding(f"{here}.active.until", message("control_ended", id=control.id, at=until.isoformat()))
        elif control.active.next(now) is None:
            yield Finding(f"{here}.active", message("control_never_active", id=control.id))
        if isinstance(control, Quota):
            yield from _share(here, control)
        elif isinstance(control, ExposureTarget):
            yield from check_target(here, control, policy, now)
        elif isinstance(control, Cap) and control.at_most in (0, 1.0) and isinstance(control.at_most, float):
            nothing = control.at_most == 0
            odd = message("cap_blocks_all") if nothing else message("cap_allows_all")
            yield Finding(f"{here}.at_most", odd, "warning" if nothing else "hint")
        elif isinstance(control, Boost) and control.bonus == 0:
            yield Finding(f"{here}.bonus", message("boost_zero"), "hint")


def _share(here: str, share: Quota) -> Iterator[Finding]:
    least, most = share.at_least, share.at_most
    if least is not None and most is not None and type(least) is type(most) and least > most:
        yield Finding(f"{here}.at_least", message("floor_above_cap", minimum=least, maximum=most))
    if least == 0 and most is None:
        yield Finding(f"{here}.at_least", message("floor_zero"), "hint")
    if share.enforcement == "preferred" and isinstance(least, float) and least > PREFERRED_MIN_WARN:
        yield Finding(f"{here}.enforcement", message("preferred_floor_large", share=least), "hint")
    if least is None and isinstance(most, float) and most == 1.0:
        yield Finding(f"{here}.at_most", message("cap_allows_all"), "hint")


def _without_effect(line: Sequence[Policy], catalog: Catalog) -> Iterator[Finding]:
    """Conditions that no item meets, or that all items meet."""
    compiled = compile_policy(line, catalog)
    region = line[-1].outlet
    for place, control in enumerate(line[-1].controls):
        if not isinstance(control, Quota | Block | Boost | ExposureTarget) or control.where.about_viewer:
            continue
        size = int(compiled.member(control.where, region).sum())
        if size == 0:
            yield Finding(f"controls[{place}].where", message("condition_matches_nothing"))
        elif isinstance(control, Boost) and size == len(catalog):
            yield Finding(f"controls[{place}].where", message("condition_matches_all"), "hint")
