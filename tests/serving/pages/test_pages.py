"""Pages over HTTP: their content, sessions over several pages, and pages while a part is down."""

from __future__ import annotations

import base64
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from features.columns import FEATURES
from features.events.stream.memory import MemoryStream
from features.events.stream.port import Record
from features.state.codec import encode_viewer, viewer_key
from features.state.online.memory import MemoryStore
from recsys.domain.errors import Unavailable
from recsys.domain.viewer import Recent, ViewerState
from recsys.models.bundle import pack, unpack
from recsys.models.served_model import ServedModel
from recsys.utility import DEFAULT_WEIGHTS


class DeadStore(MemoryStore):
    """An online store that does not answer."""

    def get(self, keys: Sequence[str]) -> list[bytes | None]:
        raise Unavailable("online: timed out")

    def scan(self, prefix: str):
        raise Unavailable("online: timed out")


class DeadStream(MemoryStream):
    """A stream that refuses every record."""

    def publish(self, topic: str, records: Sequence[Record]) -> None:
        raise Unavailable("stream: no broker")


def ids(page) -> list[str]:
    return [slot["item"]["id"] for slot in page["items"]]


def add_model_and_viewer(service, bundle) -> None:
    """Serve a model and store a viewer with a history."""
    liked = [Recent(f"item-{n}", "like", time.time()) for n in (1, 3, 5)]
    service.services.online.put({viewer_key("v1"): encode_viewer(ViewerState("v1", tuple(liked)))})
    service.services.holders.set_model(ServedModel.load(bundle("m1", [f"item-{n}" for n in range(60)]), FEATURES))


def test_page_carries_items_reasons_receipt_and_trace(service, bundle) -> None:
    add_model_and_viewer(service, bundle)
    page = service.page(region="cn.zj", slots=8, trace=True)
    assert page["fallback_level"] == "personal"
    assert (page["model_version"], page["policy_version"]) == ("m1", "cn@1")
    assert page["placement"] == "cn.zj-mobile-home"
    assert page["degraded_parts"] == []
    assert [slot["slot"] for slot in page["items"]] == list(range(1, 9))
    for slot in page["items"]:
        assert slot["item"]["title"]["zh"]
        assert slot["reasons"]
    public = [slot for slot in page["items"] if "public-service" in slot["item"]["labels"]]
    needed = 3  # 30 % of eight slots; further items are on the page for their own utility
    assert ["floor" in slot["control_ids"] for slot in public] == [n < needed for n in range(len(public))]
    assert {line["id"]: line["status"] for line in page["receipt"]["controls"]}["floor"] in ("met", "active")
    assert [stage["candidates_in"] - stage["candidates_out"] for stage in page["trace"]] == [
        sum(stage["dropped"].values()) for stage in page["trace"]
    ]
    assert [stage["error"] for stage in page["trace"] if stage["error"]] == []
    assert service.page(region="cn.zj", slots=8)["trace"] is None


def test_page_utility_uses_the_action_weights_of_the_served_model(service, bundle) -> None:
    no_model = service.http.get("/v1/model").json()
    assert (no_model["version"], no_model["created_at"], no_model["action_weights"]) == (
        None,
        None,
        dict(DEFAULT_WEIGHTS),
    )
    add_model_and_viewer(service, bundle)
    weights = {"play": 1.0, "complete": 0.25, "like": 7.0, "dislike": -0.5}
    heavier = replace(bundle("m2", [f"item-{n}" for n in range(60)]), action_weights=weights)
    service.services.holders.set_model(ServedModel.load(unpack(pack(heavier)), FEATURES))
    page = service.page(region="cn.zj", slots=8, trace=True)
    assert (page["fallback_level"], page["model_version"]) == ("personal", "m2")
    assert [stage["error"] for stage in page["trace"] if stage["error"]] == []
    for slot in page["items"]:
        p = slot["detail"]["p"]
        assert slot["detail"]["utility"] == pytest.approx(sum(weights[name] * p[name] for name in p))
    served = service.http.get("/v1/model").json()
    assert (served["version"], served["unit"], served["action_weights"]) == ("m2", "play equivalent", weights)


