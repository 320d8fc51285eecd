"""Background poller of a model alias in MLflow. It puts each new version that passes its checks into service.

It runs in a background thread only, because the MLflow client takes seconds to load and can block for minutes.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from features.sqlite import mlflow_uri, sqlite_path
from recsys.domain.errors import BundleError, Unavailable
from recsys.models.bundle import CHECKSUMS, FILES, unpack
from recsys.models.served_model import ServedModel
from serving.snapshot.model_watch import ModelWatch

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger("mainstay.serving")

FOLDER = "bundle"
"""Artifact folder of a model version that contains the files of the bundle."""

OLDER_MAX = 5
"""Number of older versions that are tried if no good model is in memory."""


class ModelPoller:
    """A poller that passes each new version of the alias to `on_model`, unless it fails its checks.

    A version whose pages fall to a lower fallback level in service is withdrawn: the model before it is passed to
    `on_model` again.

    version   registry number of the version in service, "" for none
    refused   reason why the version of the alias was refused or withdrawn; None if it is in service
    """

    def __init__(
        self,
        uri: str,
        name: str,
        alias: str,
        feature_names: Sequence[str],
        on_model: Callable[[ServedModel], None],
        encoder: Callable[[], str | None] = lambda: None,
        trial: Callable[[ServedModel], str | None] = lambda model: None,
        watch: ModelWatch | None = None,
    ) -> None:
        """Raises InvalidInput for a wrong `sqlite:` URL.

        encoder  returns the name of the encoder of the catalog's text vectors (see `ServedModel.load`)
        trial    makes pages with a model and returns why it must not take traffic, or None
        """
        self.version = ""
        self.refused: str | None = None
        self._uri = mlflow_uri(uri)
        self._file = Path(sqlite_path(uri)) if uri.startswith("sqlite:") else None
        self._name = name
        self._alias = alias
        self._feature_names = feature_names
        self._on_model = on_model
        self._encoder = encoder
        self._trial = trial
        self._watch = watch or ModelWatch()
        self._client: MlflowClient | None = None
        self._checked = ""
        self._current: ServedModel | None = None
        self._previous: tuple[str, ServedModel] | None = None  # until the current model is proven
        self._withdrawn: str | None = None  # why the version of the alias was withdrawn
        self._at_fault = False  # the model in service shows a fault and cannot be replaced

    def step(self) -> None:
        """Withdraw the model in service if its pages show a fault; load the version of the alias if it is new.

        Raises Unavailable and BundleError.
        """
        self._check_service()
        candidate = self._find()
        if candidate is None or candidate == self._checked:
            return
        version, _ = candidate.split(" ", 1)
        try:
            files = self._download(version)
            self._checked = candidate  # a refused version is not downloaded again
            model = self._load(files)
        except BundleError as error:
            self.refused = f"version {version} refused: {error}"
            if self._current is None:
                self._use_older(version)
            raise
        if self._current is not None:
            self._previous = self.version, self._current
        self._use(version, model)
        self.refused, self._withdrawn, self._at_fault = None, None, False

    def _check_service(self) -> None:
        """Withdraw the model in service if its pages show a fault and an earlier model can replace it.

        This happens once per version of the alias: a fault that the earlier model shows as well is not the model's.
        """
        fault = self._watch.fault()
        if fault is None:
            if self._at_fault:
                self._at_fault, self.refused = False, self._withdrawn
            if self._watch.proven:
                self._previous = None
            return
        if self._current is None or self._at_fault:
            return
        bad = self.version
        if self._withdrawn is None and (self._use_previous() or self._use_older(bad)):
            self._withdrawn = f"version {bad} withdrawn: {fault}; version {self.version} is in service again"
            self.refused = self._withdrawn
        else:
            self._at_fault = True
            self.refused = f"version {bad} is at fault: {fault}; no earlier version can replace it"
        log.error("model %s", self.refused)

    def _use_previous(self) -> bool:
        """Put the model that was in service before into service again, if it is in memory and passes its trial."""
        if self._previous is None or self._trial(self._previous[1]) is not None:
            return False
        self._use(*self._previous)
        self._previous = None
        return True

    def _use(self, version: str, model: ServedModel) -> None:
        self._watch.follow(model.bundle.version)
        self._on_model(model)
        self.version, self._current = version, model

    def _use_older(self, version: str) -> bool:
        """Put the newest version before this one into service that passes its checks; return whether there is one."""
        try:
            versions = self._registry().search_model_versions(f"name='{self._name}'")
            older = sorted((int(v.version) for v in versions if int(v.version) < int(version)), reverse=True)
        except Exception as error:  # MLflow raises many types; the next step reports a registry that does not answer
            log.warning("cannot look for an earlier model: %s", error)
            return False
        for number in map(str, older[:OLDER_MAX]):
            try:
                self._use(number, self._load(self._download(number)))
            except (BundleError, Unavailable) as error:
                log.warning("earlier model version %s: %s", number, error)
            else:
                return True
        return False

    def _load(self, files: Mapping[str, bytes]) -> ServedModel:
        """Return the model in these files after its trial. Raises BundleError."""
        model = ServedModel.load(unpack(files), self._feature_names, self._encoder())
        if fault := self._trial(model):
            raise BundleError(fault)
        return model

    def _find(self) -> str | None:
        """Return `VERSION RUN CREATED` of the version of the alias, or None if the model or alias does not exist."""
        if self._file is not None and not self._file.exists():
            return None  # a query would create the file, which the training run owns
        from mlflow.exceptions import MlflowException
        from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode

        try:
            client = self._registry()
            version = client.get_model_version_by_alias(self._name, self._alias)
        except MlflowException as error:
            not_found = (
                ErrorCode.Name(RESOURCE_DOES_NOT_EXIST),
                "INVALID_PARAMETER_VALUE",
            )  # model or alias does not exist
            if error.error_code in not_found:
                return None
            raise Unavailable(f"model registry: {error}") from error
        return f"{version.version} {version.run_id} {version.creation_timestamp}"

    def _registry(self) -> MlflowClient:
        if self._client is None:
            from mlflow import MlflowClient

            self._client = MlflowClient(self._uri, self._uri)
        return self._client

    def _download(self, version: str) -> Mapping[str, bytes]:
        """Return the files of a version's bundle. Raises Unavailable, and BundleError if the version has no bundle."""
        from mlflow.artifacts import download_artifacts
        from mlflow.exceptions import MlflowException

        source = self._registry().get_model_version_download_uri(self._name, version)
        with tempfile.TemporaryDirectory() as folder:
            try:
                root = Path(download_artifacts(artifact_uri=source, dst_path=folder, tracking_uri=self._uri))
            except (MlflowException, OSError) as error:
                raise Unavailable(f"model registry: artifacts of version {version}: {error}") from error
            root = root / FOLDER if (root / FOLDER).is_dir() else root
            files = {name: (root / name).read_bytes() for name in FILES if (root / name).is_file()}
        if missing := [name for name in FILES if name not in files and name != CHECKSUMS]:
            raise BundleError(f"version {version} has no {FOLDER}/{missing[0]}")
        return files  # `unpack` explains missing checksums
