"""Previews over HTTP: streamed figures, real requests, one at a time, cancelled on disconnect, pages unaffected."""

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
from serving.editorial.preview import payload
from serving.editorial.preview.service import _preview_snapshot
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
def in_process(service) -> object:
    """A service that runs previews in its own process, which saves the start of workers."""
    service.services.previews.pool._size = 0
    return service


def preview(service, outlet: str = "cn.zj", **fields: object) -> list[dict]:
    body = {"text": DRAFT, "requests": 8, **fields}
    answer = service.http.post(f"/v1/policies/{outlet}/preview", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    return [json.loads(line) for line in answer.text.splitlines()]


def test_without_log_and_memory_the_requests_are_synthetic_and_reported_as_such(in_process) -> None:
    lines = preview(in_process)
    last = lines[-1]
    assert last["phase"] == "complete"
    assert last["sources"] == {"log": 0, "memory": 0, "synthetic": 8}
    report = last["report"]
    assert (report["requests"], report["policy_before"], report["policy_after"]) == (8, ["cn@1"], ["cn@1+cn.zj@0"])
    assert "not causal" in report["caveat"]
    controls = {line["id"]: line for line in report["controls"]}
    assert controls["none-such"]["met_after"] == 0
    assert controls["none-such"]["infeasible_after"] == 8
    assert report["relaxed_after"] == 1
    shares = {row["name"]: row for row in report["labels"]}
    assert shares["public-service"]["after"] > shares["public-service"]["before"]


def test_recent_requests_are_replayed_from_memory(in_process) -> None:
    pages = [in_process.page(viewer=f"v{n}", slots=8, region="cn.zj") for n in range(12)]
    in_process.page(viewer="v1", preview=True)
    in_process.page(viewer="v2", guided=False)
    last = preview(in_process, text="outlet: cn.zj\n", requests=15)[-1]
    assert last["sources"] == {"log": 0, "memory": 12, "synthetic": 3}, (
        "previews and unguided pages of editors are not replayed"
    )
    assert last["report"]["changed_pages"] == 0
    assert pages[0]["policy_version"] == "cn@1"


def test_logged_requests_are_replayed_with_their_seed_slots_and_session(in_process) -> None:
    first = in_process.page(viewer="v1", slots=6, region="cn.zj", age=12)
    in_process.page(viewer="v1", slots=6, region="cn.zj", page_token=first["next_page_token"])
    events = [event for event in in_process.published(2) if event.kind == "impression"]
    log = EventLog(in_process.services.settings.event_log_dir)
    log.append("t/0", 0, 1, [LoggedEvent("t/0", n, event) for n, event in enumerate(events)])
    in_process.services.pages.queries.clear()
    last = preview(in_process, text="outlet: cn.zj\n", requests=2)[-1]
    assert last["sources"] == {"log": 2, "memory": 0, "synthetic": 0}
    off_policy = last["report"]["off_policy"]
    assert off_policy["support"] == pytest.approx(1), "the replayed pages equal the pages that were shown"
    assert off_policy["requests"] == 2
    shown = {item["item_id"] for example in last["report"]["examples"] for item in example["before"]}
    assert {slot["item"]["id"] for slot in first["items"]} <= shown


def test_saved_version_can_be_previewed_at_another_time(in_process) -> None:
    later = datetime.now(UTC) + timedelta(days=40)
    text = (
        "outlet: cn.zj\ncontrols:\n  - {id: soon, action: quota, where: {label: public-service}, at_least: 0.5, "
        f"active: {{from: {later.isoformat()}}}}}\n"
    )
    in_process.http.post("/v1/policies/cn.zj/draft", json={"text": text, "author": "Lin"}).raise_for_status()
    now = preview(in_process, text=None, version=1)[-1]["report"]
    assert now["policy_after"] == ["cn@1+cn.zj@1"]
    assert "soon" not in {line["id"] for line in now["controls"]}
    then = preview(in_process, text=None, version=1, at=(later + timedelta(days=9)).isoformat())[-1]["report"]
    assert {line["id"]: line["pages_after"] for line in then["controls"]}["soon"] == 8


def test_invalid_preview_requests_are_refused(in_process) -> None:
    def post(outlet: str, body: dict) -> httpx.Response:
        return in_process.http.post(f"/v1/policies/{outlet}/preview", json=body)

    assert post("cn.zj", {"version": 9}).status_code == 404
    assert post("cn.zj", {"text": "outlet: cn.js\n"}).status_code == 422
    assert post("cn.zj", {"text": DRAFT, "version": 1}).status_code == 422
    assert post("cn.zj", {}).status_code == 422
    bad = post("cn.zj", {"text": "outlet: cn.zj\ncontrols: [{id: a, action: nothing}]\n"})
    assert bad.json()["findings"][0]["where"] == "controls[0]"
    assert preview(in_process, text=LIGHT)[-1]["phase"] == "complete", "a refused preview does not occupy the slot"


def test_previews_run_one_at_a_time_and_stop_when_the_client_disconnects(in_process, until) -> None:
    body = {"text": DRAFT, "requests": 2000}
    with in_process.http.stream("POST", "/v1/policies/cn.zj/preview", json=body) as answer:
        lines = answer.iter_lines()  # bound to a name: collecting the iterator closes the connection
        first = json.loads(next(lines))
        assert first["phase"] == "so far"
        assert 10 <= first["report"]["requests"] < 2000
        busy = in_process.http.post("/v1/policies/cn.zj/preview", json=body)
        assert busy.status_code == 429
        assert busy.headers["retry-after"]
        assert in_process.page()["items"], "a preview does not block pages"
    until(lambda: in_process.services.previews._admitted[0] == 0, within_s=5)
    assert preview(in_process, text=LIGHT)[-1]["phase"] == "complete"


def test_a_preview_needs_the_editors_token(serve) -> None:
    with serve({"admin_token": "s3cret"}) as service:
        assert service.http.post("/v1/policies/cn/preview", json={}).status_code == 401


def preview_of_recent_requests(service) -> list[dict]:
    """Request eight pages and return the lines of a preview that replays them."""
    for n in range(8):
        service.page(viewer=f"v{n}", slots=8)
    return preview(service, text=LIGHT)


def start_workers(preview_pool: PreviewPool, size: int) -> list[int]:
    """Start workers, wait until they are ready and return their pids."""
    preview_pool._size = size
    pool = preview_pool._running_pool()
    for _ in range(size):
        pool.submit(time.sleep, 0.1).result()
    return list(pool._processes)


def test_workers_give_the_same_figures_as_the_serving_process(in_process, bundle) -> None:
    """The model is sent to the workers as its bundle."""
    in_process.services.holders.set_model(ServedModel.load(bundle("m1", [f"item-{n}" for n in range(60)]), FEATURES))
    expected = preview_of_recent_requests(in_process)[-1]["report"]
    start_workers(in_process.services.previews.pool, 2)
    assert preview(in_process, text=LIGHT)[-1]["report"] == expected


@pytest.mark.filterwarnings("ignore:A worker stopped while some jobs")  # loky starts another one
def test_idle_workers_exit(monkeypatch: pytest.MonkeyPatch, until) -> None:
    monkeypatch.setattr(payload, "init_worker", None)
    preview_pool = PreviewPool(1, idle_s=2.0)
    pool = preview_pool._running_pool()
    pid = pool.submit(os.getpid).result(60)
    until(lambda: not pool._processes and not is_running(pid))
    assert preview_pool._running_pool().submit(os.getpid).result(60) != pid
    preview_pool.stop()


@pytest.mark.parametrize("after_s", [0.2])
def test_figures_stay_the_same_when_a_worker_is_killed(in_process, until, after_s: float) -> None:
    expected = preview_of_recent_requests(in_process)[-1]["report"]
    preview_pool = in_process.services.previews.pool
    [pid] = start_workers(preview_pool, 1)
    killer = threading.Timer(after_s, os.kill, (pid, signal.SIGKILL))
    killer.start()
    assert preview(in_process, text=LIGHT)[-1]["report"] == expected
    killer.join()
    assert preview(in_process, text=LIGHT)[-1]["report"] == expected, "the next preview has workers again"
    [pid] = preview_pool._pool._processes
    preview_pool.stop()
    until(lambda: not is_running(pid))


class BreakingPool:
    """A process pool that completes each task at once and breaks at its `failing_submit`-th submit."""

    def __init__(self, failing_submit: int) -> None:
        self.remaining_submits = failing_submit

    def submit(self, function: object, _: str, tasks: tuple[Task, ...] = ()) -> Future:
        self.remaining_submits -= 1
        if self.remaining_submits == 0:
            raise BrokenProcessPool("died")
        future: Future = Future()
        future.set_result([ReplayResult(task, ()) for task in tasks])
        return future


@pytest.fixture
def breaking_pool(monkeypatch: pytest.MonkeyPatch) -> object:
    """`breaking_pool(first, second)`: a preview pool whose process pools break at these submits."""
    monkeypatch.setattr(payload.StudyPayload, "of", lambda study: None)

    def make(*failing_submits: int) -> PreviewPool:
        preview_pool, pools = PreviewPool(1), iter([BreakingPool(submit) for submit in failing_submits])
        monkeypatch.setattr(preview_pool, "_new_pool", lambda: next(pools))
        return preview_pool

    return make


@pytest.mark.parametrize("failing_submit", range(1, 9))
def test_every_task_is_run_exactly_once_when_a_worker_dies(breaking_pool, failing_submit: int) -> None:
    """The pool breaks at each possible submit; with `None` as the study, nothing can run in the calling thread."""
    tasks = [Task("pair", n) for n in range(40)]
    preview_pool = breaking_pool(failing_submit, 1000)
    completed = [outcome.task.request for outcome in preview_pool.run(None, tasks, threading.Event())]
    assert sorted(completed) == list(range(40))


class BlockedPool:
    """A pool that never completes a task."""

    def __init__(self) -> None:
        self.futures: list[Future] = []

    def submit(self, *_: object) -> Future:
        self.futures.append(Future())
        return self.futures[-1]


def test_stopped_preview_cancels_its_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payload.StudyPayload, "of", lambda study: None)
    preview_pool, pool, stopped = PreviewPool(2), BlockedPool(), threading.Event()
    monkeypatch.setattr(preview_pool, "_new_pool", lambda: pool)
    threading.Timer(0.1, stopped.set).start()
    assert list(preview_pool.run(None, [Task("pair", n) for n in range(40)], stopped)) == []
    _, *chunks = pool.futures
    assert len(chunks) == 4
    assert all(chunk.cancelled() for chunk in chunks)


