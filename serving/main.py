"""`mainstay serve`: the API and the console, in one process or several."""

from __future__ import annotations

import atexit
import gc
import logging
import multiprocessing
import os
import resource
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from features.commands.flags import with_settings
from features.redaction import configure_logging, redact
from features.settings import PREFIX, Settings
from features.shutdown import SIGNALS, limit_shutdown
from recsys.domain.errors import Finding, MainstayError, SettingsError, Unavailable
from serving.edge.callers import is_loopback

if TYPE_CHECKING:
    from fastapi import FastAPI
    from uvicorn.supervisors import Multiprocess

PROCESSES_DIR = "PROMETHEUS_MULTIPROC_DIR"  # repeated here: serving.prometheus must be imported after it is set

GRACE_S = 3
"""Seconds that requests in progress may take to finish at shutdown, less than `features.shutdown.LIMIT_S`."""

HEALTH_TIMEOUT_S = 60
"""Seconds a process may take to answer its supervisor before it is replaced."""

GC_FREEZE_EVERY_S = 1.0

OTHER_FILES = 1000
"""Files that a process may have open besides its connections."""


@with_settings(*Settings.model_fields)
def serve(settings: Settings) -> int:
    """Serve the HTTP API and the console.

    Runs until SIGTERM or Ctrl-C, then finishes the requests in progress and publishes their impressions.

    Exit codes: 0 stopped, 1 the address is in use or a component cannot be opened, 2 usage.
    """
    refuse_unprotected(settings)
    with tempfile.TemporaryDirectory(prefix="mainstay-metrics-") as metrics_dir:
        _export_environment(settings, metrics_dir)
        return _serve(settings)


def refuse_unprotected(settings: Settings) -> None:
    """Raise SettingsError if other machines could reach the service, no token protects it, and this is not intended."""
    if settings.admin_token or settings.insecure or is_loopback(settings.host):
        return
    fault = (
        "other machines reach this address, and anyone could change items and policies: set MAINSTAY_ADMIN_TOKEN, "
        "or add --insecure if something else protects the service"
    )
    raise SettingsError("refused to start", [Finding(f"--host {settings.host}", fault)])


def application() -> FastAPI:
    """Return the app of one process, with the settings that `serve` exported; uvicorn calls this in each process."""
    from uvicorn.config import STARTUP_FAILURE

    from serving.app import build

    _configure_logging()
    try:
        return with_gc_freeze(build(Settings.read()))
    except MainstayError as error:
        print(redact(f"mainstay serve: {error}"), file=sys.stderr, flush=True)
        raise SystemExit(STARTUP_FAILURE if multiprocessing.parent_process() else 1) from None


def with_gc_freeze(app: FastAPI) -> FastAPI:
    """Return the app with a poller that keeps long-lived objects out of garbage collection.

    Use it only where the app has its process to itself.
    """
    from serving.gc_freeze import GcFreezer
    from serving.services import Services
    from serving.snapshot.poller import Poller

    services: Services = app.state.services
    freezer = GcFreezer(services.holders, lambda: bool(services.pollers["engine"].ok))
    services.pollers["gc_freeze"] = Poller("gc_freeze", freezer.step, GC_FREEZE_EVERY_S)
    atexit.register(gc.unfreeze)  # some libraries count their objects at exit
    return app


def _serve(settings: Settings) -> int:
    import uvicorn

    from serving.edge.http_protocol import http_protocol
    from serving.server_config import ServerConfig

    _allow_files(settings.connections)
    config = ServerConfig(
        "serving.main:application",
        factory=True,
        http=http_protocol(settings.connections),
        host=settings.host,
        port=settings.port,
        workers=settings.processes,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=GRACE_S,
        timeout_worker_healthcheck=HEALTH_TIMEOUT_S,
    )
    listener = _bind(settings)
    threading.Thread(target=_announce, args=listener.getsockname()[:2], name="announce", daemon=True).start()
    _ignore_second_sigterm()
    try:
        if settings.processes == 1:
            server = uvicorn.Server(config)
            server.run(sockets=[listener])
            return 0 if server.started else 1
        from uvicorn.supervisors import Multiprocess

        supervisor = Multiprocess(config, sockets=[listener])
        _limit_supervisor(supervisor)
        supervisor.run()
        return 0
    except KeyboardInterrupt:
        return 0
    finally:
        listener.close()


def _limit_supervisor(supervisor: Multiprocess) -> None:
    """Pass a signal on to the processes at once, since the supervisor may be waiting for one that does not answer."""

    def pass_on(number: int, forward: Callable[[int, object], object]) -> None:
        def handle(received: int, frame: object) -> None:
            for process in supervisor.processes:
                process.process.terminate()
            forward(received, frame)

        signal.signal(number, handle)

    for number in SIGNALS:
        pass_on(number, signal.getsignal(number))  # type: ignore[arg-type]
    limit_shutdown()


def _announce(host: str, port: int) -> None:
    """Print the address as soon as the port accepts connections, which is when the first process has started."""
    while True:
        try:
            socket.create_connection((host, port), timeout=1.0).close()
            break
        except OSError:
            time.sleep(0.05)
    address = f"[{host}]" if ":" in host else host
    print(f"serving on http://{address}:{port}  docs /docs  console /console", flush=True)


def _bind(settings: Settings) -> socket.socket:
    """Return the socket that all processes accept from; port 0 picks a free port. Raises Unavailable."""
    listener = socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Connections inherit TCP_NODELAY; without it a response waits 40 ms for the client's delayed acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        raise Unavailable(f"cannot listen on {settings.host}:{settings.port}: {error.strerror}") from error
    listener.set_inheritable(True)
    return listener


def _allow_files(connections: int) -> None:
    """Raise the limit of open files, as far as the system allows it, so that connections do not exhaust it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (needed if hard == resource.RLIM_INFINITY else min(needed, hard), hard)
        )


def _export_environment(settings: Settings, metrics_dir: str) -> None:
    """Export the settings as environment variables, which child processes inherit."""
    for name, value in settings.model_dump().items():
        os.environ[f"{PREFIX}{name.upper()}"] = str(value)
    for library in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(library, "1")  # more threads slow down the small matrices of a page
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    if settings.processes > 1:
        os.environ[PROCESSES_DIR] = metrics_dir
    if not settings.secret:
        from serving.schemas.tokens import home_secret

        home_secret(str(Path(settings.home)))  # created before the processes that share it


def _ignore_second_sigterm() -> None:
    """Ignore the signal that uvicorn raises again after shutdown, so that the exit code stays 0."""
    signal.signal(signal.SIGTERM, lambda *_: None)


def _configure_logging() -> None:
    configure_logging("%(asctime)s %(levelname)s %(name)s: %(message)s")
    for library in ("alembic", "mlflow"):
        logging.getLogger(library).setLevel(logging.ERROR)
