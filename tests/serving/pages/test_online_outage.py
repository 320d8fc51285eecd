"""Pages during faults of the online store: a real Valkey server is killed, suspended, full or read-only.

The benchmark `python -m benchmarks.faults.scenarios.online_store` also measures recovery times.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import servers
from benchmarks.faults.scenarios.online_store import FAULTS, PLACEMENT, POLICY, SLOTS, policy_violations
from features.columns import FEATURES
from features.state.codec import encode_viewer, viewer_key
from recsys.domain.viewer import Recent, ViewerState
from recsys.models.served_model import ServedModel


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[servers.Server]:
    server = servers.valkey(tmp_path / "valkey")
    with servers.running(server):
        yield server


def test_pages_keep_their_policy_through_every_fault_and_become_personal_again(serve, bundle, until, valkey) -> None:
    with serve({"online": f"redis://127.0.0.1:{valkey.port}"}) as service:
        service.stock(60, POLICY)
        liked = tuple(Recent(f"item-{n}", "like", time.time()) for n in (1, 3, 5))
        service.services.online.put({viewer_key("v1"): encode_viewer(ViewerState("v1", liked))})
        service.services.holders.set_model(ServedModel.load(bundle("m1", [f"item-{n}" for n in range(60)]), FEATURES))
        assert service.page(placement=PLACEMENT, slots=SLOTS)["fallback_level"] == "personal"
        faults = [fault for fault in FAULTS if fault != "none"]
        random.Random(11).shuffle(faults)
        for fault in faults:
            begin, end = FAULTS[fault]
            begin(valkey)
            pages = [service.page(placement=PLACEMENT, slots=SLOTS) for _ in range(12)]
            assert [policy_violations(page) for page in pages] == [[]] * len(pages), fault
            readable = fault in ("full", "read-only")  # such a server still answers reads
            assert {page["fallback_level"] for page in pages[3:]} == {"personal" if readable else "popular"}, fault
            assert all(page["degraded_parts"] == ([] if readable else ["online"]) for page in pages[3:]), fault
            end(valkey)
            until(lambda: service.page(placement=PLACEMENT, slots=SLOTS)["fallback_level"] == "personal")


def test_service_starts_while_its_store_hangs(serve, valkey) -> None:
    valkey.signal(signal.SIGSTOP)
    with serve({"online": f"redis://127.0.0.1:{valkey.port}"}) as service:
        service.stock(60, POLICY)
        page = service.page(placement=PLACEMENT, slots=SLOTS)
        assert (page["fallback_level"], policy_violations(page)) == ("editorial", [])
        assert "online" in page["degraded_parts"]
        ready = service.http.get("/health/ready").json()
        assert not ready["parts"]["online"]["ok"]
        valkey.signal(signal.SIGCONT)
