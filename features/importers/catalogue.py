"""Readers of catalog items, from a file of JSON lines or from the API of a running engine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from urllib.error import URLError
from urllib.parse import quote
from urllib.request import urlopen

from pydantic import ValidationError

from recsys.domain.errors import Finding, ItemError, Unavailable, schema_fault
from recsys.domain.item import Item

PAGE = 1000
"""Number of items requested from an API at once."""


def read_items(source: str) -> Iterator[Item]:
    """Yield all items of the API at `http://HOST:PORT` (GET /v1/items) or of a `.jsonl` file.

    Raises ItemError, which names the line or the id and the field of a bad item, and Unavailable if the API does not
    answer.
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
    """Return the item. Raises ItemError with a finding for each wrong field, at a path that begins with `where`."""
    try:
        return Item.model_validate(raw, strict=False)
    except ValidationError as error:
        findings = [
            Finding(".".join([where, *(str(part) for part in e["loc"])]), schema_fault(e))
            for e in error.errors(include_url=False)
        ]
        raise ItemError("not a catalog item", findings) from error


def _from_api(address: str) -> Iterator[Item]:
    """Yield the items of all pages of GET /v1/items."""
    token: str | None = ""
    while token is not None:
        url = f"{address}/v1/items?page_size={PAGE}" + (f"&page_token={quote(token)}" if token else "")
        try:
            with urlopen(url, timeout=30) as answer:
                page = json.load(answer)
        except (URLError, TimeoutError, json.JSONDecodeError) as error:
            raise Unavailable(f"the catalog at {address} did not answer: {error}") from error
        for raw in page["items"]:
            yield parse_item(raw, str(raw.get("id", "?")))
        token = page["next_page_token"]
