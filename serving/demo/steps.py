"""The steps of the demo before pages are requested. A step is skipped when an earlier run completed it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import httpx
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from features.events.decode import encode
from features.events.schema import ViewerEvent
from features.events.stream.port import Record, Stream
from features.history.erasures import ErasureList, viewer_hash
from features.settings import Settings
from features.state.codec import decode_viewer, viewer_key
from features.state.online.port import OnlineStore
from recsys.domain.item import Item
from serving.demo.processes import ProcessGroup, until

T = TypeVar("T")

RATED = ("like", "complete", "dislike")
OUTLETS = ("cn", "cn.zj", "cn.zj.hz")


def progress() -> Progress:
    """Return a progress bar, for steps that take longer than two seconds."""
    return Progress(
        TextColumn("   {task.description:<34}"),
        BarColumn(30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        transient=False,
    )


def load_catalog(api: httpx.Client, items: Sequence[Item]) -> bool:
    """Upsert the items; return False when they are already in the catalog."""
    if api.get(f"/v1/items/{items[-1].id}").status_code == 200:
        return False
    with progress() as bar:
        task = bar.add_task("items loaded into the catalog", total=len(items))
        for batch in _batches(items, 500):
            body = {"items": [item.model_dump(mode="json") for item in batch]}
            response = api.post("/v1/items", json=body).raise_for_status().json()
            rejected = [result for result in response["results"] if result["status"] != "accepted"]
            if rejected:
                raise RuntimeError(f"the catalog rejected an item: {rejected[0]}")
            bar.advance(task, len(batch))
    return True


def name_outlets(api: httpx.Client, names: Mapping[str, Mapping[str, str]]) -> bool:
    """Set the names of outlets without a name; return False when every outlet has one. Existing names are kept."""
    outlets = api.get("/v1/outlets", params={"page_size": 1000}).raise_for_status().json()["outlets"]
    named = {outlet["code"] for outlet in outlets if outlet["name"]}
    unnamed = {code: name for code, name in names.items() if code not in named}
    for code, name in unnamed.items():
        api.put(f"/v1/outlets/{code}", json={"name": dict(name), "author": "demo"}).raise_for_status()
    return bool(unnamed)


def policy_text(outlet: str) -> str:
    """Return the demo policy of an outlet as YAML."""
    return files("serving.demo").joinpath("policies", f"{outlet}.yaml").read_text("utf-8")


def publish_policies(api: httpx.Client) -> bool:
    """Save and publish the demo policies, parents first; return False when all were in force already."""
    published = False
    for outlet in OUTLETS:
        current = api.get(f"/v1/policies/{outlet}")
        if current.status_code == 200 and current.json()["active"]:
            continue
        response = api.post(f"/v1/policies/{outlet}/draft", json={"text": policy_text(outlet), "author": "demo"})
        if response.is_success:
            version = response.json()["version"]["version"]
            response = api.post(f"/v1/policies/{outlet}/publish", json={"version": version, "author": "demo"})
        if response.is_error:
            raise RuntimeError(f"the API rejected the policy of {outlet}: {response.text}")
        published = True
    return published


def folded_ratings(online: OnlineStore, viewers: Sequence[str]) -> int:
    """Return the number of ratings that the worker has folded into the state of these viewers."""
    states = online.get([viewer_key(viewer) for viewer in viewers])
    counts = (decode_viewer(raw).counts for raw in states if raw is not None)
    return sum(count.get(kind, 0) for count in counts for kind in RATED)


def replay(
    stream: Stream,
    online: OnlineStore,
    settings: Settings,
    events: Iterable[ViewerEvent],
    ratings: Mapping[str, int],
    erased: ErasureList,
    processes: ProcessGroup,
    sent_before: int = 0,
    save_progress: Callable[[int], None] = lambda sent: None,
) -> bool:
    """Send the interactions to the stream and wait until the worker has folded all of them.

    Args:
        ratings: the number of ratings of each viewer. Ratings of erased viewers are never folded, so not awaited.
        sent_before: the number of interactions that an interrupted run has sent; sending continues there,
            because viewer state recognises only recent duplicates.
        save_progress: called with the number of interactions sent.

    Returns:
        False when all interactions were folded already.
    """

    def count_ratings() -> tuple[int, int]:
        erasures = erased.all()
        viewers = [viewer for viewer in ratings if not erasures or viewer_hash(viewer) not in erasures]
        return sum(ratings[viewer] for viewer in viewers), folded_ratings(online, viewers)

    expected, folded = count_ratings()
    if folded >= expected:
        return False
    n_sent = sent_before if folded else 0  # an empty store requires sending everything again
    with progress() as bar:
        sending = bar.add_task("interactions sent to the stream", total=sum(ratings.values()), completed=n_sent)
        folding = bar.add_task("folded into features by the worker", total=expected, completed=folded)
        for batch in _batches(islice(events, n_sent, None), 2000):
            stream.publish(settings.topic, [Record(event.viewer_id, encode(event)) for event in batch])
            bar.advance(sending, len(batch))
            save_progress(n_sent := n_sent + len(batch))
            bar.update(folding, completed=count_ratings()[1])

        def caught_up() -> bool:
            processes.check()
            expected, folded = count_ratings()
            bar.update(folding, total=expected, completed=folded)
            return folded >= expected

        if not until(caught_up, timeout_s=600, pause_s=0.3):
            raise RuntimeError("the worker did not fold all events within ten minutes; see worker.log")
    return True


def train(settings: Settings, training_config: str, address: str, processes: ProcessGroup) -> dict[str, Any]:
    """Run `mainstay train` as a user would, and return its figures. Raises RuntimeError."""
    if not any(Path(settings.event_log_dir).rglob("*.parquet")):
        raise RuntimeError(
            f"the event log {settings.event_log_dir} is empty, although all interactions were folded before: "
            f"delete {settings.home} (`make clean`) to start the demo again; it then uses "
            "new topics, keys and schemas on your servers"
        )
    arguments = ["train", "--training-config", training_config, "--catalog", address]
    arguments += ["--event-log", settings.event_log_dir, "--registry", settings.registry_uri]
    arguments += ["--home", settings.home, "--encoder", settings.encoder]
    last = ""
    for line in processes.run("features.cli", [*arguments, *([] if sys.stderr.isatty() else ["--quiet"])]):
        if last:
            print("   " + last, flush=True)
        last = line
    figures: dict[str, Any] = json.loads(last)
    return figures


def serving_model(api: httpx.Client) -> bool:
    """Return whether the API serves a model."""
    body = {"viewer_id": "demo-probe", "preview": True, "slots": 1}
    response = api.post("/v1/placements/cn.zj.hz-mobile-home:recommend", json=body)
    return response.is_success and response.json()["model_version"] != "none"


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
