"""A bundle goes through a real MLflow registry and comes out as it went in."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from features.columns import FEATURES
from recsys.domain.errors import BundleError, Unavailable
from recsys.domain.types import ACTIONS
from recsys.models.bundle import Bundle, unpack
from recsys.models.ranker import Predictor, Ranker, tensors
from recsys.models.served_model import ServedModel
from training.registry import BUNDLE, Registry


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    chance = np.random.default_rng(1)
    network = Ranker(len(FEATURES), len(ACTIONS), hidden=8)
    probe = chance.normal(size=(5, len(FEATURES))).astype(np.float32)
    return Bundle(
        version="20260101T000000Z",
        created_at=1_767_225_600.0,
        item_ids=("film-1", "新闻-2", "film-3"),
        item_vectors=chance.normal(size=(3, 4)).astype(np.float32),
        retriever_params={"regularization": 1.0, "alpha": 2.0},
        popularity=np.array([3.0, 2.0, 1.0], np.float32),
        network=tensors(network),
        feature_names=FEATURES,
        probe_features=probe,
        probe_p=Predictor(network).p(probe),
        metrics={"ranker_ndcg_at_10": 0.25},
    )


def fetch(uri: str, alias: str, directory: Path) -> tuple[str, Bundle]:
    """As serving does: follow the alias, take the run's files, unpack. (version, bundle)."""
    client = MlflowClient(uri, uri)
    version = client.get_model_version_by_alias("mainstay", alias)
    directory.mkdir()
    local = Path(client.download_artifacts(version.run_id, BUNDLE, str(directory)))
    return str(version.version), unpack({path.name: path.read_bytes() for path in local.iterdir()})


def test_what_is_registered_is_what_serving_loads_and_the_alias_follows(bundle: Bundle, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/home/mlflow.db"
    registry = Registry(uri, tmp_path / "home" / "artifacts")
    assert registry.register(bundle, {"als.factors": 4}, "mainstay", "champion") == "1"
    version, found = fetch(uri, "champion", tmp_path / "first")
    assert (version, found.version, found.item_ids, found.metrics) == (
        "1",
        bundle.version,
        bundle.item_ids,
        bundle.metrics,
    )
    assert np.array_equal(found.item_vectors, bundle.item_vectors)
    ServedModel.load(found, FEATURES)  # the probe holds

    newer = replace(bundle, version="20260102T000000Z")
    again = Registry(uri, tmp_path / "home" / "artifacts")  # another process, another day
    assert again.register(newer, {}, "mainstay", "champion") == "2"
    assert fetch(uri, "champion", tmp_path / "second")[1].version == newer.version


def test_a_run_keeps_parameters_and_figures(bundle: Bundle, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    Registry(uri, tmp_path / "artifacts").register(bundle, {"als.factors": 4, "refit": True}, "mainstay", "champion")
    client = MlflowClient(uri, uri)
    run = client.get_run(client.get_model_version_by_alias("mainstay", "champion").run_id)
    assert run.data.metrics == bundle.metrics
    assert run.data.params == {"als.factors": "4", "refit": "True"}
    assert run.info.status == "FINISHED"


def test_a_broken_bundle_is_refused_before_anything_is_written(bundle: Bundle, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    registry = Registry(uri, tmp_path / "artifacts")
    broken = replace(bundle, popularity=np.full(3, np.nan, np.float32))
    with pytest.raises(BundleError, match="popularity holds a value that is not finite"):
        registry.register(broken, {}, "mainstay", "champion")
    assert not MlflowClient(uri, uri).search_registered_models()


def test_nothing_is_said_and_no_filter_is_left_behind(
    bundle: Bundle, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = list(warnings.filters)
    Registry(f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "a").register(bundle, {}, "mainstay", "champion")
    assert capfd.readouterr() == ("", "")
    assert warnings.filters == before


def test_a_registry_that_cannot_be_opened_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(Unavailable, match=r"the model registry at sqlite:///.*mlflow\.db"):
        Registry(f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "artifacts")
