"""Which partition a key lands in, for the logs that are ours (Kafka's clients have their own rule), and its end."""

from __future__ import annotations

from collections.abc import Mapping
from zlib import crc32


def partition_of(key: str, partitions: int) -> int:
    """The same in every process and release: state files remember offsets per partition.

    >>> [partition_of(key, 4) for key in ("v1", "v2", "v3")]
    [1, 3, 1]
    """
    return crc32(key.encode()) % partitions


def has_shrunk(topic: str, newest: Mapping[int, int], ends: Mapping[int, int]) -> str | None:
    """Why a log with these ends (partition -> next offset) cannot have given out these offsets; None when it can.

    >>> has_shrunk("t", {0: 4, 1: 9}, {0: 5, 1: 3})
    't/1 ends at 3, but 9 was written already'
    >>> has_shrunk("t", {0: 4}, {0: 4})
    't/0 ends at 4, but 4 was written already'
    """
    for partition, offset in newest.items():
        if ends.get(partition, 0) <= offset:
            return f"{topic}/{partition} ends at {ends.get(partition, 0)}, but {offset} was written already"
    return None
