"""The HTTP protocol of the server, with bounds for each connection that uvicorn does not have.

A client that sends a request slowly, or never completes it, or never reads the response, is disconnected. So is one
that goes on sending a body after the response, or sends it in very small chunks, which take far more time than their
size.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any, Literal, TypeAlias

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

Phase: TypeAlias = Literal["headers", "body", "discard"]


@dataclass(frozen=True)
class Limits:
    """Bounds of a connection.

    connections    open connections of a process; beyond that, those are closed that wait for their client
    headers_s      seconds from the first byte of a request (or from the connection) to the end of its headers
    body_s         seconds from there to the end of its body
    write_s        seconds that a client may not read anything while a response waits for it
    discard_s      seconds that a client may go on sending a body after the response
    discard_bytes  bytes of such a body
    small_chunks   chunks of a body that may be smaller than `chunk_bytes` on average
    """

    connections: int = 1000
    headers_s: float = 10.0
    body_s: float = 60.0
    write_s: float = 60.0
    discard_s: float = 5.0
    discard_bytes: int = 16 << 20
    small_chunks: int = 2000
    chunk_bytes: int = 256


def http_protocol(connections: int) -> Any:
    """Return the factory of protocols for uvicorn's configuration, which is sent to its processes."""
    return partial(BoundedProtocol, limits=Limits(connections))


class BoundedProtocol(H11Protocol):
    """A connection that is closed when its client exceeds one of `limits`."""

    def __init__(self, *args: Any, limits: Limits, **options: Any) -> None:
        super().__init__(*args, **options)
        self._limits = limits
        self.conn = _Connection(limits, self.config.h11_max_incomplete_event_size)
        self._phase: Phase | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._discarded = 0
        self._since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._since = self.loop.time()
        self._enter("headers")
        if len(self.connections) > self._limits.connections:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        self._enter(None)
        self._stop_write_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._phase == "discard":
            self._discarded += len(data)
            if self._discarded > self._limits.discard_bytes:
                self.transport.abort()
                return
        super().data_received(data)
        self._watch(is_waiting=True)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._since = self.loop.time()
        self._discarded = 0
        self._watch(is_waiting=self.conn.their_state is h11.IDLE and bool(self.conn.trailing_data[0]))

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stop_write_timer()
        self._write_timer = self.loop.call_later(self._limits.write_s, self.transport.abort)

    def resume_writing(self) -> None:
        self._stop_write_timer()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Refuse a request that is not valid HTTP; disconnect if a response has started already."""
        self._refuse(HTTPStatus.BAD_REQUEST, msg)

    def is_waiting_for_client(self) -> bool:
        """Return whether the connection has no complete request: it is idle, or a part of a request is missing."""
        return self.cycle is None or self.cycle.response_complete or self.conn.their_state is h11.SEND_BODY

    def _make_room(self) -> None:
        """Close the connection that has waited longest for its client, which may be this one."""
        waiting = [c for c in self.connections if isinstance(c, BoundedProtocol) and c.is_waiting_for_client()]
        oldest = min(waiting, key=lambda connection: connection._since)
        oldest.transport.abort()
        self.connections.discard(oldest)

    def _watch(self, is_waiting: bool) -> None:
        """Start the timer of the phase that the connection is in. `is_waiting`: a part of a request has arrived."""
        their_state = self.conn.their_state
        if their_state is h11.SEND_BODY:
            self._enter("discard" if self.cycle.response_complete else "body")
        else:
            self._enter("headers" if their_state is h11.IDLE and is_waiting else None)

    def _enter(self, phase: Phase | None) -> None:
        if phase == self._phase:
            return
        if self._timer is not None:
            self._timer.cancel()
        limits = self._limits
        self._phase, self._timer = phase, None
        if phase is not None:
            seconds = {"headers": limits.headers_s, "body": limits.body_s, "discard": limits.discard_s}[phase]
            self._timer = self.loop.call_later(seconds, self._refuse, HTTPStatus.REQUEST_TIMEOUT, "Request Timeout")

    def _refuse(self, status: HTTPStatus, text: str) -> None:
        """Answer with an error if no response has started, and disconnect."""
        if self.transport.is_closing():
            return
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.abort()
            return
        if self.cycle is not None:
            self.cycle.disconnected = True  # the app must not answer as well
            self.cycle.message_event.set()
        headers = [("content-type", "text/plain; charset=utf-8"), ("connection", "close")]
        for event in (
            h11.Response(status_code=status, headers=headers, reason=status.phrase.encode()),
            h11.Data(data=text.encode()),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None


class _Connection(h11.Connection):
    """A connection that refuses bodies in many small chunks."""

    def __init__(self, limits: Limits, max_header_bytes: int | None) -> None:
        size = {} if max_header_bytes is None else {"max_incomplete_event_size": max_header_bytes}
        super().__init__(h11.SERVER, **size)
        self._limits, self._chunks, self._bytes = limits, 0, 0

    def next_event(self) -> Any:
        event: Any = super().next_event()
        kind = type(event)
        if kind is h11.Data:
            self._chunks, self._bytes = self._chunks + 1, self._bytes + len(event.data)
            if self._chunks > max(self._limits.small_chunks, self._bytes // self._limits.chunk_bytes):
                raise h11.RemoteProtocolError("too many small chunks")
        elif kind is h11.Request:
            self._chunks = self._bytes = 0
        return event
