"""A connection ends at the latest when its limits are reached, however its client sends a request.

The protocol runs on a clock of the test, without sockets.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from uvicorn.server import ServerState

from serving.edge.http_protocol import BoundedProtocol, Limits

LIMITS = Limits(connections=5, headers_s=10, body_s=60, write_s=60, discard_s=5, discard_bytes=100_000, small_chunks=20)
BODY = b"x" * 40
REQUEST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 40\r\n\r\n" + BODY
HEADERS = len(REQUEST) - len(BODY)
KEEP_ALIVE_S = 5


class Loop(asyncio.SelectorEventLoop):
    """An event loop with a clock of the test for all timers."""

    def __init__(self) -> None:
        super().__init__()
        self.reset()

    def reset(self) -> None:
        self.now = 0.0
        self._plan: list[tuple[float, int, Timer]] = []
        self._count = itertools.count()

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[..., object], *args: object, **_: object) -> Any:
        timer = Timer(callback, args)
        heapq.heappush(self._plan, (self.now + delay, next(self._count), timer))
        return timer

    def advance(self, seconds: float) -> None:
        """Let this time pass."""
        end = self.now + seconds
        while self._plan and self._plan[0][0] <= end:
            self.now, _, timer = heapq.heappop(self._plan)
            if not timer.cancelled:
                timer.callback(*timer.args)
                self.settle()
        self.now = end

    def settle(self) -> None:
        """Run all tasks as far as they can run."""
        for _ in range(4):
            self.call_soon(self.stop)
            self.run_forever()

    def waiting(self) -> int:
        """Return the number of timers."""
        return sum(not timer.cancelled for _, _, timer in self._plan)


class Timer:
    def __init__(self, callback: Callable[..., object], args: tuple[object, ...]) -> None:
        self.callback, self.args, self.cancelled = callback, args, False

    def cancel(self) -> None:
        self.cancelled = True


class Transport:
    """A connection to a client. `is_open` is false once either side has closed it."""

    def __init__(self) -> None:
        self.sent, self.is_open, self.protocol = b"", True, None

    def write(self, data: bytes) -> None:
        self.sent += data

    def close(self) -> None:
        if self.is_open:
            self.is_open = False
            self.protocol.connection_lost(None)

    abort = close

    def is_closing(self) -> bool:
        return not self.is_open

    def get_extra_info(self, name: str) -> None:
        return None

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


LOOP = Loop()


@pytest.fixture(scope="module", autouse=True)
def _closed_loop() -> Iterator[None]:
    yield
    LOOP.close()


async def echo(scope, receive, send) -> None:
    """Answer with the size of the body, or at once if the path is /early."""
    size, more = 0, scope["path"] != "/early"
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size, more = size + len(message["body"]), message["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"%5d" % size})


class Server:
    """The protocols of one process."""

    def __init__(self) -> None:
        self.loop, self.state = LOOP, ServerState()
        LOOP.reset()
        self.config = uvicorn.Config(echo, log_level="critical", timeout_keep_alive=KEEP_ALIVE_S, lifespan="off")

    def connect(self) -> Transport:
        transport = Transport()
        protocol = BoundedProtocol(self.config, self.state, {}, _loop=self.loop, limits=LIMITS)
        transport.protocol = protocol
        protocol.connection_made(transport)
        return transport

    def send(self, transport: Transport, data: bytes) -> None:
        if transport.is_open:
            transport.protocol.data_received(data)
            self.loop.settle()


@pytest.fixture(name="server")
def _server() -> Server:
    return Server()


pauses = st.lists(st.tuples(st.integers(1, 12), st.floats(0.0, 9.0)), max_size=60)


def slices(raw: bytes, sizes: Iterator[int]) -> Iterator[bytes]:
    while raw:
        size = next(sizes, len(raw))
        yield raw[:size]
        raw = raw[size:]


@given(pauses)
def test_a_request_is_answered_if_it_arrives_in_time_and_else_the_connection_ends(plan) -> None:
    """The oracle adds up the pauses: up to the end of the headers, and from there to the end of the body."""
    server = Server()
    transport, at, sent, in_time, headers_at = server.connect(), 0.0, 0, True, None
    delays = iter([delay for _, delay in plan])
    for part in slices(REQUEST, iter([size for size, _ in plan])):
        delay = next(delays, 0.0)
        at += delay
        in_time &= at < LIMITS.headers_s if headers_at is None else at - headers_at < LIMITS.body_s
        server.loop.advance(delay)
        server.send(transport, part)
        sent += len(part)
        headers_at = at if headers_at is None and sent >= HEADERS else headers_at
    assert transport.sent.startswith(b"HTTP/1.1 200" if in_time else b"HTTP/1.1 408")
    assert transport.is_open == in_time
    server.loop.advance(KEEP_ALIVE_S + 1)
    assert not transport.is_open
    assert server.loop.waiting() == 0, "no timer is left behind"


@given(st.integers(0, len(REQUEST) - 1), st.booleans())
def test_a_request_that_is_never_completed_does_not_stay_open(size: int, is_second: bool) -> None:
    server = Server()
    transport = server.connect()
    if is_second:
        server.send(transport, REQUEST)
    server.send(transport, REQUEST[:size]) if size else None
    server.loop.advance(LIMITS.headers_s if size < HEADERS else LIMITS.body_s)
    assert not transport.is_open
    assert not server.state.connections
    assert not asyncio.all_tasks(LOOP), "the app has learned that the client is gone"


def test_half_open_connections_do_not_keep_others_out(server) -> None:
    """However many connections wait for their clients, a new client is served; the longest waiting one is closed."""
    half_open = []
    for n in range(50):
        half_open.append(server.connect())
        server.send(half_open[-1], REQUEST[: 1 + n])
        server.loop.advance(0.01)
        client = server.connect()
        server.send(client, REQUEST)
        assert client.sent.startswith(b"HTTP/1.1 200")
        assert len(server.state.connections) <= LIMITS.connections
    assert not any(transport.is_open for transport in half_open[:40])


def test_a_connection_beyond_the_limit_is_refused_while_all_others_are_served(server) -> None:
    stalled = REQUEST.replace(b"POST /", b"POST /early")
    busy = [server.connect() for _ in range(LIMITS.connections)]
    for transport in busy:
        transport.protocol.data_received(stalled)  # the app does not run, so that the answers are outstanding
    extra = server.connect()
    assert not extra.is_open
    server.loop.settle()
    assert all(transport.sent.startswith(b"HTTP/1.1 200") for transport in busy)


def test_a_body_that_goes_on_after_the_answer_is_cut_off(server) -> None:
    endless = b"POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 200000000\r\n\r\n"
    by_bytes, by_time, short = server.connect(), server.connect(), server.connect()
    for transport in (by_bytes, by_time):
        server.send(transport, endless)
        assert transport.sent.startswith(b"HTTP/1.1 200")
        assert transport.is_open, "the client may read the answer first"
    server.send(by_bytes, b"x" * LIMITS.discard_bytes)
    server.send(by_bytes, b"x")
    assert not by_bytes.is_open
    for _ in range(int(LIMITS.discard_s)):
        server.loop.advance(1)
        server.send(by_time, b"x")
    assert not by_time.is_open
    server.send(short, REQUEST.replace(b"POST /", b"POST /early")[:-1])
    server.send(short, b"x" + REQUEST)
    assert short.sent.count(b"HTTP/1.1 200") == 2, "a short rest is read, and the connection stays usable"


def test_a_client_that_does_not_read_its_answer_is_disconnected(server) -> None:
    reader, stalled = server.connect(), server.connect()
    for transport in (reader, stalled):
        server.send(transport, REQUEST[:-1])
        transport.protocol.pause_writing()
    server.loop.advance(LIMITS.write_s - 30)
    reader.protocol.resume_writing()
    server.loop.advance(29)
    assert (reader.is_open, stalled.is_open) == (True, True)
    server.loop.advance(1)
    assert not stalled.is_open


@given(st.integers(1, 8), st.integers(1, 200))
def test_the_number_of_chunks_of_a_body_is_bounded_by_its_size(size: int, count: int) -> None:
    server = Server()
    transport = server.connect()
    server.send(transport, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    server.send(transport, b"".join([b"%x\r\n%s\r\n" % (size, b"x" * size)] * count) + b"0\r\n\r\n")
    assert transport.sent.startswith(b"HTTP/1.1 200" if count <= LIMITS.small_chunks else b"HTTP/1.1 400")
