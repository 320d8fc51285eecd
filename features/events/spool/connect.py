"""Which spool a stream needs: the only place that knows the adapters by name."""

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
    on_delivered: Callable[[Mapping[int, int]], object] = lambda marks: None,
) -> Spool:
    """Files in `directory` before a stream that may be away (`kafka://`), none before one in this machine's own files.

    A local stream is as durable as our files would be, so a spool before it would only write everything twice.
    Raises Unavailable when the directory cannot be used.
    """
    if url.startswith("kafka://"):
        return DurableSpool(directory, stream, topic, limit_bytes=limit_bytes, on_delivered=on_delivered)
    return DirectSpool(stream, topic, on_delivered)
