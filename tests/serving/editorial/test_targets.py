"""Exposure targets over HTTP: counted through the stream, priced by every process, ordered about on the record."""

from __future__ import annotations

import json
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from features.history.event_log import EventLog
from features.worker.worker import Worker
from recsys.domain.errors import Unavailable
from recsys.guidance.policy.policy import parse_policy
from recsys.guidance.policy.yaml_text import append_control
from serving.editorial.pacing_loop import PacingLoop


def said(**more: Any) -> str:
    """A policy with one target on the item that nobody would see otherwise."""
    now = datetime.now(UTC)
    target = {
        "id": "harvest",
        "action": "exposure_target",
        "where": {"item": ["item-59"]},
        "impressions": 400,
        "from": (now - timedelta(minutes=10)).isoformat(),
        "until": (now + timedelta(minutes=10)).isoformat(),
        **more,
    }
    return json.dumps({"outlet": "cn", "controls": [target]})


class Audience:
    """Asks for pages, and folds what came of them."""

    def __init__(self, service: Any, log: Any) -> None:
        self.service = service
        services = service.services
        self.worker = Worker(services.stream, services.online, EventLog(log), topic=services.settings.topic, group="g")

    def asks(self, pages: int, viewer: str = "v", **more: Any) -> list[list[str]]:
        """Item ids of each page, all of them counted when this returns."""
        before = len(self.service.published(0))
        shown = [
            [slot["item"]["id"] for slot in self.service.page(viewer=f"{viewer}{n}", **more)["items"]]
            for n in range(pages)
        ]
        self.service.published(before + pages)
        while self.worker.step(wait_s=0):
            pass
        self.service.services.targets.step()
        return shown


@pytest.fixture
def audience(service: Any, tmp_path: Any) -> Any:
    audience = Audience(service, tmp_path / "log")
    with closing(audience.worker):
        yield audience


