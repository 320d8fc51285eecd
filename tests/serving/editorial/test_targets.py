"""Exposure targets over HTTP: counted through the stream, priced by every process, overrides in the audit log."""

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


def target_policy(**fields: Any) -> str:
    """Return a policy with one target for an item that no page shows otherwise."""
    now = datetime.now(UTC)
    target = {
        "id": "harvest",
        "action": "exposure_target",
        "where": {"item": ["item-59"]},
        "impressions": 400,
        "from": (now - timedelta(minutes=10)).isoformat(),
        "until": (now + timedelta(minutes=10)).isoformat(),
        **fields,
    }
    return json.dumps({"outlet": "cn", "controls": [target]})


class Audience:
    """A client that requests pages, and a worker that folds their impressions."""

    def __init__(self, service: Any, log: Any) -> None:
        self.service = service
        services = service.services
        self.worker = Worker(services.stream, services.online, EventLog(log), topic=services.settings.topic, group="g")

    def request_pages(self, pages: int, viewer: str = "v", **fields: Any) -> list[list[str]]:
        """Request pages, fold their impressions, step the pacing loop; return the item ids of each page."""
        before = len(self.service.published(0))
        shown = [
            [slot["item"]["id"] for slot in self.service.page(viewer=f"{viewer}{n}", **fields)["items"]]
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
    report: dict[str, Any] = answer.json()
    return report


def post_change(service: Any, action: str, **fields: Any) -> Any:
    return service.http.post(f"/v1/targets/cn/harvest/{action}", json={"author": "Lin Yue", **fields})


def test_target_behind_its_plan_gets_a_price_and_pages_show_its_item(service, audience) -> None:
    service.publish("cn", target_policy())
    pages = audience.request_pages(3)
    assert not any("item-59" in page for page in pages)
    for _ in range(12):
        audience.request_pages(2)
    report = target(service)
    assert report["status"] in ("behind", "price at limit", "cannot deliver")
    assert 0 < report["price"] <= report["max_price"]
    pages = audience.request_pages(2)
    assert all("item-59" in page for page in pages)
    report = target(service)
    assert report["delivered"] > 0
    listed = service.http.get("/v1/targets").json()["targets"]
    assert [entry["id"] for entry in listed] == ["harvest"]
    metrics = service.http.get("/metrics").text
    assert 'mainstay_target_price{target="cn/harvest"}' in metrics


def test_new_target_has_no_forecast_before_the_first_page(service, audience) -> None:
    """The forecast, and the share so far of a share target, appear with the first page."""
    service.publish("cn", target_policy(where={"label": "public-service"}, share=0.2, impressions=None))
    service.services.targets.step()
    report = target(service)
    assert (report["status"], report["forecast"], report["share_so_far"]) == ("unknown yet", None, None)
    assert 'mainstay_target_expected{target="cn/harvest"} NaN' in service.http.get("/metrics").text
    audience.request_pages(5)
    report = target(service)
    assert 0 < report["share_so_far"] <= 1
    assert report["forecast"]["low"] <= report["forecast"]["expected"] <= report["forecast"]["high"]
    assert report["status"] != "reached"


def test_delivered_attention_equals_the_attention_on_published_pages(service, audience) -> None:
    service.publish("cn", target_policy(where={"label": "public-service"}))
    audience.request_pages(5)
    events = [e for e in service.published(5) if e.kind == "impression"]
    member = {f"item-{n}" for n in range(0, 60, 4)}
    delivered = sum(a for e in events for i, a in zip(e.items, e.attention, strict=True) if i in member)
    assert delivered > 0
    assert target(service)["delivered"] == pytest.approx(delivered)


def test_overrides_take_effect_and_are_audited(service, audience, until) -> None:
    service.publish("cn", target_policy())
    for _ in range(8):
        audience.request_pages(2)
    assert target(service)["price"] > 0
    assert post_change(service, "pause").status_code == 204
    until(lambda: target(service)["status"] == "paused", within_s=3)
    assert not any("item-59" in page for page in audience.request_pages(2))
    assert post_change(service, "amount", amount=300).status_code == 204
    assert post_change(service, "resume").status_code == 204
    until(lambda: target(service)["amount"] == 300 and not target(service)["paused"], within_s=3)
    assert post_change(service, "stop").status_code == 204
    until(lambda: target(service)["status"] == "stopped", within_s=3)
    refused = post_change(service, "resume")
    assert (refused.status_code, "permanently" in refused.json()["detail"]) == (422, True)
    rows = service.http.get("/v1/audit?page_size=1000").json()["entries"]
    actions = [(row["action"], row["actor"], row["subject"]) for row in rows if row["action"].startswith("target")]
    assert actions == [
        (f"target.{action}", "Lin Yue", "cn/harvest") for action in ("pause", "amount", "resume", "stop")
    ]
    assert service.http.post("/v1/targets/cn/none/pause", json={"author": "x"}).status_code == 404


@pytest.mark.parametrize("amount", ["1e999", "Infinity", "1e13", "0", "-1", "0.5", "20.5", "true", '"20"'])
def test_invalid_amount_is_refused(service, amount) -> None:
    service.publish("cn", target_policy())
    service.services.targets.step()
    for action, fields in (("amount", ""), ("clone", ', "id": "next", "until": "2099-01-01T00:00:00Z"')):
        body = f'{{"author": "x", "amount": {amount}{fields}}}'
        headers = {"content-type": "application/json"}
        answer = service.http.post(f"/v1/targets/cn/harvest/{action}", content=body, headers=headers)
        assert answer.status_code == (400 if amount == "Infinity" else 422), answer.text  # JSON has no Infinity


@pytest.mark.parametrize(
    "fields",
    [
        {"id": "harvest"},
        {"amount": 0.2},
        {"from": "2099-01-02T00:00:00Z"},
    ],
)
def test_invalid_clone_is_refused_with_findings(service, fields) -> None:
    service.publish("cn", target_policy())
    service.services.targets.step()
    answer = post_change(service, "clone", **{"id": "next", "until": "2099-01-01T00:00:00Z", **fields})
    assert answer.status_code == 422, answer.text
    assert answer.json()["findings"], answer.text


def test_clone_is_a_draft_that_starts_from_the_prices_of_the_original(service, audience) -> None:
    service.publish("cn", target_policy())
    for _ in range(8):
        audience.request_pages(2)
    later = (datetime.now(UTC) + timedelta(hours=2)).isoformat()
    clone = post_change(service, "clone", id="harvest-2", until=later, amount=50)
    assert clone.status_code == 201, clone.text
    version = clone.json()["version"]["version"]
    service.http.post("/v1/policies/cn/publish", json={"version": version, "author": "Lin Yue"}).raise_for_status()
    service.caught_up()
    service.services.targets.step()
    first, second = target(service), target(service, "harvest-2")
    assert second["amount"] == 50
    assert first["price"] > 0
    assert second["price"] > 0


def test_clone_defaults_to_the_current_amount_of_the_original(service, until) -> None:
    service.publish("cn", target_policy(impressions=500))
    service.services.targets.step()
    assert post_change(service, "amount", amount=2500).status_code == 204
    until(lambda: target(service)["amount"] == 2500, within_s=3)
    draft = post_change(service, "clone", id="harvest-2", until="2099-06-01T00:00:00Z").json()
    assert parse_policy(draft["version"]["text"]).controls[-1].impressions == 2500  # type: ignore[union-attr]
    draft = post_change(service, "clone", id="harvest-3", until="2099-06-01T00:00:00Z", amount=70).json()
    assert parse_policy(draft["version"]["text"]).controls[-1].impressions == 70  # type: ignore[union-attr]


YAML = """# promises of the summer team
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


def test_clone_keeps_the_text_and_comments_of_the_editor(service) -> None:
    service.publish("cn", YAML)
    service.services.targets.step()
    draft = post_change(service, "clone", id="harvest-2", until="2099-06-01T00:00:00+08:00").json()
    text = draft["version"]["text"]
    lines = text.splitlines()
    [new] = [line for line in lines if "harvest-2" in line]
    lines.remove(new)
    assert lines == YAML.splitlines()
    assert text.index("of it") < text.index("harvest-2") < text.index("# the end")
    second = parse_policy(text).controls[-1]
    assert (second.id, second.share, second.like) == ("harvest-2", 0.02, "harvest")  # type: ignore[union-attr]
    assert not [finding for finding in draft["findings"] if "rewritten" in finding["message"]]


@pytest.mark.parametrize(
    "text",
    [
        "outlet: cn\ncontrols: [{id: a, action: pin, item: x, slot: 1}]",
        "outlet: cn\ncontrols: [\n {id: a, action: pin, item: x, slot: 1},\n {id: c, action: pin, item: y, slot: 2}\n]",
        "outlet: cn\ncontrols:\n- {id: a, action: pin, item: x, slot: 1}",
        "controls:\n  - id: a\n    action: block\n    where:\n      label:\n        - x\n        - y  # z\noutlet: cn",
    ],
)
def test_control_is_appended_to_every_yaml_list_style(text) -> None:
    policy = parse_policy(text)
    extended = append_control(text, {"id": "b", "action": "cap", "attribute": "topic", "at_most": 3})
    assert extended is not None
    assert parse_policy(extended).controls[:-1] == policy.controls
    assert parse_policy(extended).controls[-1].id == "b"


def test_clone_that_rewrites_the_text_reports_it(service, monkeypatch) -> None:
    monkeypatch.setattr(
        "serving.editorial.target_service.append_control", lambda text, control: "outlet: cn\ncontrols: []\n"
    )
    service.publish("cn", YAML)
    service.services.targets.step()
    draft = post_change(service, "clone", id="harvest-2", until="2099-06-01T00:00:00+08:00").json()
    assert [c["id"] for c in json.loads(draft["version"]["text"])["controls"]] == ["one-topic", "harvest", "harvest-2"]
    assert "without the comments" in draft["findings"][-1]["message"]


def test_frequency_cap_limits_the_impressions_of_a_viewer(service, audience) -> None:
    capped = target_policy(where={"label": "public-service"}, frequency_cap={"impressions": 3, "per": "hour"})
    service.publish("cn", capped)
    member = {f"item-{n}" for n in range(0, 60, 4)}
    screens = ("cn-mobile-home", "cn-tv-home", "cn-web-home")
    impressions = 0
    for n in range(6):
        (page,) = audience.request_pages(1, viewer="same", placement=screens[n % 3])
        impressions += len(member & set(page))
        assert page
    assert impressions == 3
    assert target(service)["capped_impressions"] == 3


def test_prices_freeze_while_the_store_is_down(service, audience) -> None:
    service.publish("cn", target_policy())
    for _ in range(8):
        audience.request_pages(2)
    loop: PacingLoop = service.services.targets
    price = loop.running["cn/harvest"].status.price
    assert price > 0

    elapsed_s = [0.0]
    offline_loop = PacingLoop(  # type: ignore[arg-type]
        loop.holders,
        _UnavailableStore(),
        loop.sources,
        lambda: time.time() + elapsed_s[0],
        loop.metrics,
        loop.newest_revision,
    )
    offline_loop.running, offline_loop._states, offline_loop._counts = loop.running, dict(loop._states), loop._counts
    offline_loop._forecasts, offline_loop._forecast_at = dict(loop._forecasts), float("inf")
    prices = []
    for elapsed_s[0] in (60.0, 300.0):
        with pytest.raises(Unavailable):
            offline_loop.step()
        prices.append(offline_loop.running["cn/harvest"].status.price)
    assert prices == [price, price]


class _UnavailableStore:
    def get(self, keys: Any) -> Any:
        raise Unavailable("unavailable")
