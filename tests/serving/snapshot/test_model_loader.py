"""The model in service follows the alias, and a bad bundle never gets there."""

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


class Shelf:
    """An MLflow registry in a file, written to as a training run does."""

    def __init__(self, home: Path) -> None:
        from mlflow import MlflowClient

        self.uri = f"sqlite:///{home}/mlflow.db"
        self.client = MlflowClient(self.uri, self.uri)
        self.experiment = self.client.create_experiment("e", artifact_location=(home / "artifacts").as_uri())
        self.client.create_registered_model("mainstay")
        self.home = home

    def put(self, files: dict[str, bytes], folder: str = "bundle") -> str:
        """Register these files and move the alias there."""
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
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return Shelf(tmp_path_factory.mktemp("registry"))


def follower(uri: str, taken: list[ServedModel]) -> ModelPoller:
    return ModelPoller(uri, "mainstay", "champion", FEATURES, taken.append)


def test_a_registry_that_is_not_there_yet_is_no_error_and_is_not_created(tmp_path: Path) -> None:
    follower(f"sqlite:///{tmp_path}/none.db", []).step()
    assert list(tmp_path.iterdir()) == []


def test_each_good_version_is_taken_once_and_a_bad_one_leaves_the_last_in_service(shelf: Shelf, bundle) -> None:
    taken: list[ServedModel] = []
    models = follower(shelf.uri, taken)
    models.step()
    assert taken == []

    first = shelf.put(pack(bundle("m1", ["a", "b", "c"])))
    models.step()
    models.step()
    assert [model.bundle.version for model in taken] == ["m1"]
    assert models.version == first

    files = pack(bundle("m2", ["a", "b", "c"]))
    cut = shelf.put({MANIFEST: files[MANIFEST], TENSORS: files[TENSORS][:-7]})
    with pytest.raises(BundleError):
        models.step()
    models.step()  # a bad version is not fetched again, and stays on record
    assert models.refused is not None
    assert f"version {cut}" in models.refused

    other = pack(bundle("m3", ["a", "b"], feature_names=("affinity", "phase_of_the_moon")))
    shelf.put(other)
    with pytest.raises(BundleError, match="phase_of_the_moon"):
        models.step()

    shelf.put({"readme.txt": b"no bundle"})
    with pytest.raises(BundleError, match="carries no bundle"):
        models.step()
    assert [model.bundle.version for model in taken] == ["m1"]
    assert models.version == first

    shelf.put(pack(bundle("m4", ["a", "b", "c"])))
    models.step()
    assert [model.bundle.version for model in taken] == ["m1", "m4"]
    assert models.refused is None


def test_a_server_that_does_not_answer_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(Unavailable, match="model registry"):
        follower("http://127.0.0.1:1", []).step()


def test_a_new_model_is_swapped_in_under_running_requests(serve, shelf: Shelf, bundle, until) -> None:
    shelf.put(pack(bundle("m5", [f"item-{n}" for n in range(60)])))
    with serve({"registry": shelf.uri}) as service:
        service.stock()
        until(lambda: service.page()["model_version"] == "m5")
        stop, versions = threading.Event(), set()

        def ask() -> None:
            while not stop.is_set():
                versions.add(service.page()["model_version"])

        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        try:
            shelf.put(pack(bundle("m6", [f"item-{n}" for n in range(60)])))
            until(lambda: "m6" in versions)
        finally:
            stop.set()
            asking.join()
        assert versions <= {"m5", "m6"}
        assert service.http.get("/health/ready").json()["parts"]["model"]["version"] == "m6"
