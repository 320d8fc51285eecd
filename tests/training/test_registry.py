"""A bundle is registered in a real MLflow registry and loaded back unchanged."""

from __future__ import annotations

import sqlite3
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from features.columns import FEATURES
from recsys.domain.errors import BundleError, Unavailable
from recsys.domain.types import ACTIONS
from recsys.models.bundle import Bundle, unpack
from recsys.models.probe import with_probe
from recsys.models.ranker import Predictor, Ranker, tensors
from recsys.models.served_model import ServedModel
from training.registry import BUNDLE, Registry


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    rng = np.random.default_rng(1)
    network = Ranker(len(FEATURES), len(ACTIONS), hidden=8)
    probe = rng.normal(size=(5, len(FEATURES))).astype(np.float32)
    unprobed = Bundle(
        version="20260101T000000Z",
        created_at=1_767_225_600.0,
        item_ids=("film-1", "新闻-2", "film-3"),
        item_vectors=rng.normal(size=(3, 4)).astype(np.float32),
        retriever_params={"regularization": 1.0, "alpha": 2.0},
        popularity=np.array([3.0, 2.0, 1.0], np.float32),
        network=tensors(network),
        feature_names=FEATURES,
        probe_features=probe,
        probe_p=Predictor(network).p(probe),
        metrics={"ranker_ndcg_at_10": 0.25},
    )
    return with_probe(unprobed)


def fetch(uri: str, alias: str, directory: Path) -> tuple[str, Bundle]:
    """Load a bundle as serving does: resolve the alias, download the run's files, unpack; return (version, bundle)."""
    client = MlflowClient(uri, uri)
    version = client.get_model_version_by_alias("mainstay", alias)
    directory.mkdir()
    local = Path(client.download_artifacts(version.run_id, BUNDLE, str(directory)))
    return str(version.version), unpack({path.name: path.read_bytes() for path in local.iterdir()})


def test_serving_loads_the_registered_bundle_and_the_alias_moves(bundle: Bundle, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/home/mlflow.db"
    registry = Registry(uri, tmp_path / "home" / "artifacts")
    assert registry.register(bundle, {"als.factors": 4}, "mainstay", "champion") == "1"
    version, loaded = fetch(uri, "champion", tmp_path / "first")
    assert (version, loaded.version, loaded.item_ids, loaded.metrics) == (
        "1",
        bundle.version,
        bundle.item_ids,
        bundle.metrics,
    )
    assert np.array_equal(loaded.item_vectors, bundle.item_vectors)
    ServedModel.load(loaded, FEATURES)  # checks the probe

    newer = replace(bundle, version="20260102T000000Z")
    second = Registry(uri, tmp_path / "home" / "artifacts")  # a later process
    assert second.register(newer, {}, "mainstay", "champion") == "2"
    assert fetch(uri, "champion", tmp_path / "second")[1].version == newer.version


def test_a_run_records_parameters_and_metrics(bundle: Bundle, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    Registry(uri, tmp_path / "artifacts").register(bundle, {"als.factors": 4, "refit": True}, "mainstay", "champion")
    client = MlflowClient(uri, uri)
    run = client.get_run(client.get_model_version_by_alias("mainstay", "champion").run_id)
    assert run.data.metrics == bundle.metrics
    assert run.data.params == {"als.factors": "4", "refit": "True"}
    assert run.info.status == "FINISHED"


def test_an_invalid_bundle_is_refused_before_anything_is_written(bundle: Bundle, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    registry = Registry(uri, tmp_path / "artifacts")
    invalid = replace(bundle, popularity=np.full(3, np.nan, np.float32))
    with pytest.raises(BundleError, match="popularity holds a value that is not finite"):
        registry.register(invalid, {}, "mainstay", "champion")
    assert not MlflowClient(uri, uri).search_registered_models()


def test_registering_prints_nothing_and_restores_the_warning_filters(
    bundle: Bundle, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = list(warnings.filters)
    Registry(f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "a").register(bundle, {}, "mainstay", "champion")
    assert capfd.readouterr() == ("", "")
    assert warnings.filters == before


def test_a_registry_that_cannot_be_opened_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"this is not a database" * 100)
    with pytest.raises(Unavailable, match=r"model registry at sqlite:///.*mlflow\.db"):
        Registry(f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "artifacts")


def test_a_new_registry_appears_with_all_its_tables(tmp_path: Path) -> None:
    """Serving opens the file as soon as it exists, and would migrate a part of the tables itself."""
    file = tmp_path / "mlflow.db"

    def tables() -> int:
        with closing(sqlite3.connect(file)) as database:
            return int(database.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table'").fetchone()[0])

    with ThreadPoolExecutor(1) as pool:
        opening = pool.submit(Registry, f"sqlite:///{file}", tmp_path / "artifacts")
        while not file.exists() and not opening.done():
            time.sleep(0.001)
        first = tables()
        opening.result(60)
    assert first == tables()
    assert [path.name for path in tmp_path.iterdir() if "registry" in path.name] == []
