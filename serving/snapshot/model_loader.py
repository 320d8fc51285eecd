"""Background poller of a model alias in MLflow. It puts each new version that passes its checks into service.

It runs in a background thread only, because the MLflow client takes seconds to load and can block for minutes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from recsys.domain.errors import BundleError, Unavailable
from recsys.models.bundle import MANIFEST, TENSORS, unpack
from recsys.models.served_model import ServedModel

if TYPE_CHECKING:
    from mlflow import MlflowClient

FOLDER = "bundle"
"""Artifact folder of a model version that contains the files of the bundle."""


class ModelPoller:
    """A poller that passes each new version of the alias to `on_model`, unless it fails its checks.

    version   registry number of the version in service, "" for none
    refused   reason why the version of the alias was refused; None if it is in service
    """

    def __init__(
        self,
        uri: str,
        name: str,
        alias: str,
        feature_names: Sequence[str],
        on_model: Callable[[ServedModel], None],
        encoder: Callable[[], str | None] = lambda: None,
    ) -> None:
        """`encoder` returns the name of the encoder of the catalog's text vectors (see `ServedModel.load`)."""
        self.version = ""
        self.refused: str | None = None
        self._uri = uri
        self._name = name
        self._alias = alias
        self._feature_names = feature_names
        self._on_model = on_model
        self._encoder = encoder
        self._client: MlflowClient | None = None
        self._checked = ""

    def step(self) -> None:
        """Load the version of the alias if it is new. Raises Unavailable and BundleError."""
        candidate = self._find()
        if candidate is None or candidate == self._checked:
            return
        version, _ = candidate.split(" ", 1)
        files = self._download(version)
        encoder = self._encoder()
        self._checked = candidate  # a refused version is not downloaded again
        try:
            model = ServedModel.load(unpack(files), self._feature_names, encoder)
        except BundleError as error:
            self.refused = f"version {version} refused: {error}"
            raise
        self._on_model(model)
        self.version, self.refused = version, None

    def _find(self) -> str | None:
        """Return `VERSION RUN CREATED` of the version of the alias, or None if the model or alias does not exist."""
        address = urlsplit(self._uri)
        if address.scheme == "sqlite" and not Path(address.path.removeprefix("/")).exists():
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
            try:
                return {name: (root / name).read_bytes() for name in (MANIFEST, TENSORS)}
            except FileNotFoundError as error:
                self._checked = ""
                raise BundleError(f"version {version} has no {FOLDER}/{Path(str(error.filename)).name}") from error
