"""Register bundles in MLflow: a run with parameters, metrics and the bundle's files, a model version and an alias."""

from __future__ import annotations

import logging
import os
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from features.sqlite import create_private_file, mlflow_uri, sqlite_path, sqlite_url
from recsys.domain.errors import Unavailable
from recsys.models.bundle import Bundle, pack, unpack
from recsys.models.served_model import ServedModel

BUNDLE = "bundle"
"""Artifact directory of a run with the bundle's files."""

EXPERIMENT = "mainstay"
"""MLflow experiment of all runs."""


class Registry:
    """A client of an MLflow server or local database, from which serving loads the version with the alias."""

    def __init__(self, uri: str, artifacts: Path) -> None:
        """`artifacts` is the directory for files if `uri` is a local database; a server uses its own location.

        Raises InvalidInput for a wrong `sqlite:` URL, and Unavailable when the registry does not answer.
        """
        self._uri, self._artifacts = uri, artifacts
        self._local = uri.startswith("sqlite:")
        if self._local:
            Path(sqlite_path(uri)).parent.mkdir(parents=True, exist_ok=True)
        with _mlflow_calls(uri):
            if self._local:
                _create_database(Path(sqlite_path(uri)))
            self._client = MlflowClient(mlflow_uri(uri), mlflow_uri(uri))
            self._experiment = self._open_experiment()

    def register(self, bundle: Bundle, params: Mapping[str, object], model: str, alias: str) -> str:
        """Record the run, register its bundle as the model's next version, and move the alias to it.

        The alias moves last, so that serving never loads an incomplete version. Returns the version number. Raises
        BundleError for a bundle that must not be served, and Unavailable when the registry does not answer.
        """
        files = pack(bundle)
        ServedModel.load(unpack(files), bundle.feature_names)
        with _mlflow_calls(self._uri):
            run = self._client.create_run(self._experiment, run_name=bundle.version)
            run_id = run.info.run_id
            now_ms = int(time.time() * 1000)
            self._client.log_batch(
                run_id,
                metrics=[Metric(name, value, now_ms, 0) for name, value in bundle.metrics.items()],
                params=[Param(name, str(value)) for name, value in params.items()],
            )
            with tempfile.TemporaryDirectory() as directory:
                for name, body in files.items():
                    Path(directory, name).write_bytes(body)
                self._client.log_artifacts(run_id, directory, BUNDLE)
            self._client.set_terminated(run_id)
            if not self._client.search_registered_models(f"name = '{model}'"):
                self._client.create_registered_model(model)
            source = f"{run.info.artifact_uri}/{BUNDLE}"
            version = self._client.create_model_version(model, source, run_id, tags={"bundle": bundle.version})
            self._client.set_registered_model_alias(model, alias, version.version)
        return str(version.version)

    def _open_experiment(self) -> str:
        experiment = self._client.get_experiment_by_name(EXPERIMENT)
        if experiment is not None:
            return str(experiment.experiment_id)
        location = self._artifacts.resolve().as_uri() if self._local else None
        return str(self._client.create_experiment(EXPERIMENT, artifact_location=location))


def _create_database(path: Path) -> None:
    """Create a database with all its tables under another name first, and restrict it to its owner.

    Serving waits for this file; if it opened a file without all its tables, two processes would migrate it at once.
    """
    if not path.exists():
        with tempfile.TemporaryDirectory(prefix=".registry-", dir=path.parent) as directory:
            draft = Path(directory, path.name)
            create_private_file(draft)
            uri = mlflow_uri(sqlite_url(str(draft)))
            MlflowClient(uri, uri).search_experiments(max_results=1)
            with suppress(FileExistsError):
                os.link(draft, path)
    create_private_file(path)


@contextmanager
def _mlflow_calls(uri: str) -> Iterator[None]:
    """Silence the logs of MLflow below the level of errors, and raise Unavailable for its exceptions."""
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # caused by MLflow's own use of SQLAlchemy
            warnings.filterwarnings("ignore", message=r"(?s).*noload.*", category=DeprecationWarning)
            yield
    except (MlflowException, SQLAlchemyError) as error:
        cause = str(getattr(error, "orig", None) or error).strip().splitlines()[0]  # the rest is the SQL statement
        raise Unavailable(f"model registry at {uri}: {cause}") from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
