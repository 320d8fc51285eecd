"""Where a demo lives: its settings, what earlier runs of its home left, and its own names on shared servers."""

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

from features.control.connect import open_control
from features.events.stream.connect import open_stream
from features.settings import Settings
from features.state.online.connect import open_online
from recsys.domain.errors import SettingsError, Unavailable

_PASSWORD = re.compile(r"(?<=:)[^:@/]+(?=@)")
ENCODER = (
    "none"  # text vectors of nine thousand titles keep two cores busy for a minute: `MAINSTAY_ENCODER=usem3` makes them
)
TIMEOUT_S = 5.0  # of one call to the online store: nobody waits for a page here


def prepare(settings: Settings) -> Settings:
    """Create the home and return the settings with its absolute path and a free port.

    Raises SettingsError when no port is free, OSError when the home cannot be created.
    """
    home = Path(settings.home).resolve()
    home.mkdir(parents=True, exist_ok=True)
    port = _free(settings.host, settings.port)
    if settings.port not in (0, port):
        print(
            f"port {settings.port} is taken, using {port}; PORT=... chooses another (make demo PORT=8090)", flush=True
        )
    changes = {"home": str(home), "port": port}
    return settings.model_copy(update=changes | ({"encoder": ENCODER} if settings.encoder == "auto" else {}))


class DemoHome:
    """What earlier runs in this home left, in one JSON file.

    anchor  the moment that the demo's world is dated from, unix seconds
    world   its name on servers
    sent    interactions that are in the stream
    models  figures of the training, None before it
    """

    def __init__(self, home: str) -> None:
        self._file = Path(home) / "demo.json"
        said: dict[str, Any] = json.loads(self._file.read_text()) if self._file.exists() else {}
        self.anchor: float = said.get("anchor", float(int(time.time())))
        self.world: str = said.get("world", f"demo{uuid.uuid4().hex[:8]}")
        self.sent: int = said.get("sent", 0)
        self.models: dict[str, Any] | None = said.get("models")
        self.save()

    def save(self) -> None:
        """Write it down, whole or not at all."""
        draft = self._file.with_suffix(".tmp")
        names = ("anchor", "world", "sent", "models")
        draft.write_text(json.dumps({name: worth for name in names if (worth := getattr(self, name)) is not None}))
        draft.rename(self._file)


def own_settings(settings: Settings, world: str) -> Settings:
    """Settings that keep the demo to itself on real servers: topic, group, key prefix and schema named by `world`.

    So a new home finds nothing that an older one left there. A prefix or schema that the URL names already stays.

    >>> own_settings(Settings(online="redis://h/0", control="postgresql://h/d?schema=mine"), "demo1").online
    'redis://h/0?prefix=demo1'
    """
    changes: dict[str, str] = {}
    if settings.stream.startswith("kafka:"):
        changes |= {"topic": f"{settings.topic}-{world}", "group": f"{settings.group}-{world}"}
    if settings.online.startswith(("redis", "valkey")):
        changes["online"] = _with(settings.online, "prefix", world)
    if settings.control.startswith("postgresql") and "options=" not in settings.control:
        changes["control"] = _with(settings.control, "schema", world)
    return settings.model_copy(update=changes)


def describe_servers(settings: Settings) -> str:
    """Flags that lead other commands to the same places on real servers; without passwords."""
    said: dict[str, str] = {}
    if settings.stream.startswith("kafka:"):
        said |= {"stream": settings.stream, "topic": settings.topic, "group": settings.group}
    said |= {name: url for name in ("online", "control") if (url := getattr(settings, name))}
    return " ".join(f"--{name} {shlex.quote(_PASSWORD.sub('…', url))}" for name, url in said.items())


def check_servers(settings: Settings) -> None:
    """Ask each part once, so that one that is down is named before anything is started.

    Raises Unavailable, and InvalidInput for a URL that leads nowhere.
    """

    def stream() -> None:
        with closing(open_stream(settings.stream_url, partitions=settings.partitions)) as opened:
            opened.partitions(settings.topic)

    def online() -> None:
        with closing(open_online(settings.online_url, TIMEOUT_S)) as opened:
            opened.get(["demo"])

    def control() -> None:
        open_control(settings.control_url).close()

    asked: dict[str, Callable[[], None]] = {"stream": stream, "online": online, "control": control}
    for name, ask in asked.items():
        try:
            ask()
        except Unavailable as error:
            raise Unavailable(f"what --{name} names does not answer: {error}") from error


def _with(url: str, name: str, worth: str) -> str:
    """The URL with one more parameter, unless it has that one."""
    query = url.partition("?")[2]
    if any(part.startswith(f"{name}=") for part in query.split("&")):
        return url
    return f"{url}{'&' if query else '?'}{name}={worth}"


def _free(host: str, port: int) -> int:
    """The port, or any free one when it is taken."""
    for wish in (port, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, wish))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise SettingsError(f"no free port on {host}")
