"""What a process keeps is looked at once, not again and again; what nobody needs is not kept with it."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from serving.gc_freeze import ITEMS, GcFreezer
from serving.main import with_gc_freeze


@dataclass
class World:
    """As much of the holders as is looked at."""

    model: Any = None
    catalog: list[int] = field(default_factory=list)

    @property
    def current(self) -> World:
        return self


class Circle:
    """Refers to itself: only the search finds out that nobody else does."""

    def __init__(self) -> None:
        self.me = self


@pytest.fixture
def searched() -> Iterator[None]:
    """Nothing stays frozen in the process of the tests, and no search begins by itself."""
    gc.collect()
    gc.disable()
    yield
    gc.unfreeze()
    gc.enable()


def found(one: weakref.ref[Circle]) -> bool:
    """Whether a full search from now on frees it."""
    gc.collect()
    return one() is None


def model(version: str) -> SimpleNamespace:
    return SimpleNamespace(bundle=SimpleNamespace(version=version))


def test_what_has_come_to_stay_is_searched_no_more_and_rubbish_is_not_kept(searched: None) -> None:
    world, warm = World(), [False]
    settled = GcFreezer(world, lambda: warm[0])  # type: ignore[arg-type]
    rubbish, kept = weakref.ref(Circle()), Circle()
    settled.step()
    assert rubbish() is None
    assert len(gc.get_objects()) < gc.get_freeze_count() / 10
    seen = weakref.ref(kept)
    del kept
    assert not found(seen)  # the price of it, for circles only

    def froze() -> bool:
        one = Circle()
        seen = weakref.ref(one)
        settled.step()
        del one
        return not found(seen)

    assert not froze()  # nothing new has come
    warm[0] = True
    assert froze()
    world.model = model("1")
    assert froze()
    assert not froze()
    world.model = model("2")
    assert froze()
    world.catalog = [0] * (ITEMS - 1)
    assert not froze()
    world.catalog = [0] * (ITEMS + 1)
    assert froze()


def test_a_process_of_its_own_follows_it(service: Any, searched: None) -> None:
    app = SimpleNamespace(state=SimpleNamespace(services=service.services))
    assert with_gc_freeze(app) is app  # type: ignore[arg-type]
    follower = service.services.pollers.pop("settled")
    assert follower.once()
    assert gc.get_freeze_count() > 0
