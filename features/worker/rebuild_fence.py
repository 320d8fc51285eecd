"""Marks in the online store that a rebuild leaves, so that workers that run meanwhile wait and lose nothing.

`Undisturbed` tells a worker that no rebuild began since its step did. It must look *after* each reading of states: what
was read before the mark was set is from before the store was wiped, so a swap of it is refused by the wiped store, and
the state is read again, and the mark seen. It must look between items and viewers, or viewers would know events that
their items have lost. And it must look after it wrote to the event log, before the commit: a rebuild may have read the
log before. The batch is then delivered again, and what the store has of it counts once.

What is left: a rebuild that begins between a look and the writing that follows it. A key that was missing then passes
its swap after the wipe: its state may lack its history, a batch its items. Two rebuilds at once are not told apart.
`mainstay verify` compares with the log, and another rebuild, alone, mends it.
"""

from __future__ import annotations

from features.state.keys import REBUILT, UNFINISHED
from features.state.online.port import OnlineStore
from recsys.domain.errors import Unavailable


def is_rebuild_in_progress(online: OnlineStore) -> bool:
    """Whether a rebuild of this store was begun and did not end. Raises Unavailable."""
    return online.get([UNFINISHED])[0] is not None


def rebuild_started_at(online: OnlineStore) -> float:
    """When the last rebuild of this store that ended had begun, unix seconds; -inf for never. Raises Unavailable."""
    said = online.get([REBUILT])[0]
    return float("-inf") if said is None else float(said)


class RebuildFence:
    """That the store has not been made anew since this was made. Raises Unavailable when it is at that moment."""

    def __init__(self, online: OnlineStore) -> None:
        self._online = online
        self._rebuilt = self._look()

    def check(self) -> None:
        """Raises Unavailable when a rebuild began meanwhile, even if it ended."""
        if self._look() != self._rebuilt:
            raise Unavailable("the online store was made anew meanwhile: the batch is folded again")

    def _look(self) -> bytes | None:
        begun, rebuilt = self._online.get([UNFINISHED, REBUILT])
        if begun is not None:
            raise Unavailable("online store rebuild in progress; if it was abandoned, run `mainstay rebuild` again")
        return rebuilt
