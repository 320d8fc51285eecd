"""The concentration index: how concentrated the impressions of a viewer are over time.

    index = (1/HHI_offer - 1/HHI_viewer) / (1/HHI_offer - 1)

1/HHI (Herfindahl 1950; Simpson 1949) is the effective number of kinds (Hill 1973): the number of equally frequent kinds
with the same concentration. An index of 0 means as wide as the offer, 1 means a single kind. The index describes what a
viewer is *shown* over all impressions of a period, not the viewer's preferences or opinions.
"""

from __future__ import annotations

import numpy as np

from recsys.domain.types import F64


def effective_number(mass: F64) -> float:
    """Return the number of equally frequent kinds with the same concentration as `mass` [G]; NaN without mass.

    >>> effective_number(np.array([2.0, 2.0, 2.0])).__round__(9), effective_number(np.array([5.0, 0.0]))
    (3.0, 1.0)
    """
    total = float(np.sum(mass))
    return float(1.0 / np.sum((np.asarray(mass) / total) ** 2)) if total > 0 else float("nan")


def concentration_index(shown: F64, offer: F64) -> float:
    """Return the concentration of a viewer's impressions: 0 for as many kinds as on offer, 1 for a single kind.

    shown  [G]  attention-weighted mass of each kind in the viewer's impressions of the period
    offer  [G]  mass of each kind on offer; NaN if it has only one kind

    >>> concentration_index(np.array([9.0, 0.0, 0.0]), np.ones(3)), concentration_index(np.ones(3), np.ones(3))
    (1.0, 0.0)
    """
    wide, narrow = effective_number(offer), effective_number(shown)
    if not wide > 1.0 + 1e-12 or np.isnan(narrow):
        return float("nan")
    return float(np.clip((wide - narrow) / (wide - 1.0), 0.0, 1.0))
