"""What the log itself can say of a policy that was not in force, and what it cannot.

The item-position model (Li, Kim & Vassilvitskii 2018, "Offline evaluation of ranking policies with click models"):

    V = 1/n sum_i sum_k 1[draft's item at k = logged item at k] / q_ik * plays_ik

with q the propensity with which the logging policy put its item there. It is unbiased only where every slot that the
draft fills could have been filled so by the logging policy. Pages are deterministic, q = 1: then the formula counts the
unchanged slots and nothing else, so no estimate is given, only how much of the draft the log has seen.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recsys.domain.catalog import Catalog
from recsys.domain.types import F64
from recsys.messages import Message, message
from recsys.preview.bootstrap import mean
from recsys.preview.page_summary import PageSummary
from recsys.preview.report import OffPolicy
from recsys.preview.study import ReplayRequest

SUPPORT_MIN = 0.95
"""Least share of the draft's attention that the log could have shown for an estimate to be given.

Estimated by the formula itself, with attention in place of plays; where q = 1 it is what the log has shown."""


def off_policy(
    asked: Sequence[ReplayRequest], after: Sequence[PageSummary], catalog: Catalog, w: F64
) -> OffPolicy | None:
    """The estimate over requests with a logged page; None without any.

    asked, after  n requests and the draft's pages for them
    w             [rounds, n] bootstrap weights
    """
    known = [i for i, one in enumerate(asked) if one.page is not None]
    if not known:
        return None
    seen, total, weighted, observed, chance = 0.0, 0.0, np.zeros(len(known)), np.zeros(len(known)), False
    for n, i in enumerate(known):
        logged, page = asked[i].page, after[i]
        assert logged is not None
        ids = [catalog.ids[row] for row in page.row]
        observed[n] = sum(logged.plays)
        total += float(page.attention.sum())
        for k, item_id in enumerate(ids[: len(logged.item_ids)]):
            if logged.item_ids[k] == item_id:
                q = max(logged.propensity[k], 1e-9)
                seen += float(page.attention[k]) / q
                weighted[n] += logged.plays[k] / q
        chance |= any(q < 1.0 for q in logged.propensity)
    support = min(seen / max(total, 1e-9), 1.0)
    possible = support >= SUPPORT_MIN
    return OffPolicy(
        requests=len(known),
        support=support,
        plays=mean(weighted, w[:, known]) if possible else None,
        observed=float(observed.mean()),
        reason=_reason(chance, support),
    )


def _reason(chance: bool, support: float) -> Message:
    if support >= SUPPORT_MIN:
        return message("off_policy_weighted") if chance else message("off_policy_as_logged")
    if chance:
        return message("off_policy_low_support", support=support)
    return message("off_policy_deterministic", support=support)
