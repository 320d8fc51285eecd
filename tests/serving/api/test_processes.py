"""The serving command with several processes: one catalog, shared metrics and a graceful shutdown."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from features.events.decode import decode
from features.events.stream.connect import open_stream

TIMEOUT_S = 60.0
POLICY = "outlet: cn\ncontrols:\n  - {id: none, action: block, where: {label: film}}\n"


@contextmanager
def serving(home: Path, processes: int) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the command on a free port until it is live, and stop it at the end."""
    flags = ["--home", str(home), "--port", "0", "--processes", str(processes), "--online", "memory://"]
    command = [sys.executable, "-m", "features.cli", "serve", *flags]
    with (home / "serve.log").open("w") as log:
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert child.stdout is not None
        line = child.stdout.readline()
        assert line.startswith("serving on http://"), line + (home / "serve.log").read_text()
        address = line.split()[2]
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            try:
                if httpx.get(f"{address}/health/live", timeout=5).status_code == 200:
                    break
            except httpx.TransportError:
                assert child.poll() is None, (home / "serve.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield child, address
    finally:
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
            child.wait(30)
        assert child.stdout is not None
        child.stdout.close()


def ask(address: str, path: str = "/v1/placements/cn-mobile-home:recommend") -> httpx.Response:
    """Send a request on a new connection, so that either process can accept it."""
    return httpx.post(address + path, json={"viewer_id": "v1", "slots": 5}, timeout=30)


def test_a_change_is_in_force_in_every_process_within_a_second(tmp_path: Path, item) -> None:
    with serving(tmp_path, processes=2) as (child, address):
        post = {"timeout": 30}
        httpx.post(f"{address}/v1/items", json=[item(n, outlet="cn") for n in range(30)], **post).raise_for_status()
        children = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
        assert len(children) >= 2

        def all_processes_serve(policy: str, status: str) -> bool:
            """Return whether twenty new connections agree. The chance that one of two processes gets none is 2e-6."""
            answers = [ask(address) for _ in range(20)]
            if any(a.status_code != 200 for a in answers):  # 503 until the process has read the catalog
                return False
            pages = [a.json() for a in answers]
            return all(
                page["policy_version"] == policy
                and (status == "in") == any(s["item"]["id"] == "item-1" for s in page["items"])
                for page in pages
            )

        deadline = time.monotonic() + TIMEOUT_S
        while not all_processes_serve("none", "in"):
            assert time.monotonic() < deadline, "both processes must start"

        yaml = {"content-type": "application/yaml"}
        httpx.post(f"{address}/v1/policies/cn/publish", content=POLICY, headers=yaml, **post).raise_for_status()
        time.sleep(1.0)
        assert all_processes_serve("cn@1", "out")
        page = ask(address).json()
        assert page["items"]
        httpx.post(f"{address}/v1/items", json=[item(4, outlet="cn", status="withdrawn")], **post).raise_for_status()
        time.sleep(1.0)
        assert all("item-4" not in [s["item"]["id"] for s in ask(address).json()["items"]] for _ in range(20))

        totals = [counted(httpx.get(f"{address}/metrics", timeout=30).text) for _ in range(10)]
        assert len(set(totals)) == 1, "every process must expose the sum over all processes"
        assert totals[0] > 60

        page_token = ask(address).json()["next_page_token"]
        for _ in range(10):  # a page token signed by one process is read by the other
            body = {"viewer_id": "v1", "slots": 5, "page_token": page_token}
            response = httpx.post(f"{address}/v1/placements/cn-mobile-home:recommend", json=body, timeout=30)
            assert response.status_code == 200
        child.send_signal(signal.SIGTERM)
        assert child.wait(30) == 0


def counted(text: str) -> float:
    lines = [line for line in text.splitlines() if line.startswith("mainstay_pages_total{")]
    return sum(float(line.split()[-1]) for line in lines)


def test_a_graceful_shutdown_sends_every_impression(tmp_path: Path, item) -> None:
    with serving(tmp_path, processes=1) as (child, address):
        httpx.post(f"{address}/v1/items", json=[item(n, outlet="cn") for n in range(9)], timeout=30).raise_for_status()
        deadline = time.monotonic() + TIMEOUT_S
        while ask(address).status_code != 200:
            assert time.monotonic() < deadline
        shown = {ask(address).json()["request_id"] for _ in range(20)}
        time.sleep(1.5)  # now the long-lived objects are frozen; they must not be reported as leaked at the end
        child.send_signal(signal.SIGTERM)
        assert child.wait(30) == 0
    assert "leaked" not in (tmp_path / "serve.log").read_text()
    stream = open_stream(f"sqlite:///{tmp_path}/stream.db", partitions=4)
    parts = range(stream.partitions("viewer-events"))
    sent = {decode(message.value).request_id for p in parts for message in stream.read("viewer-events", p, 0, 1000)}
    stream.close()
    assert shown <= sent


def test_invalid_settings_are_reported_by_name(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "features.cli", "serve", "--home", str(tmp_path), "--processes", "zero"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--processes" in done.stderr


@pytest.mark.parametrize("processes", [1, 2])
def test_every_process_ends_after_sigterm_whatever_does_not_answer(tmp_path: Path, processes: int) -> None:
    """The address is printed when the port accepts connections. All servers accept connections but never answer."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as silent:
        server = f"127.0.0.1:{silent.getsockname()[1]}"
        flags = ["--home", str(tmp_path), "--port", "0", "--processes", str(processes), "--encoder", "none"]
        flags += ["--stream", f"kafka://{server}", "--online", f"redis://{server}/0", "--registry", f"http://{server}"]
        flags += ["--control", f"postgresql://u:pass-word@{server}/x"]
        command = [sys.executable, "-m", "features.cli", "serve", *flags]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            line = child.stdout.readline()
            assert line.startswith("serving on http://")
            host, _, port = line.split()[2].removeprefix("http://").rpartition(":")
            socket.create_connection((host, int(port)), timeout=1.0).close()
            children = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
            child.send_signal(signal.SIGTERM)
            try:
                output = child.communicate(timeout=20)  # the limit is 5 s; more only because the machine may be busy
            finally:
                child.kill()
        assert child.returncode == 0
        assert not [pid for pid in children if Path(f"/proc/{pid}/exe").exists()]
        assert "pass-word" not in "".join(output)
