"""The interface of retrieval models in serving, and the registry of model kinds.

To add a kind, write a class that satisfies `Retriever` and a function that builds it from a bundle, register the
function in KINDS, and let training write the kind's name and parameters into the bundle.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from recsys.domain.errors import BundleError
from recsys.domain.types import F32, I32, I64, Bool
from recsys.domain.viewer import ViewerState
from recsys.models.als import AlsRetriever
from recsys.models.bundle import ALS, Bundle

MAX_PARAM = 1e6
"""Largest parameter of implicit ALS; those of trained models are below 1,000."""


class Retriever(Protocol):
    """A retrieval model in service, built once for each bundle. It is thread-safe.

    Positions 0..M-1 are the bundle's items.
    """

    @property
    def item_ids(self) -> tuple[str, ...]:
        """The ids of the M items of the model."""

    @property
    def position_of(self) -> Mapping[str, int]:
        """Item id -> position."""

    @property
    def vectors(self) -> F32:
        """[M, D] item vectors."""

    def viewer_vector(self, viewer: ViewerState) -> F32 | None:
        """Return [D] the viewer's vector, folded in from the state; None if the model has none of its items."""

    def scores(self, vector: F32, positions: I32 | I64) -> F32:
        """Return [P] the scores of the items at these positions for a viewer's vector: the feature `affinity`."""

    def nearest(self, vector: F32, count: int, allowed: Bool | None = None) -> I32:
        """Return [<= count] positions of the items with the highest scores for a viewer's vector, best first.

        allowed  [M] limits the search
        """


def _als(bundle: Bundle) -> Retriever:
    params = bundle.retriever_params
    regularization, alpha = params["regularization"], params["alpha"]
    if not (0 < regularization <= MAX_PARAM and 0 < alpha <= MAX_PARAM):
        raise BundleError(
            f"regularization is {regularization:g} and alpha {alpha:g}, expected positive numbers up to {MAX_PARAM:g}"
        )
    return AlsRetriever(bundle.item_ids, bundle.item_vectors, regularization, alpha)


KINDS: dict[str, Callable[[Bundle], Retriever]] = {ALS: _als}
"""Model kind -> function that builds its retriever from a bundle."""


def load_retriever(bundle: Bundle) -> Retriever:
    """Build the retriever of a bundle. Raises BundleError for an unknown kind or a missing parameter."""
    if (build := KINDS.get(bundle.model_kind)) is None:
        raise BundleError(
            f"the bundle's retrieval model is of kind {bundle.model_kind!r}; this engine supports {', '.join(KINDS)}"
        )
    try:
        return build(bundle)
    except KeyError as error:
        raise BundleError(
            f"the bundle lacks parameter {error} of its retrieval model of kind {bundle.model_kind!r}"
        ) from error
