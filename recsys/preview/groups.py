"""The groups that an item counts towards in a preview: labels with their ancestors, outlet, region and axes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recsys.domain.catalog import Catalog
from recsys.domain.types import F64, I32
from recsys.preview.page_summary import PageSummary

GROUPS_MAX = 40
"""Maximum number of reported groups of a kind: those whose share changes most, then the largest."""


@dataclass(frozen=True)
class Groups:
    """The groups of a catalog. `above` [L, G]: 1 if label l is in the subtree of node g."""

    catalog: Catalog
    nodes: tuple[str, ...]
    above: F64

    @classmethod
    def of(cls, catalog: Catalog) -> Groups:
        """Return the groups of a catalog, with its label nodes."""
        names = catalog.labels.names
        nodes = sorted({"/".join(name.split("/")[:depth]) for name in names for depth in range(1, name.count("/") + 2)})
        above = np.zeros((len(names), len(nodes)))
        for g, node in enumerate(nodes):
            above[catalog.labels.subtree(node, "/"), g] = 1.0
        return cls(catalog, tuple(nodes), above)

    def names(self, kind: str) -> tuple[str, ...]:
        """Return the names of the groups of a kind, in the order of `exposure`."""
        catalog = self.catalog
        if kind == "labels":
            return self.nodes
        if kind == "axes":
            return catalog.axes.names
        return catalog.outlets.names if kind == "outlets" else (*catalog.regions.names, "-")

    def exposure(self, kind: str, shown: PageSummary) -> F64:
        """Return [G] the attention of each group on a page; an item counts for its labels, outlet and region."""
        catalog, row, attention = self.catalog, shown.row, shown.attention
        if kind == "labels":
            return np.asarray(attention @ (catalog.label[row] @ self.above > 0), np.float64)
        if kind == "axes":
            return np.asarray(attention @ catalog.axis[row], np.float64)
        if kind == "outlets":
            return _summed(catalog.outlet[row], attention, len(catalog.outlets.names))
        return self._by_region(row, attention)

    def _by_region(self, row: I32, attention: F64) -> F64:
        codes, size = self.catalog.region[row], len(self.catalog.regions.names)
        return _summed(np.where(codes < 0, size, codes).astype(np.int32), attention, size + 1)


def _summed(code: I32, weight: F64, size: int) -> F64:
    return np.asarray(np.bincount(code, weight, size), np.float64)
