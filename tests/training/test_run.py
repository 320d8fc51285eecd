"""`mainstay train` from end to end: event log and catalog in, registered bundle and metrics out."""

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
from features.events.schema import ViewerEvent
from features.history.event_log import EventLog
from features.state.votes import LoggedEvent
from recsys.domain.catalog import Catalog
from recsys.domain.item import Item
from recsys.domain.item_statistics import ItemStats
from recsys.domain.placement import Placement
from recsys.domain.query import Query
from recsys.domain.types import ACTIONS
from recsys.guidance.compilation.compile import compile_policy
from recsys.models.bundle import Bundle, unpack
from recsys.models.served_model import ServedModel
from recsys.pipeline import Engine
from recsys.snapshot import ServingSnapshot
from training.config import Config
from training.registry import BUNDLE
from training.run import TrainingResult, run
from training.timeline import Timeline, read_timeline

MakeEvents = Callable[..., list[ViewerEvent]]
NOW = 1_790_000_000.0


def report(line: str) -> None:
    assert line


@pytest.fixture(scope="module")
def timeline(make_events: MakeEvents) -> Timeline:
    return Timeline.of(make_events(viewers=150))


@pytest.fixture(scope="module")
def outcome(timeline: Timeline, catalog: Catalog, small: Config) -> TrainingResult:
    return run(timeline, catalog, small, NOW, report)


def test_als_and_the_ranker_beat_popularity_on_clustered_data(outcome: TrainingResult) -> None:
    popularity, als, ranker = (float(result.ndcg.mean()) for result in outcome.results)
    assert als > 1.2 * popularity
    assert ranker > 1.2 * popularity
    assert all(gain.low > 0.0 for gain in outcome.gains[1:])  # the bootstrap interval excludes 0
    assert outcome.gains[0].mean == 0.0
    metrics = outcome.bundle.metrics
    assert metrics["ranker_ndcg_at_10"] == pytest.approx(ranker)
    assert metrics["als_gain"] == pytest.approx(als - popularity)
    assert metrics["test_viewers"] == outcome.viewers == len(outcome.results[0].ndcg)


def test_the_bundle_can_be_served(outcome: TrainingResult, catalog: Catalog) -> None:
    model = ServedModel.load(outcome.bundle, FEATURES)
    assert set(outcome.bundle.item_ids) <= set(catalog.ids)
    assert outcome.bundle.popularity.max() > 0.0
    assert outcome.bundle.version == "20260921T141320Z"
    assert ((model.bundle.probe_p > 0.0) & (model.bundle.probe_p < 1.0)).all()


def test_the_same_log_gives_the_same_metrics_and_the_same_network(
    outcome: TrainingResult, timeline: Timeline, catalog: Catalog, small: Config
) -> None:
    second = run(timeline, catalog, small, NOW, report)
    assert second.bundle.metrics == outcome.bundle.metrics
    assert np.array_equal(second.bundle.item_vectors, outcome.bundle.item_vectors)
    for name, tensor in outcome.bundle.network.items():
        assert np.array_equal(second.bundle.network[name], tensor), name


def test_a_refit_includes_the_test_period_and_keeps_the_metrics_of_the_evaluation(
    outcome: TrainingResult, timeline: Timeline, catalog: Catalog, small: Config
) -> None:
    evaluated = run(timeline, catalog, small.model_copy(update={"refit": False}), NOW, report)
    assert evaluated.bundle.metrics == outcome.bundle.metrics
    after = {str(e.item_id) for e in timeline.events} - {str(e.item_id) for e in timeline.before(timeline.cut(0.15))}
    assert not after & set(evaluated.bundle.item_ids)
    assert after <= set(outcome.bundle.item_ids)
    assert not np.array_equal(evaluated.bundle.network["head.weight"], outcome.bundle.network["head.weight"])