def test_preview_fails_when_its_workers_die_twice(breaking_pool) -> None:
    preview_pool = breaking_pool(4, 3)
    with pytest.raises(Unavailable, match="twice"):
        list(preview_pool.run(None, [Task("pair", n) for n in range(40)], threading.Event()))
    assert preview_pool._pool is None


def test_preview_whose_replay_ends_early_reports_failure(in_process, monkeypatch: pytest.MonkeyPatch) -> None:
    preview_pool = in_process.services.previews.pool
    run = preview_pool.run
    monkeypatch.setattr(preview_pool, "run", lambda study, tasks, stopped: run(study, list(tasks)[:12], stopped))
    last = preview(in_process, text=LIGHT)[-1]
    assert last["phase"] == "failed"
    assert "before all requests" in last["detail"]["message"]


def test_preview_may_be_garbage_collected_while_the_next_is_admitted(in_process) -> None:
    """Its `__del__` takes the lock, in any thread and at any moment."""
    previews = in_process.services.previews

    def collect() -> None:
        with previews._lock:
            previews._release()

    previews._admitted[0] += 1
    thread = threading.Thread(target=collect, daemon=True)
    thread.start()
    thread.join(5)
    assert not thread.is_alive()
    assert previews._admitted[0] == 0


def test_preview_of_too_many_requests_is_refused(in_process) -> None:
    answer = in_process.http.post("/v1/policies/cn.zj/preview", json={"text": LIGHT, "requests": 2001})
    assert answer.status_code == 422


def test_preview_never_uses_the_parts_of_a_closed_outlet(service) -> None:
    """A closed outlet has no model; a preview with its parts would compare editorial pages only."""
    snapshot = service.services.holders.current
    (first, first_parts), *remaining = snapshot.serving_snapshots.items()
    assert remaining
    no_policy = compile_policy((), snapshot.catalog)
    without_model = replace(
        ServingSnapshot.of(snapshot.catalog, snapshot.stats, None, no_policy), prices=snapshot.prices
    )
    closed = replace(snapshot, serving_snapshots={first: without_model, **dict(remaining)}, closed=frozenset({first}))
    assert _preview_snapshot(closed, no_policy) is remaining[0][1]
    rebuilt = _preview_snapshot(replace(closed, serving_snapshots={first: without_model}), no_policy)
    assert rebuilt.model is snapshot.model
    assert rebuilt.prices is snapshot.prices
    assert rebuilt.catalog is first_parts.catalog
