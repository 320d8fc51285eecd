"""Instances from real ratings: values of a trained model, with genres and decades as labels."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from math import ceil, floor
from pathlib import Path

import numpy as np
from implicit.als import AlternatingLeastSquares
from scipy.sparse import csr_array, csr_matrix
from threadpoolctl import threadpool_limits

from benchmarks.guidance.instances import Instance
from recsys.guidance.solver.page_constraints import PageConstraints

REAL = "ratings"
ITEMS, SLOTS = 500, 30
_YEAR = re.compile(r"\((\d{4})\)\s*$")


def real_instances(ratings: Path, count: int) -> Iterator[Instance]:
    """Yield a page for each of `count` viewers with the most ratings; `ratings` holds movies.dat and ratings.dat."""
    genres, year = _movies(ratings / "movies.dat")
    lines = [line.split("::") for line in (ratings / "ratings.dat").read_text("utf-8", "replace").splitlines()]
    viewers = {v: n for n, v in enumerate(dict.fromkeys(line[0] for line in lines))}
    films = {f: n for n, f in enumerate(dict.fromkeys(line[1] for line in lines))}
    matrix = csr_array(
        (np.ones(len(lines), np.float32), ([viewers[x[0]] for x in lines], [films[x[1]] for x in lines])),
        shape=(len(viewers), len(films)),
    )
    with threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(factors=32, iterations=8, random_state=0)
        model.fit(csr_matrix(matrix), show_progress=False)
    names = sorted({g for film in films for g in genres.get(film, ())})
    label = np.array([[g in genres.get(film, ()) for film in films] for g in names])
    decade = np.array([year.get(film, 0) // 10 for film in films], np.int32)
    prime = np.array([hash_of(genres.get(film, ("none",))[0]) for film in films], np.int32)
    likes = np.asarray(matrix.sum(axis=1)).ravel()
    for row in np.argsort(-likes, kind="stable")[:count]:
        scores = model.item_factors @ model.user_factors[row]
        scores[matrix[[row]].indices] = -np.inf
        top = np.argsort(-scores)[:ITEMS]
        value = 1 / (1 + np.exp(2.0 - 4.0 * scores[top].astype(np.float64)))
        yield _page(value, label[:, top], decade[top], prime[top], names, int(row))


def hash_of(word: str) -> int:
    """Return a small hash of a word, the same in every process."""
    return sum(ord(character) * 31**position for position, character in enumerate(word[:6])) % 10_007


def _movies(path: Path) -> tuple[dict[str, tuple[str, ...]], dict[str, int]]:
    genres, year = {}, {}
    for line in path.read_text("utf-8", "replace").splitlines():
        film, title, tags = [*line.split("::"), "", ""][:3]
        genres[film] = tuple(tag for tag in tags.split("|") if tag) or ("none",)
        if match := _YEAR.search(title):
            year[film] = int(match[1])
    return genres, year


def _page(value, label, decade, prime, names, seed) -> Instance:  # type: ignore[no-untyped-def]
    """Return a page with minimums on documentaries and films before 2000, and maximums on the commonest genres."""
    rng, k = np.random.default_rng(seed), SLOTS
    members, lowers, uppers, owners = [], [], [], list[int]()

    def row(member, at_least: float, at_most: float, from_slot: int) -> None:  # type: ignore[no-untyped-def]
        low = [ceil(at_least * s - 1e-9) if s >= from_slot else 0 for s in range(1, k + 1)]
        high = [floor(at_most * s + 1e-9) if s >= from_slot else s for s in range(1, k + 1)]
        available = int(member.sum())
        members.append(member)
        lowers.append(np.minimum(low, available))
        uppers.append(high)
        owners.append(len(owners))

    by_size = np.argsort(-label.sum(axis=1))
    row(label[names.index("Documentary")] if "Documentary" in names else label[by_size[4]], 0.1, 1, 10)
    row(decade < 200, float(rng.uniform(0.15, 0.3)), 1, 8)
    for g in by_size[:2]:
        row(label[g], 0, float(rng.uniform(0.3, 0.45)), 5)
    for g in by_size[3:6]:
        row(label[g], float(rng.uniform(0.05, 0.15)), 1, 12)
    for genre in np.unique(prime):
        row(prime == genre, 0, 0.3, 10)
    bounds = replace(
        PageConstraints.free(np.arange(len(value)), k),
        active=np.ones(len(owners) + 1, np.bool_),
        member=np.array(members),
        lower=np.array(lowers, np.int32),
        upper=np.array(uppers, np.int32),
        row_control=np.array(owners, np.int32),
        code=prime[None, :],
        at_most=np.array([2], np.int32),
        within=np.array([3], np.int32),
        before=np.full((1, 2), -1, np.int32),
        spacing_control=np.array([len(owners)], np.int32),
    )
    return Instance(value, 1 / np.log2(np.arange(2, k + 2)), bounds)