def test_session_repeats_no_item_and_keeps_its_quotas(shared) -> None:
    shown: list[str] = []
    page_token = None
    for turn in range(1, 6):
        page = shared.page(slots=10, **({"page_token": page_token} if page_token else {}))
        shown += ids(page)
        page_token = page["next_page_token"]
        catalog = shared.services.holders.current.catalog
        public = sum("public-service" in catalog.items[catalog.row_of[item_id]].labels for item_id in shown)
        assert public >= 3 * turn
    assert len(set(shown)) == len(shown) == 50


def test_session_ends_with_the_catalog(shared) -> None:
    first = shared.page(slots=32)
    assert len(first["items"]) == 32
    last = shared.page(slots=32, page_token=first["next_page_token"])
    assert set(ids(last)).isdisjoint(ids(first))
    assert last["next_page_token"] is None


def test_page_token_of_another_session_is_refused(shared) -> None:
    page_token = shared.page("v1")["next_page_token"]
    for viewer, placement in (("v2", "cn.zj-mobile-home"), ("v1", "cn.zj-tv-home")):
        body = {"viewer_id": viewer, "page_token": page_token}
        answer = shared.http.post(f"/v1/placements/{placement}:recommend", json=body)
        assert answer.status_code == 400
        assert answer.json()["type"] == "urn:mainstay:problem:page-token-error"
        assert answer.json()["findings"][0]["where"] == "body.page_token"


def test_impression_records_the_items_and_the_context_of_the_page(service, bundle) -> None:
    add_model_and_viewer(service, bundle)
    page = service.page(region="cn.zj", slots=6, seed=42)
    (event,) = service.published(1)
    assert (event.kind, event.viewer_id, event.request_id) == ("impression", "v1", page["request_id"])
    assert event.items == tuple(ids(page))
    assert event.attention[0] == 1.0
    assert list(event.attention) == sorted(event.attention, reverse=True)
    context = event.context
    assert (context["seed"], context["fallback_level"]) == (42, "personal")
    assert (context["model_version"], context["policy_version"]) == ("m1", "cn@1")
    features = np.frombuffer(base64.b64decode(context["features"]), np.float32).reshape(context["feature_shape"])
    assert features.shape == (6, len(FEATURES))
    assert np.isfinite(features).all()


def test_preview_page_publishes_no_impression(service) -> None:
    service.page("seen-by-editor", preview=True)
    service.page("v1")
    assert {event.viewer_id for event in service.published(1)} == {"v1"}


@pytest.mark.parametrize(
    ("placement", "problem"),
    [
        ("nowhere", "nowhere"),
        ("foo", "OUTLET-SCREEN-SURFACE"),
        ("cn.zj-fridge-home", "fridge"),
        ("cn.zj-tv-cellar", "cellar"),
        ("cn.js-tv-home", "cn.js"),
    ],
)
def test_unknown_placement_is_answered_with_404_and_the_problem(shared, placement: str, problem: str) -> None:
    answer = shared.http.post(f"/v1/placements/{placement}:recommend", json={"viewer_id": "v1"})
    assert answer.status_code == 404
    assert problem in answer.json()["detail"]


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({}, "body.viewer_id"),
        ({"viewer_id": "v 1"}, "body.viewer_id"),
        ({"viewer_id": "v1", "slots": 51}, "body.slots"),
        ({"viewer_id": "v1", "slot": 5}, "body.slot"),
        ({"viewer_id": "v1", "region": "Hang Zhou"}, "body.region"),
        ({"viewer_id": "v1", "region": "a.b.c.d.e.f.g.h.i"}, "body.region"),
        ({"viewer_id": "v1", "age": -1}, "body.age"),
    ],
)
def test_invalid_request_is_refused_with_the_field(shared, body, where: str) -> None:
    answer = shared.http.post("/v1/placements/cn.zj-mobile-home:recommend", json=body)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert [finding["where"] for finding in answer.json()["findings"]] == [where]


