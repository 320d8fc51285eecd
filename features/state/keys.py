"""Key prefixes of the online store, with what is stored under each and which prefixes serving scans."""

from __future__ import annotations

VIEWERS = "viewer:"
"""Viewer states, one key per viewer."""

ITEMS = "item:"
"""Item states, one key per item and log partition."""

COUNTS = "count:"
"""Delivery counts of exposure targets, one key per target and log partition."""

TRAFFIC = "traffic:"
"""Attention by hour, one key per placement, region, day and log partition."""

PACING = "pacing:"
"""Pacing states of exposure targets, written by serving."""

QUARANTINE = "quarantine:"
"""Corrupt states in quarantine."""

ERASURES = "erased:"
"""Erasures by hash of the viewer id: a copy of the event log's list."""

LOG_EPOCHS = "epochs:"
"""Log epochs of a topic: a copy of the event log's list."""

REBUILD_IN_PROGRESS, REBUILD_STARTED = "rebuild:in-progress", "rebuild:started"
"""Markers of rebuilds: present while one is in progress, and the time at which the last one started."""

VECTORS = "vector:"
"""Text embeddings of items."""

INDEXED = (ITEMS, TRAFFIC, QUARANTINE)
"""Prefixes that serving scans every second to every minute. The Redis store indexes them, so that these scans do not
visit other keys."""
