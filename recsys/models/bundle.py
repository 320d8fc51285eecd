"""The model bundle: everything that serving needs of a trained model, and its file format.

A bundle is a safetensors file, a JSON manifest, and a file `SHA256SUMS` with the checksums of both, as `sha256sum`
writes it. It never contains a pickle.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError
from safetensors.numpy import load, save

from recsys.domain.errors import BundleError, Finding, schema_fault
from recsys.domain.fields import Id
from recsys.domain.types import ACTIONS, F32
from recsys.utility import DEFAULT_WEIGHTS, weight_faults

FORMAT = 3
"""Version of the bundle format that this engine reads and writes."""

ALS = "als"
"""Model kind of implicit ALS."""

TENSORS, MANIFEST, CHECKSUMS = "tensors.safetensors", "manifest.json", "SHA256SUMS"
FILES = (TENSORS, MANIFEST, CHECKSUMS)
"""Names of the files of a bundle."""

_NETWORK = "network."
_MAX_NETWORK = 1e9

_RANGES = {
    "item_vectors": (-1e4, 1e4),
    "popularity": (0.0, 1e12),
    "probe_features": (-1e9, 1e9),
    "probe_p": (0.0, 1.0),
    "probe_labels": (0.0, 1.0),
    "probe_weights": (0.0, 1e9),
}
"""Tensor -> smallest and largest value. Far beyond those of any trained model; sums and products stay finite."""


class ProbePage(BaseModel):
    """The page that the retrieval model gives to a made-up viewer. It is checked before the model takes traffic.

    history  items that the viewer liked
    items    items of the page, best first
    scores   their scores
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    history: Annotated[tuple[str, ...], Field(min_length=1)]
    items: Annotated[tuple[str, ...], Field(min_length=1)]
    scores: tuple[FiniteFloat, ...]


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
    probe_labels      [P, A]  what the viewer did, in [0, 1]
    probe_weights     [P]     weight of each row in the loss
    probe_loss        log loss of `probe_p` on these labels (`recsys.models.probe.label_loss`)
    probe_pages       pages that the retrieval model must give (`recsys.models.probe`)
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
    probe_labels: F32 = field(default_factory=lambda: np.zeros((0, len(ACTIONS)), np.float32))
    probe_weights: F32 = field(default_factory=lambda: np.zeros(0, np.float32))
    probe_loss: float = 0.0
    probe_pages: tuple[ProbePage, ...] = ()