def test_unguided_and_preview_pages_need_the_admin_token(serve) -> None:
    with serve({"admin_token": "s3cret"}) as service:
        service.http.headers["Authorization"] = "Bearer s3cret"
        service.stock()
        del service.http.headers["Authorization"]
        for body in ({"guided": False}, {"preview": True}):
            answer = service.http.post("/v1/placements/cn.zj-mobile-home:recommend", json={"viewer_id": "v1", **body})
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
        assert service.page()["policy_version"] == "cn@1"
        service.http.headers["Authorization"] = "Bearer s3cret"
        assert service.page(guided=False)["policy_version"] == "none"


def meets_the_quota(page) -> bool:
    """Return whether a page meets the legal quota: rounded down on each prefix, up on the whole page."""
    public = [int(item_id.removeprefix("item-")) % 4 == 0 for item_id in ids(page)]
    prefixes = all(sum(public[:k]) >= int(0.3 * k + 1e-9) for k in range(1, len(public)))
    return prefixes and sum(public) >= 0.3 * len(public)


def test_dead_online_store_only_disables_the_personal_level(serve, bundle) -> None:
    with serve(online=DeadStore()) as service:
        service.stock()
        service.services.holders.set_model(ServedModel.load(bundle("m1", [f"item-{n}" for n in range(60)]), FEATURES))
        page = service.page()
        assert page["fallback_level"] == "popular"
        assert page["degraded_parts"] == ["online"]
        assert meets_the_quota(page)
        ready = service.http.get("/health/ready")
        assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
        assert "timed out" in ready.json()["parts"]["online"]["detail"]


def test_page_reads_only_its_viewer_and_only_once(serve, bundle) -> None:
    reads: list[tuple[str, ...]] = []

    class RecordingStore(MemoryStore):
        def get(self, keys: Sequence[str]) -> list[bytes | None]:
            reads.append(tuple(keys))
            return super().get(keys)

    with serve(online=RecordingStore()) as service:
        service.stock()
        add_model_and_viewer(service, bundle)
        reads.clear()
        assert service.page("v1")["fallback_level"] == "personal"
        service.page("v1", personalised=False)
        service.page("v2")
        assert reads == [(viewer_key("v1"),), (viewer_key("v2"),)]


def test_pages_do_not_wait_for_a_dead_store_and_recover_with_it(serve, bundle, until) -> None:
    class FailingStore(MemoryStore):
        down, reads = False, 0

        def get(self, keys: Sequence[str]) -> list[bytes | None]:
            self.reads += viewer_key("v1") in keys
            if self.down:
                raise Unavailable("online: timed out")
            return super().get(keys)

    store = FailingStore()
    with serve(online=store) as service:
        service.stock()
        add_model_and_viewer(service, bundle)
        assert service.page()["fallback_level"] == "personal"
        store.down, store.reads = True, 0
        for _ in range(20):
            page = service.page()
            assert (page["fallback_level"], page["degraded_parts"]) == ("popular", ["online"])
            assert meets_the_quota(page)
        assert store.reads == 3
        online = service.http.get("/health/ready").json()["parts"]["online"]
        assert (online["ok"], online["detail"]) == (False, "pages are served without viewer state: online: timed out")
        store.down = False
        until(lambda: service.page()["fallback_level"] == "personal")
        assert service.page()["degraded_parts"] == []


def test_editorial_level_answers_without_model_and_counts(shared) -> None:
    page = shared.page()
    assert (page["fallback_level"], page["model_version"], page["degraded_parts"]) == ("editorial", "none", ["model"])
    assert meets_the_quota(page)


def test_viewer_with_a_corrupt_state_is_treated_as_new(service, bundle) -> None:
    add_model_and_viewer(service, bundle)
    service.services.online.put({viewer_key("v1"): b"\x01broken"})
    page = service.page()
    assert page["fallback_level"] != "personal"
    assert page["degraded_parts"] == ["online"]


def test_page_is_made_without_the_model_when_the_model_fails(service, bundle, monkeypatch) -> None:
    add_model_and_viewer(service, bundle)
    engine = service.services.pages.engine
    run = type(engine).run

    def failing_run(self, query, viewer, snapshot):
        if snapshot.model is not None:
            raise RuntimeError("broken model")
        return run(self, query, viewer, snapshot)

    monkeypatch.setattr(type(engine), "run", failing_run)
    page = service.page()
    assert page["degraded_parts"] == ["model"]
    assert meets_the_quota(page)


