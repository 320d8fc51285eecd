"""Pages of lists: a bounded `page_size`, and opaque signed tokens that name the last entry of the page before.

A token continues after an entry, not at a number, so that nothing is skipped or repeated when entries are added.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, Field

from serving.schemas.resources import RequestModel
from serving.schemas.tokens import Tokens

Entry = TypeVar("Entry")

PAGE_SIZE = 100
PAGE_SIZE_MAX = 1000


class PageQuery(RequestModel):
    """The query of every list."""

    page_size: int = Field(PAGE_SIZE, ge=1, le=PAGE_SIZE_MAX, description="maximum number of entries in the answer")
    page_token: str | None = Field(None, description="`next_page_token` of the page before; omit for the first page")


class ListAnswer(BaseModel):
    """Base of answers that hold one page of a list."""

    next_page_token: str | None = Field(None, description="`page_token` of the next page; null on the last")


@dataclass(frozen=True)
class Pagination:
    """Cuts lists into pages. `name` names a list with its filters and order: tokens of other lists are refused."""

    tokens: Tokens

    def position(self, name: str, query: PageQuery) -> Any:
        """Return the key of the last entry of the page before, None for the first page. Raises PageTokenError."""
        return None if query.page_token is None else self.tokens.read_list_token(query.page_token, name=name)

    def cut(
        self, name: str, query: PageQuery, following: Sequence[Entry], key: Callable[[Entry], Any]
    ) -> tuple[list[Entry], str | None]:
        """Return one page and the token of the next; `following`: at least `page_size + 1` entries, if there are."""
        page = list(following[: query.page_size])
        more = len(following) > query.page_size
        return page, self.tokens.write_list_token(name, key(page[-1])) if more else None

    def page(
        self, name: str, query: PageQuery, entries: Sequence[Entry], key: Callable[[Entry], Any]
    ) -> tuple[list[Entry], str | None]:
        """Return one page of a whole list, which is in the order of `key`. Raises PageTokenError.

        key  a number, a text, or a list of these; unique among the entries
        """
        position = self.position(name, query)
        start = 0 if position is None else bisect_right(entries, position, key=key)
        return self.cut(name, query, entries[start : start + query.page_size + 1], key)
