"""The work for an invalid request grows with its size at most, and the number of its findings is bounded."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.events import validation
from features.events.decode import MAX_BYTES, accept
from recsys.domain.errors import FINDINGS_MAX, EventError, PolicyError
from recsys.guidance.policy.policy import parse_policy
from serving.schemas import batch_result

JSON = {"host": "localhost", "content-type": "application/json", "transfer-encoding": "chunked"}
EVENT = {"specversion": "1.0", "id": "e", "source": "/a", "type": "mainstay.viewer.play", "subject": "v"}
FACETS = ("session_id", "percent", "rating", "items", "attention", "screen", "zzz")


def unknown(count: int) -> dict[str, int]:
    return {f"field-{n}": n for n in range(count)}


@pytest.fixture
def constructed(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """The number of findings about events that are constructed, listed or not."""
    counts, original = Counter[str](), validation.Finding

    def counted(*args: object) -> object:
        counts["findings"] += 1
        return original(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(validation, "Finding", counted)
    return counts


@pytest.mark.parametrize(
    "data",
    [
        unknown(50_000),
        {"items": [""] * 200_000},
        {"attention": [2] * 1000, "items": [""] * 1000},
        {name: {} for name in FACETS},
    ],
    ids=["unknown fields", "long list", "lists", "all fields"],
)
def test_the_findings_about_an_event_are_bounded(edge, constructed, data: Mapping[str, object]) -> None:
    answer = edge.send("POST", "/v1/events", JSON, [json.dumps([{**EVENT, "data": data}]).encode()])
    assert answer.status == 422
    assert 1 <= len(answer.json()["findings"]) <= 21
    assert constructed["findings"] <= 22, "no more are constructed than are listed"


@given(st.integers(1, 400))
def test_an_event_with_many_unknown_fields_says_how_many(count: int) -> None:
    fields = unknown(count)
    with pytest.raises(EventError) as refused:
        accept({**EVENT, "data": {"item_id": "i", **fields}}, 0.0)
    listed = [finding.where for finding in refused.value.findings]
    expected = [f"data.{name}" for name in fields][: validation.UNKNOWN_MAX]
    assert listed == [*expected, *(["data"] if count > len(expected) else [])]
    assert count <= len(expected) or f"{count} unknown fields" in refused.value.findings[-1].message


def test_a_huge_event_is_refused_by_its_size_and_does_not_affect_others(edge) -> None:
    huge = {**EVENT, "data": unknown(100_000)}
    assert len(json.dumps(huge)) > MAX_BYTES
    answer = edge.send("POST", "/v1/events", JSON, [json.dumps([huge, {**EVENT, "type": "x"}]).encode()])
    first, second = answer.json()["results"]
    assert "1,048,576 are accepted" in first["findings"][0]["message"]
    assert second["findings"][0]["where"] == "events[1].type"


@pytest.mark.parametrize("noun", ["events", "items"])
def test_the_findings_of_a_response_are_bounded_and_every_entry_has_one(edge, noun: str) -> None:
    bad = {"events": {**EVENT, "data": unknown(50)}, "items": {"labels": [""] * 90}}[noun]
    answer = edge.send("POST", f"/v1/{noun}", JSON, [json.dumps({noun: [bad] * 300}).encode()])
    assert answer.status == 422
    findings = [len(result["findings"]) for result in answer.json()["results"]]
    assert min(findings) >= 1
    assert sum(findings) <= batch_result.FINDINGS_MAX + 2 * len(findings)
    assert "there are more problems" in answer.json()["results"][-1]["findings"][-1]["message"]


def test_the_findings_about_any_other_body_are_bounded(edge) -> None:
    for method, path, _ in edge.operations():
        if method in ("POST", "PUT") and path not in ("/v1/events", "/v1/items"):
            body = json.dumps(unknown(3000)).encode()
            answer = edge.send(method, path, JSON, [body])
            assert answer.status == 422, path
            assert len(answer.json()["findings"]) <= FINDINGS_MAX + 1, path
            assert len(answer.body) < 60_000


def test_the_findings_about_a_policy_are_bounded() -> None:
    for text in (json.dumps({"outlet": "cn", **unknown(20_000)}), json.dumps({"outlet": "cn", **unknown(500)})):
        with pytest.raises(PolicyError) as refused:
            parse_policy(text)
        assert 1 <= len(refused.value.findings) <= FINDINGS_MAX + 1


def test_unknown_query_parameters_are_compared_with_known_ones_a_bounded_number_of_times(shared, monkeypatch) -> None:
    from serving.api import strict_query

    compared = Counter[str]()
    original = strict_query.did_you_mean
    monkeypatch.setattr(strict_query, "did_you_mean", lambda *args: compared.update(["x"]) or original(*args))
    answer = shared.http.get("/v1/items?" + "&".join(f"a{n}" + "=1" for n in range(3000)))
    assert answer.status_code == 422
    assert compared["x"] <= FINDINGS_MAX + 1


def test_the_path_of_a_finding_is_bounded(edge) -> None:
    body = json.dumps({"n" * 100_000: 1, "viewer_id": "v"}).encode()
    answer = edge.send("POST", "/v1/placements/cn-tv-home:recommend", JSON, [body])
    assert answer.status == 422
    assert len(answer.body) < 2000
