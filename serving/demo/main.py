"""`mainstay demo`: a real catalogue and real interactions go all the way to guided pages, on this machine.

It starts the worker and the API as child processes with the commands a user would type, stays until Ctrl-C and stops
them in order. With --once it leaves after the report; its last line is then one JSON object.
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
from serving.demo import environment as place
from serving.demo import report, steps
from serving.demo.audit import Auditor
from serving.demo.movielens import MovieLens
from serving.demo.policies import newsroom_items, newsroom_names
from serving.demo.processes import ProcessGroup, until
from serving.demo.visit import Visits, ask, visit

ANONYMOUS = 10  # of the simulated viewers, how many nobody has seen before
RETURNING = 30
WARM_UP = 5
SHOWN = 100  # the viewer whose page is shown: neither a newcomer nor one who has seen everything
MODEL_WAIT_S = 60.0
INTERRUPTED = 130

T = TypeVar("T")


def run_demo(settings: Settings, once: bool = False) -> int:
    """Run the demo; 0 when all went well, 1 with the reason on stderr, 2 for settings that cannot be used, 130 when
    it was interrupted before it was done."""
    try:
        settings = place.prepare(settings)
    except (SettingsError, OSError) as error:
        print(f"mainstay demo: {error}", file=sys.stderr)
        return 2
    for number in (signal.SIGINT, signal.SIGTERM):  # also where a shell has set Ctrl-C to be ignored
        signal.signal(number, _interrupt)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    told: dict[str, Any] | None = None
    try:
        kept = place.DemoHome(settings.home)
        settings = place.own_settings(settings, kept.world)
        place.check_servers(settings)
        with ProcessGroup(Path(settings.home) / "logs") as household:
            told = Demo(settings, kept, household, console, stays=not once).run()
            if not once:
                _stay(console, household)
        console.print()
        print(json.dumps(told))
    except KeyboardInterrupt:
        console.print("\nStopped.", style="dim")
        return INTERRUPTED if told is None or once else 0
    except (MainstayError, RuntimeError, httpx.HTTPError) as error:
        print(f"mainstay demo: {_words(error)}", file=sys.stderr)
        return 1
    return 0


class Demo:
    """One run; `seconds` tells how long each step took."""

    def __init__(
        self, settings: Settings, kept: place.DemoHome, household: ProcessGroup, console: Console, stays: bool = True
    ) -> None:
        self._settings, self._kept, self._household, self._console = settings, kept, household, console
        self._stays = stays
        self._address = f"http://{settings.host}:{settings.port}"
        self.seconds: dict[str, float] = {}

    def run(self) -> dict[str, Any]:
        """All steps; what stands already is left out. Returns the figures."""
        movielens = MovieLens.read(self._kept.anchor)
        items = movielens.items() + newsroom_items(self._kept.anchor)
        api = self._step("start", "Starting the worker and the API", self._start)
        text = f"{len(items):,} items (MovieLens and a desk of four outlets), three policies"
        self._step(
            "catalogue",
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
        told = report.figures(self._kept.models or {}, visits, free, guided, self.seconds)
        titles = {item.id: item.title.get("en") or item.title["zh"] for item in items}
        report.side_by_side(self._console, movielens.viewers[SHOWN], free, guided, titles)
        self._print_report(guided, told)
        if visits.undeclared:
            raise RuntimeError(f"pages broke controls without saying so: {visits.undeclared[:5]}")
        return told

    def _start(self) -> httpx.Client:
        """Worker and API as child processes, ready when this returns."""
        s = self._settings
        shared = ["--home", s.home, "--stream", s.stream_url, "--online", s.online_url, "--topic", s.topic]
        fold = ["--event-log", s.event_log_dir, "--group", s.group]
        serve = ["--control", s.control_url, "--registry", s.registry_uri, "--host", s.host, "--port", str(s.port)]
        serve += ["--encoder", s.encoder]
        self._household.start("worker", "features.cli", ["worker", *shared, *fold])
        server = self._household.start("serve", "features.cli", ["serve", *shared, *serve])
        token = {"authorization": f"Bearer {s.admin_token}"} if s.admin_token else {}
        api = httpx.Client(base_url=self._address, timeout=30.0, headers=token)

        def live() -> bool:
            self._household.check()
            try:
                return api.get("/health/live").status_code == 200
            except httpx.TransportError:
                return False

        if not until(live, timeout_s=90):
            raise server.fail("did not answer within 90 seconds")
        return api

    def _replay(self, movielens: MovieLens) -> bool:
        s, kept = self._settings, self._kept

        def note(sent: int) -> None:
            kept.sent = sent
            kept.save()

        with (
            closing(open_stream(s.stream_url, partitions=s.partitions)) as stream,
            closing(open_online(s.online_url, timeout_s=place.TIMEOUT_S)) as online,
        ):
            erased = EventLog(Path(s.event_log_dir)).erasures
            events, ratings = movielens.events(), movielens.ratings
            return steps.replay(stream, online, s, events, ratings, erased, self._household, kept.sent, note)

    def _train(self, api: httpx.Client) -> bool:
        """Train unless the API serves what an earlier run trained; False when it does."""
        if self._kept.models is not None and until(lambda: steps.serving_model(api), timeout_s=MODEL_WAIT_S):
            return False
        self._kept.models = steps.learn(self._settings, self._address, self._household)
        self._kept.save()
        if not until(lambda: steps.serving_model(api), timeout_s=MODEL_WAIT_S):
            raise RuntimeError("the API did not take up the new model within a minute; see serve.log")
        return True

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

    def _print_report(self, guided: dict[str, Any], told: dict[str, Any]) -> None:
        """The receipt, the figures, and where to look further."""
        console = self._console
        report.receipt(console, guided)
        report.summary(console, told)
        if self._stays:  # else they are gone before anybody follows them
            console.print(f"   API docs   {self._address}/docs")
            console.print(f"   Console    {self._address}/console")
        console.print(f"   MLflow UI  {Path(sys.executable).with_name('mlflow')} ui --backend-store-uri ", end="")
        console.print(self._settings.registry_uri, soft_wrap=True)
        if names := place.describe_servers(self._settings):
            console.print(f"   By hand    {names}", soft_wrap=True)

    def _step(self, name: str, text: str, do: Callable[[], T]) -> T:
        """Announce, do, and say so when there was nothing to do (`do` answers False)."""
        self._console.print(f"[bold]•[/bold] {text}")
        began = time.monotonic()
        done = do()
        if done is not False:  # what stood already took nobody's time
            self.seconds[name] = time.monotonic() - began
        if done is False:
            self._console.print("   (stands already)", style="dim")
        return done


def _words(error: Exception) -> str:
    """An error as the reader of a terminal needs it: of a problem its detail."""
    if isinstance(error, httpx.HTTPStatusError):
        with suppress(ValueError, KeyError, TypeError):
            return f"the API says {error.response.status_code}: {error.response.json()['detail']}"
    if isinstance(error, httpx.TransportError):
        return f"the API does not answer: {error or type(error).__name__}; see serve.log"
    return str(error)


def _stay(console: Console, household: ProcessGroup) -> None:
    """Until Ctrl-C, or until a child ends that should be running."""
    console.print("\n   Running. Ctrl-C stops everything; the next `make demo` starts from here.")
    while True:
        household.check()
        time.sleep(0.5)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
