"""`recsys-demo`: a real catalogue and real interactions go all the way to guided pages, on this machine.

It starts the worker and the API as child processes with the commands a user would type, stays until Ctrl-C and stops
them in order. With --once it leaves after the report; its last line is then one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
from rich.console import Console

from features.online.connect import open_online
from features.stream.connect import open_stream
from recsys.catalog import Item
from recsys.settings import Settings
from serving.demo import report, steps
from serving.demo.audit import Auditor
from serving.demo.desk import desk_items
from serving.demo.movielens import MovieLens
from serving.demo.processes import Household, until
from serving.demo.visit import Visits, ask, visit

ANONYMOUS = 10  # of the simulated viewers, how many nobody has seen before
RETURNING = 30
WARM_UP = 5
SHOWN = 100  # the viewer whose page is shown: neither a newcomer nor one who has seen everything
MODEL_WAIT_S = 60.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; 0 when all went well, 1 with the reason on stderr."""
    options, settings = _read(argv)
    for number in (signal.SIGINT, signal.SIGTERM):  # also where a shell has set Ctrl-C to be ignored
        signal.signal(number, _interrupt)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    try:
        with Household(Path(settings.home) / "logs") as household:
            told = Demo(settings, household, console).run()
            if not options.once:
                _stay(console, household)
        console.print("Stopped." if not options.once else "", style="dim")
        if options.once:
            print(json.dumps(told))
    except KeyboardInterrupt:
        console.print("\nStopped.", style="dim")
    except (RuntimeError, httpx.HTTPError) as error:
        print(f"recsys-demo: {error}", file=sys.stderr)
        return 1
    return 0


