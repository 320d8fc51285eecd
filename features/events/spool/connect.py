"""Opens the spool that a stream needs. This is the only module that imports the adapters by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from features.events.spool.direct import DirectSpool
from features.events.spool.durable import LIMIT_BYTES, DurableSpool
from features.events.spool.port import Spool
from features.events.stream.port import Stream


def open_spool(
    url: str,
    stream: Stream,
    topic: str,
    *,
    directory: str | Path,
    limit_bytes: int = LIMIT_BYTES,
    on_delivered: Callable[[Mapping[int, int]], object] = lambda offsets: None,
) -> Spool:
    """Open a durable spool in `directory` for a remote stream (`kafka://`), or a direct one for a local stream.

    A local stream is as durable as the spool's own files, so a durable spool would only write everything twice.
    Raises Unavailable if the directory cannot be used.
    """
    if url.startswith("kafka://"):
        return DurableSpool(directory, stream, topic, limit_bytes=limit_bytes, on_delivered=on_delivered)
    return DirectSpool(stream, topic, on_delivered)
