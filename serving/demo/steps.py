"""What the demo does before anyone asks for a page. Each step is left out when its result already stands."""

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
    """A progress bar for whatever takes longer than two seconds."""
    return Progress(
        TextColumn("   {task.description:<34}"),
        BarColumn(30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        transient=False,
    )


def load_catalog(api: httpx.Client, items: Sequence[Item]) -> bool:
    """Upsert the catalogue; False when it was there."""
    if api.get(f"/v1/items/{items[-1].id}").status_code == 200:
        return False
    with progress() as bar:
        task = bar.add_task("items into the catalogue", total=len(items))
        for batch in _batches(items, 500):
            body = {"items": [item.model_dump(mode="json") for item in batch]}
            answer = api.post("/v1/items", json=body).raise_for_status().json()
            refused = [result for result in answer["results"] if result["status"] != "accepted"]
            if refused:
                raise RuntimeError(f"the catalogue refused {refused[0]}")
            bar.advance(task, len(batch))
    return True


def name_outlets(api: httpx.Client, names: Mapping[str, Mapping[str, str]]) -> bool:
    """Say what outlets are called, by language; False when each had a name, which stays as somebody gave it."""
    outlets = api.get("/v1/outlets", params={"page_size": 1000}).raise_for_status().json()["outlets"]
    named = {outlet["code"] for outlet in outlets if outlet["name"]}
    nameless = {code: name for code, name in names.items() if code not in named}
    for code, name in nameless.items():
        api.put(f"/v1/outlets/{code}", json={"name": dict(name), "author": "demo"}).raise_for_status()
    return bool(nameless)


def policy_text(outlet: str) -> str:
    """The demo policy of one outlet, as YAML."""
    return files("serving.demo").joinpath("policies", f"{outlet}.yaml").read_text("utf-8")


def publish_policies(api: httpx.Client) -> bool:
    """Save and publish the demo policies, parents first; False when they stood."""
    news = False
    for outlet in OUTLETS:
        known = api.get(f"/v1/policies/{outlet}")
        if known.status_code == 200 and known.json()["active"]:
            continue
        draft = api.post(f"/v1/policies/{outlet}/draft", json={"text": policy_text(outlet), "author": "demo"})
        if draft.is_success:
            version = draft.json()["version"]["version"]
            draft = api.post(f"/v1/policies/{outlet}/publish", json={"version": version, "author": "demo"})
        if draft.is_error:
            raise RuntimeError(f"the policy of {outlet} was refused: {draft.text}")
        news = True
    return news


def wait_until_folded(online: OnlineStore, viewers: Sequence[str]) -> int:
    """How many ratings the worker has folded into the state of these viewers."""
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
    household: ProcessGroup,
    sent_before: int = 0,
    note: Callable[[int], None] = lambda sent: None,
) -> bool:
    """Send the interactions through the stream and wait until the worker has folded each; False when it had.

    `ratings` says how many each viewer has. Those of a viewer who was `erased`, before or meanwhile, are not waited
    for: no worker folds them again. `note` is told how many were sent, so that a run that was interrupted goes on at
    `sent_before`: a viewer's state knows its latest events again, but not all of them.
    """

    def owed_and_known() -> tuple[int, int]:
        gone = erased.all()
        living = [viewer for viewer in ratings if not gone or viewer_hash(viewer) not in gone]
        return sum(ratings[viewer] for viewer in living), wait_until_folded(online, living)

    owed, known = owed_and_known()
    if known >= owed:
        return False
    skipped = sent_before if known else 0  # an empty store has lost what was sent
    with progress() as bar:
        sent = bar.add_task("interactions into the stream", total=sum(ratings.values()), completed=skipped)
        done = bar.add_task("folded into features by the worker", total=owed, completed=known)
        for batch in _batches(islice(events, skipped, None), 2000):
            stream.publish(settings.topic, [Record(event.viewer_id, encode(event)) for event in batch])
            bar.advance(sent, len(batch))
            note(skipped := skipped + len(batch))
            bar.update(done, completed=owed_and_known()[1])

        def caught_up() -> bool:
            household.check()
            owed, now = owed_and_known()
            bar.update(done, total=owed, completed=now)
            return now >= owed

        if not until(caught_up, timeout_s=600, pause_s=0.3):
            raise RuntimeError("the worker did not fold all events within ten minutes; see worker.log")
    return True


def learn(settings: Settings, address: str, household: ProcessGroup) -> dict[str, Any]:
    """Run `mainstay train` as a user would; its figures. Raises RuntimeError when it fails or finds no events."""
    if not any(Path(settings.event_log_dir).rglob("*.parquet")):
        raise RuntimeError(
            f"the event log {settings.event_log_dir} is empty, though all interactions were folded before: "
            f"delete {settings.home} (`make clean`) and the demo starts afresh, under new names on your servers"
        )
    arguments = ["train", "--training-config", "demo", "--event-log", settings.event_log_dir, "--catalog", address]
    arguments += ["--registry", settings.registry_uri, "--home", settings.home, "--encoder", settings.encoder]
    last = ""
    for line in household.run("features.cli", [*arguments, *([] if sys.stderr.isatty() else ["--quiet"])]):
        if last:
            print("   " + last, flush=True)
        last = line
    figures: dict[str, Any] = json.loads(last)
    return figures


def serving_model(api: httpx.Client) -> bool:
    """Whether the API answers with a model yet."""
    body = {"viewer_id": "demo-probe", "preview": True, "slots": 1}
    answer = api.post("/v1/placements/cn.zj.hz-mobile-home:recommend", json=body)
    return answer.is_success and answer.json()["model_version"] != "none"


def _batches(things: Iterable[T], size: int) -> Iterator[list[T]]:
    each = iter(things)
    while batch := list(islice(each, size)):
        yield batch
