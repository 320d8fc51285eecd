"""Worker, training and serving from end to end in a home whose name has a meaning in URLs and patterns."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from features.cli import main
from features.events.decode import encode
from features.events.schema import ViewerEvent
from features.events.stream.connect import open_stream
from features.events.stream.port import Record
from features.settings import Settings
from recsys.domain.item import Item
from serving.app import build
from serving.services import Services

HOME = "湖 南 %20?#[a]*&"


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # MLflow's own
def test_an_odd_home_holds_everything_of_its_engine(
    tmp_path: Path, make_events: Callable[..., list[ViewerEvent]], items: list[Item]
) -> None:
    home, config, catalog = tmp_path / HOME, tmp_path / "small.toml", tmp_path / "items.jsonl"
    settings = Settings(home=str(home), encoder="none", partitions=1)
    config.write_text("[examples]\nmax_moments = 200\n[network]\nepochs = 2\n[evaluation]\nrounds = 10\n", "utf-8")
    catalog.write_text("".join(item.model_dump_json(exclude_defaults=True) + "\n" for item in items), "utf-8")
    with closing(open_stream(settings.stream_url, partitions=1)) as stream:
        events = make_events(viewers=60)
        stream.publish(settings.topic, [Record(event.viewer_id, encode(event)) for event in events])

    assert main(["worker", "--home", str(home), "--partitions", "1", "--until-idle", "0.1"]) == 0
    flags = ["--catalog", str(catalog), "--training-config", str(config), "--encoder", "none", "--quiet"]
    assert main(["train", "--home", str(home), *flags]) == 0

    services: Services = build(settings).state.services
    try:
        services.pollers["control"].run_once()
        services.model_poller.step()
        assert services.model_poller.version == "1"
        assert services.online.get(["viewer:{v1}"])[0] is not None
    finally:
        services.stop()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted([HOME, "small.toml", "items.jsonl"])
    assert {"stream.db", "online.db", "control.db", "mlflow.db", "artifacts", "events"} <= {
        entry.name for entry in home.iterdir()
    }
