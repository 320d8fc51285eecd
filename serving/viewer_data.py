"""The stored data of a viewer: complete export and permanent erasure."""

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


class ErasureResult(BaseModel):
    """The data that an erasure removed, and the messages that remain in the stream."""

    state: bool = Field(description="Whether the online store contained a state of the viewer.")
    events: int = Field(description="Number of events that were removed from the event log.")
    files: int = Field(description="Number of files of the event log that were rewritten.")
    messages_left: int | None = Field(
        description="Number of messages of the viewer that remain in the stream; workers ignore them. Null if all "
        "messages remain until the retention of the stream ends."
    )
    unread_by_group: dict[str, int] = Field(
        description="For each consumer group, the number of remaining messages that it has not read yet. After the "
        "group has read them, another erasure deletes them; otherwise they remain until the retention of the stream "
        "ends.",
        examples=[{"features": 2}],
    )
    damaged_files: list[str] = Field(
        description="Damaged files of the event log, in its quarantine, that could not be searched and may hold events "
        "of the viewer: restore or delete them."
    )


@dataclass(frozen=True)
class ViewerData:
    """A service that exports and erases a viewer's data in event log, online store, stream and this process.

    on_erased  functions that remove a viewer from the memory of this process
    """

    log: EventLog
    online: OnlineStore
    stream: Stream
    topic: str
    group: str
    clock: Callable[[], float]
    on_erased: tuple[Callable[[str], None], ...] = ()
    _erasing: Lock = field(default_factory=Lock)  # each erasure rewrites files; concurrent erasures would delay pages

    def export(self, viewer_id: str) -> Iterator[bytes]:
        """Return all stored data of the viewer as JSON lines. Raises Unavailable before the first line only."""
        lines = export_viewer(self.log, self.online, viewer_id, stream=self.stream, topic=self.topic)
        first = [next(lines), *islice(lines, 1)]  # an outage raises here, before the response starts
        return chain(first, lines)

    def erase(self, viewer_id: str) -> ErasureResult:
        """Erase the viewer. Raises Busy while another erasure runs, and Unavailable."""
        if not self._erasing.acquire(blocking=False):
            raise Busy("another erasure is in progress; try again later")
        try:
            report = erase_viewer(
                self.log, self.online, viewer_id, self.clock(), stream=self.stream, topic=self.topic, group=self.group
            )
            retention = self.stream.retention
            backlogs = (
                retention.backlog(self.topic, float("inf"), [self.group], viewer_id)
                if retention and report.messages_left
                else {}
            )
        finally:
            self._erasing.release()
        for remove in self.on_erased:
            remove(viewer_id)
        return ErasureResult(
            state=report.had_state,
            events=report.events,
            files=report.files,
            messages_left=report.messages_left,
            unread_by_group={name: backlog.messages for name, backlog in backlogs.items()},
            damaged_files=list(report.damaged_files),
        )
