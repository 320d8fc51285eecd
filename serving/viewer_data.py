"""A viewer's rights over stored data: export all of it, erase all of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from threading import Lock

from pydantic import BaseModel, Field

from features.events.stream.port import Stream
from features.history.event_log import EventLog
from features.history.privacy import erase_viewer, export_viewer
from features.state.online.port import OnlineStore
from serving.schemas.problems import Busy


class Erased(BaseModel):
    """What an erasure removed, and what is left until the stream drops it."""

    state: bool = Field(description="whether the online store had a state of the viewer")
    events: int = Field(description="events removed from the event log")
    files: int = Field(description="files of the event log that were rewritten")
    left: int | None = Field(
        description="messages left in the stream, where no worker folds them; null: all, until its retention ends"
    )
    held_by: dict[str, int] = Field(
        description="by consumer group, how many of these messages it has not read yet. Once it has, they leave with "
        "another erasure, or when the stream's retention ends",
        examples=[{"recsys-worker": 2}],
    )


@dataclass(frozen=True)
class ViewerData:
    """Exports and erases what the event log, the online store, the stream and this process hold of a viewer.

    forget  each call removes a viewer from memory of this process
    """

    log: EventLog
    online: OnlineStore
    stream: Stream
    topic: str
    group: str
    clock: Callable[[], float]
    forget: tuple[Callable[[str], None], ...] = ()
    _erasing: Lock = field(default_factory=Lock)  # each erasure rewrites files: concurrent ones would starve pages

    def export(self, viewer_id: str) -> Iterator[bytes]:
        """Return all that is stored of the viewer as JSON lines. Raises Unavailable before the first line only."""
        lines = export_viewer(self.log, self.online, viewer_id, stream=self.stream, topic=self.topic)
        first = [next(lines), *islice(lines, 1)]  # a store that does not answer fails here, before the answer begins
        return chain(first, lines)

    def erase(self, viewer_id: str) -> Erased:
        """Erase the viewer. Raises Busy while another erasure runs, Unavailable."""
        if not self._erasing.acquire(blocking=False):
            raise Busy("another viewer is being erased")
        try:
            did = erase_viewer(
                self.log, self.online, viewer_id, self.clock(), stream=self.stream, topic=self.topic, group=self.group
            )
            retention = self.stream.retention
            held = (
                retention.backlog(self.topic, float("inf"), [self.group], viewer_id) if retention and did.messages_left else {}
            )
        finally:
            self._erasing.release()
        for forget in self.forget:
            forget(viewer_id)
        return Erased(
            state=did.had_state,
            events=did.events,
            files=did.files,
            left=did.messages_left,
            held_by={name: backlog.messages for name, backlog in held.items()},
        )
