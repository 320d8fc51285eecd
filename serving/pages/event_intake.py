"""Takes batches of viewer events and of items: a result for each, by index; one bad entry never costs a good one."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace
from pydantic_core import from_json

from features.control.plane import ControlPlane
from features.events.decode import TOKEN, accept, accept_json, encode
from features.events.formats.registry import FORMATS, unwrap_batch, with_sender_fields
from features.events.schema import ViewerEvent, clock_skew_reason
from features.events.spool.port import Spool
from features.events.stream.port import Record
from features.importers.catalogue import parse_item
from recsys.domain.errors import EventError, Finding, InvalidInput, ItemError, Level
from recsys.domain.item import Item
from recsys.messages import message
from serving.prometheus import Metrics
from serving.schemas.batch_result import MAX_BATCH, BatchResult, ItemResult, refusal
from serving.schemas.problems import FindingOut, NotJson, TooLarge
from serving.schemas.tokens import Tokens

NO_SUCH_ITEM = "the catalogue has no such item yet: the event is kept, and moves pages only once the item is put in"

NO_SUCH_TIME = "before 1970 or without a time zone: left out, the event counts at the time at which it came"


class Accepted(NamedTuple):
    """A result for each event, and when the taken ones are durable: nobody is answered before that."""

    result: BatchResult
    durable: Future[None] | None  # None when there is nothing to wait for; fails with Unavailable


@dataclass(frozen=True)
class EventIntake:
    """The door for everything that comes from outside."""

    spool: Spool
    control: ControlPlane
    tokens: Tokens
    metrics: Metrics
    clock: Callable[[], float]
    has_item: Callable[[], Container[str]] = (
        lambda: ()
    )  # ids of the catalogue; nothing is said of items while it is empty

    def events(self, body: bytes, form: str | None = None) -> Accepted:
        """Check a batch and hand it to the spool. `form`: one of FORMS, None for CloudEvents.

        Raises NotJson, InvalidInput when the body is no batch, TooLarge.
        """
        now, known = self.clock(), self.has_item()
        batch: Sequence[object] = _texts(body) if form is None else _batch(unwrap_batch(form, _parsed(body)), "events")
        results, records = [], []
        for index, raw in enumerate(batch):
            try:
                event, sent_id = self._event(raw, form, now)
                records.append(Record(event.viewer_id, encode(event, checked=True)))
            except EventError as error:
                results.append(refusal(index, _id_of(raw), error, f"events[{index}]"))
                continue
            result = ItemResult(index, sent_id, "accepted")
            if event.client_at is not None and (why := clock_skew_reason(event)):
                result.status = "quarantined"
                result.findings = [_finding(index, "time", why, "warning")]
            elif known and event.item_id is not None and event.item_id not in known:
                self.metrics.unknown_items.inc()
                result.findings = [_finding(index, "data.item_id", NO_SUCH_ITEM, "hint")]
            if event.client_at is None and _says_when(raw, form):
                result.findings = [*result.findings, _finding(index, "time", NO_SUCH_TIME, "hint")]
            results.append(result)
        durable = self.spool.put(records) if records else None
        if durable is None:
            self._count(results, self.metrics.events)
        else:  # a batch that is answered with 503 is sent again: it counts then
            durable.add_done_callback(lambda done: self._count_durable(done, results))
        return Accepted(BatchResult.of(results), durable)

    def items(self, body: object, by: str) -> BatchResult:
        """Check and store; raises InvalidInput when the body is no batch, Unavailable when the control plane is."""
        batch = _batch(body, "items")
        results: list[ItemResult] = []
        good: list[tuple[int, Item]] = []
        for index, raw in enumerate(batch):
            try:
                good.append((index, parse_item(raw, f"items[{index}]")))
                results.append(ItemResult(index, good[-1][1].id, "accepted"))
            except ItemError as error:
                results.append(refusal(index, _id_of(raw), error))
        if good:
            changes = self.control.upsert_items([item for _, item in good], by)
            for (index, _), change in zip(good, changes, strict=True):
                results[index].change = change
        self._count(results, self.metrics.items)
        return BatchResult.of(results)

    def _event(self, raw: object, form: str | None, now: float) -> tuple[ViewerEvent, str]:
        """One event, tied to its page by the token it carries, if any, and its id as sent. Raises EventError."""
        if form is not None:
            sent = FORMATS[form](raw)
            try:
                return accept(sent, now), sent["id"]
            except EventError as error:
                raise with_sender_fields(form, error) from error
        assert isinstance(raw, bytes)
        event, sent_id, token = accept_json(raw, now)
        if token is None:
            return event, sent_id
        if not isinstance(token, str):
            raise EventError("unreadable event", [Finding(TOKEN, "expected text")])
        page = self.tokens.read_attribution(token, viewer_id=event.viewer_id, now=now)
        if event.request_id not in ("", page.request_id):
            raise EventError("unreadable event", [Finding("data.request_id", f"the {TOKEN} is of another page")])
        return replace(event, request_id=page.request_id, placement=page.placement), sent_id

    def _count_durable(self, done: Future[None], results: Sequence[ItemResult]) -> None:
        if done.exception() is None:  # nobody can have cancelled it
            self._count(results, self.metrics.events)

    @staticmethod
    def _count(results: Sequence[ItemResult], counter: Any) -> None:
        """Once they are what they say: a taken event is durable then."""
        counts = dict.fromkeys(("accepted", "refused"), 0)
        for result in results:
            counts[result.status] = counts.get(result.status, 0) + 1
        for status, count in counts.items():
            counter.labels(status).inc(count)


class _Wrapped(msgspec.Struct):
    events: list[msgspec.Raw]


_listed = msgspec.json.Decoder(list[msgspec.Raw]).decode
_wrapped = msgspec.json.Decoder(_Wrapped).decode


def _texts(body: bytes) -> list[bytes]:
    """The events of a body, each as the JSON text it came in: what is wrong inside one is its own affair."""
    try:
        batch = _listed(body) if body.lstrip()[:1] == b"[" else _wrapped(body).events
    except (ValueError, RecursionError):
        parsed = _parsed(body)
        if isinstance(parsed, dict) and "specversion" in parsed:
            return [body]  # one event by itself
        _batch(parsed, "events")  # says what is wrong
        raise InvalidInput("no batch", [Finding("body", "nested too deep")]) from None
    _bounded(batch, "events")
    return [bytes(raw) for raw in batch]


def _parsed(body: bytes) -> object:
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise NotJson(message("body_not_json"), [Finding("body", str(error))]) from error


def _batch(body: object, name: str) -> Sequence[object]:
    """The list itself, or the list under its name. Raises InvalidInput, TooLarge."""
    batch = body.get(name) if isinstance(body, dict) else body
    if not isinstance(batch, list):
        raise InvalidInput("no batch", [Finding("body", f'expected a list of {name}, or {{"{name}": [...]}}')])
    _bounded(batch, name)
    return batch


def _finding(index: int, field: str, text: str, level: Level) -> FindingOut:
    """Return a finding about a field of the event at this index."""
    return FindingOut.of(Finding(f"events[{index}].{field}", text, level))


def _bounded(batch: Sequence[object], name: str) -> None:
    if len(batch) > MAX_BATCH:
        raise TooLarge(f"{len(batch):,} {name} in one request; at most {MAX_BATCH:,} are taken")


def _says_when(raw: object, form: str | None) -> bool:
    """Whether an event that was taken says a time by its client's clock."""
    if form is not None:
        return FORMATS[form](raw).get("time") is not None
    return isinstance(raw, bytes) and b'"time"' in raw and from_json(raw).get("time") is not None


def _id_of(raw: object) -> object:
    """What a refused entry calls itself, as far as it can be read."""
    if isinstance(raw, bytes):
        try:
            raw = from_json(raw)
        except ValueError:
            return None
    return raw.get("id") if isinstance(raw, dict) else None
