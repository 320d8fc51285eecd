"""A model whose pages fall to a lower fallback level does not enter service, or leaves it again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from features.columns import FEATURES
from features.state.codec import encode_viewer, viewer_key
from recsys.domain.errors import BundleError
from recsys.domain.placement import Placement
from recsys.domain.query import Query
from recsys.domain.trace import FallbackLevel, StageTrace
from recsys.domain.types import F32
from recsys.domain.viewer import Recent, ViewerState
from recsys.models.als import AlsRetriever
from recsys.models.bundle import Bundle, pack
from recsys.models.probe import with_probe
from recsys.models.retriever import KINDS
from recsys.page import Page
from serving.snapshot.model_loader import ModelPoller
from serving.snapshot.model_watch import MIN_FAILED, MIN_KNOWN, WINDOW, ModelWatch

ITEMS = [f"item-{n}" for n in range(60)]
QUERY = Query("r", "v1", Placement.parse("cn-mobile-home"), "cn", 0.0, 10)
VIEWER = ViewerState("v1", recent=(Recent("item-1", "like", 0.0),))


class Raises(AlsRetriever):
    """A retriever that passes its probe and fails for viewers of the service."""

    def viewer_vector(self, viewer: ViewerState) -> F32 | None:
        if not viewer.viewer_id.startswith(" "):
            raise ValueError("no vector")
        return super().viewer_vector(viewer)


class KnowsNobody(AlsRetriever):
    """A retriever that passes its probe and finds no item of the viewers of the service."""

    def viewer_vector(self, viewer: ViewerState) -> F32 | None:
        return super().viewer_vector(viewer) if viewer.viewer_id.startswith(" ") else None


@pytest.fixture(params=["raises", "knows-nobody"])
def broken(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, bundle: Callable[..., Bundle]) -> Bundle:
    """Return a bundle that passes all its checks and makes no personal page."""
    for kind, retriever in (("raises", Raises), ("knows-nobody", KnowsNobody)):
        monkeypatch.setitem(KINDS, kind, lambda b, retriever=retriever: retriever(b.item_ids, b.item_vectors, 0.1, 5.0))
    return with_probe(replace(bundle("bad", ITEMS), model_kind=request.param))


@dataclass
class Versions:
    """The versions of a model in memory, in place of a registry."""

    files: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def put(self, bundle: Bundle) -> str:
        """Add a version; the alias points to the newest one."""
        self.files[str(len(self.files) + 1)] = pack(bundle)
        return str(len(self.files))

    def attach(self, poller: ModelPoller, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let the poller read these versions."""
        monkeypatch.setattr(poller, "_find", lambda: f"{len(self.files)} run 0" if self.files else None)
        monkeypatch.setattr(poller, "_download", lambda version: self.files[version])
        client = SimpleNamespace(
            search_model_versions=lambda _: [SimpleNamespace(version=version) for version in self.files]
        )
        monkeypatch.setattr(poller, "_registry", lambda: client)


