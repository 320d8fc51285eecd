"""RADio: rank-aware divergences as normative measures (Vrijenhoek, Bénédict, Gutierrez Granada & Odijk 2022).

    Q(g) = sum_k d(k) 1[item at k in g],  d the rank discount;  measure = JSD(P, Q)

Each compares the labels of a page, discounted by rank, with another distribution:

    calibration     P = the viewer's history                   0 = as the viewer is used to
    representation  P = what the catalogue offers               0 = every kind in its share; what "alternative voices"
                                                                asks of protected kinds is `voices`
    fragmentation   P = the page of another viewer              0 = everybody is shown the same kinds
    voices          P = catalogue, split into a named kind of outlets or labels, and the rest

RADio's activation and its viewpoints of people need models of affect and stance. They are left out on purpose: labels
of content are all that is looked at here.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from recsys.domain.types import F64, Bool
from recsys.metrics.calibration import profile
from recsys.metrics.divergence import jensen_shannon, reciprocal_log


def discounted(label: Bool) -> F64:
    """[L] label distribution of a page [K, L] under RADio's rank discount."""
    return profile(label, reciprocal_log(len(label)))


def representation(page: Bool, offer: F64) -> float:
    """How far the kinds on a page [K, L] are from the distribution of those on offer [L], in [0, 1]."""
    return jensen_shannon(offer, discounted(page))


def alternative_voices(page: Bool, offer: Bool) -> float:
    """How far the discounted share of a named kind on a page [K] is from its share on offer [M], in [0, 1].

    >>> alternative_voices(np.array([True, False]), np.array([True, True])) > alternative_voices(np.array([True, True]), np.array([True, True]))
    True
    """
    share = float(reciprocal_log(len(page)) @ page)
    there = float(np.mean(offer)) if len(offer) else 0.0
    return jensen_shannon(np.array([there, 1.0 - there]), np.array([share, 1.0 - share]))


def fragmentation(pages: Sequence[F64], pairs_max: int = 500) -> float:
    """Mean divergence of pairs of viewers' discounted distributions [L] each; NaN below two.

    At most `pairs_max` pairs, spread evenly over all of them, so that the figure needs no chance.

    >>> one, other = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    >>> fragmentation([one, one]), fragmentation([one, other])
    (0.0, 1.0)
    """
    pairs = list(combinations(range(len(pages)), 2)) if len(pages) <= 200 else _spread(len(pages), pairs_max)
    if not pairs:
        return float("nan")
    step = -(-len(pairs) // pairs_max)
    apart = np.array([jensen_shannon(pages[i], pages[j]) for i, j in pairs[::step]])
    known = apart[np.isfinite(apart)]  # a page without labels is neither near nor far from another
    return float(known.mean()) if len(known) else float("nan")


def _spread(n: int, pairs: int) -> list[tuple[int, int]]:
    """Pairs (i, i + d) with growing distances d, about `pairs` of them."""
    return [(i % n, (i + 1 + i // n * 7) % n) for i in range(pairs) if i % n != (i + 1 + i // n * 7) % n]
