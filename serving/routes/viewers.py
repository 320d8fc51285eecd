"""Viewers' rights over what is held of them: GET /v1/viewers/{id}/export, DELETE /v1/viewers/{id}."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain, islice
from threading import Lock

from fastapi import APIRouter, Depends
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from features.offline.log import EventLog
from features.online import OnlineStore
from features.stream import Stream
from features.viewers import erase_viewer, export_viewer
from serving.access import editors_only, nobody
from serving.problems import Busy, documented


class Erased(BaseModel):
    """What was forgotten: whether there was a state, how many events of the log, how many files were written anew;
    how many messages are left in the stream, where nobody folds them (null: all, until its retention ends); and for
    whose sake (`held_by`): by group, how many of them it has not passed yet. Once passed they leave with another
    erasure, or when the stream's retention ends."""

    state: bool
    events: int
    files: int
    left: int | None
    held_by: dict[str, int] = Field(examples=[{"recsys-worker": 2}])


def routes(
    log: EventLog,
    online: OnlineStore,
    clock: Callable[[], float],
    admin_token: str,
    loopback: bool,
    stream: Stream,
    topic: str,
    group: str,
    memories: Sequence[Callable[[str], None]],
) -> APIRouter:
    """The routes of viewers; both need the editors' token. Where none is set they answer on this machine alone.

    memories: each forgets what this process has in memory of a viewer
    loopback: whether only this machine can reach the service
    """
    retention = stream.retention
    one_at_a_time = Lock()  # each writes files anew and waits for compactions: pages need the threads
    router = APIRouter(
        prefix="/v1/viewers",
        tags=["viewers"],
        dependencies=[Depends(editors_only(admin_token) if admin_token or loopback else nobody)],
    )

    @router.get(
        "/{viewer_id:path}/export",
        summary="All that is held of a viewer",
        description=(
            "JSON lines: the state, messages set aside as unreadable or from the future, then each event of the log. "
            "What else is still in the stream is not in it yet."
        ),
        response_class=StreamingResponse,
        responses=documented(401, 503),
    )
    def export(viewer_id: str) -> StreamingResponse:
        lines = export_viewer(log, online, viewer_id, stream=stream, topic=topic)
        first = [next(lines), *islice(lines, 1)]  # a store that does not answer says so before the answer begins
        return StreamingResponse(chain(first, lines), media_type="application/x-ndjson")

    @router.delete(
        "/{viewer_id:path}",
        summary="Forget a viewer for good",
        description=(
            "All that the viewer did until now leaves online store and event log, and comes back from no replay. "
            "It takes as long as the log's files need to be written anew. 503: say it again. What a process has taken "
            "and not sent to the stream yet waits in its spool, and what it has sent stays there for a day; nobody "
            "folds it."
        ),
        responses=documented(401, 429, 503),
    )
    def erase(viewer_id: str) -> Erased:
        if not one_at_a_time.acquire(blocking=False):
            raise Busy("another viewer is being erased")
        try:
            did = erase_viewer(log, online, viewer_id, clock(), stream=stream, topic=topic, group=group)
            held = retention.held(topic, float("inf"), [group], viewer_id) if retention and did.left else {}
        finally:
            one_at_a_time.release()
        for forget in memories:
            forget(viewer_id)
        return Erased(
            state=did.state,
            events=did.events,
            files=did.files,
            left=did.left,
            held_by={name: one.messages for name, one in held.items()},
        )

    return router
