"""New items get text vectors in the background, each page uses one snapshot, and a restart encodes nothing again."""

from __future__ import annotations

import threading
import time

import numpy as np

from features.columns import FEATURES
from features.state.codec import encode_viewer, viewer_key
from features.state.online.memory import MemoryStore
from recsys.domain.embeddings import Content
from recsys.domain.viewer import Recent, ViewerState
from recsys.models.served_model import ServedModel
from serving.prometheus import Metrics
from serving.snapshot.holders import SnapshotHolder


def has_vector(service, item_id: str) -> bool:
    catalog = service.services.holders.current.catalog
    row = catalog.row_of.get(item_id, -1)
    return 0 <= row < len(catalog.content.vectors) and bool(catalog.content.vectors[row].any())


def test_a_new_item_gets_a_vector_and_is_retrieved_by_its_text(serve, item, bundle, until) -> None:
    with serve() as service:
        titles = ["西湖龙井茶开采", "龙井茶园新茶上市", "NBA总决赛今晨打响"]
        items = [item(n, title={"zh": title}, topic="") for n, title in enumerate(titles[:1] + titles[2:])]
        service.http.post("/v1/items", json={"items": [*items, *(item(n) for n in range(5, 50))]}).raise_for_status()
        service.publish("cn", "outlet: cn\n")
        service.services.holders.set_model(
            ServedModel.load(bundle("m1", [f"item-{n}" for n in range(5, 50)]), FEATURES)
        )
        liked = ViewerState("v1", (Recent("item-0", "like", time.time()),))
        service.services.online.put({viewer_key("v1"): encode_viewer(liked)})
        service.http.post("/v1/items", json=[item(4, title={"zh": titles[1]})]).raise_for_status()
        until(lambda: has_vector(service, "item-4"))
        page = service.page("v1", slots=47, trace=True, seed=1)  # all items, because a random ranker orders them
        by_id = {slot["item"]["id"]: slot for slot in page["items"]}
        assert "content" in by_id["item-4"]["detail"]["sources"]
        assert "about_the_same" in by_id["item-4"]["reasons"]
        stage = next(stage for stage in page["trace"] if stage["name"] == "content")
        assert stage["candidates_out"] > 0
        assert service.http.get("/health/ready").json()["parts"]["content"]["ok"]


def test_each_page_uses_one_snapshot_while_vectors_arrive(service, item, until) -> None:
    stop, inconsistent = threading.Event(), list[str]()

    def look() -> None:
        while not stop.is_set():
            snapshot = service.services.holders.current
            for outlet, serving in snapshot.serving_snapshots.items():
                if serving.catalog is not snapshot.catalog or serving.policy.catalog is not snapshot.catalog:
                    inconsistent.append(outlet)

    watcher = threading.Thread(target=look)
    watcher.start()
    for n in range(300, 330):
        service.http.post("/v1/items", json=[item(n)]).raise_for_status()
    until(lambda: all(has_vector(service, f"item-{n}") for n in range(300, 330)))
    stop.set()
    watcher.join()
    assert inconsistent == []
    vectors = service.services.holders.current.catalog.content.vectors
    assert np.isfinite(vectors).all()


def test_vectors_that_arrive_while_the_catalog_is_read_are_not_lost(service, item) -> None:
    embeddings = Content("test@1", np.ones((60, 2), np.float32))

    class ConcurrentUpdate:
        """A control plane that triggers an update of the vectors while it is read."""

        def __getattr__(self, name: str) -> object:
            return getattr(service.services.control, name)

        def items_since(self, *args: int) -> object:
            if args[0] > 0:
                holders.set_embeddings(embeddings)
            return service.services.control.items_since(*args)

    holders = SnapshotHolder(ConcurrentUpdate(), MemoryStore(), time.time, Metrics())
    holders.poll_control()
    service.http.post("/v1/items", json=[item(70)]).raise_for_status()
    holders.poll_control()
    assert len(holders.current.catalog) == 61
    assert holders.current.catalog.content is embeddings


def test_a_restart_encodes_nothing_again(serve, item, until, monkeypatch) -> None:
    with serve({"vectors": ""}) as first:
        first.stock()
        until(lambda: all(has_vector(first, f"item-{n}") for n in range(60)))

    def refuse(*_: object) -> object:
        raise AssertionError("encoded again")

    monkeypatch.setattr("features.embeddings.ngrams.NgramEncoder.encode", refuse)
    with serve({"vectors": ""}) as second:
        until(lambda: all(has_vector(second, f"item-{n}") for n in range(60)))
        assert second.services.embedding_poller.refresher.refused == {}


def test_pages_are_served_without_an_encoder_that_fails_to_load(serve, tmp_path, monkeypatch) -> None:
    (tmp_path / "no_weights.py").write_text("def make():\n    raise RuntimeError('no weights here')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with serve({"encoder": "no_weights:make"}) as service:
        service.stock()
        assert service.page()["items"]
        ready = service.http.get("/health/ready")
        assert ready.status_code == 200


def test_without_an_encoder_the_health_report_has_no_content_part(serve) -> None:
    with serve({"encoder": "none"}) as service:
        service.stock()
        assert service.page()["items"]
        assert "content" not in service.http.get("/health/ready").json()["parts"]
