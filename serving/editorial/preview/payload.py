"""A study as it travels to another process: arrays and documents, never a live network; and how it is done there."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from features.columns import FEATURES
from recsys.guidance.compilation.compile import CompiledPolicy
from recsys.guidance.solver.solve import warm
from recsys.models.bundle import Bundle
from recsys.models.served_model import ServedModel
from recsys.pipeline import Engine
from recsys.preview.study import ReplayResult, Study, Task
from recsys.snapshot import ServingSnapshot


@dataclass(frozen=True)
class StudyPayload:
    """A study without what cannot be pickled: the model is built again from its bundle.

    Pickle is safe here: the file lies in a private directory and was written by the process that has it read.
    """

    study: Study
    bundle: Bundle | None

    @classmethod
    def of(cls, study: Study) -> StudyPayload:
        """Leave the model out."""
        world = study.world
        bare = replace(study, world=replace(world, model=None))
        return cls(bare, world.model.bundle if world.model else None)

    def open(self) -> Study:
        """The study with its model, ready to work."""
        model = ServedModel.load(self.bundle, FEATURES) if self.bundle else None
        return replace(self.study, world=replace(self.study.world, model=model))


def study_of(
    engine: Engine,
    world: ServingSnapshot,
    before: dict[str, CompiledPolicy],
    after: dict[str, CompiledPolicy],
    asked: Sequence[object],
) -> Study:
    """A study whose engine keeps no time: the same preview twice gives the same figures."""
    return Study(replace(engine, clock=None), world, before, after, tuple(asked))  # type: ignore[arg-type]


_open: dict[str, Study] = {}


def init_worker() -> None:
    """Limit torch to one thread and compile the kernels before the first task."""
    import torch  # here: the serving process imports this module too, and need not wait for it

    torch.set_num_threads(1)
    warm()


def fetch(file: str) -> bool:
    """Open the parcel in a file, unless it is open already; others are let go."""
    if file not in _open:
        _open.clear()
        _open[file] = pickle.loads(Path(file).read_bytes()).open()
    return True


def work(file: str, tasks: Sequence[Task]) -> list[ReplayResult]:
    """Do tasks of the parcel in a file."""
    fetch(file)
    study = _open[file]
    return [study.run(task) for task in tasks]
