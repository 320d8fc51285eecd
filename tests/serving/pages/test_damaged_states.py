"""One damaged byte of stored data changes no other viewer's page, answers no 500, and is named in health."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from features.events.schema import ViewerEvent
from features.state.codec import encode_item, encode_viewer, item_key, viewer_key
from features.state.online.memory import MemoryStore
from features.state.votes import LoggedEvent
from recsys.domain.decay import forward_weight
from recsys.domain.item_statistics import ItemState
from recsys.domain.viewer import Recent, ViewerState

NOW = time.time()


def filled_store() -> MemoryStore:
    """Return a store with the states of three viewers, and of sixty items in two partitions."""
    store, weight = MemoryStore(), forward_weight(NOW)
    for number in range(3):
        liked = tuple(Recent(f"item-{7 * n + number}", "like", NOW - 60.0 * n) for n in range(4))
        hidden = {f"item-{n}": NOW for n in range(number, 60, 5)}
        store.put({viewer_key(f"v{number}"): encode_viewer(ViewerState(f"v{number}", liked, hidden=hidden, at=NOW))})
    for number in range(60):
        for partition in range(2):
            visits = float(number * 37 % 50 + partition) * weight
            state = ItemState(
                f"item-{number}",
                counts={"play": visits, "like": visits / 3},
                regions={"cn": visits, "cn.zj": visits / 2},
                impressions=5 * visits,
                offsets={f"t/{partition}": number},
                visits=visits,
                screens={"mobile": visits},
                recent_counts=3.0,
                recent_at=NOW,
                at=NOW,
            )
            store.put({item_key(state.item_id, f"t/{partition}"): encode_item(state)})
    return store


def test_one_damaged_byte_changes_no_other_viewers_page(serve: Callable[..., Any], scaled: Callable[..., int]) -> None:
    chance, store = random.Random(1), filled_store()
    intact = dict(store.scan(""))
    with serve(online=store, clock=lambda: NOW) as service:
        service.stock()
        holders = service.services.holders

        def pages() -> dict[str, list[str]]:
            holders.poll_stats()
            return {
                viewer: [entry["item"]["id"] for entry in service.page(viewer, seed=5, preview=True)["items"]]
                for viewer in ("v0", "v1", "v2")
            }

        expected = pages()
        assert len(set(map(tuple, expected.values()))) == 3
        for number in range(scaled(1_000, 10)):
            key = chance.choice([key for key in intact if key.startswith(("viewer:", "item:")[number % 2])])
            raw, position = intact[key], chance.randrange(len(intact[key]))
            mask = chance.randrange(1, 256)
            store.put({key: raw[:position] + bytes([raw[position] ^ mask]) + raw[position + 1 :]})
            damaged = key.removeprefix("viewer:{").removesuffix("}")
            now = pages()
            assert {viewer: now[viewer] for viewer in now if viewer != damaged} == {
                viewer: expected[viewer] for viewer in expected if viewer != damaged
            }
            assert now.get(damaged) != []
            assert service.http.get(f"/v1/viewers/{damaged}/export").status_code == 200
            store.put({key: raw})


def test_a_damaged_file_of_the_event_log_is_named_in_health(service: Any) -> None:
    log, poller = service.services.event_log, service.services.pollers["event_log"]
    poller.run_once()
    ready = service.http.get("/health/ready").json()
    assert ready["parts"]["event_log"] == {"ok": True, "detail": "no damaged files", "version": None}
    for number in range(2):
        event = ViewerEvent(id=f"e{number}", kind="play", viewer_id="v1", at=NOW, item_id="item-1")
        log.append("t/0", number, number, [LoggedEvent("t/0", number, event)])
    file = Path(log.files()[0])
    content = file.read_bytes()
    file.write_bytes(content[:60] + bytes([content[60] ^ 1]) + content[61:])
    lines = service.http.get("/v1/viewers/v1/export").text.splitlines()
    assert sum('"event"' in line for line in lines) == 1
    erasure = service.http.delete("/v1/viewers/v1").json()
    assert (erasure["events"], erasure["damaged_files"]) == (1, [file.name])
    poller.run_once()
    ready = service.http.get("/health/ready").json()
    assert ready["status"] == "degraded"
    assert file.name in ready["parts"]["event_log"]["detail"]
    assert "mainstay rebuild --from stream" in ready["parts"]["event_log"]["detail"]
    assert "mainstay_quarantined_files 1.0" in service.http.get("/metrics").text
