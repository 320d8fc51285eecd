"""Key prefixes of the online store, all in one module: what is stored under each, and what serving scans."""

from __future__ import annotations

VIEWERS = "viewer:"
"""States of viewers, one each."""

ITEMS = "item:"
"""Counts of items, one for each item and log partition."""

COUNTS = "count:"
"""Counts of exposure targets, one for each target and log partition."""

TRAFFIC = "traffic:"
"""Attention by hour, one for each placement, region, day and log partition."""

QUARANTINE = "damaged:"
"""Corrupt states that were quarantined."""

ERASURES = "erased:"
"""Erased viewers by hash, a copy of the event log's list."""

LOG_EPOCHS = "lives:"
"""Log epochs of a topic, a copy of the event log's list."""

UNFINISHED, REBUILT = "rebuild:unfinished", "rebuild:begun"
"""The token of a rebuild in progress, and when the last one started."""

VECTORS = "vector:"
"""Text vectors of items."""

INDEXED = (ITEMS, TRAFFIC, QUARANTINE)
"""Prefixes that serving scans while it makes pages, every second to every minute: these scans pass no other keys."""
