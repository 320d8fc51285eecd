"""All that serving needs of a model, and its bytes: safetensors under a manifest with checksums, never a pickle."""

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
ALS = "als"
"""The model kind of implicit ALS."""

TENSORS, MANIFEST = "tensors.safetensors", "manifest.json"


@dataclass(frozen=True)
class Bundle:
    """One trained model.

    item_ids       M ids, the order of every M below
    item_vectors   [M, D]  of the retrieval model; viewers are folded in at request time from their recent actions
    retriever_params  numbers that the retrieval model needs: of ALS, `regularization` and confidence `alpha` of the fit
    popularity     [M]     decayed plays when trained; orders the popular rung before any live count exists
    network        name -> tensor: the ranker (`recsys.models.ranker`); calibration is part of it
    feature_names  F names, the order of the ranker's input; the first of `features.columns.FEATURES`
    probe_features [P, F] and probe_p [P, A]: what the ranker must answer; checked before traffic
    metrics        figures of the run that trained it
    encoder        whose text vectors it was trained on, name and version; empty for none
    action_weights weight of each action in play equivalents, play = 1: what utility is made of while this model serves
    model_kind     kind of the retrieval model (`recsys.models.retriever.KINDS`)
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
    """File name -> bytes. Raises BundleError when the bundle is not sound."""
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
    """The bundle in these files; raises BundleError for anything truncated, altered, of wrong shape, or not finite."""
    try:
        manifest = json.loads(files[MANIFEST])
        body = files[TENSORS]
        if manifest["format"] != FORMAT:
            raise BundleError(f"bundle format {manifest['format']}: this engine reads {FORMAT}")
        if hashlib.sha256(body).hexdigest() != manifest["sha256"][TENSORS]:
            raise BundleError(f"{TENSORS}: checksum differs from the manifest's; the file was cut or altered")
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
    except Exception as error:  # hostile bytes may break any of the readers above, in their own ways
        raise BundleError(f"unreadable bundle: {type(error).__name__}: {error}") from error
    _check(bundle)
    return bundle


def _check(bundle: Bundle) -> None:
    """Raises BundleError unless shapes agree, every number is finite and each action has one weight."""
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
        raise BundleError("the bundle carries no probe, so nobody can check what it answers")
    if len(set(bundle.item_ids)) != m:
        raise BundleError("an item id stands in the bundle twice")
    everything = [(name, tensor) for name, (tensor, _) in expected.items()]
    everything += [(f"network.{name}", tensor) for name, tensor in bundle.network.items()]
    for name, tensor in everything:
        if tensor.dtype != np.float32:
            raise BundleError(f"{name} is {tensor.dtype}, expected float32")
        if not np.isfinite(tensor).all():
            raise BundleError(f"{name} holds a number that is not finite")
    if (bundle.popularity < 0).any():
        raise BundleError("popularity holds a number below 0")
