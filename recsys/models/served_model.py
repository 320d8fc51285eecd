"""A bundle made ready to answer: retrieval index and ranker, built once when the bundle is swapped in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from recsys.domain.errors import BundleError
from recsys.domain.types import ACTIONS, F32, F64
from recsys.models.bundle import Bundle
from recsys.models.retriever import Retriever, load_retriever
from recsys.utility import weight_vector

if TYPE_CHECKING:
    from recsys.models.ranker import Predictor

PROBE_TOLERANCE = 1e-4
"""Largest difference of a probability between where the ranker was trained and where it serves."""


@dataclass(frozen=True)
class ServedModel:
    """One model in service; safe to share between threads."""

    bundle: Bundle
    retriever: Retriever
    predictor: Predictor

    def p(self, features: F32) -> F32:
        """[N, F] the engine's features -> [N, A] calibrated probabilities, by those that the ranker was trained on: the
        first ones."""
        return self.predictor.p(features[:, : len(self.bundle.feature_names)])

    @cached_property
    def weight(self) -> F64:
        """[A] weight of each action of `recsys.domain.types.ACTIONS`, in play equivalents."""
        return weight_vector(self.bundle.action_weights)

    @classmethod
    def load(cls, bundle: Bundle, feature_names: Sequence[str], encoder: str | None = None) -> ServedModel:
        """Build and probe; raises BundleError when it would answer otherwise than where it was trained.

        feature_names  F names, the columns of what `p` will be given. A model of an older engine, whose features are
                 the first of these, goes on in service; in another order they are refused, as nothing else would show
                 that somebody altered the manifest
        encoder  whose text vectors the catalogue has, name and version, empty for none; None: not looked at. A model
                 that was trained without any has learned nothing from them, and goes with all
        """
        names = bundle.feature_names
        if names != tuple(feature_names)[: len(names)]:
            odd = sorted(set(names).difference(feature_names))
            raise BundleError(f"the bundle was trained on other features: {', '.join(odd) or 'another order'}")
        if encoder is not None and bundle.encoder not in ("", encoder):
            raise BundleError(
                f"the bundle was trained on text vectors of {bundle.encoder}; this engine's are of {encoder or 'none'}"
            )
        if bundle.actions != ACTIONS:
            raise BundleError(
                f"the bundle predicts {', '.join(bundle.actions)}; this engine ranks {', '.join(ACTIONS)}"
            )
        retriever = load_retriever(bundle)
        from recsys.models.ranker import (
            Predictor,
        )  # here: torch takes seconds to import, and pages need not wait for it

        predictor = Predictor.load(bundle.network)
        if predictor.features != len(bundle.feature_names):
            raise BundleError(
                f"the ranker takes {predictor.features} features, the bundle names {len(bundle.feature_names)}"
            )
        try:
            answer = predictor.p(bundle.probe_features)
        except FloatingPointError as error:
            raise BundleError(f"the ranker fails on its probe: {error}") from error
        off = float(np.abs(answer - bundle.probe_p).max())
        if not off <= PROBE_TOLERANCE:
            raise BundleError(f"the ranker answers its probe {off:.2g} off; at most {PROBE_TOLERANCE} is allowed")
        return cls(bundle, retriever, predictor)
