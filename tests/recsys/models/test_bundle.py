"""Bundles survive a round trip through bytes; `unpack` and `ServedModel.load` reject damaged ones."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recsys.domain.errors import BundleError
from recsys.domain.types import ACTIONS
from recsys.models.als import AlsRetriever
from recsys.models.bundle import MANIFEST, TENSORS, Bundle, pack, unpack
from recsys.models.ranker import Predictor, Ranker, tensors
from recsys.models.retriever import KINDS
from recsys.models.served_model import ServedModel

FEATURES = ("a", "b", "c")


def bundle() -> Bundle:
    torch.manual_seed(1)
    network = tensors(Ranker(len(FEATURES), len(ACTIONS), hidden=4))
    probe = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)
    return Bundle(
        version="7",
        created_at=1.5,
        item_ids=("i1", "i2"),
        item_vectors=np.eye(2, 4, dtype=np.float32),
        retriever_params={"regularization": 0.1, "alpha": 2.0},
        popularity=np.array([1, 2], np.float32),
        network=network,
        feature_names=FEATURES,
        probe_features=probe,
        probe_p=Predictor.load(network).p(probe),
        metrics={"ndcg@10": 0.25},
        action_weights={"play": 1.0, "complete": 0.5, "like": 4.0, "dislike": -2.0},
    )


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


def test_a_bundle_without_an_encoder_in_its_manifest_is_read() -> None:
    manifest = json.loads(GOOD[MANIFEST])
    del manifest["encoder"]
    assert unpack({**GOOD, MANIFEST: json.dumps(manifest).encode()}).encoder == ""


def test_a_retrieval_model_of_an_unknown_kind_is_refused() -> None:
    sent = unpack(pack(replace(bundle(), model_kind="two_tower")))
    with pytest.raises(BundleError, match="of kind 'two_tower'; this engine supports als"):
        ServedModel.load(sent, FEATURES)


def test_a_registered_model_kind_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    class Doubled(AlsRetriever):
        """A second model kind, with vectors of twice the length."""

    monkeypatch.setitem(KINDS, "doubled", lambda b: Doubled(b.item_ids, 2 * b.item_vectors, 0.1, 1.0))
    model = ServedModel.load(unpack(pack(replace(bundle(), model_kind="doubled"))), FEATURES)
    assert isinstance(model.retriever, Doubled)
    assert model.retriever.scores(np.ones(4, np.float32), np.array([1])).tolist() == [2.0]


def test_a_missing_parameter_of_the_retrieval_model_is_named() -> None:
    with pytest.raises(BundleError, match="lacks parameter 'alpha' of its retrieval model of kind 'als'"):
        ServedModel.load(replace(bundle(), retriever_params={"regularization": 0.1}), FEATURES)


ARRAYS = ("item_vectors", "popularity", "probe_features", "probe_p")
GOOD = pack(bundle())


@given(st.sampled_from([TENSORS, MANIFEST]), st.integers(0, 10_000), st.integers(1, 255))
def test_a_flipped_byte_is_refused_or_harmless(name: str, index: int, flip: int) -> None:
    body = bytearray(GOOD[name])
    body[index % len(body)] ^= flip
    try:
        received = unpack({**GOOD, name: bytes(body)})
    except BundleError:
        return
    assert name == MANIFEST, "altered tensors must not pass"
    np.testing.assert_array_equal(received.item_vectors, bundle().item_vectors)


@pytest.mark.parametrize("name", [TENSORS, MANIFEST])
def test_a_truncated_or_missing_file_is_refused(name: str) -> None:
    with pytest.raises(BundleError):
        unpack({**GOOD, name: GOOD[name][:-9]})
    with pytest.raises(BundleError):
        unpack({file: body for file, body in GOOD.items() if file != name})


def test_a_pickle_is_refused() -> None:
    body = pickle.dumps({"item_vectors": [1, 2]})
    manifest = json.loads(GOOD[MANIFEST])
    import hashlib

    manifest["sha256"][TENSORS] = hashlib.sha256(body).hexdigest()
    with pytest.raises(BundleError, match="unreadable"):
        unpack({TENSORS: body, MANIFEST: json.dumps(manifest).encode()})


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
    manifest = json.loads(GOOD[MANIFEST])
    manifest["action_weights"] |= json.loads(f"{{{change}}}")
    with pytest.raises(BundleError, match=message):
        unpack({**GOOD, MANIFEST: json.dumps(manifest).encode()})


def test_a_manifest_that_lacks_an_action_weight_is_refused() -> None:
    for action in ACTIONS:
        manifest = json.loads(GOOD[MANIFEST])
        del manifest["action_weights"][action]
        with pytest.raises(BundleError, match=f"no weight for {action}"):
            unpack({**GOOD, MANIFEST: json.dumps(manifest).encode()})
    del manifest["action_weights"]
    with pytest.raises(BundleError, match="unreadable bundle: KeyError: 'action_weights'"):
        unpack({**GOOD, MANIFEST: json.dumps(manifest).encode()})


def _nan(b: Bundle) -> Bundle:
    vectors = b.item_vectors.copy()
    vectors[0, 0] = np.nan
    return replace(b, item_vectors=vectors)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_nan, "not finite"),
        (lambda b: replace(b, popularity=b.popularity[:1]), "popularity has shape"),
        (lambda b: replace(b, popularity=-b.popularity), "popularity holds a negative value"),
        (lambda b: replace(b, item_ids=("i1", "i1")), "twice"),
        (lambda b: replace(b, probe_features=b.probe_features[:0], probe_p=b.probe_p[:0]), "no probe"),
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


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda b: replace(b, feature_names=("a", "c", "b")), "a different order"),
        (lambda b: replace(b, feature_names=("a", "e", "d")), "features that this engine lacks: d, e"),
        (lambda b: _with_two_features(b, ("b", "c")), "a different order"),
        (lambda b: replace(b, probe_p=b.probe_p + np.float32(0.01)), "probe"),
        (lambda b: replace(b, actions=("play", "like", "complete", "dislike")), "predicts"),
        (lambda b: replace(b, network={"head.weight": b.network["head.weight"]}), "not a ranker"),
    ],
)
def test_a_model_that_does_not_fit_the_engine_is_refused(damage, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(BundleError, match=message):
        ServedModel.load(damage(bundle()), FEATURES)
