"""Intake of batches of viewer events and items: one result for each entry; an invalid entry does not affect others."""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace
from pydantic_core import from_json

from features.control.plane import ControlPlane
from features.events.decode import MAX_BYTES, TOKEN, accept, accept_json, encode
from features.events.formats.registry import FORMATS, unwrap_batch, with_sender_fields
from features.events.schema import Trust, ViewerEvent, clock_skew_reason
from features.events.spool.port import Spool
from features.events.stream.port import Record
from features.importers.catalog import parse_item
from features.importers.item_bounds import NewNames
from features.json_text import find_unstorable, parse_json
from features.state.votes import COUNTS
from recsys.domain.catalog import Catalog
from recsys.domain.errors import EventError, Finding, InvalidInput, ItemError, Level
from recsys.domain.item import Item
from recsys.messages import message
from serving.pages.source_limits import SourceLimits
from serving.prometheus import Metrics
from serving.schemas.batch_result import MAX_BATCH, BatchResult, ItemResult, refusal
from serving.schemas.problems import FindingOut, NotJson, TooLarge
from serving.schemas.tokens import Tokens

UNKNOWN_ITEM = (
    "the catalog has no such item yet: the event is stored, and affects pages only once the item is in the catalog"
)

UNUSABLE_TIME = "before 1970 or without a time zone, so it is ignored: the event is dated by the time of its receipt"


class Sender(NamedTuple):
    """The client of a request.

    has_token  whether it has sent the admin token, so that its events count whether or not their viewers saw a page
    source     name of its address (`serving.pages.source_limits.source_of`); empty if it is unknown
    """

    has_token: bool = False
    source: str = ""


class Accepted(NamedTuple):
    """The result for each event, and a future that is done once the accepted events are durable.

    A route answers only after `durable`: a 202 promises that the events survive a crash.
    """

    result: BatchResult
    durable: Future[None] | None  # None when no event was accepted; fails with Unavailable


ANONYMOUS = Sender()


@dataclass(frozen=True)
class EventIntake:
    """The entry point for events and items of clients.

    has_item  returns the item ids of the catalog; while it is empty, unknown items are not reported
    limits    the limits on viewers per source
    catalog   returns the catalog, whose number of axes and labels is bounded
    """

    spool: Spool
    control: ControlPlane
    tokens: Tokens
    metrics: Metrics
    clock: Callable[[], float]
    has_item: Callable[[], Container[str]] = lambda: ()
    limits: SourceLimits = field(default_factory=lambda: SourceLimits(0))
    catalog: Callable[[], Catalog] = Catalog.empty

    def events(self, body: bytes, event_format: str | None = None, sender: Sender = ANONYMOUS) -> Accepted:
        """Check a batch and put it into the spool. `event_format`: a key of FORMATS, None for CloudEvents.

        Raises NotJson, InvalidInput when the body is not a batch, TooLarge.
        """
        now, known_items = self.clock(), self.has_item()
        batch: Sequence[object] = (
            _event_texts(body) if event_format is None else _batch(unwrap_batch(event_format, _parsed(body)), "events")
        )
        results, records = [], []
        for index, raw in enumerate(batch):
            try:
                event, sent_id = self._event(raw, event_format, now)
                event = replace(event, trust=self._trust(event, sender))
                records.append(Record(event.viewer_id, encode(event, checked=True)))
            except EventError as error:
                results.append(refusal(index, _id_of(raw), error, f"events[{index}]"))
                continue
            result = ItemResult(index, sent_id, "accepted")
            if event.client_at is not None and (reason := clock_skew_reason(event)):
                result.status = "quarantined"
                result.findings = [_finding(index, "time", reason, "warning")]
            elif known_items and event.item_id is not None and event.item_id not in known_items:
                self.metrics.unknown_items.inc()
                result.findings = [_finding(index, "data.item_id", UNKNOWN_ITEM, "hint")]
            if event.client_at is None and _has_client_time(raw, event_format):
                result.findings = [*result.findings, _finding(index, "time", UNUSABLE_TIME, "hint")]
            results.append(result)
        durable = self.spool.put(records) if records else None
        if durable is None:
            self._count(results, self.metrics.events)
        else:  # count only now: a batch answered with 503 is sent again
            durable.add_done_callback(lambda done: self._count_durable(done, results))
        return Accepted(BatchResult.of(results), durable)

    def items(self, body: object, author: str) -> BatchResult:
        """Check items and store them on behalf of `author`.

        Raises InvalidInput when the body is not a batch, TooLarge, Unavailable when the control plane does not answer.
        """
        batch = _batch(body, "items")
        results: list[ItemResult] = []
        good: list[tuple[int, Item]] = []
        names = NewNames(self.catalog())
        for index, raw in enumerate(batch):
            try:
                _require_storable(raw, ItemError, f"items[{index}].")
                item = parse_item(raw, f"items[{index}]")
                if full := names.add(item):
                    raise ItemError("catalog full", [Finding(f"items[{index}].{full.where}", full.text)])
                good.append((index, item))
                results.append(ItemResult(index, item.id, "accepted"))
            except ItemError as error:
                results.append(refusal(index, _id_of(raw), error))
        if good:
            changes = self.control.upsert_items([item for _, item in good], author)
            for (index, _), change in zip(good, changes, strict=True):
                results[index].change = change
        self._count(results, self.metrics.items)
        return BatchResult.of(results)

    def _event(self, raw: object, event_format: str | None, now: float) -> tuple[ViewerEvent, str]:
        """Return an event and its id as sent; an attribution token sets request and placement. Raises EventError."""
        if not isinstance(raw, bytes):
            _require_storable(raw, EventError)
        if event_format is not None:
            sent = FORMATS[event_format](raw)
            try:
                return accept(sent, now), sent["id"]
            except EventError as error:
                raise with_sender_fields(event_format, error) from error
        event, sent_id, token = accept_json(raw if isinstance(raw, bytes) else json.dumps(raw).encode(), now)
        if token is None:
            return event, sent_id
        if not isinstance(token, str):
            raise EventError("unreadable event", [Finding(TOKEN, "expected text")])
        page = self.tokens.read_attribution(token, viewer_id=event.viewer_id, now=now)
        if event.request_id not in ("", page.request_id):
            raise EventError(
                "unreadable event",
                [Finding("data.request_id", f"differs from the request of the {TOKEN}; send only one of them")],
            )
        return replace(event, request_id=page.request_id, placement=page.placement), sent_id

    def _trust(self, event: ViewerEvent, sender: Sender) -> Trust:
        """Return how far the sender of this event is trusted."""
        if sender.has_token:
            return "trusted"
        if event.kind not in COUNTS or event.item_id is None:
            return "anonymous"
        if self.limits.admits(sender.source, event.item_id, event.viewer_id, event.at):
            return "anonymous"
        self.metrics.excess_events.inc()
        return "excess"

    def _count_durable(self, written: Future[None], results: Sequence[ItemResult]) -> None:
        if written.exception() is None:  # `exception` cannot raise: the spool's futures are never cancelled
            self._count(results, self.metrics.events)

    @staticmethod
    def _count(results: Sequence[ItemResult], counter: Any) -> None:
        """Count results by status; called once the accepted events are durable."""
        counts = dict.fromkeys(("accepted", "refused"), 0)
        for result in results:
            counts[result.status] = counts.get(result.status, 0) + 1
        for status, count in counts.items():
            counter.labels(status).inc(count)


