"""What editors should know about a policy before it is published, each finding at its field, in their words.

The policy itself is looked at first (words that mean nothing, rules that never act, parents loosened); then it is put
to the test: pages are solved from all that may be shown now, for every screen and region it speaks of, and whatever
gives way there could never be kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from recsys.catalog import Catalog
from recsys.errors import Finding, PolicyError
from recsys.guidance.compile import compile_policy
from recsys.guidance.conflicts import contradictions
from recsys.guidance.defeats import defeats
from recsys.guidance.inherit import chain, loosenings
from recsys.guidance.policy import Block, Boost, Cap, ExposureTarget, Policy, Share
from recsys.guidance.rehearsal import rehearse
from recsys.guidance.targets.findings import odd_target
from recsys.guidance.vocabulary import unknown_words

SOFT_MOST = 0.5
"""A `soft` floor above this share of the page is worth a word: whoever writes it may think that it yields to cost."""


def lint(policies: Sequence[Policy], catalog: Catalog, now: float) -> tuple[Finding, ...]:
    """Findings about the last (lowest) policy of one line of outlets, below its parents, on the present catalogue.

    A finding does not forbid publishing: inventory changes, and what cannot be kept gives way on the receipt. Policies
    that are not of one line are a finding too.
    """
    try:
        line = chain(policies)
    except PolicyError as error:
        return (Finding("outlet", error.message),)
    if not line:
        return ()
    policy = line[-1]
    return (
        *loosenings(line),
        *_weights(policy, catalog),
        *_controls(policy, now),
        *unknown_words(policy, catalog),
        *_without_effect(line, catalog),
        *defeats(line, catalog),
        *contradictions(line, catalog),
        *rehearse(line, catalog, now),
    )


def _weights(policy: Policy, catalog: Catalog) -> Iterator[Finding]:
    for axis, weight in policy.weights.items():
        if axis not in catalog.axes.code:
            yield Finding(f"weights.{axis}", "no item has a value on this axis, so the weight has no effect")
        elif len(catalog) and np.ptp(catalog.axis[:, catalog.axes.code[axis]]) == 0:
            yield Finding(f"weights.{axis}", "every item has the same value on this axis, so the weight moves nothing")
        elif weight == 0:
            yield Finding(f"weights.{axis}", "a weight of 0 has no effect, except to undo the weight of a parent")


def _controls(policy: Policy, now: float) -> Iterator[Finding]:
    """What is odd about a control all by itself."""
    for place, control in enumerate(policy.controls):
        here = f"controls[{place}]"
        until = control.active.until
        if until is not None and until.timestamp() <= now:
            yield Finding(f"{here}.active.until", f"{control.id!r} ended at {until.isoformat()}")
        elif control.active.next(now) is None:
            yield Finding(
                f"{here}.active", f"{control.id!r} is never in force: its hours and days do not occur in its span"
            )
        if isinstance(control, Share):
            yield from _share(here, control)
        elif isinstance(control, ExposureTarget):
            yield from odd_target(here, control, policy, now)
        elif isinstance(control, Cap) and control.at_most in (0, 1.0) and isinstance(control.at_most, float):
            odd = "nothing at all" if control.at_most == 0 else "everything"
            yield Finding(f"{here}.at_most", f"{control.at_most:.0%} allows {odd}")
        elif isinstance(control, Boost) and control.bonus == 0:
            yield Finding(f"{here}.bonus", "a bonus of 0 has no effect")


def _share(here: str, share: Share) -> Iterator[Finding]:
    least, most = share.at_least, share.at_most
    if least is not None and most is not None and type(least) is type(most) and least > most:
        yield Finding(f"{here}.at_least", f"the floor of {least:g} is above the cap of {most:g}")
    if least == 0 and most is None:
        yield Finding(f"{here}.at_least", "a floor of 0 asks for nothing")
    if share.hardness == "soft" and isinstance(least, float) and least > SOFT_MOST:
        yield Finding(
            f"{here}.hardness",
            f"soft gives way to other controls, never to what it costs: {least:.0%} of every page go to these items, "
            "whatever they are worth to viewers, wherever other controls leave room; a boost leans only so far",
        )
    if least is None and isinstance(most, float) and most == 1.0:
        yield Finding(f"{here}.at_most", "a cap of 100 % allows everything")


def _without_effect(line: Sequence[Policy], catalog: Catalog) -> Iterator[Finding]:
    """Conditions that no item meets, or that all items meet."""
    compiled = compile_policy(line, catalog)
    region = line[-1].outlet
    for place, control in enumerate(line[-1].controls):
        if not isinstance(control, Share | Block | Boost | ExposureTarget) or control.where.about_viewer:
            continue
        size = int(compiled.member(control.where, region).sum())
        if size == 0:
            yield Finding(f"controls[{place}].where", "no item of the catalogue meets this condition")
        elif isinstance(control, Boost) and size == len(catalog):
            yield Finding(f"controls[{place}].where", "every item meets this condition, so the bonus moves nothing")