def test_dead_stream_loses_the_impression_but_not_the_page(serve) -> None:
    with serve(stream=DeadStream(2)) as service:
        service.stock()
        assert len(service.page()["items"]) == 12
        service.services.publisher.stop(timeout_s=0.2)
        assert "mainstay_impressions_dropped_total 1.0" in service.http.get("/metrics").text


def test_pages_of_regions_at_any_depth_publish_their_impression(service) -> None:
    deep, far, longest = "a.b.c.d.e.f.g.h", "cn.b.c.d.e.f.g.h.i", f"cn.{'a' * 97}"
    service.page(viewer="v1", region=deep)
    for viewer, outlet in (("v2", far), ("v3", longest)):
        service.publish(outlet, f"outlet: {outlet}\ncontrols: []\n")
        service.page(viewer=viewer, placement=f"{outlet}-mobile-home")
    regions = {event.viewer_id: event.region for event in service.published(3)}
    assert regions == {"v1": deep, "v2": "cn.b.c.d.e.f.g.h", "v3": longest}
    assert "mainstay_impressions_dropped_total 0.0" in service.http.get("/metrics").text


def test_service_without_control_plane_answers_an_empty_degraded_page(serve) -> None:
    with serve({"control": "postgresql://nobody@127.0.0.1:1/none"}) as service:
        page = service.page()
        assert (page["items"], page["fallback_level"], page["degraded_parts"]) == (
            [],
            "editorial",
            ["control", "model"],
        )
        assert service.http.get("/health/live").status_code == 200
        ready = service.http.get("/health/ready")
        assert (ready.status_code, ready.json()["status"]) == (503, "not ready")
        answer = service.http.get("/v1/policies/cn")
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"


def test_last_catalog_and_policy_stay_in_service_when_the_database_fails(service, monkeypatch) -> None:
    before = service.page(seed=1)

    def unavailable(*_: object) -> int:
        raise Unavailable("control plane: gone")

    monkeypatch.setattr(service.services.control, "revision", unavailable)
    time.sleep(0.1)
    assert service.http.get("/health/ready").json()["parts"]["control"]["detail"] == "control plane: gone"
    assert ids(service.page(seed=1)) == ids(before)


def test_pages_and_control_outcomes_are_counted(service) -> None:
    for _ in range(3):
        service.page()
    service.page(preview=True)
    text = service.http.get("/metrics").text
    assert 'mainstay_pages_total{fallback_level="editorial",screen="mobile"} 3.0' in text
    assert 'mainstay_page_seconds_count{screen="mobile"} 3.0' in text
    lines = [line for line in text.splitlines() if line.startswith('mainstay_controls_total{control="floor"')]
    assert sum(float(line.split()[-1]) for line in lines) == 3.0


def test_opposite_histories_give_the_same_page_without_personalisation(service, bundle) -> None:
    add_model_and_viewer(service, bundle)
    disliked = [Recent(f"item-{n}", "dislike", time.time()) for n in (1, 3, 5)]
    service.services.online.put({viewer_key("v2"): encode_viewer(ViewerState("v2", tuple(disliked)))})
    pages = [service.page(viewer, personalised=False, seed=1) for viewer in ("v1", "v2")]
    assert ids(pages[0]) == ids(pages[1])
    assert ids(service.page("v1", seed=1)) != ids(service.page("v2", seed=1))


def test_malformed_region_is_refused_with_an_example(shared) -> None:
    body = {"viewer_id": "v1", "region": "Hangzhou"}
    answer = shared.http.post("/v1/placements/cn.zj-mobile-home:recommend", json=body)
    [finding] = answer.json()["findings"]
    assert finding["where"] == "body.region"
    assert "separated by dots, such as cn.zj.hz" in finding["message"]


def test_root_lists_the_entry_points(shared) -> None:
    links = shared.http.get("/").json()
    assert [shared.http.get(links[name]).status_code for name in ("console", "documentation")] == [200, 200]
