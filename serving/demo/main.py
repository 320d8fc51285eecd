"""The command `mainstay demo`: process a real catalog and real interactions up to guided pages, on this machine.

The demo starts the worker and the API as child processes, with the commands that a user would type. It runs until
Ctrl-C and then stops them in order. With --once it exits after the report, and the last line of its output is a JSON
object.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import httpx
from rich.console import Console

from features.events.stream.connect import open_stream
from features.history.event_log import EventLog
from features.settings import Settings
from features.state.online.connect import open_online
from recsys.domain.errors import MainstayError, SettingsError
from recsys.domain.item import Item
from serving.demo import environment, report, steps
from serving.demo.audit import Auditor
from serving.demo.movielens import MovieLens
from serving.demo.policies import newsroom_items, newsroom_names
from serving.demo.processes import ProcessGroup, until
from serving.demo.visit import Visits, ask, visit
from serving.main import refuse_unprotected

ANONYMOUS = 10  # number of simulated viewers without a history
RETURNING = 30
WARM_UP = 5
SHOWN = 100  # rank by ratings of the viewer whose page is shown: neither a new viewer nor one who has seen everything
MODEL_WAIT_S = 60.0
INTERRUPTED = 130

T = TypeVar("T")


def run_demo(settings: Settings, once: bool = False, training_config: str = "demo") -> int:
    """Run the demo and return its exit code.

    0 on success, 1 on failure (with the reason on stderr), 2 for invalid settings, 130 when it is interrupted before
    the report.
    """
    try:
        refuse_unprotected(settings)
        settings = environment.prepare(settings)
    except (SettingsError, OSError) as error:
        print(f"mainstay demo: {error}", file=sys.stderr)
        return 2
    for number in (signal.SIGINT, signal.SIGTERM):  # also when the shell ignores Ctrl-C for background jobs
        signal.signal(number, _interrupt)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    summary: dict[str, Any] | None = None
    try:
        demo_home = environment.DemoHome(settings.home)
        settings = environment.own_settings(settings, demo_home.world)
        environment.check_servers(settings)
        with ProcessGroup(Path(settings.home) / "logs") as processes:
            summary = Demo(settings, demo_home, processes, console, training_config, stays=not once).run()
            if not once:
                _stay(console, processes)
        console.print()
        print(json.dumps(summary))
    except KeyboardInterrupt:
        console.print("\nStopped.", style="dim")
        return INTERRUPTED if summary is None or once else 0
    except (MainstayError, RuntimeError, httpx.HTTPError) as error:
        print(f"mainstay demo: {_error_text(error)}", file=sys.stderr)
        return 1
    return 0


class Demo:
    """A run of the demo; `seconds` holds the duration of each step."""

    def __init__(
        self,
        settings: Settings,
        home: environment.DemoHome,
        processes: ProcessGroup,
        console: Console,
        training_config: str = "demo",
        stays: bool = True,
    ) -> None:
        self._settings, self._home, self._processes, self._console = settings, home, processes, console
        self._training_config, self._stays = training_config, stays
        self._address = environment.local_address(settings)
        self.seconds: dict[str, float] = {}

    def run(self) -> dict[str, Any]:
        """Run all steps, skip those that an earlier run completed, and return the figures."""
        movielens = MovieLens.read(self._home.anchor)
        items = movielens.items() + newsroom_items(self._home.anchor)
        api = self._step("start", "Starting the worker and the API", self._start)
        text = f"{len(items):,} items (MovieLens and four made-up outlets), three policies"
        self._step(
            "catalog",
            text,
            lambda: (
                steps.load_catalog(api, items) | steps.name_outlets(api, newsroom_names()) | steps.publish_policies(api)
            ),
        )
        text = f"{len(movielens):,} interactions through the stream, folded into features"
        self._step("events", text, lambda: self._replay(movielens))
        text = "Training: implicit ALS, multi-action ranker, evaluation on a time split"
        self._step("training", text, lambda: self._train(api))
        text = "Viewers ask for pages on tv and mobile, and react"
        visits, free, guided = self._step("pages", text, lambda: self._visits(api, movielens, items))
        self._console.print()
        summary = report.figures(self._home.models or {}, visits, free, guided, self.seconds)
        titles = {item.id: item.title.get("en") or item.title["zh"] for item in items}
        report.side_by_side(self._console, movielens.viewers[SHOWN], free, guided, titles)
        self._print_report(guided, summary)
        if visits.undeclared:
            raise RuntimeError(f"pages violate controls that their receipts do not declare: {visits.undeclared[:5]}")
        return summary

    def _start(self) -> httpx.Client:
        """Start the worker and the API as child processes, and wait until the API answers."""
        s = self._settings
        shared = ["--home", s.home, "--stream", s.stream_url, "--online", s.online_url, "--topic", s.topic]
        fold = ["--event-log", s.event_log_dir, "--group", s.group]
        serve = ["--control", s.control_url, "--registry", s.registry_uri, "--host", s.host, "--port", str(s.port)]
        serve += ["--encoder", s.encoder, *(["--insecure"] if s.insecure else [])]
        self._processes.start("worker", "features.cli", ["worker", *shared, *fold])
        server = self._processes.start("serve", "features.cli", ["serve", *shared, *serve])
        token = {"authorization": f"Bearer {s.admin_token}"} if s.admin_token else {}
        api = httpx.Client(base_url=self._address, timeout=30.0, headers=token)

        def live() -> bool:
            self._processes.check()
            try:
                return api.get("/health/live").status_code == 200
            except httpx.TransportError:
                return False

        if not until(live, timeout_s=90):
            raise server.fail("did not answer within 90 seconds")
        return api

    def _replay(self, movielens: MovieLens) -> bool:
        s, home = self._settings, self._home

        def save_progress(sent: int) -> None:
            home.sent = sent
            home.save()

        with (
            closing(open_stream(s.stream_url, partitions=s.partitions)) as stream,
            closing(open_online(s.online_url, timeout_s=environment.TIMEOUT_S)) as online,
        ):
            erased = EventLog(Path(s.event_log_dir)).erasures
            events, ratings = movielens.events(), movielens.ratings
            return steps.replay(stream, online, s, events, ratings, erased, self._processes, home.sent, save_progress)

    def _train(self, api: httpx.Client) -> bool:
        """Train models, unless the API serves the model of an earlier run; return whether training ran."""
        if self._home.models is not None and until(lambda: steps.serving_model(api), timeout_s=MODEL_WAIT_S):
            return False
        self._home.models = steps.train(self._settings, self._training_config, self._address, self._processes)
        self._home.save()
        if not until(lambda: steps.serving_model(api), timeout_s=MODEL_WAIT_S):
            raise RuntimeError("the API did not load the new model within a minute; see serve.log")
        return True

    def _visits(
        self, api: httpx.Client, movielens: MovieLens, items: list[Item]
    ) -> tuple[Visits, dict[str, Any], dict[str, Any]]:
        """Simulate viewers, then request a page without and with guidance."""
        viewers = [*movielens.viewers[SHOWN : SHOWN + RETURNING], *(f"guest-{n}" for n in range(ANONYMOUS))]
        for viewer in viewers[:WARM_UP]:
            ask(api, viewer, "mobile")
        auditor = Auditor(items, [steps.policy_text(outlet) for outlet in steps.OUTLETS])
        visits = visit(api, viewers, auditor)
        viewer = movielens.viewers[SHOWN]
        return visits, ask(api, viewer, "mobile", guided=False), ask(api, viewer, "mobile")

    def _print_report(self, guided: dict[str, Any], summary: dict[str, Any]) -> None:
        """Print the receipt, the figures, and the addresses of the API, the console and MLflow."""
        console = self._console
        report.receipt(console, guided)
        report.summary(console, summary)
        if self._stays:  # with --once the API stops before anyone can open them
            console.print(f"   API docs   {self._address}/docs")
            console.print(f"   Console    {self._address}/console")
        console.print(f"   MLflow UI  {Path(sys.executable).with_name('mlflow')} ui --backend-store-uri ", end="")
        console.print(self._settings.registry_uri, soft_wrap=True)
        if names := environment.describe_servers(self._settings):
            console.print(f"   Flags      {names}", soft_wrap=True)

    def _step(self, name: str, text: str, do: Callable[[], T]) -> T:
        """Print the name of a step and run it; `do` returns False when an earlier run completed the step."""
        self._console.print(f"[bold]•[/bold] {text}")
        began = time.monotonic()
        done = do()
        if done is not False:
            self.seconds[name] = time.monotonic() - began
        if done is False:
            self._console.print("   (already done)", style="dim")
        return done


def _error_text(error: Exception) -> str:
    """Return the text of an error for the terminal; for a problem document, its detail."""
    if isinstance(error, httpx.HTTPStatusError):
        with suppress(ValueError, KeyError, TypeError):
            return f"the API answered {error.response.status_code}: {error.response.json()['detail']}"
    if isinstance(error, httpx.TransportError):
        return f"the API does not answer: {error or type(error).__name__}; see serve.log"
    return str(error)


def _stay(console: Console, processes: ProcessGroup) -> None:
    """Wait until Ctrl-C, or until a child process ends unexpectedly."""
    console.print("\n   Running. Press Ctrl-C to stop; the next `make demo` continues from this state.")
    while True:
        processes.check()
        time.sleep(0.5)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
