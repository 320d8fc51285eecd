"""Readers of catalog items, from a file of JSON lines or from the API of a running engine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.client import HTTPException
from urllib.parse import quote
from urllib.request import urlopen

from pydantic import ValidationError

from features.importers.item_bounds import exceeded_bounds
from features.user_files import utf8_lines
from recsys.domain.errors import FINDINGS_MAX, Finding, ItemError, Unavailable, first_findings, schema_fault
from recsys.domain.item import Item
from recsys.messages import message

PAGE = 1000
"""Number of items requested per page of the API."""


ACCEPTED = (
    'a catalog is a UTF-8 file of JSON lines, one item per line, such as {"id": "film-1", "title": {"en": "Film 1"}, '
    '"outlet": "cn", "published_at": "2026-01-31T20:00:00Z"}'
)


def read_items(source: str) -> Iterator[Item]:
    """Yield all items of the engine at `http://HOST:PORT` (pages of GET /v1/items) or of a file of JSON lines.

    Raises InvalidInput with the file, line (or id) and field of the first fault, Unavailable if the API does not
    respond.
    """
    if source.startswith(("http://", "https://")):
        yield from _from_api(source.rstrip("/"))
        return
    empty = True
    for number, line in utf8_lines(source, ACCEPTED):
        if line.strip():
            where, empty = f"{source}, line {number}", False
            yield parse_item(_object(line, where), where)
    if empty:
        raise ItemError(f"{source}: no items; {ACCEPTED}")


def _object(line: str, where: str) -> object:
    """Return the JSON object of a line. Raises ItemError."""
    try:
        raw = json.loads(line)
    except json.JSONDecodeError as error:
        raise ItemError(f"{where}: not JSON ({error.msg} at column {error.colno}); {ACCEPTED}") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, or nested too deep
        raise ItemError(f"{where}: not JSON ({error}); {ACCEPTED}") from error
    if not isinstance(raw, dict):
        raise ItemError(f"{where}: a JSON {type(raw).__name__}, expected an object; {ACCEPTED}")
    return raw


def parse_item(raw: object, path: str) -> Item:
    """Return the item; raises ItemError with a finding for each invalid field, whose path starts with `path`."""
    if exceeded := first_findings(exceeded_bounds(raw)):
        findings = [Finding(".".join(filter(None, (path, finding.where))), finding.text) for finding in exceeded]
        raise ItemError("item too large", findings)
    try:
        return Item.model_validate(raw)
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
            items, token = list(page["items"]), page["next_page_token"]
        except (OSError, HTTPException) as error:
            raise Unavailable(f"catalog at {address} unavailable: {error}") from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise Unavailable(f"catalog at {address}: this is not the API of Mainstay ({error!r})") from error
        for raw in items:
            yield parse_item(raw, f"{address}: item {raw.get('id', '?') if isinstance(raw, dict) else raw!r}")
