"""Dotted codes of the region and outlet trees: `cn.zj.hz` lies in `cn.zj`, which lies in `cn`."""

from __future__ import annotations

from functools import lru_cache

MAX_REGION_LEVELS = 8
"""The deepest region that events and requests may name; visits are counted at each of its levels."""


def within(node: str, root: str) -> bool:
    """Whether a node of a dotted tree is `root` or lies below it.

    >>> within("cn.zj.hz", "cn.zj"), within("cn.zjx", "cn.zj")
    (True, False)
    """
    return node == root or node.startswith(root + ".")


@lru_cache(maxsize=10_000)
def roll_up(region: str) -> tuple[str, ...]:
    """A region and all that contain it, smallest first.

    >>> roll_up("cn.zj.hz")
    ('cn.zj.hz', 'cn.zj', 'cn')
    """
    parts = region.split(".") if region else []
    return tuple(".".join(parts[:depth]) for depth in range(len(parts), 0, -1))


def ancestry(code: str) -> tuple[str, ...]:
    """The codes from the root down to this one.

    >>> ancestry("cn.zj.hz")
    ('cn', 'cn.zj', 'cn.zj.hz')
    """
    parts = code.split(".")
    return tuple(".".join(parts[: depth + 1]) for depth in range(len(parts)))


def province(region: str) -> str:
    """The first two levels of a region.

    >>> province("cn.zj.hz.xh"), province("cn")
    ('cn.zj', 'cn')
    """
    return ".".join(region.split(".")[:2])


def region_of(outlet: str) -> str:
    """The region of which an outlet bears the name; of one deeper than events know regions, the region around it.

    >>> region_of("cn.zj"), region_of("a.b.c.d.e.f.g.h.i")
    ('cn.zj', 'a.b.c.d.e.f.g.h')
    """
    return ".".join(outlet.split(".")[:MAX_REGION_LEVELS])
