"""`recsys-serve`: the API and the console, in one process or several.

Ends on SIGTERM or Ctrl-C: no new connections, requests under way are finished, impressions are sent, exit code 0.
"""

from __future__ import annotations

import argparse
import atexit
import gc
import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from features.settings import Settings
from recsys.domain.errors import SettingsError

if TYPE_CHECKING:
    from fastapi import FastAPI

PROCESSES_DIR = "PROMETHEUS_MULTIPROC_DIR"  # as in serving.prometheus, which must not be imported before this is set

GRACE_S = 10
"""How long requests under way may take to finish at shutdown."""

STARTS_WITHIN_S = 60
"""A process that takes longer to answer its supervisor is replaced."""

GC_FREEZE_EVERY_S = 1.0


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until told to stop; 0 after a clean end, 2 for settings that cannot be used."""
    try:
        settings = read_settings(argv)
    except SettingsError as error:
        print(f"recsys-serve: {error}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="mainstay-metrics-") as figures:
        _export_environment(settings, figures)
        return _serve(settings)


def read_settings(argv: Sequence[str] | None) -> Settings:
    """Settings from the environment and these arguments, a flag for each. Raises SettingsError."""
    parser = argparse.ArgumentParser(
        prog="recsys-serve",
        description="Serve pages, take events, items and policies. Every flag may also be said as MAINSTAY_<NAME>.",
    )
    for name in Settings.model_fields:
        parser.add_argument(f"--{name.replace('_', '-')}", dest=name, default=None, help=Settings.help_of(name))
    return Settings.read(os.environ, **vars(parser.parse_args(argv)))


def application() -> FastAPI:
    """The app of one process, by the environment that `main` passed on; uvicorn calls this in each."""
    from serving.app import build

    _log()
    return with_gc_freeze(build(Settings.read(os.environ)))


def with_gc_freeze(app: FastAPI) -> FastAPI:
    """The same app, which has its process to itself: what it keeps is left out of the search for circles."""
    from serving.gc_freeze import GcFreezer
    from serving.services import Services
    from serving.snapshot.poller import Poller

    services: Services = app.state.services
    settled = GcFreezer(services.holders, lambda: bool(services.pollers["engine"].ok))
    services.pollers["settled"] = Poller("settled", settled.step, GC_FREEZE_EVERY_S)
    atexit.register(gc.unfreeze)  # at the end everything is freed, and libraries that count find nothing missing
    return app


def _serve(settings: Settings) -> int:
    import uvicorn

    config = uvicorn.Config(
        "serving.main:application",
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=settings.processes,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=GRACE_S,
        timeout_worker_healthcheck=STARTS_WITHIN_S,
    )
    listening = _bind(settings)
    host, port = listening.getsockname()[:2]
    print(f"serving on http://{host}:{port}  docs /docs  console /console", flush=True)
    _ignore_second_sigterm()
    try:
        if settings.processes == 1:
            server = uvicorn.Server(config)
            server.run(sockets=[listening])
            return 0 if server.started else 1
        from uvicorn.supervisors import Multiprocess

        Multiprocess(config, sockets=[listening]).run()
        return 0
    except KeyboardInterrupt:
        return 0
    finally:
        listening.close()


def _bind(settings: Settings) -> socket.socket:
    """The one socket that all processes accept from; port 0 finds a free one."""
    listening = socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Inherited by every connection: without it an answer waits 40 ms for the client's delayed acknowledgement.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        listening.bind((settings.host, settings.port))
    except OSError as error:
        raise SystemExit(f"recsys-serve: {settings.host}:{settings.port}: {error.strerror}") from error
    listening.set_inheritable(True)
    return listening


def _export_environment(settings: Settings, figures: str) -> None:
    """Say everything through the environment, which child processes inherit."""
    for name, setting in settings.model_dump().items():
        os.environ[f"MAINSTAY_{name.upper()}"] = str(setting)
    for library in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(
            library, "1"
        )  # one page, one core: more threads for small matrices only get in each other's way
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    if settings.processes > 1:
        os.environ[PROCESSES_DIR] = figures
    if not settings.secret:
        from serving.schemas.tokens import home_secret

        home_secret(str(Path(settings.home)))  # made before the processes that share it


def _ignore_second_sigterm() -> None:
    """Uvicorn raises the signal once more after it has shut down; that second one must not end us with its code."""
    signal.signal(signal.SIGTERM, lambda *_: None)


def _log() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for chatty in ("alembic", "mlflow"):
        logging.getLogger(chatty).setLevel(logging.ERROR)


if __name__ == "__main__":
    sys.exit(main())
