"""The lists that the API answers, one page each."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from recsys.domain.item import Code, Item
from serving.api.pagination import ListAnswer, PageQuery
from serving.schemas.resources import AuditOut, OutletAnswer, PolicyVersionOut
from serving.schemas.targets import TargetOut


class ItemList(ListAnswer):
    """Items in the order of their last change."""

    items: list[Item]


class OutletList(ListAnswer):
    """Outlets, parents before children."""

    outlets: list[OutletAnswer]


class VersionList(ListAnswer):
    """Every saved version of an outlet's policy, newest first."""

    outlet: str
    versions: list[PolicyVersionOut]


class TargetsQuery(PageQuery):
    """Which exposure targets to list."""

    outlet: Code | None = Field(None, description="only targets of this outlet's own policy")


class TargetList(ListAnswer):
    """Exposure targets in force, by outlet and id."""

    targets: list[TargetOut]


class AuditQuery(PageQuery):
    """In which order to list the audit trail."""

    order: Literal["oldest", "newest"] = Field("oldest", description="which entry comes first")


class AuditList(ListAnswer):
    """Entries of the audit trail."""

    entries: list[AuditOut]