class _Manifest(BaseModel):
    """The fields of a bundle that are no tensors, as JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal[3]
    version: Id
    created_at: Annotated[FiniteFloat, Field(ge=0, lt=253_402_300_800)]  # until the year 9999
    item_ids: Annotated[tuple[Id, ...], Field(min_length=1)]
    model_kind: str
    retriever_params: dict[str, FiniteFloat]
    feature_names: Annotated[tuple[Id, ...], Field(min_length=1)]
    metrics: dict[str, FiniteFloat]
    actions: tuple[str, ...]
    encoder: str
    action_weights: dict[str, Any]  # `weight_faults` checks them
    probe_loss: FiniteFloat
    probe_pages: tuple[ProbePage, ...]


def pack(bundle: Bundle) -> dict[str, bytes]:
    """Return file name -> bytes. Raises BundleError if the bundle is invalid."""
    tensors = {name: getattr(bundle, name) for name in _RANGES}
    tensors |= {f"{_NETWORK}{name}": tensor for name, tensor in bundle.network.items()}
    fields = {name: getattr(bundle, name) for name in _Manifest.model_fields if name != "format"}
    fields |= {name: dict(value) for name, value in fields.items() if isinstance(value, Mapping)}
    try:
        manifest = _Manifest.model_validate({"format": FORMAT, **fields})
    except ValidationError as error:
        raise BundleError(f"{MANIFEST}: {_faults(error)}") from error
    _check(bundle)
    files = {
        TENSORS: save({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}),
        MANIFEST: manifest.model_dump_json(indent=1).encode(),
    }
    return {**files, CHECKSUMS: _checksums(files)}


def unpack(files: Mapping[str, bytes]) -> Bundle:
    """Return the bundle in these files. Raises BundleError if they are truncated, altered, or invalid."""
    if missing := [name for name in FILES if name not in files]:
        raise BundleError(
            f"the bundle lacks {', '.join(missing)}; this engine reads format {FORMAT}: train again if it is older"
        )
    if files[CHECKSUMS] != _checksums(files):
        lines = files[CHECKSUMS].splitlines()
        altered = [name for name in (TENSORS, MANIFEST) if _checksum(name, files[name]) not in lines]
        raise BundleError(
            f"{', '.join(altered) or CHECKSUMS}: checksum differs from that in {CHECKSUMS};"
            " a file was truncated or altered"
        )
    try:
        manifest = _Manifest.model_validate_json(files[MANIFEST])
        tensors = load(files[TENSORS])
        network = {name.removeprefix(_NETWORK): t for name, t in tensors.items() if name.startswith(_NETWORK)}
        fields: dict[str, Any] = {name: getattr(manifest, name) for name in _Manifest.model_fields if name != "format"}
        fields |= {name: tensors[name] for name in _RANGES}
        bundle = Bundle(network=network, **fields)
    except ValidationError as error:
        raise BundleError(f"{MANIFEST}: {_faults(error)}") from error
    except Exception as error:  # malformed bytes can raise any exception in the readers above
        raise BundleError(f"unreadable bundle: {type(error).__name__}: {error}") from error
    _check(bundle)
    return bundle


def _check(bundle: Bundle) -> None:
    """Raise BundleError unless all values are of the right type, shape and range."""
    try:
        fault = next(_value_faults(bundle), None)
    except Exception as error:  # a value of a wrong type can raise any exception
        raise BundleError(f"invalid bundle: {type(error).__name__}: {error}") from error
    if fault:
        raise BundleError(fault)


def _value_faults(bundle: Bundle) -> Iterator[str]:
    """Yield the faults of the values that the schema of the manifest does not cover."""
    if faults := weight_faults(bundle.action_weights, bundle.actions):
        yield f"action_weights: {'; '.join(faults)}"
    m, f, a, p = len(bundle.item_ids), len(bundle.feature_names), len(bundle.actions), len(bundle.probe_features)
    shapes = {
        "item_vectors": (m, max(bundle.item_vectors.shape[-1], 1)),
        "popularity": (m,),
        "probe_features": (p, f),
        "probe_p": (p, a),
        "probe_labels": (p, a),
        "probe_weights": (p,),
    }
    for name, shape in shapes.items():
        if (tensor := getattr(bundle, name)).shape != shape:
            yield f"{name} has shape {tensor.shape}, expected {shape}"
        yield from _range_faults(name, tensor, *_RANGES[name])
    for name, tensor in bundle.network.items():
        yield from _range_faults(f"{_NETWORK}{name}", tensor, -_MAX_NETWORK, _MAX_NETWORK)
    if (bundle.network.get("std", _UNIT_STD) <= 0).any():
        yield f"{_NETWORK}std holds a value that is not positive"
    if p == 0 or not bundle.probe_weights.any() or not bundle.probe_pages:
        yield "the bundle has no probe, so its predictions and pages cannot be checked"
    for name, ids in (("item_ids", bundle.item_ids), ("feature_names", bundle.feature_names)):
        if len(set(ids)) != len(ids):
            yield f"{name} contains {next(n for n, count in Counter(ids).items() if count > 1)!r} twice"
    for page in bundle.probe_pages:
        if len(page.scores) != len(page.items):
            yield f"a probe page has {len(page.items)} items and {len(page.scores)} scores"


_UNIT_STD = np.ones(1, np.float32)


def _range_faults(name: str, tensor: F32, low: float, high: float) -> Iterator[str]:
    if tensor.dtype != np.float32:
        yield f"{name} is {tensor.dtype}, expected float32"
    elif not np.isfinite(tensor).all():
        yield f"{name} holds a value that is not finite"
    elif tensor.size and not (low <= (least := float(tensor.min())) and (most := float(tensor.max())) <= high):
        worst = least if least < low else most
        yield f"{name} holds {worst:g}, expected a number from {low:g} to {high:g}"


def _faults(error: ValidationError) -> str:
    """Return the first three faults of a manifest in one line."""
    errors = error.errors(include_url=False)
    faults = [str(Finding(".".join(map(str, e["loc"])), schema_fault(e))) for e in errors[:3]]
    return "; ".join(faults) + (f"; and {len(errors) - 3:,} more" if len(errors) > 3 else "")


def _checksums(files: Mapping[str, bytes]) -> bytes:
    return b"".join(_checksum(name, files[name]) + b"\n" for name in (TENSORS, MANIFEST))


def _checksum(name: str, body: bytes) -> bytes:
    return f"{hashlib.sha256(body).hexdigest()}  {name}".encode()
