"""The fallback levels: which level can answer a request, and the probabilities that replace the ranker's."""

from __future__ import annotations

import numpy as np

from recsys.batch import Candidates
from recsys.candidates.context import RequestContext
from recsys.candidates.sources import local_plays
from recsys.domain.trace import FallbackLevel
from recsys.domain.types import ACTIONS, F32
from recsys.models.probabilities import PLAY, coherent
from recsys.utility import utility, weight_vector


def fallback_level(context: RequestContext) -> FallbackLevel:
    """Return the best level for which the request has data."""
    if context.vector is not None:
        return FallbackLevel.PERSONAL
    if local_plays(context.stats, context.query.region) is not None:
        return FallbackLevel.SEGMENT
    return FallbackLevel.POPULAR if context.index.popularity.any() else FallbackLevel.EDITORIAL


def without_ranker(context: RequestContext, batch: Candidates, level: FallbackLevel) -> Candidates:
    """Return the batch with a rough p(play), a probability of 0 for every other action, and the resulting utility.

    A play weighs 1 in every set of weights, so the utility is p(play), whichever model is in service.
    """
    p = np.zeros((len(batch), len(ACTIONS)), np.float32)
    p[:, PLAY] = np.nan_to_num(_play(context, batch, level), nan=0.0)
    p = coherent(p)
    weight = context.model.weight if context.model is not None else weight_vector()
    return batch.with_columns(p=p, utility=utility(p, weight))


def _play(context: RequestContext, batch: Candidates, level: FallbackLevel) -> F32:
    """Return [N] p(play) from popularity, at most 0.5; at the editorial level from the item's age, at most 0.1."""
    if level is FallbackLevel.EDITORIAL:
        age_d = np.maximum(context.query.now - context.catalog.published_at[batch.row], 0.0) / 86_400.0
        return np.asarray(0.1 * np.exp2(-age_d / 7.0), np.float32)
    local = local_plays(context.stats, context.query.region)
    plays = context.index.popularity if local is None else local
    return np.asarray(0.5 * plays[batch.row] / max(float(plays.max(initial=0.0)), 1e-9), np.float32)
