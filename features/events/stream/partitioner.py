"""The partitioner of the embedded streams, and the check that a log still has its offsets.

Kafka's clients have their own partitioner.
"""

from __future__ import annotations

from collections.abc import Mapping
from zlib import crc32


def partition_of(key: str, partitions: int) -> int:
    """Return the partition of a key. It must never change, because stored states refer to offsets per partition.

    >>> [partition_of(key, 4) for key in ("v1", "v2", "v3")]
    [1, 3, 1]
    """
    return crc32(key.encode()) % partitions


def has_shrunk(topic: str, newest: Mapping[int, int], ends: Mapping[int, int]) -> str | None:
    """Return why a log cannot have assigned these offsets; None if it can.

    newest  partition -> newest offset that was acknowledged
    ends    partition -> log end offset

    >>> has_shrunk("t", {0: 4, 1: 9}, {0: 5, 1: 3})
    't/1: the log end offset is 3, but offset 9 was acknowledged'
    >>> has_shrunk("t", {0: 4}, {0: 4})
    't/0: the log end offset is 4, but offset 4 was acknowledged'
    """
    for partition, offset in newest.items():
        if ends.get(partition, 0) <= offset:
            end = ends.get(partition, 0)
            return f"{topic}/{partition}: the log end offset is {end}, but offset {offset} was acknowledged"
    return None
