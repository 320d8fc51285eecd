"""Probabilities and utility where no ranker answers: popularity or age stands in for the probability of a play."""

from __future__ import annotations

import numpy as np

from recsys.batch import Candidates
from recsys.candidates.context import RequestContext
from recsys.candidates.sources import local_plays
from recsys.domain.trace import FallbackLevel
from recsys.domain.types import ACTIONS, F32
from recsys.models.probabilities import PLAY, coherent
from recsys.utility import utility, weight_vector


def without_ranker(ask: RequestContext, batch: Candidates, rung: FallbackLevel) -> Candidates:
    """Return the batch with a rough p(play), a probability of 0 for every other action, and the utility of both.

    A play weighs 1 under all weights, so utility is p(play) here, whichever model is in service.
    """
    p = np.zeros((len(batch), len(ACTIONS)), np.float32)
    p[:, PLAY] = np.nan_to_num(_play(ask, batch, rung), nan=0.0)
    p = coherent(p)
    weight = ask.model.weight if ask.model is not None else weight_vector()
    return batch.with_columns(p=p, utility=utility(p, weight))


def _play(ask: RequestContext, batch: Candidates, rung: FallbackLevel) -> F32:
    """[N] popularity, at most 0.5; on the editorial rung the age of the item, at most 0.1."""
    if rung is FallbackLevel.EDITORIAL:
        age_d = np.maximum(ask.query.now - ask.catalog.published_at[batch.row], 0.0) / 86_400.0
        return np.asarray(0.1 * np.exp2(-age_d / 7.0), np.float32)
    local = local_plays(ask.stats, ask.query.region)
    plays = ask.index.popularity if local is None else local
    return np.asarray(0.5 * plays[batch.row] / max(float(plays.max(initial=0.0)), 1e-9), np.float32)
