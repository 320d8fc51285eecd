"""Consumers of the change feed see the latest state of everything, even if the publisher crashes between two steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.control.connect import open_control
from features.events.change_feed import Change, changes_topic, decode_change, item_change, to_record
from features.events.stream.memory import MemoryStream
from features.events.stream.port import Record
from recsys.domain.errors import EventError, Unavailable
from recsys.domain.item import Item
from serving import change_publisher as module
from serving.change_publisher import ChangePublisher
from tests.conftest import scaled

AT = 1_800_000_000.0
KEY = b"key of the audit trail"


def item(id_: str, title: str = "t", status: str = "published") -> Item:
    fields = {
        "id": id_,
        "title": {"en": title},
        "outlet": "cn",
        "published_at": "2026-01-01T00:00:00Z",
        "status": status,
    }
    return Item.model_validate(fields)


class FailingStream(MemoryStream):
    """A stream that can fail after it has stored half of a batch."""

    failing = False

    def publish(self, topic: str, records: Sequence[Record]) -> Mapping[int, int]:
        if self.failing:
            super().publish(topic, records[: len(records) // 2])
            raise Unavailable("gone")
        return super().publish(topic, records)


def published(stream: MemoryStream) -> list[Change]:
    topic = changes_topic("t")
    return [decode_change(m.value) for p in range(stream.partitions(topic)) for m in stream.read(topic, p, 0, 10_000)]


def newest(stream: MemoryStream) -> dict[str, Change]:
    """Return the latest change of each subject, as a consumer stores it."""
    latest: dict[str, Change] = {}
    for change in published(stream):
        if change.subject not in latest or latest[change.subject].revision <= change.revision:
            latest[change.subject] = change
    return latest


STEPS = st.one_of(
    st.tuples(st.just("item"), st.sampled_from("abcdefgh"), st.sampled_from("xyz"), st.booleans()),
    st.sampled_from(["policy", "step", "fail", "crash"]),
)


@settings(max_examples=scaled(500, minimum=8), deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(STEPS, max_size=25))
def test_a_consumer_has_the_latest_state_of_everything(
    tmp_path_factory: pytest.TempPathFactory, steps: list[object]
) -> None:
    home = tmp_path_factory.mktemp("home")
    control, stream = open_control(f"sqlite:///{home}/control.db", KEY, lambda: AT), FailingStream(2)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "BATCH_SIZE", 3)
        outbox = ChangePublisher(control, stream, "t", home / "changes", lambda: AT)
        versions = 0
        for step in steps:
            if isinstance(step, tuple):
                _, id_, title, withdrawn = step
                control.upsert_items([item(id_, title, "withdrawn" if withdrawn else "published")], "t")
            elif step == "policy":
                control.draft("cn", f"outlet: cn # {versions}", "t", "", versions)
                versions += 1
                control.publish("cn", versions, "t")
            elif step == "crash":
                outbox.close()
                outbox = ChangePublisher(control, stream, "t", home / "changes", lambda: AT)
            else:
                stream.failing = step == "fail"
                with suppress(Unavailable):
                    outbox.step()
        stream.failing = False
        outbox.step()
        assert outbox.step() == 0
        latest = newest(stream)
        stored = {entry.item.id: entry for entry in control.items_since(0)}
        assert {subject: change for subject, change in latest.items() if subject != "cn"} == {
            id_: item_change(entry.item, entry.revision) for id_, entry in stored.items()
        }
        if versions:
            assert latest["cn"].data == {"version": versions, "text": f"outlet: cn # {versions - 1}", "author": "t"}
        ids = [m.value for p in range(2) for m in stream.read(changes_topic("t"), p, 0, 10_000)]
        if "fail" not in steps:
            assert len(ids) == len(set(ids)), "each change must be published once"
        outbox.close()
    control.close()


def test_a_change_during_a_read_is_published_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    control, stream = open_control(f"sqlite:///{tmp_path}/control.db", KEY, lambda: AT), MemoryStream(1)
    read = control.items_since

    def read_after_write(*args: int) -> object:
        control.upsert_items([item("concurrent")], "t")
        return read(*args)

    control.upsert_items([item("a")], "t")
    monkeypatch.setattr(control, "items_since", read_after_write)
    outbox = ChangePublisher(control, stream, "t", tmp_path / "changes", lambda: AT)
    outbox.step()
    assert [change.subject for change in published(stream)] == ["a", "concurrent"]
    outbox.close()
    control.close()


def test_only_one_of_two_processes_of_a_home_publishes(tmp_path: Path) -> None:
    control, stream = open_control(f"sqlite:///{tmp_path}/control.db", KEY, lambda: AT), MemoryStream(2)
    first, second = (ChangePublisher(control, stream, "t", tmp_path / "changes", lambda: AT) for _ in range(2))
    control.upsert_items([item("a")], "t")
    assert (first.step(), second.step()) == (1, 0)
    first.close()
    control.upsert_items([item("b")], "t")
    assert second.step() == 1
    assert sorted(change.subject for change in published(stream)) == ["a", "b"]
    second.close()
    control.close()


def test_a_service_publishes_changes_if_configured(serve, until, item) -> None:
    with serve({"changes": "true"}) as service:
        service.stock(5)
        service.http.post("/v1/items", json=[item(1, status="withdrawn")]).raise_for_status()
        topic, stream = changes_topic(service.services.settings.topic), service.services.stream

        def kinds() -> list[str]:
            changes = [decode_change(m.value) for p in range(4) for m in stream.read(topic, p, 0, 100)]
            return sorted(f"{change.subject} {change.kind}" for change in changes)

        until(lambda: "item-1 retracted" in kinds())
        assert {"cn published", "item-0 upserted"} <= set(kinds())


CUT = to_record(item_change(item("a"), 1), AT).value[:-9]


@pytest.mark.parametrize("raw", [b"", b"{}", b"[]", b'{"type": "x"}', CUT])
def test_an_invalid_change_is_rejected(raw: bytes) -> None:
    with pytest.raises(EventError, match="not a change event"):
        decode_change(raw)
