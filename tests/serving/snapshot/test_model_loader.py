"""The model in service follows the registry alias, and an invalid bundle is never put into service."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from features.columns import FEATURES
from recsys.domain.errors import BundleError, Unavailable
from recsys.models.bundle import MANIFEST, TENSORS, pack
from recsys.models.served_model import ServedModel
from serving.snapshot.model_loader import ModelPoller

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # MLflow's own


class Registry:
    """An MLflow registry in a file, with the writes of a training run."""

    def __init__(self, home: Path) -> None:
        from mlflow import MlflowClient

        self.uri = f"sqlite:///{home}/mlflow.db"
        self.client = MlflowClient(self.uri, self.uri)
        self.experiment = self.client.create_experiment("e", artifact_location=(home / "artifacts").as_uri())
        self.client.create_registered_model("mainstay")
        self.home = home

    def put(self, files: dict[str, bytes], folder: str = "bundle") -> str:
        """Register these files as a version and move the alias to it."""
        run = self.client.create_run(self.experiment)
        for name, body in files.items():
            path = self.home / name
            path.write_bytes(body)
            self.client.log_artifact(run.info.run_id, str(path), folder)
        source = f"{run.info.artifact_uri}/{folder}"
        version = self.client.create_model_version("mainstay", source, run.info.run_id)
        self.client.set_registered_model_alias("mainstay", "champion", version.version)
        return str(version.version)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    return Registry(tmp_path_factory.mktemp("registry"))


def model_poller(uri: str, loaded: list[ServedModel]) -> ModelPoller:
    return ModelPoller(uri, "mainstay", "champion", FEATURES, loaded.append)


def test_a_missing_registry_is_no_error_and_is_not_created(tmp_path: Path) -> None:
    model_poller(f"sqlite:///{tmp_path}/none.db", []).step()
    assert list(tmp_path.iterdir()) == []


def test_each_valid_version_is_loaded_once_and_an_invalid_one_is_refused(registry: Registry, bundle) -> None:
    loaded: list[ServedModel] = []
    models = model_poller(registry.uri, loaded)
    models.step()
    assert loaded == []

    first = registry.put(pack(bundle("m1", ["a", "b", "c"])))
    models.step()
    models.step()
    assert [model.bundle.version for model in loaded] == ["m1"]
    assert models.version == first

    files = pack(bundle("m2", ["a", "b", "c"]))
    cut = registry.put({MANIFEST: files[MANIFEST], TENSORS: files[TENSORS][:-7]})
    with pytest.raises(BundleError):
        models.step()
    models.step()  # an invalid version is not downloaded again and stays refused
    assert models.refused is not None
    assert f"version {cut}" in models.refused

    unknown_feature = pack(bundle("m3", ["a", "b"], feature_names=("affinity", "phase_of_the_moon")))
    registry.put(unknown_feature)
    with pytest.raises(BundleError, match="phase_of_the_moon"):
        models.step()

    registry.put({"readme.txt": b"no bundle"})
    with pytest.raises(BundleError, match="has no bundle"):
        models.step()
    assert [model.bundle.version for model in loaded] == ["m1"]
    assert models.version == first

    registry.put(pack(bundle("m4", ["a", "b", "c"])))
    models.step()
    assert [model.bundle.version for model in loaded] == ["m1", "m4"]
    assert models.refused is None


def test_an_unreachable_registry_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(Unavailable, match="model registry"):
        model_poller("http://127.0.0.1:1", []).step()


def test_a_new_model_is_put_into_service_during_requests(serve, registry: Registry, bundle, until) -> None:
    registry.put(pack(bundle("m5", [f"item-{n}" for n in range(60)])))
    with serve({"registry": registry.uri}) as service:
        service.stock()
        until(lambda: service.page()["model_version"] == "m5")
        stop, versions = threading.Event(), set()

        def ask() -> None:
            while not stop.is_set():
                versions.add(service.page()["model_version"])

        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        try:
            registry.put(pack(bundle("m6", [f"item-{n}" for n in range(60)])))
            until(lambda: "m6" in versions)
        finally:
            stop.set()
            asking.join()
        assert versions <= {"m5", "m6"}
        assert service.http.get("/health/ready").json()["parts"]["model"]["version"] == "m6"
