"""The lists that the API returns. Each response contains one page of a list."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from recsys.domain.fields import Code
from recsys.domain.item import Item
from serving.api.pagination import ListAnswer, PageQuery
from serving.schemas.resources import AuditOut, OutletAnswer, PolicyVersionOut
from serving.schemas.targets import TargetOut


class ItemList(ListAnswer):
    """Items, sorted by their last change."""

    items: list[Item]


class OutletList(ListAnswer):
    """Outlets, parents before children."""

    outlets: list[OutletAnswer]


class VersionList(ListAnswer):
    """All saved versions of an outlet's policy, newest first."""

    outlet: str
    versions: list[PolicyVersionOut]


class TargetsQuery(PageQuery):
    """The filter of exposure targets."""

    outlet: Code | None = Field(None, description="Return only targets that this outlet's own policy defines.")


class TargetList(ListAnswer):
    """Exposure targets in force, sorted by outlet and id."""

    targets: list[TargetOut]


class AuditQuery(PageQuery):
    """The order of the audit trail."""

    order: Literal["oldest", "newest"] = Field("oldest", description="The entry that is listed first.")


class AuditList(ListAnswer):
    """Entries of the audit trail."""

    entries: list[AuditOut]