def test_a_model_without_personal_pages_for_known_viewers_is_refused_by_its_trial(
    serve: Any, broken: Bundle, bundle: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve() as service:
        service.stock()
        poller, versions = service.services.model_poller, Versions()
        service.services.pollers["model"].stop(20)
        states = {f"v{n}": ViewerState(f"v{n}", recent=VIEWER.recent) for n in range(6)}
        service.services.online.put({viewer_key(v): encode_viewer(state) for v, state in states.items()}, 600)
        versions.attach(poller, monkeypatch)
        versions.put(bundle("good", ITEMS))
        poller.step()
        versions.put(broken)
        with pytest.raises(BundleError, match="known viewer"):
            poller.step()
        part = service.http.get("/health/ready").json()["parts"]["model"]
        assert (part["ok"], part["version"]) == (False, "good")
        assert "version 2 refused" in part["detail"]


def test_a_served_model_without_personal_pages_is_reported_and_rolled_back(
    serve: Any, broken: Bundle, bundle: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve() as service:
        service.stock()
        poller, versions = service.services.model_poller, Versions()
        service.services.pollers["model"].stop(20)
        versions.attach(poller, monkeypatch)
        versions.put(bundle("good", ITEMS))
        poller.step()
        put = service.services.online.put
        put({viewer_key("v1"): encode_viewer(VIEWER)}, 600)
        for _ in range(MIN_KNOWN):
            assert service.page()["fallback_level"] == "personal"
        service.services.online.delete([viewer_key("v1")])  # so that the trial does not find the fault
        versions.put(broken)
        poller.step()
        assert service.page()["model_version"] == "bad"
        put({viewer_key("v1"): encode_viewer(VIEWER)}, 600)
        for _ in range(MIN_KNOWN):
            assert service.page()["fallback_level"] != "personal"
        if broken.model_kind == "raises":
            poller._previous = None  # as after a restart: the earlier model is read from the registry
        poller.step()
        assert service.page()["model_version"] == "good"
        assert service.page()["fallback_level"] == "personal"
        part = service.http.get("/health/ready").json()["parts"]["model"]
        assert (part["ok"], part["version"]) == (False, "good")
        assert "version 2 withdrawn: " in part["detail"]
        assert "version 1 is in service again" in part["detail"]
        poller.step()
        assert service.services.holders.current.model.bundle.version == "good", "a withdrawn version stays out"
        versions.put(bundle("better", ITEMS))
        poller.step()
        assert service.http.get("/health/ready").json()["parts"]["model"]["ok"]


def test_a_version_that_is_refused_at_the_start_leaves_the_newest_good_one_in_service(
    bundle: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    poller = ModelPoller("memory", "m", "a", FEATURES, lambda model: loaded.append(model.bundle.version))
    versions = Versions()
    versions.attach(poller, monkeypatch)
    for name in ("m1", "m2", "m3"):
        versions.put(bundle(name, ITEMS))
    versions.files["3"] = {name: body[:-1] for name, body in versions.files["3"].items()}
    with pytest.raises(BundleError):
        poller.step()
    assert loaded == ["m2"]
    assert poller.version == "2"
    assert "version 3 refused" in str(poller.refused)


def seen(level: FallbackLevel = FallbackLevel.PERSONAL, version: str = "m", error: str | None = None) -> Page:
    trace = (StageTrace("rank", 1, 1, error=error),)
    return cast(Page, SimpleNamespace(model_version=version, fallback_level=level, trace=trace))


def test_the_watch_counts_pages_of_its_model_only() -> None:
    watch = ModelWatch(lambda: {"closed"})
    watch.follow("m")
    for _ in range(MIN_FAILED):
        watch.record(QUERY, seen(version="before", error="x"), VIEWER)
        watch.record(replace(QUERY, placement=Placement.parse("closed-mobile-home")), seen(version="none"), VIEWER)
    assert watch.fault() is None
    for _ in range(MIN_FAILED - 1):
        watch.record(QUERY, seen(version="none"), VIEWER)
    assert watch.fault() is None
    watch.record(QUERY, seen(error="ValueError: no"), VIEWER)
    assert "rank: ValueError: no" in str(watch.fault())


def test_new_viewers_and_a_few_failures_are_no_fault() -> None:
    watch = ModelWatch()
    watch.follow("m")
    for n in range(WINDOW):
        watch.record(QUERY, seen(error="x" if n % 25 == 0 else None), VIEWER)
    assert watch.proven
    watch.follow("n")
    for _ in range(WINDOW):
        watch.record(QUERY, seen(FallbackLevel.POPULAR, "n"), None)
    assert watch.fault() is None, "a new viewer has no personal page"
    for _ in range(MIN_KNOWN):
        watch.record(QUERY, seen(FallbackLevel.POPULAR, "n"), VIEWER)
    assert "100% with the model before" in str(watch.fault())


def test_a_fault_that_earlier_models_show_as_well_is_reported_and_changes_no_model(
    bundle: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    watch, loaded, versions = ModelWatch(), list[str](), Versions()
    poller = ModelPoller("memory", "m", "a", FEATURES, lambda model: loaded.append(model.bundle.version), watch=watch)
    versions.attach(poller, monkeypatch)
    for name in ("m1", "m2", "m3"):
        versions.put(bundle(name, ITEMS))
        poller.step()

    def fail(version: str) -> None:
        for _ in range(MIN_FAILED):
            watch.record(QUERY, seen(version=version, error="the engine's own fault"), VIEWER)
        poller.step()

    fail("m3")
    fail("m2")
    fail("m2")
    assert loaded == ["m1", "m2", "m3", "m2"]
    assert "version 2 is at fault" in str(poller.refused)
    for _ in range(WINDOW):
        watch.record(QUERY, seen(version="m2"), VIEWER)
    poller.step()
    assert "version 3 withdrawn" in str(poller.refused)
