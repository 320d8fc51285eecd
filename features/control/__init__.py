"""The control plane: the catalogue, the policies and the audit trail that every serving process follows.

Laws (`tests/contracts/test_control.py`, over SQLite and PostgreSQL): `revision` grows with every change and a reader
that follows it misses nothing; policy versions are only ever appended; of two writers that start from the same version
one loses with Conflict; every change leaves one audit row, and a row altered, put in or taken out of the middle breaks
the chain (cutting off its end can only be seen by whoever kept a later hash).
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