def target(service: Any, id: str = "harvest") -> dict[str, Any]:
    answer = service.http.get(f"/v1/targets/cn/{id}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def order(service: Any, what: str, **more: Any) -> Any:
    return service.http.post(f"/v1/targets/cn/harvest/{what}", json={"author": "Lin Yue", **more})


def test_a_target_behind_its_plan_gets_a_price_and_the_page_its_item(service, audience) -> None:
    service.publish("cn", said())
    pages = audience.asks(3)
    assert not any("item-59" in page for page in pages)
    for _ in range(12):
        audience.asks(2)
    stands = target(service)
    assert stands["status"] in ("behind", "price at limit", "cannot deliver")
    assert 0 < stands["price"] <= stands["max_price"]
    pages = audience.asks(2)
    assert all("item-59" in page for page in pages)
    stands = target(service)
    assert stands["delivered"] > 0
    listed = service.http.get("/v1/targets").json()["targets"]
    assert [one["id"] for one in listed] == ["harvest"]
    metrics = service.http.get("/metrics").text
    assert 'mainstay_target_price{target="cn/harvest"}' in metrics


def test_what_nobody_knows_yet_is_not_foreseen(service, audience) -> None:
    """Before the first page there is no forecast; of a share, what it has so far comes with the first."""
    service.publish("cn", said(where={"label": "public-service"}, share=0.2, impressions=None))
    service.services.targets.step()
    fresh = target(service)
    assert (fresh["status"], fresh["forecast"], fresh["share_so_far"]) == ("unknown yet", None, None)
    assert 'mainstay_target_expected{target="cn/harvest"} NaN' in service.http.get("/metrics").text
    audience.asks(5)
    stands = target(service)
    assert 0 < stands["share_so_far"] <= 1
    assert stands["forecast"]["low"] <= stands["forecast"]["expected"] <= stands["forecast"]["high"]
    assert stands["status"] != "reached"


def test_what_was_counted_is_what_was_shown(service, audience) -> None:
    service.publish("cn", said(where={"label": "public-service"}))
    audience.asks(5)
    events = [e for e in service.published(5) if e.kind == "impression"]
    member = {f"item-{n}" for n in range(0, 60, 4)}
    won = sum(a for e in events for i, a in zip(e.items, e.attention, strict=True) if i in member)
    assert won > 0
    assert target(service)["delivered"] == pytest.approx(won)


def test_orders_are_in_force_and_on_the_record(service, audience, until) -> None:
    service.publish("cn", said())
    for _ in range(8):
        audience.asks(2)
    assert target(service)["price"] > 0
    assert order(service, "pause").status_code == 204
    until(lambda: target(service)["status"] == "paused", within_s=3)
    assert not any("item-59" in page for page in audience.asks(2))
    assert order(service, "amount", amount=300).status_code == 204
    assert order(service, "resume").status_code == 204
    until(lambda: target(service)["amount"] == 300 and not target(service)["paused"], within_s=3)
    assert order(service, "stop").status_code == 204
    until(lambda: target(service)["status"] == "stopped", within_s=3)
    refused = order(service, "resume")
    assert (refused.status_code, "permanently" in refused.json()["detail"]) == (422, True)
    rows = service.http.get("/v1/audit?page_size=1000").json()["entries"]
    done = [(row["action"], row["actor"], row["subject"]) for row in rows if row["action"].startswith("target")]
    assert done == [(f"target.{what}", "Lin Yue", "cn/harvest") for what in ("pause", "amount", "resume", "stop")]
    assert service.http.post("/v1/targets/cn/none/pause", json={"author": "x"}).status_code == 404


@pytest.mark.parametrize("amount", ["1e999", "Infinity", "1e13", "0", "-1", "0.5", "20.5", "true", '"20"'])
def test_an_amount_that_is_none_is_refused(service, amount) -> None:
    service.publish("cn", said())
    service.services.targets.step()
    for what, more in (("amount", ""), ("clone", ', "id": "next", "until": "2099-01-01T00:00:00Z"')):
        body = f'{{"author": "x", "amount": {amount}{more}}}'
        headers = {"content-type": "application/json"}
        answer = service.http.post(f"/v1/targets/cn/harvest/{what}", content=body, headers=headers)
        assert answer.status_code == 422, answer.text


@pytest.mark.parametrize(
    "more",
    [
        {"id": "harvest"},
        {"amount": 0.2},
        {"from": "2099-01-02T00:00:00Z"},
    ],
)
def test_a_clone_that_cannot_be_is_refused_in_words(service, more) -> None:
    service.publish("cn", said())
    service.services.targets.step()
    answer = order(service, "clone", **{"id": "next", "until": "2099-01-01T00:00:00Z", **more})
    assert answer.status_code == 422, answer.text
    assert answer.json()["findings"], answer.text


def test_a_clone_is_a_draft_that_begins_with_the_prices_of_the_first(service, audience) -> None:
    service.publish("cn", said())
    for _ in range(8):
        audience.asks(2)
    later = (datetime.now(UTC) + timedelta(hours=2)).isoformat()
    made = order(service, "clone", id="harvest-2", until=later, amount=50)
    assert made.status_code == 201, made.text
    version = made.json()["version"]["version"]
    service.http.post("/v1/policies/cn/publish", json={"version": version, "author": "Lin Yue"}).raise_for_status()
    service.caught_up()
    service.services.targets.step()
    first, second = target(service), target(service, "harvest-2")
    assert second["amount"] == 50
    assert first["price"] > 0
    assert second["price"] > 0


def test_a_clone_asks_for_what_the_first_asks_for_by_now(service, until) -> None:
    service.publish("cn", said(impressions=500))
    service.services.targets.step()
    assert order(service, "amount", amount=2500).status_code == 204
    until(lambda: target(service)["amount"] == 2500, within_s=3)
    made = order(service, "clone", id="harvest-2", until="2099-06-01T00:00:00Z").json()
    assert parse_policy(made["version"]["text"]).controls[-1].impressions == 2500  # type: ignore[union-attr]
    made = order(service, "clone", id="harvest-3", until="2099-06-01T00:00:00Z", amount=70).json()
    assert parse_policy(made["version"]["text"]).controls[-1].impressions == 70  # type: ignore[union-attr]


YAML = """# what the summer desk promised
outlet: cn
controls:
  - id: one-topic        # agreed in May
    action: cap
    attribute: topic
    at_most: 4
  - id: harvest
    action: exposure_target
    where: {item: [item-59]}
    share: 2 %           # of all attention
    until: 2099-01-01T00:00:00Z
    note: |
      two lines
      of it
# the end
weights: {public_value: 0.002}
"""


def test_a_clone_leaves_the_editors_text_as_it_is(service) -> None:
    service.publish("cn", YAML)
    service.services.targets.step()
    made = order(service, "clone", id="harvest-2", until="2099-06-01T00:00:00+08:00").json()
    text = made["version"]["text"]
    kept = text.splitlines()
    [new] = [line for line in kept if "harvest-2" in line]
    kept.remove(new)
    assert kept == YAML.splitlines()
    assert text.index("of it") < text.index("harvest-2") < text.index("# the end")
    second = parse_policy(text).controls[-1]
    assert (second.id, second.share, second.like) == ("harvest-2", 0.02, "harvest")  # type: ignore[union-attr]
    assert not [finding for finding in made["findings"] if "rewritten" in finding["message"]]


@pytest.mark.parametrize(
    "text",
    [
        "outlet: cn\ncontrols: [{id: a, action: pin, item: x, slot: 1}]",
        "outlet: cn\ncontrols: [\n {id: a, action: pin, item: x, slot: 1},\n {id: c, action: pin, item: y, slot: 2}\n]",
        "outlet: cn\ncontrols:\n- {id: a, action: pin, item: x, slot: 1}",
        "controls:\n  - id: a\n    action: block\n    where:\n      label:\n        - x\n        - y  # z\noutlet: cn",
    ],
)
def test_one_more_control_goes_into_every_kind_of_list(text) -> None:
    policy = parse_policy(text)
    more = append_control(text, {"id": "b", "action": "cap", "attribute": "topic", "at_most": 3})
    assert more is not None
    assert parse_policy(more).controls[:-1] == policy.controls
    assert parse_policy(more).controls[-1].id == "b"


def test_a_clone_that_cannot_keep_the_text_says_so(service, monkeypatch) -> None:
    monkeypatch.setattr(
        "serving.editorial.target_service.append_control", lambda text, control: "outlet: cn\ncontrols: []\n"
    )
    service.publish("cn", YAML)
    service.services.targets.step()
    made = order(service, "clone", id="harvest-2", until="2099-06-01T00:00:00+08:00").json()
    assert [c["id"] for c in json.loads(made["version"]["text"])["controls"]] == ["one-topic", "harvest", "harvest-2"]
    assert "without the comments" in made["findings"][-1]["message"]


def test_a_viewer_sees_a_capped_target_so_often_and_no_more(service, audience) -> None:
    capped = said(where={"label": "public-service"}, frequency_cap={"impressions": 3, "per": "hour"})
    service.publish("cn", capped)
    member = {f"item-{n}" for n in range(0, 60, 4)}
    screens = ("cn-mobile-home", "cn-tv-home", "cn-web-home")
    seen = 0
    for n in range(6):
        (page,) = audience.asks(1, viewer="same", placement=screens[n % 3])
        seen += len(member & set(page))
        assert page
    assert seen == 3
    assert target(service)["capped_impressions"] == 3


def test_without_the_store_prices_freeze(service, audience) -> None:
    service.publish("cn", said())
    for _ in range(8):
        audience.asks(2)
    loop: PacingLoop = service.services.targets
    price = loop.running["cn/harvest"].status.price
    assert price > 0

    skip = [0.0]
    away = PacingLoop(  # type: ignore[arg-type]
        loop.holders, _Away(), loop.sources, lambda: time.time() + skip[0], loop.metrics, loop.newest
    )
    away.running, away._states, away._counts = loop.running, dict(loop._states), loop._counts
    away._forecasts, away._forecast_at = dict(loop._forecasts), float("inf")
    prices = []
    for skip[0] in (60.0, 300.0):
        with pytest.raises(Unavailable):
            away.step()
        prices.append(away.running["cn/harvest"].status.price)
    assert prices == [price, price]


class _Away:
    def get(self, keys: Any) -> Any:
        raise Unavailable("away")