class _Wrapped(msgspec.Struct):
    events: list[msgspec.Raw]


_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_wrapped = msgspec.json.Decoder(_Wrapped).decode


def _event_texts(body: bytes) -> Sequence[object]:
    """Return the events of a body as separate JSON texts, so that a malformed event does not affect the others.

    If an event contains text that is not Unicode, all events are returned as parsed values.
    """
    try:
        batch = _decode_list(body) if body.lstrip()[:1] == b"[" else _decode_wrapped(body).events
    except (ValueError, RecursionError):
        parsed = _parsed(body)
        if isinstance(parsed, dict) and "specversion" in parsed:
            return [body]  # a single event
        entries = _batch(parsed, "events")  # raises with a more specific finding
        if find_unstorable(entries) is not None:
            return entries
        raise InvalidInput("the body is not a batch", [Finding("body", "nested too deeply")]) from None
    _check_size(batch, "events")
    return [bytes(raw) for raw in batch]


def _parsed(body: bytes) -> object:
    try:
        return parse_json(body)
    except ValueError as error:
        raise NotJson(message("body_not_json"), [Finding("body", str(error))]) from error


def _batch(body: object, name: str) -> Sequence[object]:
    """Return the body if it is a list, else the list under `name` in it. Raises InvalidInput, TooLarge."""
    batch = body.get(name) if isinstance(body, dict) else body
    if not isinstance(batch, list):
        raise InvalidInput(
            "the body is not a batch", [Finding("body", f'expected a list of {name}, or {{"{name}": [...]}}')]
        )
    _check_size(batch, name)
    return batch


def _finding(index: int, field: str, text: str, level: Level) -> FindingOut:
    """Return a finding about a field of the event at this index."""
    return FindingOut.of(Finding(f"events[{index}].{field}", text, level))


def _check_size(batch: Sequence[object], name: str) -> None:
    if len(batch) > MAX_BATCH:
        raise TooLarge(f"the request contains {len(batch):,} {name}; at most {MAX_BATCH:,} are accepted")


def _has_client_time(raw: object, event_format: str | None) -> bool:
    """Return whether an accepted event carries a time of its client's clock."""
    if event_format is not None:
        return FORMATS[event_format](raw).get("time") is not None
    return isinstance(raw, bytes) and b'"time"' in raw and from_json(raw).get("time") is not None


def _require_storable(raw: object, error: type[InvalidInput], prefix: str = "") -> None:
    """Raise an error of this type if the entry contains text that no store can hold."""
    if (path := find_unstorable(raw)) is not None:
        raise error(message("text_not_storable"), [Finding(f"{prefix}{path}", message("text_not_storable"))])


def _id_of(raw: object) -> object:
    """Return the `id` of a refused entry; None when it cannot be read."""
    if isinstance(raw, bytes):
        try:
            raw = from_json(raw) if len(raw) <= MAX_BYTES else None
        except ValueError:
            return None
    return raw.get("id") if isinstance(raw, dict) else None
