"""Pagination of lists, with a bounded `page_size` and opaque signed page tokens.

A token contains the key of the last entry of a page. The next page starts after this entry, not at an index, so that no
entry is skipped or repeated when entries are added.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, Field

from recsys.domain.fields import QueryInteger, Text
from serving.schemas.resources import RequestModel
from serving.schemas.tokens import Tokens

Entry = TypeVar("Entry")

PAGE_SIZE = 100
MAX_PAGE_SIZE = 1000


class PageQuery(RequestModel):
    """The query parameters of every list."""

    page_size: QueryInteger = Field(
        PAGE_SIZE, ge=1, le=MAX_PAGE_SIZE, description="Maximum number of entries in the response."
    )
    page_token: Text | None = Field(
        None, description="The `next_page_token` of the previous page. Omit it for the first page."
    )


class ListAnswer(BaseModel):
    """The base of responses that contain one page of a list."""

    next_page_token: str | None = Field(None, description="The `page_token` of the next page; null on the last page.")


@dataclass(frozen=True)
class Pagination:
    """A splitter of lists into pages.

    The parameter `name` identifies a list with its filters and order. A token of a list with a different name is
    rejected.
    """

    tokens: Tokens

    def position(self, name: str, query: PageQuery) -> Any:
        """Return the key of the last entry of the previous page, or None for the first page. Raises PageTokenError."""
        return None if query.page_token is None else self.tokens.read_list_token(query.page_token, name=name)

    def cut(
        self, name: str, query: PageQuery, following: Sequence[Entry], key: Callable[[Entry], Any]
    ) -> tuple[list[Entry], str | None]:
        """Return one page and the token of the next page.

        following  entries after the previous page, at least `page_size + 1` of them if there are so many
        """
        page = list(following[: query.page_size])
        is_last = len(following) <= query.page_size
        return page, None if is_last else self.tokens.write_list_token(name, key(page[-1]))

    def page(
        self, name: str, query: PageQuery, entries: Sequence[Entry], key: Callable[[Entry], Any]
    ) -> tuple[list[Entry], str | None]:
        """Return one page of a list that is sorted by `key`, and the token of the next page. Raises PageTokenError.

        key  returns a number, a text, or a list of these; it is unique for each entry
        """
        position = self.position(name, query)
        start = 0 if position is None else bisect_right(entries, position, key=key)
        return self.cut(name, query, entries[start : start + query.page_size + 1], key)
