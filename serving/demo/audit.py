"""Audit pages independently: recount each page from the policies and the catalog, outside the serving process."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from recsys.domain.catalog import Catalog
from recsys.domain.item import Item
from recsys.domain.placement import Placement, Screen, Surface
from recsys.domain.query import Query
from recsys.guidance.compilation.compile import compile_policy
from serving.demo.movielens import region_of
from serving.snapshot.profiles import read_policy

OUTLET = "cn.zj.hz"


class Auditor:
    """An auditor of pages, with its own catalog and its own compiled policies."""

    def __init__(self, items: Sequence[Item], policies: Sequence[str]) -> None:
        self._catalog = Catalog.of(items)
        self._policy = compile_policy([read_policy(text) for text in policies], self._catalog)

    def undeclared(self, page: dict[str, Any], viewer: str, screen: str, shown: Sequence[str]) -> list[str]:
        """Return the controls that a page violates although its receipt reports them as met."""
        rows = self._catalog.rows(slot["item"]["id"] for slot in page["items"])
        query = Query(
            request_id=page["request_id"],
            viewer_id=viewer,
            placement=Placement(OUTLET, Screen(screen), Surface.HOME),
            region=region_of(viewer),
            now=time.time(),
            slots=len(rows),
        )
        constraints = self._policy.bounds(query, rows, len(rows), self._catalog.rows(shown))
        excess = constraints.violated_by(np.arange(len(rows), dtype=np.int32))
        excess[constraints.block_control] = constraints.block_member.sum(axis=1)  # blocked items on the page
        declared = {c["id"] for c in page["receipt"]["controls"] if c["status"] in ("relaxed", "infeasible")}
        ids = [origin.control.id for origin in self._policy.controls]
        return [control_id for control_id, by in zip(ids, excess, strict=True) if by and control_id not in declared]
