"""Refused events: a finding names each faulty field as the client wrote it and says what the schema expects."""

from __future__ import annotations

import json
from typing import Any

import pytest

from features.events.decode import KINDS, accept, accept_json
from recsys.domain.errors import EventError

NOW = 1_767_225_600.0
SENT: dict[str, Any] = {
    "specversion": "1.0",
    "id": "e1",
    "source": "/apps/tv",
    "type": "mainstay.viewer.play",
    "subject": "v1",
    "time": "2026-01-01T08:00:00.5+08:00",
    "data": {"item_id": "film-3", "screen": "tv", "position_s": 12},
}


def sent(**changes: Any) -> dict[str, Any]:
    data = {**SENT["data"], **changes.pop("data", {})}
    return {**SENT, "data": data, **changes}


@pytest.mark.parametrize(
    ("raw", "where"),
    [
        (sent(specversion="0.3"), "specversion"),
        (sent(id=None), "id"),
        (sent(id="two words"), "id"),
        (sent(id="x" * 201), "id"),
        (sent(source=""), "source"),
        (sent(subject=7), "subject"),
        (sent(type="mainstay.viewer.teleport"), "type"),
        (sent(type="mainstay.viewer.kind"), "type"),
        (sent(type=["mainstay.viewer.play"]), "type"),
        (sent(type="com.example.play"), "type"),
        (sent(time="yesterday"), "time"),
        (sent(time=NOW), "time"),
        (sent(time="2026-02-30T00:00:00Z"), "time"),
        (sent(time="2026-02-30T00:00:00"), "time"),
        (sent(time="0000-01-01T00:00:00Z"), "time"),
        (sent(dataschema="urn:mainstay:viewer-event:99"), "dataschema"),
        (sent(datacontenttype="text/xml"), "datacontenttype"),
        ({**SENT, "data": [1]}, "data"),
        ({**SENT, "data": {}}, "data.item_id"),
        (sent(data={"item_id": 3}), "data.item_id"),
        (sent(data={"item_id": "\ud800"}), "data.item_id"),
        (sent(data={"postion_s": 3}), "data.postion_s"),
        (sent(data={"position_s": "3"}), "data.position_s"),
        (sent(data={"position_s": True}), "data.position_s"),
        (sent(data={"position_s": float("nan")}), "data.position_s"),
        (sent(data={"position_s": float("inf")}), "data.position_s"),
        (sent(data={"position_s": -1}), "data.position_s"),
        (sent(data={"percent": 100.5}), "data.percent"),
        (sent(data={"slot": 0}), "data.slot"),
        (sent(data={"slot": 1.5}), "data.slot"),
        (sent(data={"slot": 10**400}), "data.slot"),
        (sent(data={"screen": "fridge"}), "data.screen"),
        (sent(data={"region": "CN.ZJ"}), "data.region"),
        (sent(data={"region": "cn\n"}), "data.region"),
        (sent(data={"placement": "cn-fridge-home"}), "data.placement"),
        (sent(data={"items": ["a"]}), "data.items"),
        (sent(data={"viewer_id": "v2"}), "data.viewer_id"),
        (sent(type="mainstay.viewer.ping", data={"position_s": None}), "data.position_s"),
        (sent(type="mainstay.viewer.seek", data={"position_s": None}), "data.position_s"),
        (sent(type="mainstay.viewer.survey", data={"rating": 1.5, "position_s": None}), "data.rating"),
        (sent(type="mainstay.viewer.survey", data={"percent": 80}), "data.percent"),
        (sent(type="mainstay.viewer.survey"), "data.rating"),
        (sent(data={"rating": 0.5}), "data.rating"),
        (sent(type="mainstay.viewer.impression"), "data.items"),
        (sent(type="mainstay.viewer.impression", data={"items": ["a", "a"]}), "data.items"),
        (sent(type="mainstay.viewer.impression", data={"items": ["a", "b"], "attention": [1.0]}), "data.attention"),
        (sent(type="mainstay.viewer.impression", data={"items": ["a"], "attention": [2.0]}), "data.attention.0"),
        (sent(type="mainstay.viewer.impression", data={"items": ["a"], "context": {"rung": "x"}}), "data.context"),
    ],
)  # fmt: skip
def test_a_bad_field_is_named_as_the_client_wrote_it(raw: dict[str, Any], where: str) -> None:
    with pytest.raises(EventError) as caught:
        accept(raw, NOW)
    assert [finding.where for finding in caught.value.findings] == [where]


