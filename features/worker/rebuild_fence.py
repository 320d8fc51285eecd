"""Markers in the online store that make running workers wait for a rebuild, so that no event is lost.

`RebuildFence` checks that no rebuild has begun since a worker's step did. A worker must check at three points:

* After each read of states. States read before the marker was set predate the wipe. The wiped store refuses their
  compare-and-set, the worker reads again, and this time it finds the marker.
* Between items and viewers. Otherwise viewers could record events that their items have lost.
* After it wrote to the event log, before it commits: the rebuild may have read the log earlier. The batch is then
  delivered again, and events that the store already holds count once.

A gap remains when a rebuild begins between a check and the write that follows it. A key that was missing before the
wipe then passes its compare-and-set: the state may lack its history, or a batch its items. Two concurrent rebuilds are
not distinguished either. `mainstay verify` compares the store with the log; a rebuild that runs alone repairs it.
"""

from __future__ import annotations

from contextlib import suppress

from features.checksum import decode_sealed, seal
from features.state.keys import REBUILD_IN_PROGRESS, REBUILD_STARTED
from features.state.online.port import OnlineStore
from recsys.domain.errors import DamagedData, Unavailable


def is_rebuild_in_progress(online: OnlineStore) -> bool:
    """Return whether a rebuild of this store began and did not finish. Raises Unavailable."""
    return online.get([REBUILD_IN_PROGRESS])[0] is not None


def rebuild_started_at(online: OnlineStore) -> float:
    """Return when the last finished rebuild of this store began, in unix seconds; -inf for never.

    The result is -inf as well if the marker is damaged. Raises Unavailable.
    """
    raw = online.get([REBUILD_STARTED])[0]
    with suppress(DamagedData):
        return float("-inf") if raw is None else decode_sealed(raw, float)
    return float("-inf")


def mark_rebuilt(online: OnlineStore, started_at: float) -> None:
    """Record that a rebuild which began at this unix second has finished. Raises Unavailable."""
    online.put({REBUILD_STARTED: seal(repr(started_at).encode())})
    online.delete([REBUILD_IN_PROGRESS])


class RebuildFence:
    """A check that the store has not been rebuilt since the fence was created.

    Creating one raises Unavailable while a rebuild is in progress.
    """

    def __init__(self, online: OnlineStore) -> None:
        self._online = online
        self._initial = self._last_rebuild()

    def check(self) -> None:
        """Raise Unavailable if a rebuild has begun since the fence was created, even if it has finished."""
        if self._last_rebuild() != self._initial:
            raise Unavailable("the online store was rebuilt during this step; the batch will be processed again")

    def _last_rebuild(self) -> bytes | None:
        """Return the marker of the last finished rebuild; raise Unavailable while a rebuild is in progress."""
        unfinished, rebuilt = self._online.get([REBUILD_IN_PROGRESS, REBUILD_STARTED])
        if unfinished is not None:
            raise Unavailable("online store rebuild in progress; if it was abandoned, rerun `mainstay rebuild`")
        return rebuilt
