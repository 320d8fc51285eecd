"""The data of the demo: valid items, policies without lint findings, and ratings as events."""

from __future__ import annotations

import json
from collections import Counter

import httpx
import pytest

from features.events.decode import decode, encode
from recsys.domain.catalog import Catalog
from recsys.guidance.lint.lint import lint
from recsys.guidance.policy.policy import parse_policy
from serving.demo.movielens import DAYS, MovieLens
from serving.demo.policies import newsroom_items, newsroom_names
from serving.demo.steps import OUTLETS, name_outlets, policy_text

ANCHOR = 1_780_000_000.0


@pytest.fixture(scope="module")
def movielens() -> MovieLens:
    return MovieLens.read(ANCHOR)


def test_the_made_up_items_cover_every_screen_and_outlet() -> None:
    items = newsroom_items(ANCHOR)
    assert len({item.id for item in items}) == len(items) >= 75
    assert all({"zh", "en"} <= item.title.keys() for item in items)
    assert set(Counter(item.outlet for item in items)) == {"cn", "cn.zj", "cn.zj.hz", "cn.zj.hz.ca"}
    assert {"landscape", "portrait", "audio", "text", "image"} == {f for item in items for f in item.formats}


def test_unnamed_outlets_get_names_and_existing_names_are_kept() -> None:
    names: dict[str, dict[str, str]] = {outlet: {} for outlet in {item.outlet for item in newsroom_items(ANCHOR)}}
    names["cn.zj"] = {"en": "as an editor called it"}

    def service(request: httpx.Request) -> httpx.Response:
        if request.method == "PUT":
            names[request.url.path.rpartition("/")[2]] = json.loads(request.content)["name"]
        return httpx.Response(200, json={"outlets": [{"code": code, "name": name} for code, name in names.items()]})

    with httpx.Client(base_url="http://service", transport=httpx.MockTransport(service)) as api:
        assert name_outlets(api, newsroom_names())
        assert names == newsroom_names() | {"cn.zj": {"en": "as an editor called it"}}
        assert not name_outlets(api, newsroom_names()), "a second run changes no name"
    assert all({"zh", "en"} <= name.keys() for name in newsroom_names().values())


def test_the_demo_policies_have_no_lint_findings(movielens: MovieLens) -> None:
    catalog = Catalog.of(movielens.items() + newsroom_items(ANCHOR))
    policies = [parse_policy(policy_text(outlet)) for outlet in OUTLETS]
    for depth in range(1, len(OUTLETS) + 1):
        assert lint(policies[:depth], catalog, ANCHOR) == ()


def test_films_have_several_providers_and_none_is_a_studio(movielens: MovieLens) -> None:
    """MovieLens has no providers, so the provider of a film is the shelf of its decade."""
    shelves = Counter(item.provider for item in movielens.items())
    assert len(shelves) == 12
    assert max(shelves.values()) < 0.3 * sum(shelves.values())
    film = next(item for item in movielens.items() if item.id == "film-1")
    assert (film.provider, film.published_at.year) == ("film-shelf-1990s", 1995)


def test_ratings_become_events_in_time_order(movielens: MovieLens) -> None:
    assert len(movielens) == 100_004
    assert len(movielens.viewers) == 671
    events = list(movielens.events())
    times = [event.at for event in events]
    assert times == sorted(times)
    assert times[0] >= ANCHOR - DAYS * 86_400
    assert times[-1] < ANCHOR
    assert len({event.id for event in events}) == len(events)
    assert Counter(event.kind for event in events) == {"like": 51_568, "complete": 30_602, "dislike": 17_834}
    assert {event.item_id for event in events} <= {item.id for item in movielens.items()}
    assert decode(encode(events[5])) == events[5]
