"""D5: the disk of the control plane is full. Policy writes fail, pages and events continue, the audit trail is kept."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from benchmarks.faults.harness.api import ApiProcess, Sender
from benchmarks.faults.harness.environment import EnvironmentFactory
from benchmarks.faults.harness.scenario import Scenario
from benchmarks.faults.harness.worker_process import WorkerProcess, wait_until
from benchmarks.faults.report import Line
from benchmarks.faults.scenarios.disks import fill, small_disk
from features.control.connect import open_control_of
from features.control.rows import AuditRow
from features.settings import Settings

FAULT = "8 MiB disk of the control plane full while policies, page requests and events arrive; then space is freed"
CRITERION = "no false 2xx; only policy writes fail, with 503 and a reason; resumes by itself; audit trail complete"
OUTLET, ITEMS, SLOTS = "cn", 60, 10
MAX_WRITES = 400  # a database may have allocated space for some


@dataclass
class Editor:
    """An editor who publishes policies, each with its own note, and records the results."""

    http: httpx.Client
    published: list[str] = field(default_factory=list)  # notes of policies answered with 2xx
    refused: list[httpx.Response] = field(default_factory=list)
    version: int = 0  # newest version answered with 2xx

    def publish(self) -> bool:
        """Publish another policy; returns whether it was accepted."""
        note = f"n{len(self.published) + len(self.refused)}"
        comment = "".join(
            f"# {note} {line:03} {'x' * 60}\n" for line in range(100)
        )  # long, so that it needs disk space
        answer = self.http.post(
            f"/v1/policies/{OUTLET}/publish",
            params={"note": note},
            content=f"{comment}outlet: {OUTLET}\ncontrols:\n  - {{id: c, action: cap, attribute: topic, at_most: 4}}\n",
            headers={"content-type": "application/yaml"},
        )
        if not answer.is_success:
            self.refused.append(answer)
            return False
        self.published.append(note)
        self.version = answer.json()["version"]
        return True

    def has_clear_refusals(self) -> bool:
        """Return whether each refusal is a 503 with the reason and a Retry-After header."""
        return all(
            answer.status_code == 503 and "full" in answer.json()["detail"] and "retry-after" in answer.headers
            for answer in self.refused
        )


def control_disk_full(environments: EnvironmentFactory, kind: str, seconds: float) -> list[Line]:
    """Fill the disk of the control plane's SQLite database, which also holds the audit trail; returns one result."""
    env = environments.new(kind)
    disk = env.home / "control"
    url = f"sqlite:///{disk}/control.db"
    try:
        with ExitStack() as stack:
            stack.enter_context(small_disk(disk))
            api = stack.enter_context(closing(ApiProcess(env, "--control", url))).wait_ready()
            http = stack.enter_context(httpx.Client(base_url=api.address, timeout=30))
            editor = Editor(http)
            http.post("/v1/items", json={"items": [_item(n) for n in range(ITEMS)]}).raise_for_status()
            started = editor.publish() and wait_until(lambda: _page(http)[1] == editor.version, 30.0) < float("inf")
            sender = stack.enter_context(closing(Sender(api, "d5a")))
            sender.start()
            fill(disk / "filler")
            for _ in range(MAX_WRITES):
                if len(editor.refused) >= 5:
                    break
                editor.publish()
            caught_up_s = wait_until(lambda: _page(http)[1] == editor.version, 5.0)  # for writes that still had space
            pages, during = _request_pages(http, editor, seconds)
            reads = http.get(f"/v1/policies/{OUTLET}/history").status_code
            answers = Counter(sender.statuses)
            (disk / "filler").unlink()
            resumed_s = wait_until(editor.publish, 30.0, every_s=0.1)
            follows_s = wait_until(lambda: _page(http)[1] == editor.version, 10.0)
            sender.stop()
            with closing(Scenario(env)) as scenario, closing(WorkerProcess(env).wait_ready()):
                wait_until(lambda: sender.ids <= scenario.read_new(), 60.0)
                lost, verdict = len(sender.ids - scenario.read_new()), scenario.wait_for_verdict()
            api.close()
            trail = _audit_problem(Settings(home=str(env.home), control=url), editor)
    except PermissionError as error:
        return [Line("D5", kind, FAULT, f"not run: {error}", CRITERION, False)]
    good = pages[200]
    return [
        Line(
            "D5",
            kind,
            FAULT,
            f"{len(editor.refused)} policies refused, each with a reason: "
            f"{'yes' if editor.has_clear_refusals() else 'NO'}; {len(editor.published)} published; "
            f"{good} of {pages.total()} pages 200, with {len(during)} policy versions; "
            f"events answered {', '.join(f'{n} x {status}' for status, n in sorted(answers.items()))}, {lost} lost; "
            f"history {reads}; first policy published {resumed_s:.1f} s after space was freed, "
            f"on pages {follows_s:.1f} s later; {trail or 'audit trail complete'}; {verdict}",
            CRITERION,
            started
            and len(editor.refused) >= 5
            and editor.has_clear_refusals()
            and good == pages.total() > 0
            and len(during) == 1
            and set(answers) == {202}
            and not lost
            and reads == 200
            and max(caught_up_s, resumed_s, follows_s) < float("inf")
            and not trail
            and verdict.ok,
        )
    ]


def _item(n: int) -> dict[str, Any]:
    at = datetime.now(UTC) - timedelta(hours=n + 1)
    text = {"id": f"item-{n}", "title": {"en": f"Item {n}"}, "outlet": OUTLET, "topic": f"topic-{n % 7}"}
    return {**text, "published_at": at.isoformat()}


def _page(http: httpx.Client) -> tuple[int, int]:
    """Request a page; returns its status and the version of the outlet's policy that it names, 0 if none."""
    answer = http.post(f"/v1/placements/{OUTLET}-mobile-home:recommend", json={"viewer_id": "v", "slots": SLOTS})
    policy_version = answer.json().get("policy_version") or ""
    version = policy_version.rpartition("@")[2]  # the API returns "none" until it has read a policy
    return answer.status_code, int(version) if version.isdecimal() else 0


def _request_pages(http: httpx.Client, editor: Editor, seconds: float) -> tuple[Counter[int], set[int]]:
    """Return statuses and policy versions of pages requested while an editor keeps publishing."""
    statuses, versions, give_up = Counter[int](), set[int](), time.monotonic() + seconds
    while time.monotonic() < give_up:
        for _ in range(10):
            status, version = _page(http)
            statuses[status] += 1
            versions.add(version)
        editor.publish()
        time.sleep(0.1)
    return statuses, versions


def _audit_problem(settings: Settings, editor: Editor) -> str:
    """Read the audit trail from the database file; returns what is wrong with it, or an empty string."""
    control = open_control_of(settings)
    with closing(control):
        fault = control.verify_audit()[1]
        rows, last_seq = list[AuditRow](), 0
        while batch := control.audit(last_seq, 1000):
            rows, last_seq = [*rows, *batch], batch[-1].seq
        notes = {version.version: version.note for version in control.history(OUTLET)}
    published = [notes[row.detail["version"]] for row in rows if row.action == "policy.publish"]  # type: ignore[index]
    drafted = [row.detail["note"] for row in rows if row.action == "policy.draft"]
    if fault is not None:
        return f"audit trail broken at {fault.seq}"
    if published != editor.published:
        return f"{len(published)} publications on the trail, {len(editor.published)} were accepted"
    return "" if len(drafted) == len(set(drafted)) == len(notes) else "drafts without a row, or with two"
