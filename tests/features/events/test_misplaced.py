"""Messages whose key is not the viewer they name: they are not folded, but exported and erased with that viewer."""

from __future__ import annotations

import json
from base64 import b64decode
from pathlib import Path

import msgspec
import pytest

from features.events.dead_letters import dead_topic, read_dead_letters
from features.events.decode import encode
from features.events.schema import ViewerEvent
from features.events.stream.memory import MemoryStream
from features.events.stream.port import Message, Record, Stream
from features.events.stream.sqlite import SqliteStream
from features.history.event_log import EventLog
from features.history.privacy import erase_viewer, export_viewer
from features.state.online.memory import MemoryStore
from recsys.domain.decay import LANDMARK
from tests.features.worker.runs import END, TOPIC, folded


def all_messages(stream: Stream) -> list[Message]:
    """Return all messages of the topic and of its dead-letter topic."""
    return [
        message
        for topic in (TOPIC, dead_topic(TOPIC))
        for partition in range(stream.partitions(topic))
        for message in stream.read(topic, partition, 0, 10_000)
    ]


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@pytest.mark.parametrize("old_letters", [False, True])
def test_messages_with_a_wrong_key_belong_to_the_viewer_they_name(tmp_path: Path, kind: str, old_letters: bool) -> None:
    """Export and erasure cover the dead letters, including those of engines that kept the message's key, and the
    messages themselves. Messages of the same device about other viewers stay.
    """
    stream: Stream = MemoryStream(2) if kind == "memory" else SqliteStream(f"{tmp_path}/stream.db", 2)
    online, log = MemoryStore(), EventLog(tmp_path / "events")
    event, other_event = (
        encode(ViewerEvent(id="e", kind="like", viewer_id=viewer, at=LANDMARK, item_id="i0"))
        for viewer in ("erased-viewer", "other-viewer")
    )
    bad = [event, event[:-9], event.replace(b'"data":{', b'"data":{{'), event.replace(b'"mainstay.viewer', b'"x')]
    stream.publish(TOPIC, [Record("device-9", value) for value in [*bad, other_event]])
    stream.publish(TOPIC, [Record("other-viewer", other_event), Record("device-9", b"?")])
    with pytest.MonkeyPatch.context() as patched:
        if old_letters:
            patched.setattr(
                "features.worker.worker.as_record", lambda message: Record(message.key, msgspec.json.encode(message))
            )
        folded(stream, online, log)
    exported = [json.loads(line) for line in export_viewer(log, online, "erased-viewer", stream=stream, topic=TOPIC)]
    assert [b64decode(line["dead_letter"]["raw"]) for line in exported[1:]] == bad
    device = [json.loads(line) for line in export_viewer(log, online, "device-9", stream=stream, topic=TOPIC)]
    assert [b64decode(line["dead_letter"]["raw"]) for line in device[1:]] == [b"?"]
    expected = [message for message in all_messages(stream) if b"erased-viewer" not in b64_or_plain(message.value)]
    assert erase_viewer(log, online, "erased-viewer", END, stream=stream, topic=TOPIC, group="g").messages_left == 0
    remaining = all_messages(stream)
    assert remaining == expected
    assert sorted(message.value for message in read_dead_letters(stream, TOPIC)) == sorted([other_event, b"?"])
    assert len(remaining) == 5
    stream.close()
    assert not any(b"erased-viewer" in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())


def b64_or_plain(value: bytes) -> bytes:
    """Return a message's bytes, or the bytes inside a dead letter."""
    try:
        return b64decode(json.loads(value)["raw"])
    except (ValueError, KeyError, TypeError):
        return value


def test_erasure_reports_messages_that_a_group_still_needs(tmp_path: Path) -> None:
    stream, online, log = MemoryStream(1), MemoryStore(), EventLog(tmp_path)
    event = encode(ViewerEvent(id="e", kind="like", viewer_id="erased-viewer", at=LANDMARK, item_id="i0"))
    slow = stream.consumer(TOPIC, "slow")
    slow.commit({0: -1})
    stream.publish(TOPIC, [Record("device-9", event)])
    folded(stream, online, log)
    assert erase_viewer(log, online, "erased-viewer", END, stream=stream, topic=TOPIC, group="g").messages_left == 1
    assert len(all_messages(stream)) == 1


def test_unread_messages_of_an_erased_viewer_create_no_dead_letters(tmp_path: Path) -> None:
    stream, online, log = MemoryStream(1), MemoryStore(), EventLog(tmp_path)
    early, after = (
        encode(ViewerEvent(id="e", kind="like", viewer_id="erased-viewer", at=at, item_id="i0"))
        for at in (LANDMARK, END + 9)
    )
    wrong_viewer = early.replace(b'"receivedat":"2026', b'"receivedat":"1926').replace(b"erased-viewer", b"nobody")
    stream.publish(TOPIC, [Record("device-9", value) for value in (early, early[:-9], after, b"?", wrong_viewer)])
    erase_viewer(log, online, "erased-viewer", END, stream=stream, topic=TOPIC, group="g")
    folded(stream, online, log)
    assert [value.value for value in read_dead_letters(stream, TOPIC)] == [after, b"?", wrong_viewer]
