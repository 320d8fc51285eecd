"""RADio: rank-aware divergences as normative measures (Vrijenhoek, Bénédict, Gutierrez Granada & Odijk 2022).

    Q(g) = sum_k d(k) 1[item at k in g],  d the rank discount;  metric = JSD(P, Q)

Each metric compares the labels of a page, discounted by rank, with another distribution:

    calibration     P = the viewer's history                    0 = same kinds as in the history
    representation  P = the catalog                             0 = every kind in proportion to the catalog
    fragmentation   P = the page of another viewer              0 = all viewers are shown the same kinds
    alternative     P = the catalog, split into a named kind    0 = the named kind in proportion to the catalog
     voices             of outlets or labels, and the rest

RADio's activation and viewpoint metrics need models of affect and stance. They are omitted on purpose: these metrics
use content labels only.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from recsys.domain.types import F64, Bool
from recsys.metrics.calibration import profile
from recsys.metrics.divergence import jensen_shannon, reciprocal_log


def discounted(label: Bool) -> F64:
    """Return [L] the label distribution of a page [K, L] under RADio's rank discount."""
    return profile(label, reciprocal_log(len(label)))


def representation(page: Bool, offer: F64) -> float:
    """Return the divergence of the kinds on a page [K, L] from those on offer [L], in [0, 1]."""
    return jensen_shannon(offer, discounted(page))


def alternative_voices(page: Bool, offer: Bool) -> float:
    """Return the divergence of a kind's discounted share on a page [K] from its share on offer [M], in [0, 1].

    >>> offer = np.array([True, True])
    >>> alternative_voices(np.array([True, False]), offer) > alternative_voices(np.array([True, True]), offer)
    True
    """
    share = float(reciprocal_log(len(page)) @ page)
    offered = float(np.mean(offer)) if len(offer) else 0.0
    return jensen_shannon(np.array([offered, 1.0 - offered]), np.array([share, 1.0 - share]))


def fragmentation(pages: Sequence[F64], pairs_max: int = 500) -> float:
    """Return the mean divergence of pairs of viewers' discounted distributions [L]; NaN for fewer than two viewers.

    At most `pairs_max` pairs are compared, spread evenly over all pairs, so that the result is not random.

    >>> a, b = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    >>> fragmentation([a, a]), fragmentation([a, b])
    (0.0, 1.0)
    """
    pairs = list(combinations(range(len(pages)), 2)) if len(pages) <= 200 else _spread(len(pages), pairs_max)
    if not pairs:
        return float("nan")
    step = -(-len(pairs) // pairs_max)
    divergence = np.array([jensen_shannon(pages[i], pages[j]) for i, j in pairs[::step]])
    finite = divergence[np.isfinite(divergence)]  # a page without labels has no divergence
    return float(finite.mean()) if len(finite) else float("nan")


def _spread(n: int, pairs: int) -> list[tuple[int, int]]:
    """Return about `pairs` pairs (i, i + d) with growing distances d."""
    return [(i % n, (i + 1 + i // n * 7) % n) for i in range(pairs) if i % n != (i + 1 + i // n * 7) % n]
