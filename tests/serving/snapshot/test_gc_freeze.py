"""Long-lived objects are excluded from garbage collections, and unreachable cycles are collected before."""

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
class FakeHolder:
    """The part of the snapshot holder that the freezer reads."""

    model: Any = None
    catalog: list[int] = field(default_factory=list)

    @property
    def current(self) -> FakeHolder:
        return self


class Cycle:
    """An object that refers to itself, so that only the garbage collector can free it."""

    def __init__(self) -> None:
        self.me = self


@pytest.fixture
def manual_gc() -> Iterator[None]:
    """Disable automatic collections, and unfreeze all objects after the test."""
    gc.collect()
    gc.disable()
    yield
    gc.unfreeze()
    gc.enable()


def is_collected(reference: weakref.ref[Cycle]) -> bool:
    """Return whether a full collection frees the object."""
    gc.collect()
    return reference() is None


def model(version: str) -> SimpleNamespace:
    return SimpleNamespace(bundle=SimpleNamespace(version=version))


def test_long_lived_objects_are_frozen_and_garbage_is_collected_first(manual_gc: None) -> None:
    holder, warm = FakeHolder(), [False]
    freezer = GcFreezer(holder, lambda: warm[0])  # type: ignore[arg-type]
    garbage, live = weakref.ref(Cycle()), Cycle()
    freezer.step()
    assert garbage() is None
    assert len(gc.get_objects()) < gc.get_freeze_count() / 10
    reference = weakref.ref(live)
    del live
    assert not is_collected(reference)  # frozen cycles are never freed

    def froze() -> bool:
        cycle = Cycle()
        reference = weakref.ref(cycle)
        freezer.step()
        del cycle
        return not is_collected(reference)

    assert not froze()  # nothing has changed
    warm[0] = True
    assert froze()
    holder.model = model("1")
    assert froze()
    assert not froze()
    holder.model = model("2")
    assert froze()
    holder.catalog = [0] * (ITEMS - 1)
    assert not froze()
    holder.catalog = [0] * (ITEMS + 1)
    assert froze()


def test_a_serving_process_runs_the_freezer_as_a_poller(service: Any, manual_gc: None) -> None:
    app = SimpleNamespace(state=SimpleNamespace(services=service.services))
    assert with_gc_freeze(app) is app  # type: ignore[arg-type]
    poller = service.services.pollers.pop("gc_freeze")
    assert poller.run_once()
    assert gc.get_freeze_count() > 0
