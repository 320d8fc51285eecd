"""Readers of catalog items, from a file of JSON lines or from the API of a running engine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from urllib.error import URLError
from urllib.parse import quote
from urllib.request import urlopen

from pydantic import ValidationError

from recsys.domain.errors import FINDINGS_MAX, Finding, ItemError, Unavailable, first_findings, schema_fault
from recsys.domain.item import Item
from recsys.domain.item_bounds import exceeded_bounds
from recsys.messages import message

PAGE = 1000
"""Number of items requested per page of the API."""


def read_items(source: str) -> Iterator[Item]:
    """Yield all items of the engine at `http://HOST:PORT` (pages of GET /v1/items) or of a `.jsonl` file.

    Raises ItemError with the line (or id) and field of an invalid item, Unavailable if the API does not respond.
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


def parse_item(raw: object, path: str) -> Item:
    """Return the item; raises ItemError with a finding for each invalid field, whose path starts with `path`."""
    if exceeded := first_findings(exceeded_bounds(raw)):
        findings = [Finding(".".join(filter(None, (path, finding.where))), finding.text) for finding in exceeded]
        raise ItemError("item too large", findings)
    try:
        return Item.model_validate(raw, strict=False)
    except ValidationError as error:
        if (problems := error.error_count()) > FINDINGS_MAX:  # listing them takes longer than finding them
            finding = Finding(path, message("findings_too_many", problems=problems))
            raise ItemError("invalid item", [finding]) from error
        findings = [
            Finding(".".join([path, *(str(part) for part in e["loc"])]), schema_fault(e))
            for e in error.errors(include_url=False)
        ]
        raise ItemError("invalid item", findings) from error


def _from_api(address: str) -> Iterator[Item]:
    """Yield the items of all pages of GET /v1/items."""
    token: str | None = ""
    while token is not None:
        url = f"{address}/v1/items?page_size={PAGE}" + (f"&page_token={quote(token)}" if token else "")
        try:
            with urlopen(url, timeout=30) as response:
                page = json.load(response)
        except (URLError, TimeoutError, json.JSONDecodeError) as error:
            raise Unavailable(f"catalog at {address} unavailable: {error}") from error
        for raw in page["items"]:
            yield parse_item(raw, str(raw.get("id", "?")))
        token = page["next_page_token"]