class Demo:
    """One run; `seconds` tells how long each step took."""

    def __init__(self, settings: Settings, household: Household, console: Console) -> None:
        self._settings, self._household, self._console = settings, household, console
        self._address = f"http://{settings.host}:{settings.port}"
        self._kept = Path(settings.home) / "demo.json"
        self.seconds: dict[str, float] = {}

    def run(self) -> dict[str, Any]:
        """All steps; what stands already is left out. Returns the figures."""
        kept = self._remembered()
        movielens = MovieLens.read(kept["anchor"])
        items = movielens.items() + desk_items(kept["anchor"])
        with self._step("start", "Starting the worker and the API"):
            api = self._start()
        with self._step("catalogue", f"{len(items):,} items (MovieLens and a desk of four outlets), three policies"):
            steps.stock(api, items)
            steps.steer(api)
        with self._step("events", f"{len(movielens):,} interactions through the stream, folded into features"):
            self._replay(movielens)
        with self._step("training", "Training: implicit ALS, multi-action ranker, evaluation on a time split"):
            if "models" not in kept or not until(lambda: steps.serving_model(api), timeout_s=MODEL_WAIT_S):
                kept["models"] = steps.learn(self._settings, self._address)
                self._kept.write_text(json.dumps(kept))
            if not until(lambda: steps.serving_model(api), timeout_s=MODEL_WAIT_S):
                raise RuntimeError("the API did not take up the new model within a minute; see serve.log")
        with self._step("pages", "Viewers ask for pages on tv and mobile, and react"):
            visits, free, guided = self._visits(api, movielens, items)
        self._console.print()
        told = report.figures(kept["models"], visits, free, guided, self.seconds)
        titles = {item.id: item.title.get("en") or item.title["zh"] for item in items}
        report.side_by_side(self._console, movielens.viewers[SHOWN], free, guided, titles)
        self._tell(guided, told)
        if visits.undeclared:
            raise RuntimeError(f"pages broke controls without saying so: {visits.undeclared[:5]}")
        return told

    def _remembered(self) -> dict[str, Any]:
        """What an earlier run left: the moment the demo's world is dated from, and its models' figures."""
        if self._kept.exists():
            kept: dict[str, Any] = json.loads(self._kept.read_text())
            return kept
        kept = {"anchor": float(int(time.time()))}
        self._kept.write_text(json.dumps(kept))
        return kept

    def _start(self) -> httpx.Client:
        """Worker and API as child processes, ready when this returns."""
        s = self._settings
        shared = ["--home", s.home, "--stream", s.stream_url, "--online", s.online_url, "--topic", s.topic]
        serve = ["--control", s.control_url, "--registry", s.registry_uri, "--host", s.host, "--port", str(s.port)]
        self._household.start("worker", "features.worker.main", [*shared, "--event-log", s.event_log_dir])
        server = self._household.start("serve", "serving.main", [*shared, *serve])
        api = httpx.Client(base_url=self._address, timeout=30.0)

        def live() -> bool:
            self._household.check()
            try:
                return api.get("/health/live").status_code == 200
            except httpx.TransportError:
                return False

        if not until(live, timeout_s=90):
            raise server.fail("did not answer within 90 seconds")
        return api

    def _replay(self, movielens: MovieLens) -> None:
        s = self._settings
        stream = open_stream(s.stream_url, partitions=s.partitions)
        online = open_online(s.online_url, timeout_s=5.0)
        try:
            events, viewers = movielens.events(), movielens.viewers
            steps.replay(stream, online, s, events, len(movielens), viewers, self._household)
        finally:
            stream.close()
            online.close()

    def _visits(
        self, api: httpx.Client, movielens: MovieLens, items: list[Item]
    ) -> tuple[Visits, dict[str, Any], dict[str, Any]]:
        """Let viewers come, then look at one page without and with guidance."""
        viewers = [*movielens.viewers[SHOWN : SHOWN + RETURNING], *(f"guest-{n}" for n in range(ANONYMOUS))]
        for viewer in viewers[:WARM_UP]:
            ask(api, viewer, "mobile")
        auditor = Auditor(items, [steps.policy_text(outlet) for outlet in steps.OUTLETS])
        visits = visit(api, viewers, auditor)
        one = movielens.viewers[SHOWN]
        return visits, ask(api, one, "mobile", guided=False), ask(api, one, "mobile")

    def _tell(self, guided: dict[str, Any], told: dict[str, Any]) -> None:
        """The receipt, the figures, and where to look further."""
        console = self._console
        report.receipt(console, guided)
        report.summary(console, told)
        console.print(f"   API docs   {self._address}/docs")
        console.print(f"   Console    {self._address}/console")
        console.print(f"   MLflow UI  {Path(sys.executable).with_name('mlflow')} ui --backend-store-uri ", end="")
        console.print(self._settings.registry_uri, soft_wrap=True)

    @contextmanager
    def _step(self, name: str, text: str) -> Iterator[None]:
        self._console.print(f"[bold]•[/bold] {text}")
        began = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - began


def _read(argv: Sequence[str] | None) -> tuple[argparse.Namespace, Settings]:
    """Flags over environment; the home exists afterwards and a free port is found when the usual one is taken."""
    parser = argparse.ArgumentParser(prog="recsys-demo", description=__doc__)
    parser.add_argument("--once", action="store_true", help="leave after the report; the last line is one JSON object")
    for name in ("home", "stream", "online", "control", "host"):
        parser.add_argument(f"--{name}", help=Settings.model_fields[name].description)
    parser.add_argument("--port", type=int, help=Settings.model_fields["port"].description)
    options = parser.parse_args(argv)
    said = {name: worth for name, worth in vars(options).items() if name != "once"}
    settings = Settings.read(os.environ, **said)
    home = Path(settings.home).resolve()
    home.mkdir(parents=True, exist_ok=True)
    return options, settings.model_copy(update={"home": str(home), "port": _free(settings.host, settings.port)})


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
    raise RuntimeError(f"no free port on {host}")


def _stay(console: Console, household: Household) -> None:
    """Until Ctrl-C, or until a child ends that should be running."""
    console.print("\n   Running. Ctrl-C stops everything; the next `make demo` starts from here.")
    while True:
        household.check()
        time.sleep(0.5)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
