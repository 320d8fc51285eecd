"""A model in service: the retriever and the ranker of a bundle, built once when the bundle is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from recsys.domain.errors import BundleError
from recsys.domain.types import ACTIONS, F32, F64
from recsys.models.bundle import Bundle
from recsys.models.probe import check_labels, check_pages
from recsys.models.retriever import Retriever, load_retriever
from recsys.utility import weight_vector

if TYPE_CHECKING:
    from recsys.models.ranker import Predictor

PROBE_TOLERANCE = 1e-4
"""Largest accepted difference between a probability in serving and the same probability in training."""


@dataclass(frozen=True)
class ServedModel:
    """A model in service. It is thread-safe."""

    bundle: Bundle
    retriever: Retriever
    predictor: Predictor

    def p(self, features: F32) -> F32:
        """Return [N, A] calibrated probabilities for the engine's features [N, F].

        The ranker uses the first features, those that it was trained on.
        """
        return self.predictor.p(features[:, : len(self.bundle.feature_names)])

    @cached_property
    def weight(self) -> F64:
        """[A] weight of each action of `recsys.domain.types.ACTIONS`, in play equivalents."""
        return weight_vector(self.bundle.action_weights)

    @classmethod
    def load(cls, bundle: Bundle, feature_names: Sequence[str], encoder: str | None = None) -> ServedModel:
        """Build the model and check it with the bundle's probe.

        feature_names  F names of the columns that `p` receives. A model of an older engine, trained on the first of
                       these features, is accepted. Another order is refused, because the manifest may be altered
        encoder        name and version of the encoder of the catalog's text vectors, empty for none; None skips the
                       check. A model trained without text vectors is accepted with every encoder

        Raises BundleError if the model does not fit this engine, does not reproduce its probe, or cannot be loaded for
        any other reason.
        """
        try:
            return cls._load(bundle, feature_names, encoder)
        except BundleError:
            raise
        except Exception as error:  # a damaged model can raise any exception in the libraries that load it
            raise BundleError(f"the model cannot be loaded: {type(error).__name__}: {error}") from error

    @classmethod
    def _load(cls, bundle: Bundle, feature_names: Sequence[str], encoder: str | None) -> ServedModel:
        _check_fit(bundle, feature_names, encoder)
        retriever = load_retriever(bundle)
        check_pages(bundle.probe_pages, retriever)
        from recsys.models.ranker import Predictor  # imported lazily: torch takes seconds to import

        predictor = Predictor.load(bundle.network)
        if predictor.features != len(bundle.feature_names):
            raise BundleError(
                f"the ranker takes {predictor.features} features, but the bundle lists {len(bundle.feature_names)}"
            )
        try:
            p = predictor.p(bundle.probe_features)
        except FloatingPointError as error:
            raise BundleError(f"the ranker fails on its probe: {error}") from error
        difference = float(np.abs(p - bundle.probe_p).max())
        if not difference <= PROBE_TOLERANCE:
            raise BundleError(
                f"the ranker's output differs from its probe by {difference:.2g}; at most {PROBE_TOLERANCE} is allowed"
            )
        check_labels(p, bundle)
        return cls(bundle, retriever, predictor)


def _check_fit(bundle: Bundle, feature_names: Sequence[str], encoder: str | None) -> None:
    """Check that the engine has the features, the encoder and the actions of the bundle. Raises BundleError."""
    names = bundle.feature_names
    if names != tuple(feature_names)[: len(names)]:
        unknown = ", ".join(sorted(set(names).difference(feature_names)))
        if unknown:
            raise BundleError(f"the bundle was trained on features that this engine lacks: {unknown}")
        raise BundleError("the bundle lists its features in a different order than this engine")
    if encoder is not None and bundle.encoder not in ("", encoder):
        raise BundleError(
            f"the bundle was trained on text vectors of {bundle.encoder}; this engine uses {encoder or 'no encoder'}"
        )
    if bundle.actions != ACTIONS:
        raise BundleError(f"the bundle predicts {', '.join(bundle.actions)}; this engine ranks {', '.join(ACTIONS)}")
