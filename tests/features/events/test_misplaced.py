"""Messages under another's key than their viewer's: nobody's events, and yet their viewer's to see and to erase."""

from __future__ import annotations

import json
from base64 import b64decode
from pathlib import Path

import msgspec
import pytest

from features.events.dead_letters import dead_topic, read_dead_letters
from features.events.decode import ViewerEvent, encode
from features.events.stream.memory import MemoryStream
from features.events.stream.port import Message, Record, Stream
from features.events.stream.sqlite import SqliteStream
from features.history.event_log import EventLog
from features.history.privacy import erase_viewer, export_viewer
from features.state.online.memory import MemoryStore
from recsys.domain.viewer import LANDMARK
from tests.features.worker.test_commands import END, TOPIC, folded


def all_messages(stream: Stream) -> list[Message]:
    """All messages of the topic and of its dead letters."""
    return [
        message
        for topic in (TOPIC, dead_topic(TOPIC))
        for partition in range(stream.partitions(topic))
        for message in stream.read(topic, partition, 0, 10_000)
    ]


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@pytest.mark.parametrize("old_letters", [False, True])
def test_a_message_under_anothers_key_is_its_viewers_all_the_same(tmp_path: Path, kind: str, old_letters: bool) -> None:
    """The letter that it leaves, also one of an engine that keyed letters as messages, and the message itself; what the
    same device said of somebody else stays."""
    stream: Stream = MemoryStream(2) if kind == "memory" else SqliteStream(f"{tmp_path}/stream.db", 2)
    online, log = MemoryStore(), EventLog(tmp_path / "events")
    whole, other = (
        encode(ViewerEvent(id="e", kind="like", viewer_id=viewer, at=LANDMARK, item_id="i0"))
        for viewer in ("victim", "somebody")
    )
    bad = [whole, whole[:-9], whole.replace(b'"data":{', b'"data":{{'), whole.replace(b'"mainstay.viewer', b'"x')]
    stream.publish(TOPIC, [Record("device-9", value) for value in [*bad, other]])
    stream.publish(TOPIC, [Record("somebody", other), Record("device-9", b"?")])
    with pytest.MonkeyPatch.context() as patched:
        if old_letters:
            patched.setattr("features.worker.worker.as_record", lambda one: Record(one.key, msgspec.json.encode(one)))
        folded(stream, online, log)
    exported = [json.loads(line) for line in export_viewer(log, online, "victim", stream=stream, topic=TOPIC)]
    assert [b64decode(line["dead"]["raw"]) for line in exported[1:]] == bad
    device = [json.loads(line) for line in export_viewer(log, online, "device-9", stream=stream, topic=TOPIC)]
    assert [b64decode(line["dead"]["raw"]) for line in device[1:]] == [b"?"]
    before = [one for one in all_messages(stream) if b"victim" not in b64_or_plain(one.value)]
    assert erase_viewer(log, online, "victim", END, stream=stream, topic=TOPIC, group="g").left == 0
    left = all_messages(stream)
    assert left == before
    assert sorted(one.value for one in read_dead_letters(stream, TOPIC)) == sorted([other, b"?"])
    assert len(left) == 5
    stream.close()
    assert not any(b"victim" in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())


def b64_or_plain(value: bytes) -> bytes:
    """A message's bytes, or those that a letter holds."""
    try:
        return b64decode(json.loads(value)["raw"])
    except (ValueError, KeyError, TypeError):
        return value


def test_a_message_under_anothers_key_that_a_group_needs_is_told(tmp_path: Path) -> None:
    stream, online, log = MemoryStream(1), MemoryStore(), EventLog(tmp_path)
    event = encode(ViewerEvent(id="e", kind="like", viewer_id="victim", at=LANDMARK, item_id="i0"))
    slow = stream.consumer(TOPIC, "slow")
    slow.commit({0: -1})
    stream.publish(TOPIC, [Record("device-9", event)])
    folded(stream, online, log)
    assert erase_viewer(log, online, "victim", END, stream=stream, topic=TOPIC, group="g").left == 1
    assert len(all_messages(stream)) == 1


def test_what_an_erased_viewer_sent_before_leaves_no_letter_when_its_turn_comes(tmp_path: Path) -> None:
    stream, online, log = MemoryStream(1), MemoryStore(), EventLog(tmp_path)
    early, late = (
        encode(ViewerEvent(id="e", kind="like", viewer_id="victim", at=at, item_id="i0")) for at in (LANDMARK, END + 9)
    )
    ancient = early.replace(b'"receivedat":"2026', b'"receivedat":"1926').replace(b"victim", b"nobody")
    stream.publish(TOPIC, [Record("device-9", one) for one in (early, early[:-9], late, b"?", ancient)])
    erase_viewer(log, online, "victim", END, stream=stream, topic=TOPIC, group="g")
    folded(stream, online, log)
    assert [one.value for one in read_dead_letters(stream, TOPIC)] == [late, b"?", ancient]
