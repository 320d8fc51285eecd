"""`mainstay train` from end to end: event log and catalogue in, registered bundle and figures out."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from features.cli import main
from features.columns import FEATURES, columns
from features.events.decode import ViewerEvent
from features.history.event_log import EventLog
from features.state.fold import LoggedEvent
from recsys.domain.catalog import Catalog, Item
from recsys.domain.types import ACTIONS, Placement, Query
from recsys.domain.viewer import ItemStats
from recsys.guidance.compilation.compile import compile_policy
from recsys.models.bundle import Bundle, unpack
from recsys.models.served_model import ServedModel
from recsys.pipeline import Engine, ServingSnapshot
from training.config import Config
from training.registry import BUNDLE
from training.run import TrainingResult, run
from training.timeline import Timeline, read_timeline

MakeEvents = Callable[..., list[ViewerEvent]]
NOW = 1_790_000_000.0


def silent(line: str) -> None:
    assert line


@pytest.fixture(scope="module")
def timeline(make_events: MakeEvents) -> Timeline:
    return Timeline.of(make_events(viewers=150))


@pytest.fixture(scope="module")
def outcome(timeline: Timeline, catalog: Catalog, small: Config) -> TrainingResult:
    return run(timeline, catalog, small, NOW, silent)


def test_als_and_the_ranker_find_the_planted_clusters_that_popularity_cannot_see(outcome: TrainingResult) -> None:
    popularity, als, ranker = (float(result.ndcg.mean()) for result in outcome.results)
    assert als > 1.2 * popularity
    assert ranker > 1.2 * popularity
    assert all(over.low > 0.0 for over in outcome.gains[1:])  # beyond chance
    assert outcome.gains[0].mean == 0.0
    metrics = outcome.bundle.metrics
    assert metrics["ranker_ndcg_at_10"] == pytest.approx(ranker)
    assert metrics["als_gain"] == pytest.approx(als - popularity)
    assert metrics["test_viewers"] == outcome.viewers == len(outcome.results[0].ndcg)


def test_the_bundle_can_serve(outcome: TrainingResult, catalog: Catalog) -> None:
    model = ServedModel.load(outcome.bundle, FEATURES)
    assert set(outcome.bundle.item_ids) <= set(catalog.ids)
    assert outcome.bundle.popularity.max() > 0.0
    assert outcome.bundle.version == "20260921T141320Z"
    assert ((model.bundle.probe_p > 0.0) & (model.bundle.probe_p < 1.0)).all()


def test_the_same_log_gives_the_same_figures_and_the_same_network(
    outcome: TrainingResult, timeline: Timeline, catalog: Catalog, small: Config
) -> None:
    again = run(timeline, catalog, small, NOW, silent)
    assert again.bundle.metrics == outcome.bundle.metrics
    assert np.array_equal(again.bundle.item_vectors, outcome.bundle.item_vectors)
    for name, tensor in outcome.bundle.network.items():
        assert np.array_equal(again.bundle.network[name], tensor), name


def test_a_refit_ships_what_the_test_period_taught_and_reports_what_was_evaluated(
    outcome: TrainingResult, timeline: Timeline, catalog: Catalog, small: Config
) -> None:
    only = run(timeline, catalog, small.model_copy(update={"refit": False}), NOW, silent)
    assert only.bundle.metrics == outcome.bundle.metrics
    after = {str(e.item_id) for e in timeline.events} - {str(e.item_id) for e in timeline.before(timeline.cut(0.15))}
    assert not after & set(only.bundle.item_ids)
    assert after <= set(outcome.bundle.item_ids)
    assert not np.array_equal(only.bundle.network["head.weight"], outcome.bundle.network["head.weight"])


@dataclass
class Desk:
    """A log and a catalogue on disk, and the command line that trains on them."""

    home: Path
    config: Path
    catalog: Path

    def train(self, **flags: str) -> int:
        """Run `mainstay train` with these flags over those of the fixture."""
        flags = {"catalog": str(self.catalog), "training-config": str(self.config), **flags}
        arguments = [word for name, value in flags.items() for word in (f"--{name.replace('_', '-')}", value)]
        return main(["train", "--home", str(self.home), "--quiet", *arguments])

    def params(self, version: str) -> dict[str, str]:
        uri = f"sqlite:///{self.home}/mlflow.db"
        client = MlflowClient(uri, uri)
        run_id = client.get_model_version("mainstay", version).run_id
        return dict(client.get_run(run_id).data.params)

    def champion(self, directory: Path) -> tuple[str, Bundle]:
        uri = f"sqlite:///{self.home}/mlflow.db"
        client = MlflowClient(uri, uri)
        version = client.get_model_version_by_alias("mainstay", "champion")
        directory.mkdir()
        local = Path(client.download_artifacts(version.run_id, BUNDLE, str(directory)))
        return str(version.version), unpack({path.name: path.read_bytes() for path in local.iterdir()})


@pytest.fixture
def desk(tmp_path: Path, make_events: MakeEvents, items: list[Item]) -> Desk:
    home, config, catalog = tmp_path / "home", tmp_path / "small.toml", tmp_path / "items.jsonl"
    placed = [LoggedEvent("viewer-events/0", n, event) for n, event in enumerate(make_events(viewers=60))]
    EventLog(home / "events").append("viewer-events/0", 0, len(placed) - 1, placed)
    config.write_text(
        "[examples]\nmax_moments = 200\n[network]\nepochs = 3\n[evaluation]\nrounds = 50\n"
        "[action_weights]\nlike = 6.5\n",
        "utf-8",
    )
    catalog.write_text("".join(item.model_dump_json(exclude_defaults=True) + "\n" for item in items), "utf-8")
    return Desk(home, config, catalog)


def assert_page_uses_weights(bundle: Bundle, catalog: Catalog) -> None:
    """A page of this bundle is ranked by it, and its utilities are made of the bundle's weights."""
    model = ServedModel.load(bundle, FEATURES)
    world = ServingSnapshot.of(catalog, ItemStats.empty(len(catalog)), model, compile_policy((), catalog))
    page = Engine(columns).run(Query("r", "v", Placement.parse("cn.zj-mobile-home"), "cn.zj", NOW, 8), None, world)
    assert len(page.items) == 8
    assert [stage.error for stage in page.trace if stage.error] == []
    for slot in page.items:
        assert slot.p["like"] > 0
        assert slot.utility == pytest.approx(sum(bundle.action_weights[name] * slot.p[name] for name in ACTIONS))


