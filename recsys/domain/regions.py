"""Dotted codes of the region and outlet trees: `cn.zj.hz` is in `cn.zj`, which is in `cn`."""

from __future__ import annotations

from functools import lru_cache

MAX_REGION_LEVELS = 8
"""Maximum depth of a region in events and requests. Visits are counted at every level."""


def within(node: str, root: str) -> bool:
    """Return whether a node of a tree is `root` or below it.

    >>> within("cn.zj.hz", "cn.zj"), within("cn.zjx", "cn.zj")
    (True, False)
    """
    return node == root or node.startswith(root + ".")


@lru_cache(maxsize=10_000)
def roll_up(region: str) -> tuple[str, ...]:
    """Return a region and all regions that contain it, smallest first.

    >>> roll_up("cn.zj.hz")
    ('cn.zj.hz', 'cn.zj', 'cn')
    """
    parts = region.split(".") if region else []
    return tuple(".".join(parts[:depth]) for depth in range(len(parts), 0, -1))


def ancestry(code: str) -> tuple[str, ...]:
    """Return the codes from the root of the tree down to this code.

    >>> ancestry("cn.zj.hz")
    ('cn', 'cn.zj', 'cn.zj.hz')
    """
    parts = code.split(".")
    return tuple(".".join(parts[: depth + 1]) for depth in range(len(parts)))


def province(region: str) -> str:
    """Return the first two levels of a region.

    >>> province("cn.zj.hz.xh"), province("cn")
    ('cn.zj', 'cn')
    """
    return ".".join(region.split(".")[:2])


def region_of(outlet: str) -> str:
    """Return the region that an outlet is named after, cut to MAX_REGION_LEVELS levels.

    >>> region_of("cn.zj"), region_of("a.b.c.d.e.f.g.h.i")
    ('cn.zj', 'a.b.c.d.e.f.g.h')
    """
    return ".".join(outlet.split(".")[:MAX_REGION_LEVELS])
