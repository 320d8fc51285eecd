"""Simulated viewers: they ask for pages on tv and mobile, and react to what they see."""

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
LOOKS = 0.85  # chance that a simulated viewer looks one slot further


@dataclass
class Visits:
    """What happened while they were there."""

    pages: int = 0
    events: int = 0
    latency_ms: list[float] = field(default_factory=list)
    fallback_levels: dict[str, int] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)  # of controls on pages: met, active, relaxed, infeasible
    relaxed: dict[str, dict[str, int]] = field(default_factory=dict)  # relaxed, infeasible -> control -> pages
    undeclared: list[str] = field(default_factory=list)  # controls broken without the receipt saying so
    gaps: list[float] = field(default_factory=list)

    def quantile_ms(self, q: float) -> float:
        """Latency below which a share `q` of the pages came, in milliseconds."""
        ordered = sorted(self.latency_ms)
        return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def ask(api: httpx.Client, viewer: str, screen: str, **more: object) -> dict[str, Any]:
    """One page of the city's home surface."""
    body = {"viewer_id": viewer, "region": region_of(viewer), **more}
    answer = api.post(f"/v1/placements/{OUTLET}-{screen}-home:recommend", json=body)
    page: dict[str, Any] = answer.raise_for_status().json()
    return page


def visit(api: httpx.Client, viewers: Sequence[str], auditor: Auditor, seed: int = 7) -> Visits:
    """Each viewer opens tv and mobile, scrolls to a second page, and plays, likes or hides some of what is there."""
    visits, chance = Visits(), random.Random(seed)
    with progress() as bar:
        task = bar.add_task("viewers ask for pages and react", total=len(viewers) * len(SCREENS))
        for viewer in viewers:
            for screen in SCREENS:
                page_token: str | None = None
                shown: list[str] = []
                for _ in range(2):
                    began = time.perf_counter()
                    page = ask(api, viewer, screen, **({"page_token": page_token} if page_token else {}))
                    visits.latency_ms.append((time.perf_counter() - began) * 1000)
                    _note(visits, page)
                    visits.undeclared += auditor.undeclared(page, viewer, screen, shown)
                    _react(api, visits, page, viewer, screen, chance)
                    shown += [slot["item"]["id"] for slot in page["items"]]
                    page_token = page["next_page_token"]
                bar.advance(task)
    return visits


def _note(visits: Visits, page: dict[str, Any]) -> None:
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
    api: httpx.Client, visits: Visits, page: dict[str, Any], viewer: str, screen: str, chance: random.Random
) -> None:
    """Look down the page slot by slot; who likes an item more plays it more often, and sometimes says so."""
    events = []
    for slot in page["items"]:
        if chance.random() > LOOKS:
            break
        mood = chance.random()
        kind = "like" if mood < 0.06 else "play" if mood < 0.25 else "hide" if mood > 0.99 else ""
        if kind:
            events.append(_event(kind, page, slot, viewer, screen))
    if events:
        answer = api.post("/v1/events", json={"events": events}).raise_for_status().json()
        visits.events += sum(result["status"] == "accepted" for result in answer["results"])


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