@dataclass
class TrainingHome:
    """An event log and a catalog on disk, and the command line that trains on them."""

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
def training_home(tmp_path: Path, make_events: MakeEvents, items: list[Item]) -> TrainingHome:
    home, config, catalog = tmp_path / "home", tmp_path / "small.toml", tmp_path / "items.jsonl"
    events = [LoggedEvent("viewer-events/0", n, event) for n, event in enumerate(make_events(viewers=60))]
    EventLog(home / "events").append("viewer-events/0", 0, len(events) - 1, events)
    config.write_text(
        "[examples]\nmax_moments = 200\n[network]\nepochs = 3\n[evaluation]\nrounds = 50\n"
        "[action_weights]\nlike = 6.5\n",
        "utf-8",
    )
    catalog.write_text("".join(item.model_dump_json(exclude_defaults=True) + "\n" for item in items), "utf-8")
    return TrainingHome(home, config, catalog)


def assert_page_uses_weights(bundle: Bundle, catalog: Catalog) -> None:
    """Assert that a page is ranked by the bundle's network, and that its utilities use the bundle's weights."""
    model = ServedModel.load(bundle, FEATURES)
    snapshot = ServingSnapshot.of(catalog, ItemStats.empty(len(catalog)), model, compile_policy((), catalog))
    page = Engine(columns).run(Query("r", "v", Placement.parse("cn.zj-mobile-home"), "cn.zj", NOW, 8), None, snapshot)
    assert len(page.items) == 8
    assert [stage.error for stage in page.trace if stage.error] == []
    for slot in page.items:
        assert slot.p["like"] > 0
        assert slot.utility == pytest.approx(sum(bundle.action_weights[name] * slot.p[name] for name in ACTIONS))


def test_the_command_registers_a_version_and_prints_its_metrics(
    training_home: TrainingHome, catalog: Catalog, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert training_home.train() == 0
    out, err = capfd.readouterr()
    assert err == ""
    lines = out.splitlines()
    summary = json.loads(lines[-1])
    assert next(line for line in lines if line.startswith("model")).split()[:3] == ["model", "nDCG@10", "recall@50"]
    for name in ("popularity", "als", "ranker"):
        row = next(line for line in lines if line.startswith(name)).split()
        assert float(row[1]) == pytest.approx(summary["models"][name]["ndcg_at_10"], abs=5e-5)
        assert float(row[2]) == pytest.approx(summary["models"][name]["recall_at_50"], abs=5e-5)
    version, bundle = training_home.champion(tmp_path / "first")
    assert (version, bundle.version) == (summary["model_version"], summary["bundle"])
    assert bundle.metrics == summary["metrics"]
    assert bundle.action_weights == {"play": 1.0, "complete": 1.0, "like": 6.5, "dislike": -3.0}
    params = training_home.params(version)
    assert {name: float(params[f"action_weights.{name}"]) for name in ACTIONS} == bundle.action_weights
    assert_page_uses_weights(bundle, catalog)
    ServedModel.load(bundle, FEATURES)

    assert training_home.train(until=str(read_timeline(EventLog(training_home.home / "events")).cut(0.3))) == 0
    earlier = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert earlier["events"] < summary["events"]
    assert training_home.champion(tmp_path / "second")[0] == earlier["model_version"] == "2"


def test_invalid_inputs_end_with_a_message_and_an_exit_code(
    training_home: TrainingHome, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert training_home.train(event_log=str(tmp_path / "nothing-here")) == 1
    assert "nothing to train on yet" in capfd.readouterr().err
    assert training_home.train(**{"training-config": "no-such"}) == 2
    assert "no training configuration 'no-such'" in capfd.readouterr().err
    assert training_home.train(catalog=str(tmp_path / "missing.jsonl")) == 1
    assert "missing.jsonl" in capfd.readouterr().err
    assert not (training_home.home / "mlflow.db").exists()
    assert main(["train", "--catalogue", "x"]) == 2


def test_the_timeline_equals_the_logged_events(training_home: TrainingHome, make_events: MakeEvents) -> None:
    assert read_timeline(EventLog(training_home.home / "events")).events == tuple(make_events(viewers=60))


def test_ctrl_c_ends_training_silently(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*arguments: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("training.job.run_job", interrupted)
    assert main(["train", "--catalog", "none.jsonl"]) == 130
    assert capsys.readouterr() == ("", "")
