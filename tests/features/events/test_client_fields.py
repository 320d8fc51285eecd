"""Clients may write null for what they leave out, any spelling of the content type, and ids in any normal form."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.events.decode import accept, accept_json, decode, encode
from features.events.formats.registry import FORMATS, unwrap_batch
from features.events.schema import ViewerEvent
from features.events.validation import validate
from recsys.domain.errors import EventError

NOW = 1_767_225_600.0
SENT: dict[str, Any] = {
    "specversion": "1.0",
    "id": "e1",
    "source": "/apps/tv",
    "type": "mainstay.viewer.play",
    "subject": "v1",
    "data": {"item_id": "film-3", "position_s": 12},
}
OPTIONAL = ["time", "dataschema", "datacontenttype", "attributiontoken", "traceparent", "partitionkey"]
DATA = [name for name in ViewerEvent.__struct_fields__ if name not in ("id", "kind", "viewer_id", "at", "client_at")]
CONTENT_TYPES = st.tuples(
    st.sampled_from(["application/json", "Application/JSON", " application/json "]),
    st.sampled_from(["", "; charset=utf-8", ";charset=UTF-8", '; charset="utf-8"; profile=x']),
).map("".join)


def both(sent: object) -> ViewerEvent:
    """Accept an event as a parsed value and as JSON text, which must agree."""
    event = accept(sent, NOW)
    assert accept_json(json.dumps(sent).encode(), NOW).event == event
    return event


@given(st.sets(st.sampled_from(OPTIONAL)), st.sets(st.sampled_from(DATA)), st.none() | CONTENT_TYPES)
def test_null_means_unset_and_a_content_type_may_have_parameters(
    attributes: set[str], fields: set[str], content_type: str | None
) -> None:
    sent = {**dict.fromkeys(attributes), **SENT, "data": {**dict.fromkeys(fields), **SENT["data"]}}
    assert both({**sent, "datacontenttype": content_type}) == both(SENT)


@pytest.mark.parametrize("name", ["id", "source", "type", "subject", "specversion"])
def test_a_required_attribute_that_is_null_is_missing(name: str) -> None:
    with pytest.raises(EventError) as caught:
        accept({**SENT, name: None}, NOW)
    assert [(f.where, "is missing" in f.message) for f in caught.value.findings] == [(name, True)]


@pytest.mark.parametrize("odd", ["text/json", "application/jsonx", "application/xml; charset=utf-8", "", 5])
def test_another_content_type_is_refused(odd: object) -> None:
    with pytest.raises(EventError) as caught:
        accept({**SENT, "datacontenttype": odd}, NOW)
    assert [f.where for f in caught.value.findings] == ["datacontenttype"]


@given(st.text("aé\u0301가\u1100\u1161\u200b\u3164\ufe0f.", min_size=1, max_size=4), st.sampled_from(["NFC", "NFD"]))
def test_an_accepted_id_is_visible_and_in_normal_form(text: str, form: str) -> None:
    sent_id = unicodedata.normalize(form, text)  # type: ignore[arg-type]
    sent = {**SENT, "subject": sent_id, "data": {"item_id": sent_id, "session_id": sent_id}}
    is_plain = not set("\u200b\u3164\ufe0f") & set(text) and text not in (".", "..")
    if not is_plain:
        with pytest.raises(EventError) as caught:
            both(sent)
        assert {f.where for f in caught.value.findings} <= {"subject", "data.item_id", "data.session_id"}
        return
    event = both(sent)
    assert {event.viewer_id, event.item_id, event.session_id} == {unicodedata.normalize("NFC", text)}
    assert decode(encode(event)) == event


def test_events_of_an_older_version_in_the_stream_are_read_unchanged() -> None:
    old = validate({**SENT, "subject": "cafe\u0301\u200b"}, NOW)
    assert decode(encode(old)).viewer_id == "cafe\u0301\u200b"


ACTIVITY = {"type": "Like", "id": "a", "actor": "v1", "object": "film-3"}
CALL = {"type": "track", "event": "Video Content Started", "messageId": "m", "userId": "v1"}
ENTRIES = [
    *(("activitystreams", name, ACTIVITY) for name in ("events", "items", "orderedItems")),
    *(("segment", name, {**CALL, "properties": {"asset_id": "film-3"}}) for name in ("events", "batch")),
]


@pytest.mark.parametrize(("format_name", "name", "entry"), ENTRIES)
def test_a_list_of_one_entry_may_be_written_as_the_entry(format_name: str, name: str, entry: dict[str, Any]) -> None:
    assert unwrap_batch(format_name, {name: entry}) == unwrap_batch(format_name, {name: [entry]}) == [entry]
    assert unwrap_batch(format_name, {**entry, name: None}) == [{**entry, name: None}]


@pytest.mark.parametrize("target", ["film-3", {"id": "film-3"}, {"id": "c", "inReplyTo": "film-3"}])
def test_a_list_of_one_property_is_the_property(target: object) -> None:
    activity = {**ACTIVITY, "type": "Create" if isinstance(target, dict) and "inReplyTo" in target else "Like"}
    convert = FORMATS["activitystreams"]
    assert convert({**activity, "object": [target], "actor": ["v1"]}) == convert({**activity, "object": target})


def test_null_in_other_formats_means_unset() -> None:
    assert FORMATS["segment"]({**CALL, "type": None, "properties": None, "context": None}) == FORMATS["segment"](CALL)
    nulls = {**ACTIVITY, "published": None, "startTime": None}
    assert FORMATS["activitystreams"](nulls) == FORMATS["activitystreams"](ACTIVITY)