@pytest.mark.parametrize("odd", ["\x00gone", "a\x1fb", "a\x7f", "\x80", "a\x9fb", "a\ud800"])
def test_what_nobody_sees_is_in_no_name(odd: str) -> None:
    """Control characters and halves of characters."""
    fields = {"id": sent(id=odd), "subject": sent(subject=odd)}
    fields |= {f"data.{name}": sent(data={name: odd}) for name in ("item_id", "session_id", "device_id", "request_id")}
    page = {"item_id": None, "position_s": None, "items": ["a", odd]}
    fields["data.items.1"] = sent(type="mainstay.viewer.impression", data=page)
    for where, raw in fields.items():
        for read in (lambda raw=raw: accept(raw, NOW), lambda raw=raw: accept_json(json.dumps(raw).encode(), NOW)):  # type: ignore[misc]
            with pytest.raises(EventError) as caught:
                read()
            text = [(finding.where, finding.message) for finding in caught.value.findings]
            if odd != "a\ud800":
                assert text == [(where, "must not contain spaces or control characters")]
            elif text:  # as text it is no JSON
                assert [path for path, _ in text] == [where]


def test_every_bad_field_is_named_at_once() -> None:
    with pytest.raises(EventError) as caught:
        accept(sent(id="", data={"slot": -1, "percent": 200, "x": 1}), NOW)
    assert {finding.where for finding in caught.value.findings} == {"id", "data.slot", "data.percent", "data.x"}


@pytest.mark.parametrize(
    ("raw", "findings"),
    [
        (
            {"specversion": "0.3", "type": "play", "data": {"id": "e1", "screen": "fridge", "placement": "cn"}},
            {
                "specversion": "unknown specversion '0.3'; expected \"1.0\" (CloudEvents)",
                "id": "is missing; expected a text of 1 to 200 characters",
                "source": "is missing; expected the sender, as a URI such as /apps/tv",
                "type": f"unknown kind 'play'; expected mainstay.viewer.KIND, with KIND one of {', '.join(KINDS)}",
                "subject": "is missing; expected a text of 1 to 200 characters",
                "data.id": "belongs in the envelope, as id",
                "data.screen": "unknown screen 'fridge'; expected one of tv, mobile, tablet, web, car, audio, outdoor",
                "data.placement": "expected OUTLET-SCREEN-SURFACE, such as cn.zj-tv-home",
            },
        ),
        (
            sent(
                time="noon",
                type="mainstay.viewer.impression",
                data={
                    "items": ["a", "", "b c", 4],
                    "attention": [-1, 0.5, True],
                    "region": "CN",
                    "slot": 0.5,
                    "percent": "3",
                    "position_s": 1e9,
                    "device_id": 7,
                    "context": [],
                },
            ),
            {
                "time": "'noon' is not an RFC 3339 time",
                "data.items.1": "expected a text of 1 to 200 characters",
                "data.items.2": "must not contain spaces or control characters",
                "data.items.3": "expected a text of 1 to 200 characters",
                "data.attention.0": "expected a number from 0 to 1",
                "data.attention.2": "expected a number from 0 to 1",
                "data.region": "must be lower-case letters and digits in at most eight levels separated by dots, "
                "such as cn.zj.hz",
                "data.slot": "expected a whole number from 1 to 10,000",
                "data.percent": "expected a number from 0 to 100",
                "data.position_s": "expected a number from 0 to less than 10,000,000",
                "data.device_id": "expected a text of at most 200 characters",
                "data.context": "expected an object",
            },
        ),
        (sent(data={"items": ["a"] * 1001}), {"data.items": "expected a list of at most 1,000"}),
        (sent(data={"items": "a"}), {"data.items": "expected a list of at most 1,000"}),
    ],
)
def test_findings_say_what_the_schema_expects(raw: dict[str, Any], findings: dict[str, str]) -> None:
    with pytest.raises(EventError) as caught:
        accept(raw, NOW)
    assert {finding.where: finding.message for finding in caught.value.findings} == findings
    assert len(caught.value.findings) == len(findings)


def test_numbers_of_any_length_are_refused_by_name() -> None:
    for digits in (500, 4000, 5000):
        for field in ("slot", "percent", "screen", "item_id"):
            raw = json.dumps(sent(data={field: None})).replace(f'"{field}": null', f'"{field}": {"9" * digits}')
            with pytest.raises(EventError) as caught:
                accept_json(raw.encode(), NOW)
            assert {finding.where for finding in caught.value.findings} <= {f"data.{field}"}
