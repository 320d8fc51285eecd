"""Simulated viewers, who request pages on tv and mobile and react to them."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from serving.demo.audit import Auditor
from serving.demo.movielens import region_of
from serving.demo.steps import progress

OUTLET = "cn.zj.hz"
SCREENS = ("tv", "mobile")
LOOKS = 0.85  # probability that a simulated viewer looks at the next slot


@dataclass
class Visits:
    """The results of all simulated visits."""

    pages: int = 0
    events: int = 0
    latency_ms: list[float] = field(default_factory=list)
    fallback_levels: dict[str, int] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)  # of controls on pages: met, active, relaxed, infeasible
    relaxed: dict[str, dict[str, int]] = field(default_factory=dict)  # relaxed, infeasible -> control -> pages
    undeclared: list[str] = field(default_factory=list)  # violated controls that the receipt does not declare
    gaps: list[float] = field(default_factory=list)

    def quantile_ms(self, q: float) -> float:
        """Return the `q` quantile of the page latency in milliseconds."""
        ordered = sorted(self.latency_ms)
        return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def ask(api: httpx.Client, viewer: str, screen: str, **fields: object) -> dict[str, Any]:
    """Request a page of the city's home surface."""
    body = {"viewer_id": viewer, "region": region_of(viewer), **fields}
    response = api.post(f"/v1/placements/{OUTLET}-{screen}-home:recommend", json=body)
    page: dict[str, Any] = response.raise_for_status().json()
    return page


def visit(api: httpx.Client, viewers: Sequence[str], auditor: Auditor, seed: int = 7) -> Visits:
    """Simulate visits: each viewer opens two pages on tv and on mobile, and plays, likes or hides some items."""
    visits, rng = Visits(), random.Random(seed)
    with progress() as bar:
        task = bar.add_task("viewers request pages and react", total=len(viewers) * len(SCREENS))
        for viewer in viewers:
            for screen in SCREENS:
                page_token: str | None = None
                shown: list[str] = []
                for _ in range(2):
                    began = time.perf_counter()
                    page = ask(api, viewer, screen, **({"page_token": page_token} if page_token else {}))
                    visits.latency_ms.append((time.perf_counter() - began) * 1000)
                    _record(visits, page)
                    visits.undeclared += auditor.undeclared(page, viewer, screen, shown)
                    _react(api, visits, page, viewer, screen, rng)
                    shown += [slot["item"]["id"] for slot in page["items"]]
                    page_token = page["next_page_token"]
                bar.advance(task)
    return visits


def _record(visits: Visits, page: dict[str, Any]) -> None:
    visits.pages += 1
    level = page["fallback_level"]
    visits.fallback_levels[level] = visits.fallback_levels.get(level, 0) + 1
    visits.gaps.append(page["receipt"]["gap"])
    for control in page["receipt"]["controls"]:
        status = control["status"]
        visits.statuses[status] = visits.statuses.get(status, 0) + 1
        if status in ("relaxed", "infeasible"):
            ids = visits.relaxed.setdefault(status, {})
            ids[control["id"]] = ids.get(control["id"], 0) + 1


def _react(
    api: httpx.Client, visits: Visits, page: dict[str, Any], viewer: str, screen: str, rng: random.Random
) -> None:
    """Look down the page slot by slot, and send an event for each item that the viewer plays, likes or hides."""
    events = []
    for slot in page["items"]:
        if rng.random() > LOOKS:
            break
        draw = rng.random()
        kind = "like" if draw < 0.06 else "play" if draw < 0.25 else "hide" if draw > 0.99 else ""
        if kind:
            events.append(_event(kind, page, slot, viewer, screen))
    if events:
        response = api.post("/v1/events", json={"events": events}).raise_for_status().json()
        visits.events += sum(result["status"] == "accepted" for result in response["results"])


def _event(kind: str, page: dict[str, Any], slot: dict[str, Any], viewer: str, screen: str) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": uuid.uuid4().hex,
        "source": "/demo/app",
        "type": f"mainstay.viewer.{kind}",
        "subject": viewer,
        "data": {
            "item_id": slot["item"]["id"],
            "slot": slot["slot"],
            "request_id": page["request_id"],
            "placement": f"{OUTLET}-{screen}-home",
            "screen": screen,
            "region": region_of(viewer),
        },
    }
