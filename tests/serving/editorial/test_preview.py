"""Previews over HTTP: streamed figures, real requests, one at a time, ended when nobody listens, pages go on."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from features.columns import FEATURES
from features.history.event_log import EventLog
from features.state.votes import LoggedEvent
from recsys.domain.errors import Unavailable
from recsys.guidance.compilation.compile import compile_policy
from recsys.models.served_model import ServedModel
from recsys.preview.study import ReplayResult, Task
from recsys.snapshot import ServingSnapshot
from serving.editorial.preview import payload as parcel
from serving.editorial.preview.service import _world
from serving.editorial.preview.worker_pool import PreviewPool
from tests.features.embeddings.test_low_priority_pool import is_running

DRAFT = """
outlet: cn.zj
weights: {public_value: 0.4}
controls:
  - {id: public, action: quota, where: {label: public-service}, at_least: 0.5}
  - {id: none-such, action: quota, where: {label: no-such-thing}, at_least: 0.4}
"""

LIGHT = "outlet: cn.zj\ncontrols:\n  - {id: public, action: quota, where: {label: public-service}, at_least: 0.5}\n"


@pytest.fixture
def here(service) -> object:
    """The service with previews in its own process: no time to start others."""
    service.services.previews.crew._size = 0
    return service


def preview(service, outlet: str = "cn.zj", **said: object) -> list[dict]:
    body = {"text": DRAFT, "requests": 8, **said}
    answer = service.http.post(f"/v1/policies/{outlet}/preview", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    return [json.loads(line) for line in answer.text.splitlines()]


def test_without_log_and_memory_requests_are_made_up_and_said_to_be(here) -> None:
    lines = preview(here)
    last = lines[-1]
    assert last["phase"] == "complete"
    assert last["sources"] == {"log": 0, "memory": 0, "made_up": 8}
    report = last["report"]
    assert (report["requests"], report["policy_before"], report["policy_after"]) == (8, ["cn@1"], ["cn@1+cn.zj@0"])
    assert "not causal" in report["caveat"]
    controls = {line["id"]: line for line in report["controls"]}
    assert controls["none-such"]["met_after"] == 0
    assert controls["none-such"]["infeasible_after"] == 8
    assert report["relaxed_after"] == 1
    shares = {row["name"]: row for row in report["labels"]}
    assert shares["public-service"]["after"] > shares["public-service"]["before"]


def test_pages_asked_before_are_replayed_from_memory(here) -> None:
    pages = [here.page(viewer=f"v{n}", slots=8, region="cn.zj") for n in range(12)]
    here.page(viewer="v1", preview=True)
    here.page(viewer="v2", guided=False)
    last = preview(here, text="outlet: cn.zj\n", requests=15)[-1]
    assert last["sources"] == {"log": 0, "memory": 12, "made_up": 3}, "editors' looks are no requests"
    assert last["report"]["changed_pages"] == 0
    assert pages[0]["policy_version"] == "cn@1"


def test_the_log_is_replayed_with_seed_slots_and_session(here) -> None:
    first = here.page(viewer="v1", slots=6, region="cn.zj", age=12)
    here.page(viewer="v1", slots=6, region="cn.zj", page_token=first["next_page_token"])
    events = [event for event in here.published(2) if event.kind == "impression"]
    log = EventLog(here.services.settings.event_log_dir)
    log.append("t/0", 0, 1, [LoggedEvent("t/0", n, event) for n, event in enumerate(events)])
    here.services.pages.queries.clear()
    last = preview(here, text="outlet: cn.zj\n", requests=2)[-1]
    assert last["sources"] == {"log": 2, "memory": 0, "made_up": 0}
    said = last["report"]["off_policy"]
    assert said["support"] == pytest.approx(1), "asked again, the pages are those that were shown"
    assert said["requests"] == 2
    shown = {item["item_id"] for example in last["report"]["examples"] for item in example["before"]}
    assert {slot["item"]["id"] for slot in first["items"]} <= shown


def test_a_saved_version_may_be_previewed_and_other_moments(here) -> None:
    later = datetime.now(UTC) + timedelta(days=40)
    text = (
        "outlet: cn.zj\ncontrols:\n  - {id: soon, action: quota, where: {label: public-service}, at_least: 0.5, "
        f"active: {{from: {later.isoformat()}}}}}\n"
    )
    here.http.post("/v1/policies/cn.zj/draft", json={"text": text, "author": "Lin"}).raise_for_status()
    now = preview(here, text=None, version=1)[-1]["report"]
    assert now["policy_after"] == ["cn@1+cn.zj@1"]
    assert "soon" not in {line["id"] for line in now["controls"]}
    then = preview(here, text=None, version=1, at=(later + timedelta(days=9)).isoformat())[-1]["report"]
    assert {line["id"]: line["pages_after"] for line in then["controls"]}["soon"] == 8


def test_what_cannot_be_previewed_is_told(here) -> None:
    def post(outlet: str, body: dict) -> httpx.Response:
        return here.http.post(f"/v1/policies/{outlet}/preview", json=body)

    assert post("cn.zj", {"version": 9}).status_code == 404
    assert post("cn.zj", {"text": "outlet: cn.js\n"}).status_code == 422
    assert post("cn.zj", {"text": DRAFT, "version": 1}).status_code == 422
    assert post("cn.zj", {}).status_code == 422
    bad = post("cn.zj", {"text": "outlet: cn.zj\ncontrols: [{id: a, action: nothing}]\n"})
    assert bad.json()["findings"][0]["where"] == "controls[0]"
    assert preview(here, text=LIGHT)[-1]["phase"] == "complete", "a refused preview leaves room for the next"


def test_one_at_a_time_and_none_goes_on_when_nobody_listens(here, until) -> None:
    body = {"text": DRAFT, "requests": 2000}
    with here.http.stream("POST", "/v1/policies/cn.zj/preview", json=body) as answer:
        lines = answer.iter_lines()  # kept: an iterator that is let go closes the connection
        first = json.loads(next(lines))
        assert first["phase"] == "so far"
        assert 10 <= first["report"]["requests"] < 2000
        busy = here.http.post("/v1/policies/cn.zj/preview", json=body)
        assert busy.status_code == 429
        assert busy.headers["retry-after"]
        assert here.page()["items"], "pages go on"
    until(lambda: here.services.previews._admitted[0] == 0, within_s=5)
    assert preview(here, text=LIGHT)[-1]["phase"] == "complete"


def test_a_preview_needs_the_editors_token(serve) -> None:
    with serve({"admin_token": "s3cret"}) as service:
        assert service.http.post("/v1/policies/cn/preview", json={}).status_code == 401


def asked(service) -> list[dict]:
    """Eight requests that the service remembers, and the lines of a preview of them."""
    for n in range(8):
        service.page(viewer=f"v{n}", slots=8)
    return preview(service, text=LIGHT)


def started(crew: PreviewPool, size: int) -> list[int]:
    """Pids of workers that are ready to work."""
    crew._size = size
    pool = crew._running_pool()
    for _ in range(size):
        pool.submit(time.sleep, 0.1).result()
    return list(pool._processes)


def test_processes_give_the_same_figures(here, bundle) -> None:
    """With a model, which travels as its bundle."""
    here.services.holders.set_model(ServedModel.load(bundle("m1", [f"item-{n}" for n in range(60)]), FEATURES))
    alone = asked(here)[-1]["report"]
    started(here.services.previews.crew, 2)
    assert preview(here, text=LIGHT)[-1]["report"] == alone


def test_idle_workers_exit(monkeypatch: pytest.MonkeyPatch, until) -> None:
    monkeypatch.setattr(parcel, "init_worker", None)
    crew = PreviewPool(1, idle_s=2.0)
    pool = crew._running_pool()
    pid = pool.submit(os.getpid).result(60)
    until(lambda: not pool._processes and not is_running(pid))
    assert crew._running_pool().submit(os.getpid).result(60) != pid
    crew.stop()


@pytest.mark.parametrize("after_s", [0.2])
def test_a_process_that_dies_costs_time_not_figures(here, until, after_s: float) -> None:
    alone = asked(here)[-1]["report"]
    crew = here.services.previews.crew
    [pid] = started(crew, 1)
    doom = threading.Timer(after_s, os.kill, (pid, signal.SIGKILL))
    doom.start()
    assert preview(here, text=LIGHT)[-1]["report"] == alone
    doom.join()
    assert preview(here, text=LIGHT)[-1]["report"] == alone, "and the next one has processes again"
    [pid] = crew._pool._processes
    crew.stop()
    until(lambda: not is_running(pid))


class Frail:
    """A pool that does its work at once and is found broken when it is given its `last` piece."""

    def __init__(self, last: int) -> None:
        self.left = last

    def submit(self, do: object, _: str, tasks: tuple[Task, ...] = ()) -> Future:
        self.left -= 1
        if self.left == 0:
            raise BrokenProcessPool("died")
        future: Future = Future()
        future.set_result([ReplayResult(task, ()) for task in tasks])
        return future


@pytest.fixture
def frail(monkeypatch: pytest.MonkeyPatch) -> object:
    """`frail(first, second)`: a crew of pools that break so."""
    monkeypatch.setattr(parcel.StudyPayload, "of", lambda study: None)

    def made(*last: int) -> PreviewPool:
        crew, pools = PreviewPool(1), iter([Frail(n) for n in last])
        monkeypatch.setattr(crew, "_new_pool", lambda: next(pools))
        return crew

    return made


@pytest.mark.parametrize("last", range(1, 9))
def test_nothing_is_lost_or_done_twice_or_done_here_when_a_process_dies(frail, last: int) -> None:
    """Every moment at which handing out may fail; `None` as the study shows that nothing is replayed here."""
    tasks = [Task("pair", n) for n in range(40)]
    crew = frail(last, 1000)
    done = [outcome.task.request for outcome in crew.run(None, tasks, threading.Event())]
    assert sorted(done) == list(range(40))


class Busy:
    """A pool that never completes a task."""

    def __init__(self) -> None:
        self.futures: list[Future] = []

    def submit(self, *_: object) -> Future:
        self.futures.append(Future())
        return self.futures[-1]


def test_stopped_preview_cancels_its_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parcel.StudyPayload, "of", lambda study: None)
    crew, pool, stopped = PreviewPool(2), Busy(), threading.Event()
    monkeypatch.setattr(crew, "_new_pool", lambda: pool)
    threading.Timer(0.1, stopped.set).start()
    assert list(crew.run(None, [Task("pair", n) for n in range(40)], stopped)) == []
    _, *chunks = pool.futures
    assert len(chunks) == 4
    assert all(chunk.cancelled() for chunk in chunks)


def test_processes_that_die_twice_fail_the_preview(frail) -> None:
    crew = frail(4, 3)
    with pytest.raises(Unavailable, match="twice"):
        list(crew.run(None, [Task("pair", n) for n in range(40)], threading.Event()))
    assert crew._pool is None


def test_a_preview_whose_work_ends_early_says_that_it_failed(here, monkeypatch: pytest.MonkeyPatch) -> None:
    crew = here.services.previews.crew
    run = crew.run
    monkeypatch.setattr(crew, "run", lambda study, tasks, stopped: run(study, list(tasks)[:12], stopped))
    last = preview(here, text=LIGHT)[-1]
    assert last["phase"] == "failed"
    assert "before all of it" in last["detail"]["message"]


def test_a_preview_may_be_collected_while_the_next_is_admitted(here) -> None:
    """Its `__del__` takes the lock, in whatever thread and moment the collector chooses."""
    previews = here.services.previews

    def collected() -> None:
        with previews._lock:
            previews._leave()

    previews._admitted[0] += 1
    thread = threading.Thread(target=collected, daemon=True)
    thread.start()
    thread.join(5)
    assert not thread.is_alive()
    assert previews._admitted[0] == 0


def test_a_preview_of_too_many_requests_is_refused(here) -> None:
    answer = here.http.post("/v1/policies/cn.zj/preview", json={"text": LIGHT, "requests": 2001})
    assert answer.status_code == 422


def test_the_world_of_a_closed_outlet_is_not_taken(service) -> None:
    """It has no model, and its pages are editorial ones: a preview of others would be of those."""
    snapshot = service.services.holders.current
    (first, world), *others = snapshot.serving_snapshots.items()
    assert others
    none = compile_policy((), snapshot.catalog)
    bare = replace(ServingSnapshot.of(snapshot.catalog, snapshot.stats, None, none), prices=snapshot.prices)
    shut = replace(snapshot, serving_snapshots={first: bare, **dict(others)}, closed=frozenset({first}))
    assert _world(shut, none) is others[0][1]
    rebuilt = _world(replace(shut, serving_snapshots={first: bare}), none)
    assert rebuilt.model is snapshot.model
    assert rebuilt.prices is snapshot.prices
    assert rebuilt.catalog is world.catalog
