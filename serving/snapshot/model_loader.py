"""Follows a model alias in MLflow and takes each new version into service once it has passed its probe.

Runs in a background thread only: MLflow's client takes seconds to load and may block for minutes.
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
"""Folder of a version's artifacts that holds the bundle's files."""


class ModelPoller:
    """Hands each version that the alias comes to point at to `on_model`, unless it fails its checks.

    version   the registry's number of the version in service, "" for none
    refused   why the version that the alias points at is not in service; None when it is
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
        """`encoder`: whose text vectors the catalogue has (`Model.load`)."""
        self.version = ""
        self.refused: str | None = None
        self._uri = uri
        self._name = name
        self._alias = alias
        self._feature_names = feature_names
        self._on_model = on_model
        self._encoder = encoder
        self._client: MlflowClient | None = None
        self._looked_at = ""

    def step(self) -> None:
        """Look once. Raises Unavailable when the registry does not answer."""
        found = self._find()
        if found is None or found == self._looked_at:
            return
        version, _ = found.split(" ", 1)
        files = self._download(version)
        encoder = self._encoder()
        self._looked_at = found  # a bad version stays bad: it is not fetched again
        try:
            model = ServedModel.load(unpack(files), self._feature_names, encoder)
        except BundleError as error:
            self.refused = f"version {version} refused: {error}"
            raise
        self._on_model(model)
        self.version, self.refused = version, None

    def _find(self) -> str | None:
        """`VERSION RUN` of the version that the alias points at; None where there is no such model yet."""
        address = urlsplit(self._uri)
        if address.scheme == "sqlite" and not Path(address.path.removeprefix("/")).exists():
            return None  # asking would create the file, in competition with the training run that owns it
        from mlflow.exceptions import MlflowException
        from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode

        try:
            client = self._registry()
            version = client.get_model_version_by_alias(self._name, self._alias)
        except MlflowException as error:
            absent = (ErrorCode.Name(RESOURCE_DOES_NOT_EXIST), "INVALID_PARAMETER_VALUE")  # no model / no alias
            if error.error_code in absent:
                return None
            raise Unavailable(f"model registry: {error}") from error
        return f"{version.version} {version.run_id} {version.creation_timestamp}"

    def _registry(self) -> MlflowClient:
        if self._client is None:
            from mlflow import MlflowClient

            self._client = MlflowClient(self._uri, self._uri)
        return self._client

    def _download(self, version: str) -> Mapping[str, bytes]:
        """The bundle's files of a version. Raises Unavailable, BundleError when the version carries none."""
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
                self._looked_at = ""
                raise BundleError(f"version {version} carries no {FOLDER}/{Path(str(error.filename)).name}") from error
