"""Report problems of a policy before it is published, each with the path of its field.

Lint first checks the policy itself: unknown terms, controls without effect, weakened parents. It then solves test pages
from all items that may be shown now, for every screen and region that the policy concerns; a control that is relaxed
there cannot be met.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

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
from recsys.guidance.solver.solve import is_late_after
from recsys.messages import message
from recsys.pacing.checks import check_target

PREFERRED_MIN_WARN = 0.5
"""Share of the page above which a `preferred` minimum gets a hint, because authors may expect it to yield to cost."""


LINT_S = 5.0
"""Time in which lint looks for contradictions and tries sample pages, in seconds; it needs a clock."""


@dataclass
class _Limit:
    """The limit on the work of lint. `hit` tells whether something was skipped because of it."""

    is_late: Callable[[], bool]
    cancelled: Callable[[], bool]
    hit: bool = False

    def reached(self) -> bool:
        """Return whether the time has passed or the caller has left."""
        self.hit = self.hit or self.is_late() or self.cancelled()
        return self.hit


def lint(
    policies: Sequence[Policy],
    catalog: Catalog,
    now: float,
    item_utility: float | None = None,
    clock: Callable[[], float] | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> tuple[Finding, ...]:
    """Return the findings about the last (lowest) policy of a line of outlets, for the current catalog.

    Findings do not prevent publication, because inventory changes and relaxed controls are visible in receipts. So they
    are warnings (a control will not work as written) or hints (it has no visible effect). The only error is that the
    policies do not belong to one line of outlets.

    item_utility  typical utility of an item in a slot, in play equivalents; None: unknown, so no weight is too large
    clock         returns seconds, for the limit `LINT_S` and the limits per page of `dry_run`
    cancelled     returns whether nobody waits for the findings any more; the rest is then skipped
    """
    try:
        line = ancestry(policies)
    except PolicyError as error:
        return (Finding("outlet", error.text),)
    if not line:
        return ()
    policy, limit = line[-1], _Limit(is_late_after(LINT_S, clock), cancelled)
    findings = (
        *weakening_findings(line),
        *_weights(policy, catalog, item_utility),
        *_controls(policy, now),
        *unknown_terms(policy, catalog),
        *_without_effect(line, catalog),
        *blocks_starving_minimums(line, catalog, limit.reached),
        *_dry_run_findings(line, catalog, now, clock, limit),
    )
    if limit.hit:
        findings = (*findings, Finding("controls", message("lint_truncated"), "hint"))
    return tuple(finding if finding.level == "hint" else replace(finding, level="warning") for finding in findings)


def _dry_run_findings(
    line: Sequence[Policy], catalog: Catalog, now: float, clock: Callable[[], float] | None, limit: _Limit
) -> Iterator[Finding]:
    """Yield the findings about controls in combination.

    A minimum that is larger than its pages is reported alone; the other controls are tested as if this minimum were 0,
    because they do not cause the conflict.
    """
    policy = line[-1]
    oversized = unreachable_slots(policy)
    yield from oversized.values()
    controls = tuple(
        control.model_copy(update={"at_least": 0}) if index in oversized else control
        for index, control in enumerate(policy.controls)
    )
    rest = [*line[:-1], policy.model_copy(update={"controls": controls})]
    reports = contradictions(rest, catalog, limit.reached), dry_run(rest, catalog, now, clock, limit.reached)
    for finding in chain(*reports):
        if not any(finding.where.startswith(f"controls[{index}]") for index in oversized):
            yield finding


def _weights(policy: Policy, catalog: Catalog, item_utility: float | None) -> Iterator[Finding]:
    for axis, weight in policy.weights.items():
        if axis not in catalog.axes.code:
            suggestion = did_you_mean(axis, catalog.axes.names, "")
            text = message("weight_axis_unknown", suggestion=suggestion)
            yield Finding(f"weights.{axis}", text, "warning" if suggestion else "hint")
        elif len(catalog) and np.ptp(catalog.axis[:, catalog.axes.code[axis]]) == 0:
            yield Finding(f"weights.{axis}", message("weight_axis_constant"), "hint")
        elif weight == 0:
            yield Finding(f"weights.{axis}", message("weight_zero"), "hint")
        elif (
            item_utility and (maximum := weight * float(catalog.axis[:, catalog.axes.code[axis]].max())) > item_utility
        ):
            too_large = message("weight_too_large", most=maximum, utility=item_utility, usual=item_utility / 10)
            yield Finding(f"weights.{axis}", too_large)


def _controls(policy: Policy, now: float) -> Iterator[Finding]:
    """Yield the findings about single controls."""
    for index, control in enumerate(policy.controls):
        field = f"controls[{index}]"
        until = control.active.until
        if until is not None and until.timestamp() <= now:
            yield Finding(f"{field}.active.until", message("control_ended", id=control.id, at=until.isoformat()))
        elif control.active.next(now) is None:
            yield Finding(f"{field}.active", message("control_never_active", id=control.id))
        if isinstance(control, Quota):
            yield from _share(field, control)
        elif isinstance(control, ExposureTarget):
            yield from check_target(field, control, policy, now)
        elif isinstance(control, Cap) and control.at_most in (0, 1.0) and isinstance(control.at_most, float):
            blocks_all = control.at_most == 0
            text = message("cap_blocks_all") if blocks_all else message("cap_allows_all")
            yield Finding(f"{field}.at_most", text, "warning" if blocks_all else "hint")
        elif isinstance(control, Boost) and control.bonus == 0:
            yield Finding(f"{field}.bonus", message("boost_zero"), "hint")


def _share(field: str, quota: Quota) -> Iterator[Finding]:
    minimum, maximum = quota.at_least, quota.at_most
    if minimum is not None and maximum is not None and type(minimum) is type(maximum) and minimum > maximum:
        yield Finding(f"{field}.at_least", message("minimum_above_cap", minimum=minimum, maximum=maximum))
    if minimum == 0 and maximum is None:
        yield Finding(f"{field}.at_least", message("minimum_zero"), "hint")
    if quota.enforcement == "preferred" and isinstance(minimum, float) and minimum > PREFERRED_MIN_WARN:
        yield Finding(f"{field}.enforcement", message("preferred_minimum_large", share=minimum), "hint")
    if minimum is None and isinstance(maximum, float) and maximum == 1.0:
        yield Finding(f"{field}.at_most", message("cap_allows_all"), "hint")


def _without_effect(line: Sequence[Policy], catalog: Catalog) -> Iterator[Finding]:
    """Yield findings about conditions that no item meets, or that all items meet."""
    compiled = compile_policy(line, catalog)
    region = line[-1].outlet
    for index, control in enumerate(line[-1].controls):
        if not isinstance(control, Quota | Block | Boost | ExposureTarget) or control.where.about_viewer:
            continue
        size = int(compiled.member(control.where, region).sum())
        if size == 0:
            yield Finding(f"controls[{index}].where", message("condition_matches_nothing"))
        elif isinstance(control, Boost) and size == len(catalog):
            yield Finding(f"controls[{index}].where", message("condition_matches_all"), "hint")
