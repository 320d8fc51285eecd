"""Off-policy estimate of plays per page under the draft policy, from logged pages alone.

The item-position model (Li, Kim & Vassilvitskii 2018, "Offline evaluation of ranking policies with click models"):

    V = 1/n sum_i sum_k 1[draft's item at k = logged item at k] / q_ik * plays_ik

where q is the propensity of the logging policy for its item in that slot. The estimate is unbiased only if the logging
policy could have filled every slot as the draft does. Logged pages are usually deterministic, q = 1. The formula then
counts only unchanged slots, so the result is no estimate but the fraction of the draft that the log covers.
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
"""Minimum support for an estimate: the share of the draft's attention that the log could have shown.

The support is estimated by the same formula, with attention instead of plays."""


def off_policy(
    requests: Sequence[ReplayRequest], after: Sequence[PageSummary], catalog: Catalog, w: F64
) -> OffPolicy | None:
    """Return the estimate over the requests with a logged page; None if there are none.

    requests, after  n requests and the draft's pages for them
    w                [rounds, n] bootstrap weights
    """
    logged_requests = [i for i, request in enumerate(requests) if request.page is not None]
    if not logged_requests:
        return None
    supported, total, random = 0.0, 0.0, False
    weighted, observed = np.zeros(len(logged_requests)), np.zeros(len(logged_requests))
    for n, i in enumerate(logged_requests):
        logged, page = requests[i].page, after[i]
        assert logged is not None
        ids = [catalog.ids[row] for row in page.row]
        observed[n] = sum(logged.plays)
        total += float(page.attention.sum())
        for k, item_id in enumerate(ids[: len(logged.item_ids)]):
            if logged.item_ids[k] == item_id:
                q = max(logged.propensity[k], 1e-9)
                supported += float(page.attention[k]) / q
                weighted[n] += logged.plays[k] / q
        random |= any(q < 1.0 for q in logged.propensity)
    support = min(supported / max(total, 1e-9), 1.0)
    has_support = support >= SUPPORT_MIN
    return OffPolicy(
        requests=len(logged_requests),
        support=support,
        plays=mean(weighted, w[:, logged_requests]) if has_support else None,
        observed=float(observed.mean()),
        reason=_reason(random, support),
    )


def _reason(random: bool, support: float) -> Message:
    if support >= SUPPORT_MIN:
        return message("off_policy_weighted") if random else message("off_policy_as_logged")
    if random:
        return message("off_policy_low_support", support=support)
    return message("off_policy_deterministic", support=support)
