"""Where bundles go: an MLflow run with parameters, figures and the bundle's files, a registered version, an alias."""

from __future__ import annotations

import logging
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from recsys.domain.errors import Unavailable
from recsys.models.bundle import Bundle, pack

BUNDLE = "bundle"
"""Artifact directory of a run that holds the bundle's files."""

EXPERIMENT = "mainstay"
"""MLflow experiment that all runs belong to."""


class Registry:
    """Writes to one MLflow server or local database; serving reads the alias there."""

    def __init__(self, uri: str, artifacts: Path) -> None:
        """`artifacts` is where files go when `uri` is a local database; a server decides for itself."""
        self._uri, self._artifacts = uri, artifacts
        if uri.startswith("sqlite:///"):
            Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        with _quiet(uri):
            self._client = MlflowClient(uri, uri)
            self._experiment = self._open_experiment()

    def register(self, bundle: Bundle, params: Mapping[str, object], model: str, alias: str) -> str:
        """Record the run, register its bundle as the model's next version and move the alias there.

        The alias moves last, so that who follows it never meets half a version. Returns the version's number; raises
        BundleError for a bundle that must not be served, Unavailable when the registry does not answer.
        """
        files = pack(bundle)
        with _quiet(self._uri):
            run = self._client.create_run(self._experiment, run_name=bundle.version)
            run_id = run.info.run_id
            now_ms = int(time.time() * 1000)
            self._client.log_batch(
                run_id,
                metrics=[Metric(name, figure, now_ms, 0) for name, figure in bundle.metrics.items()],
                params=[Param(name, str(setting)) for name, setting in params.items()],
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
        known = self._client.get_experiment_by_name(EXPERIMENT)
        if known is not None:
            return str(known.experiment_id)
        local = self._uri.startswith("sqlite:///")
        location = self._artifacts.resolve().as_uri() if local else None
        return str(self._client.create_experiment(EXPERIMENT, artifact_location=location))


@contextmanager
def _quiet(uri: str) -> Iterator[None]:
    """Without MLflow's chatter, and with its errors in the words of this engine."""
    chatty = [logging.getLogger(name) for name in ("mlflow", "alembic")]
    levels = [logger.level for logger in chatty]
    for logger in chatty:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # MLflow's own use of SQLAlchemy, nothing we could write otherwise.
            warnings.filterwarnings("ignore", message=r"(?s).*noload.*", category=DeprecationWarning)
            yield
    except (MlflowException, SQLAlchemyError) as error:
        raise Unavailable(f"the model registry at {uri}: {error}") from error
    finally:
        for logger, level in zip(chatty, levels, strict=True):
            logger.setLevel(level)
