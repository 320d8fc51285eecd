"""Where catalogue items come from: a file of JSON lines, or the API of a running engine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from urllib.error import URLError
from urllib.parse import quote
from urllib.request import urlopen

from pydantic import ValidationError

from recsys.catalog import Item, once_taken
from recsys.errors import Finding, ItemError, Unavailable, schema_fault

PAGE = 1000
"""Items asked for at once from an API."""


def read_items(source: str) -> Iterator[Item]:
    """All items of `http://HOST:PORT` (pages of GET /v1/items) or of a `.jsonl` file.

    Raises ItemError naming the line or the id and field of a bad item, Unavailable when the API does not answer.
    """
    if source.startswith(("http://", "https://")):
        yield from _from_api(source.rstrip("/"))
        return
    with open(source, encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                try:
                    yield parse_item(json.loads(line), f"line {number}")
                except json.JSONDecodeError as error:
                    raise ItemError(source, [Finding(f"line {number}", f"not JSON: {error}")]) from error


def parse_item(raw: object, where: str) -> Item:
    """One item; raises ItemError with a finding for each wrong field, its place beginning with `where`."""
    try:
        return Item.model_validate(raw, strict=False)
    except ValidationError as error:
        findings = [
            Finding(".".join([where, *(str(part) for part in e["loc"])]), schema_fault(e))
            for e in error.errors(include_url=False)
        ]
        raise ItemError("not a catalogue item", findings) from error


def _from_api(address: str) -> Iterator[Item]:
    """Pages of GET /v1/items until there is no next one."""
    after: str | None = ""
    while after is not None:
        url = f"{address}/v1/items?limit={PAGE}" + (f"&after={quote(after)}" if after else "")
        try:
            with urlopen(url, timeout=30) as answer:
                page = json.load(answer)
        except (URLError, TimeoutError, json.JSONDecodeError) as error:
            raise Unavailable(f"the catalogue at {address} did not answer: {error}") from error
        for raw in page["items"]:
            try:
                yield parse_item(raw, str(raw.get("id", "?")))
            except ItemError:
                if raw.get("status") != "withdrawn":
                    raise
                yield _withdrawn(raw)
        after = None if page["next"] is None else str(page["next"])


def _withdrawn(raw: object) -> Item:
    """An item of an engine that took its id. Raises ItemError for whatever else is wrong with it."""
    try:
        return once_taken(raw)
    except ValidationError:
        return parse_item(raw, "withdrawn item")
