"""The outbox of the control plane: who follows it sees the last form of everything, whatever dies between two steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.control.connect import open_control
from features.events.change_feed import Change, changes_topic, decode_change, item_change
from features.events.change_feed import to_record as told_as
from features.events.stream.memory import MemoryStream
from features.events.stream.port import Record
from recsys.domain.errors import EventError, Unavailable
from recsys.domain.item import Item
from serving import change_publisher as module
from serving.change_publisher import ChangePublisher
from tests.conftest import scaled

AT = 1_800_000_000.0


def item(id_: str, title: str = "t", status: str = "published") -> Item:
    said = {"id": id_, "title": {"en": title}, "outlet": "cn", "published_at": "2026-01-01T00:00Z", "status": status}
    return Item.model_validate(said)


class Fragile(MemoryStream):
    """Takes a batch, or a part of it and then fails."""

    failing = False

    def publish(self, topic: str, records: Sequence[Record]) -> Mapping[int, int]:
        if self.failing:
            super().publish(topic, records[: len(records) // 2])
            raise Unavailable("gone")
        return super().publish(topic, records)


def told(stream: MemoryStream) -> list[Change]:
    topic = changes_topic("t")
    return [decode_change(m.value) for p in range(stream.partitions(topic)) for m in stream.read(topic, p, 0, 10_000)]


def newest(stream: MemoryStream) -> dict[str, Change]:
    """As a follower keeps them."""
    kept: dict[str, Change] = {}
    for change in told(stream):
        if change.subject not in kept or kept[change.subject].revision <= change.revision:
            kept[change.subject] = change
    return kept


STEPS = st.one_of(
    st.tuples(st.just("item"), st.sampled_from("abcdefgh"), st.sampled_from("xyz"), st.booleans()),
    st.sampled_from(["policy", "step", "fail", "crash"]),
)


@settings(max_examples=scaled(500, minimum=8), deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(STEPS, max_size=25))
def test_a_follower_has_the_last_form_of_everything(
    tmp_path_factory: pytest.TempPathFactory, steps: list[object]
) -> None:
    home = tmp_path_factory.mktemp("home")
    control, stream = open_control(f"sqlite:///{home}/control.db", lambda: AT), Fragile(2)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "AT_ONCE", 3)
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
        kept = newest(stream)
        stored = {one.item.id: one for one in control.items_since(0)}
        assert {k: c for k, c in kept.items() if k != "cn"} == {
            id_: item_change(one.item, one.revision) for id_, one in stored.items()
        }
        if versions:
            assert kept["cn"].data == {"version": versions, "text": f"outlet: cn # {versions - 1}", "author": "t"}
        ids = [m.value for p in range(2) for m in stream.read(changes_topic("t"), p, 0, 10_000)]
        if "fail" not in steps:
            assert len(ids) == len(set(ids)), "told once"
        outbox.close()
    control.close()


def test_what_changes_while_changes_are_read_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    control, stream = open_control(f"sqlite:///{tmp_path}/control.db", lambda: AT), MemoryStream(1)
    read = control.items_since

    def late(*said: int) -> object:
        control.upsert_items([item("late")], "t")
        return read(*said)

    control.upsert_items([item("a")], "t")
    monkeypatch.setattr(control, "items_since", late)
    outbox = ChangePublisher(control, stream, "t", tmp_path / "changes", lambda: AT)
    outbox.step()
    assert [change.subject for change in told(stream)] == ["a", "late"]
    outbox.close()
    control.close()


def test_of_two_processes_of_one_home_one_tells(tmp_path: Path) -> None:
    control, stream = open_control(f"sqlite:///{tmp_path}/control.db", lambda: AT), MemoryStream(2)
    first, second = (ChangePublisher(control, stream, "t", tmp_path / "changes", lambda: AT) for _ in range(2))
    control.upsert_items([item("a")], "t")
    assert (first.step(), second.step()) == (1, 0)
    first.close()
    control.upsert_items([item("b")], "t")
    assert second.step() == 1
    assert sorted(change.subject for change in told(stream)) == ["a", "b"]
    second.close()
    control.close()


def test_a_service_tells_changes_when_it_is_asked_to(serve, until, item) -> None:
    with serve({"changes": "true"}) as service:
        service.stock(5)
        service.http.post("/v1/items", json=[item(1, status="withdrawn")]).raise_for_status()
        topic, stream = changes_topic(service.services.settings.topic), service.services.stream

        def kinds() -> list[str]:
            found = [decode_change(m.value) for p in range(4) for m in stream.read(topic, p, 0, 100)]
            return sorted(f"{change.subject} {change.kind}" for change in found)

        until(lambda: "item-1 retracted" in kinds())
        assert {"cn published", "item-0 upserted"} <= set(kinds())


CUT = told_as(item_change(item("a"), 1), AT).value[:-9]


@pytest.mark.parametrize("raw", [b"", b"{}", b"[]", b'{"type": "x"}', CUT])
def test_what_is_no_change_is_refused(raw: bytes) -> None:
    with pytest.raises(EventError, match="no change"):
        decode_change(raw)
