"""Takes batches of viewer events and of items: a verdict for each, by index; one bad entry never costs a good one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from features.catalogue import parse_item
from features.events import TOKEN, ViewerEvent, accept, encode
from features.stream import Record, Stream
from recsys.catalog import Item
from recsys.errors import EventError, Finding, InvalidInput, ItemError
from serving.control import ControlPlane
from serving.metrics import Metrics
from serving.problems import Place, TooLarge
from serving.schemas import VERDICTS_MAX, BatchAnswer, Verdict
from serving.tokens import Tokens


@dataclass(frozen=True)
class Ingest:
    """The door for everything that comes from outside."""

    stream: Stream
    topic: str
    control: ControlPlane
    tokens: Tokens
    metrics: Metrics
    clock: Callable[[], float]

    def events(self, body: object) -> BatchAnswer:
        """Check and publish; raises InvalidInput when the body is no batch, Unavailable when the stream refuses."""
        batch, now = _batch(body, "events"), self.clock()
        verdicts, records = [], []
        for index, raw in enumerate(batch):
            try:
                event = self._event(raw, now)
                records.append(Record(event.viewer_id, encode(event)))
                verdicts.append(Verdict(index=index, id=event.id, status="accepted"))
            except EventError as error:
                verdicts.append(_refused(index, raw, error, f"events[{index}]"))
        if records:
            self.stream.publish(self.topic, records)
        return self._answer(verdicts, self.metrics.events)

    def items(self, body: object, by: str) -> BatchAnswer:
        """Check and store; raises InvalidInput when the body is no batch, Unavailable when the control plane is."""
        batch = _batch(body, "items")
        verdicts: list[Verdict] = []
        good: list[tuple[int, Item]] = []
        for index, raw in enumerate(batch):
            try:
                good.append((index, parse_item(raw, f"items[{index}]")))
                verdicts.append(Verdict(index=index, id=good[-1][1].id, status="accepted"))
            except ItemError as error:
                verdicts.append(_refused(index, raw, error))
        if good:
            changes = self.control.upsert_items([item for _, item in good], by)
            for (index, _), change in zip(good, changes, strict=True):
                verdicts[index].change = change
        return self._answer(verdicts, self.metrics.items)

    def _event(self, raw: object, now: float) -> ViewerEvent:
        """One event, tied to its page by the token it carries, if any. Raises EventError."""
        token = raw.get(TOKEN) if isinstance(raw, Mapping) else None
        event = accept(raw, now)
        if token is None:
            return event
        if not isinstance(token, str):
            raise EventError("unreadable event", [Finding(TOKEN, "expected text")])
        page = self.tokens.read_attribution(token, viewer_id=event.viewer_id, now=now)
        if event.request_id not in ("", page.request_id):
            raise EventError("unreadable event", [Finding("data.request_id", f"the {TOKEN} is of another page")])
        return replace(event, request_id=page.request_id, placement=page.placement)

    @staticmethod
    def _answer(verdicts: list[Verdict], counter: Any) -> BatchAnswer:
        accepted = sum(verdict.status == "accepted" for verdict in verdicts)
        refused = len(verdicts) - accepted
        counter.labels("accepted").inc(accepted)
        counter.labels("refused").inc(refused)
        return BatchAnswer(accepted=accepted, refused=refused, verdicts=verdicts)


def _batch(body: object, name: str) -> Sequence[object]:
    """The list itself, or the list under its name. Raises InvalidInput, TooLarge."""
    batch = body.get(name) if isinstance(body, dict) else body
    if not isinstance(batch, list):
        raise InvalidInput("no batch", [Finding("body", f'expected a list of {name}, or {{"{name}": [...]}}')])
    if len(batch) > VERDICTS_MAX:
        raise TooLarge(f"{len(batch):,} {name} in one request; at most {VERDICTS_MAX:,} are taken")
    return batch


def _refused(index: int, raw: object, error: InvalidInput, at: str = "") -> Verdict:
    """The verdict on a bad entry; each finding's place begins with the entry's (`at`, unless it has it already)."""
    said = raw.get("id") if isinstance(raw, dict) else None
    findings = error.findings or (Finding("", error.message),)
    places = [Place(where=".".join(filter(None, (at, f.where))), message=f.message) for f in findings]
    return Verdict(index=index, id=said if isinstance(said, str) else None, status="refused", findings=places)
