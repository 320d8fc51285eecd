"""The model bundle: everything that serving needs of a trained model, and its file format.

A bundle is a safetensors file and a JSON manifest with checksums. It never contains a pickle.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from safetensors.numpy import load, save

from recsys.domain.errors import BundleError
from recsys.domain.types import ACTIONS, F32
from recsys.utility import DEFAULT_WEIGHTS, weight_faults

FORMAT = 2
"""Version of the bundle format that this engine reads and writes."""

ALS = "als"
"""Model kind of implicit ALS."""

TENSORS, MANIFEST = "tensors.safetensors", "manifest.json"


@dataclass(frozen=True)
class Bundle:
    """A trained model.

    item_ids          ids of the M items, in the order of every M below
    item_vectors      [M, D]  of the retrieval model; viewers are folded in at request time
    retriever_params  numbers that the retrieval model needs; for ALS `regularization` and the confidence `alpha`
    popularity        [M]     decayed plays at training time; used while live statistics are empty
    network           name -> tensor of the ranker with its calibration (`recsys.models.ranker`)
    feature_names     names of the ranker's F inputs, in order; the first of `features.columns.FEATURES`
    probe_features    [P, F]  inputs of the probe that is checked before the model takes traffic
    probe_p           [P, A]  outputs that the ranker must give for the probe
    metrics           metrics of the training run
    encoder           name and version of the encoder of the text vectors in training; empty for none
    action_weights    weight of each action in play equivalents, with play = 1; utility uses them with this model
    model_kind        kind of the retrieval model (`recsys.models.retriever.KINDS`)
    """

    version: str
    created_at: float
    item_ids: tuple[str, ...]
    item_vectors: F32
    retriever_params: Mapping[str, float]
    popularity: F32
    network: Mapping[str, F32]
    feature_names: tuple[str, ...]
    probe_features: F32
    probe_p: F32
    metrics: Mapping[str, float]
    actions: tuple[str, ...] = ACTIONS
    encoder: str = ""
    action_weights: Mapping[str, float] = field(default_factory=lambda: dict(DEFAULT_WEIGHTS))
    model_kind: str = ALS


def pack(bundle: Bundle) -> dict[str, bytes]:
    """Return file name -> bytes. Raises BundleError if the bundle is invalid."""
    _check(bundle)
    tensors = {
        "item_vectors": bundle.item_vectors,
        "popularity": bundle.popularity,
        "probe_features": bundle.probe_features,
        "probe_p": bundle.probe_p,
        **{f"network.{name}": tensor for name, tensor in bundle.network.items()},
    }
    body = save({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()})
    manifest = {
        "format": FORMAT,
        "version": bundle.version,
        "created_at": bundle.created_at,
        "item_ids": bundle.item_ids,
        "model_kind": bundle.model_kind,
        "retriever_params": dict(bundle.retriever_params),
        "feature_names": bundle.feature_names,
        "metrics": dict(bundle.metrics),
        "actions": bundle.actions,
        "encoder": bundle.encoder,
        "action_weights": dict(bundle.action_weights),
        "sha256": {TENSORS: hashlib.sha256(body).hexdigest()},
    }
    return {TENSORS: body, MANIFEST: json.dumps(manifest, ensure_ascii=False, indent=1).encode()}


def unpack(files: Mapping[str, bytes]) -> Bundle:
    """Return the bundle in these files. Raises BundleError if they are truncated, altered, or invalid."""
    try:
        manifest = json.loads(files[MANIFEST])
        body = files[TENSORS]
        if manifest["format"] != FORMAT:
            raise BundleError(f"bundle format {manifest['format']} is not supported: this engine reads format {FORMAT}")
        if hashlib.sha256(body).hexdigest() != manifest["sha256"][TENSORS]:
            raise BundleError(f"{TENSORS}: checksum differs from the manifest's; the file was truncated or altered")
        tensors = load(body)
        prefix = "network."
        bundle = Bundle(
            version=str(manifest["version"]),
            created_at=float(manifest["created_at"]),
            item_ids=tuple(manifest["item_ids"]),
            item_vectors=tensors["item_vectors"],
            retriever_params={name: float(number) for name, number in manifest["retriever_params"].items()},
            popularity=tensors["popularity"],
            network={name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)},
            feature_names=tuple(manifest["feature_names"]),
            probe_features=tensors["probe_features"],
            probe_p=tensors["probe_p"],
            metrics={name: float(number) for name, number in manifest["metrics"].items()},
            actions=tuple(manifest["actions"]),
            encoder=str(manifest.get("encoder", "")),
            action_weights=dict(manifest["action_weights"]),
            model_kind=str(manifest["model_kind"]),
        )
    except BundleError:
        raise
    except Exception as error:  # malformed bytes can raise any exception in the readers above
        raise BundleError(f"unreadable bundle: {type(error).__name__}: {error}") from error
    _check(bundle)
    return bundle


def _check(bundle: Bundle) -> None:
    """Raise BundleError unless shapes agree, every number is finite and each action has one weight."""
    if faults := weight_faults(bundle.action_weights, bundle.actions):
        raise BundleError(f"action_weights: {'; '.join(faults)}")
    m, f, a, p = len(bundle.item_ids), len(bundle.feature_names), len(bundle.actions), len(bundle.probe_features)
    expected = {
        "item_vectors": (bundle.item_vectors, (m, bundle.item_vectors.shape[-1])),
        "popularity": (bundle.popularity, (m,)),
        "probe_features": (bundle.probe_features, (p, f)),
        "probe_p": (bundle.probe_p, (p, a)),
    }
    for name, (tensor, shape) in expected.items():
        if tensor.shape != shape:
            raise BundleError(f"{name} has shape {tensor.shape}, expected {shape}")
    if p == 0:
        raise BundleError("the bundle has no probe, so its predictions cannot be checked")
    if len(set(bundle.item_ids)) != m:
        raise BundleError("item_ids contains an id twice")
    every_tensor = [(name, tensor) for name, (tensor, _) in expected.items()]
    every_tensor += [(f"network.{name}", tensor) for name, tensor in bundle.network.items()]
    for name, tensor in every_tensor:
        if tensor.dtype != np.float32:
            raise BundleError(f"{name} is {tensor.dtype}, expected float32")
        if not np.isfinite(tensor).all():
            raise BundleError(f"{name} holds a value that is not finite")
    if (bundle.popularity < 0).any():
        raise BundleError("popularity holds a negative value")
