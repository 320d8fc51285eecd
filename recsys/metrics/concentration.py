"""The concentration index: how concentrated, over time, is what a viewer is shown?

    index = (1/HHI_offer - 1/HHI_viewer) / (1/HHI_offer - 1)

1/HHI (Herfindahl 1950; Simpson 1949) is the number of kinds a viewer would be shown if all were shown equally: the
effective number of kinds (Hill 1973). 0 = as wide as what is on offer, 1 = one kind only. It is about what is *shown*,
over all impressions of a stretch of time, not about what somebody likes or thinks.
"""

from __future__ import annotations

import numpy as np

from recsys.domain.types import F64


def effective_number(mass: F64) -> float:
    """Number of equally frequent kinds with the same concentration as `mass` [G]; NaN for none.

    >>> effective_number(np.array([2.0, 2.0, 2.0])).__round__(9), effective_number(np.array([5.0, 0.0]))
    (3.0, 1.0)
    """
    total = float(np.sum(mass))
    return float(1.0 / np.sum((np.asarray(mass) / total) ** 2)) if total > 0 else float("nan")


def concentration_index(shown: F64, offer: F64) -> float:
    """0 when a viewer was shown as many kinds as are on offer, 1 when only one; NaN where one kind is on offer.

    shown, offer  [G]  attention-weighted mass of each kind, over the stretch of time; what is on offer

    >>> concentration_index(np.array([9.0, 0.0, 0.0]), np.ones(3)), concentration_index(np.ones(3), np.ones(3))
    (1.0, 0.0)
    """
    wide, narrow = effective_number(offer), effective_number(shown)
    if not wide > 1.0 + 1e-12 or np.isnan(narrow):
        return float("nan")
    return float(np.clip((wide - narrow) / (wide - 1.0), 0.0, 1.0))
