"""The control plane: the catalog, the policies and the audit trail that every serving process follows.

Laws (`tests/contracts/test_control.py`, over SQLite and PostgreSQL): `revision` increases with every change, and a
reader that follows it misses nothing; policy versions are append-only; of two writers that start from the same version
one gets Conflict; every change adds one entry to the signed audit trail (`features.control.audit_trail`), and every
manipulation of the trail is found, with the first entry that it affects.
"""

from features.control.connect import open_control
from features.control.plane import ControlPlane
from features.control.rows import AuditRow, Change, Outlet, PolicyVersion, PublishedPolicy, StoredItem

__all__ = [
    "AuditRow",
    "Change",
    "ControlPlane",
    "Outlet",
    "PolicyVersion",
    "PublishedPolicy",
    "StoredItem",
    "open_control",
]
