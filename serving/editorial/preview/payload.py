"""A study as it is sent to a worker process, without its live network, and the functions that the worker runs."""

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
    """A study that can be pickled: the model is left out and loaded again from its bundle.

    Pickle is safe here: the file is in a private directory and was written by the parent process.
    """

    study: Study
    bundle: Bundle | None

    @classmethod
    def of(cls, study: Study) -> StudyPayload:
        """Return the payload of a study: the study without its model, and the bundle of the model."""
        snapshot = study.world
        without_model = replace(study, world=replace(snapshot, model=None))
        return cls(without_model, snapshot.model.bundle if snapshot.model else None)

    def open(self) -> Study:
        """Return the study with its model loaded."""
        model = ServedModel.load(self.bundle, FEATURES) if self.bundle else None
        return replace(self.study, world=replace(self.study.world, model=model))


def study_of(
    engine: Engine,
    snapshot: ServingSnapshot,
    before: dict[str, CompiledPolicy],
    after: dict[str, CompiledPolicy],
    requests: Sequence[object],
) -> Study:
    """Return a study whose engine has no clock, so that the same preview gives the same figures every time."""
    return Study(replace(engine, clock=None), snapshot, before, after, tuple(requests))  # type: ignore[arg-type]


_studies: dict[str, Study] = {}


def init_worker() -> None:
    """Limit torch to one thread and compile the kernels before the first task."""
    import torch  # the serving process imports this module too and must not wait for torch

    torch.set_num_threads(1)
    warm()


def load_study(file: str) -> bool:
    """Load the study in a file unless it is loaded already; drop any study loaded before. Return True when ready."""
    if file not in _studies:
        _studies.clear()
        _studies[file] = pickle.loads(Path(file).read_bytes()).open()
    return True


def run_tasks(file: str, tasks: Sequence[Task]) -> list[ReplayResult]:
    """Run tasks of the study in a file."""
    load_study(file)
    study = _studies[file]
    return [study.run(task) for task in tasks]
