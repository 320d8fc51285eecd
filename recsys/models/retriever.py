"""What serving needs of a retrieval model, whatever its kind, and the table of kinds.

To add a kind: write a class that satisfies `Retriever`, build it from a bundle in a function, register the function in
KINDS, and let training write the kind's name and parameters into the bundle.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from recsys.domain.errors import BundleError
from recsys.domain.types import F32, I32, I64, Bool
from recsys.domain.viewer import ViewerState
from recsys.models.als import AlsRetriever
from recsys.models.bundle import ALS, Bundle


class Retriever(Protocol):
    """A retrieval model in service: built once for each bundle, and safe to share between threads.

    Positions 0..M-1 count the bundle's items.
    """

    @property
    def item_ids(self) -> tuple[str, ...]:
        """M ids of the items that the model has learned."""

    @property
    def position_of(self) -> Mapping[str, int]:
        """Item id -> position."""

    @property
    def vectors(self) -> F32:
        """[M, D] item vectors."""

    def viewer_vector(self, viewer: ViewerState) -> F32 | None:
        """Return the viewer's vector [D], folded in from the state; None when the model knows no item of it."""

    def scores(self, vector: F32, positions: I32 | I64) -> F32:
        """Return [P] how well the items at these positions match a viewer's vector: the feature `affinity`."""

    def nearest(self, vector: F32, count: int, allowed: Bool | None = None) -> I32:
        """Return [<= count] positions of the items that match a viewer's vector best, best first.

        allowed  [M] limits the search
        """


def _als(bundle: Bundle) -> Retriever:
    params = bundle.retriever_params
    return AlsRetriever(bundle.item_ids, bundle.item_vectors, params["regularization"], params["alpha"])


KINDS: dict[str, Callable[[Bundle], Retriever]] = {ALS: _als}
"""Model kind -> how its retriever is built from a bundle."""


def load_retriever(bundle: Bundle) -> Retriever:
    """Build the retriever of a bundle. Raises BundleError for an unknown kind or a missing parameter."""
    if (build := KINDS.get(bundle.model_kind)) is None:
        raise BundleError(
            f"the bundle's retrieval model is of kind {bundle.model_kind!r}; this engine serves {', '.join(KINDS)}"
        )
    try:
        return build(bundle)
    except KeyError as error:
        raise BundleError(
            f"the bundle lacks the parameter {error} of a retrieval model {bundle.model_kind!r}"
        ) from error