def test_the_command_registers_a_version_and_says_so(
    desk: Desk, catalog: Catalog, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert desk.train() == 0
    out, err = capfd.readouterr()
    assert err == ""
    lines = out.splitlines()
    figures = json.loads(lines[-1])
    assert next(line for line in lines if line.startswith("model")).split()[:3] == ["model", "nDCG@10", "recall@50"]
    for name in ("popularity", "als", "ranker"):
        row = next(line for line in lines if line.startswith(name)).split()
        assert float(row[1]) == pytest.approx(figures["models"][name]["ndcg_at_10"], abs=5e-5)
        assert float(row[2]) == pytest.approx(figures["models"][name]["recall_at_50"], abs=5e-5)
    version, bundle = desk.champion(tmp_path / "first")
    assert (version, bundle.version) == (figures["model_version"], figures["bundle"])
    assert bundle.metrics == figures["metrics"]
    assert bundle.action_weights == {"play": 1.0, "complete": 1.0, "like": 6.5, "dislike": -3.0}
    params = desk.params(version)
    assert {name: float(params[f"action_weights.{name}"]) for name in ACTIONS} == bundle.action_weights
    assert_page_uses_weights(bundle, catalog)
    ServedModel.load(bundle, FEATURES)

    assert desk.train(until=str(read_timeline(EventLog(desk.home / "events")).cut(0.3))) == 0
    earlier = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert earlier["events"] < figures["events"]
    assert desk.champion(tmp_path / "second")[0] == earlier["model_version"] == "2"


def test_what_cannot_be_trained_ends_with_a_plain_word(
    desk: Desk, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert desk.train(event_log=str(tmp_path / "nothing-here")) == 1
    assert "nothing to learn from yet" in capfd.readouterr().err
    assert desk.train(**{"training-config": "no-such"}) == 2
    assert "no training configuration 'no-such'" in capfd.readouterr().err
    assert desk.train(catalog=str(tmp_path / "missing.jsonl")) == 1
    assert "missing.jsonl" in capfd.readouterr().err
    assert not (desk.home / "mlflow.db").exists()
    assert main(["train", "--catalogue", "x"]) == 2


def test_the_log_comes_back_as_it_was_written(desk: Desk, make_events: MakeEvents) -> None:
    assert read_timeline(EventLog(desk.home / "events")).events == tuple(make_events(viewers=60))


def test_ctrl_c_ends_training_without_a_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*arguments: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("training.job.run_job", interrupted)
    assert main(["train", "--catalog", "none.jsonl"]) == 130
    assert capsys.readouterr() == ("", "")
