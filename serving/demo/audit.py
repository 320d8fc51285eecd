"""An auditor who trusts nobody: recounts each page from the policies and the catalogue, outside the serving process."""

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
    """Holds its own catalogue and its own compiled policies."""

    def __init__(self, items: Sequence[Item], policies: Sequence[str]) -> None:
        self._catalog = Catalog.of(items)
        self._policy = compile_policy([read_policy(text) for text in policies], self._catalog)

    def undeclared(self, page: dict[str, Any], viewer: str, screen: str, shown: Sequence[str]) -> list[str]:
        """Controls that this page breaks without its receipt saying that they gave way; empty on an honest page."""
        rows = self._catalog.rows(slot["item"]["id"] for slot in page["items"])
        query = Query(
            request_id=page["request_id"],
            viewer_id=viewer,
            placement=Placement(OUTLET, Screen(screen), Surface.HOME),
            region=region_of(viewer),
            now=time.time(),
            slots=len(rows),
        )
        bounds = self._policy.bounds(query, rows, len(rows), self._catalog.rows(shown))
        broken = bounds.violated_by(np.arange(len(rows), dtype=np.int32))
        broken[bounds.block_control] = bounds.block_member.sum(axis=1)  # items that a block keeps off
        gave_way = {c["id"] for c in page["receipt"]["controls"] if c["status"] in ("relaxed", "infeasible")}
        ids = [origin.control.id for origin in self._policy.controls]
        return [control_id for control_id, by in zip(ids, broken, strict=True) if by and control_id not in gave_way]
