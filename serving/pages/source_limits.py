"""Limits on the viewers of one source: how many viewers of an address may count for an item on one day.

A source is an IPv4 address or an IPv6 network of 64 bits, the smallest that one customer gets. The limits are kept in
memory, per process, and start again each day (UTC).
"""

from __future__ import annotations

import ipaddress
import threading
from collections import OrderedDict
from functools import lru_cache

from recsys.domain.decay import DAY_S

SOURCES_MAX = 100_000
"""Maximum number of pairs of source and item in memory; above it the least recently used ones start again."""


class SourceLimits:
    """A counter of the viewers per source and item of the current day. Safe for threads.

    viewers_max  maximum number of viewers per source, item and day; 0 for no limit
    """

    def __init__(self, viewers_max: int) -> None:
        self._viewers_max = viewers_max
        self._day = -1
        self._viewers: OrderedDict[tuple[str, str], set[int]] = OrderedDict()
        self._lock = threading.Lock()

    def admits(self, source: str, item_id: str, viewer_id: str, now: float) -> bool:
        """Count a viewer, and return whether events of this viewer on this item are within the limit.

        source  name from `source_of`; an empty name has no limit
        now     unix seconds
        """
        if not self._viewers_max or not source:
            return True
        digest, day = hash(viewer_id), int(now // DAY_S)
        with self._lock:
            if day != self._day:
                self._day, self._viewers = day, OrderedDict()
            viewers = self._viewers.setdefault((source, item_id), set())
            self._viewers.move_to_end((source, item_id))
            if len(self._viewers) > SOURCES_MAX:
                self._viewers.popitem(last=False)
            if digest in viewers:
                return True
            if len(viewers) >= self._viewers_max:
                return False
            viewers.add(digest)
            return True


@lru_cache(maxsize=4096)
def source_of(address: str | None) -> str:
    """Return the source of a client's address; empty if it has none.

    >>> source_of("192.0.2.7"), source_of("2001:db8:1:2:3::4"), source_of("::ffff:192.0.2.7"), source_of(None)
    ('192.0.2.7', '2001:db8:1:2::/64', '192.0.2.7', '')
    """
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return address or ""
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(parsed.ipv4_mapped or ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
