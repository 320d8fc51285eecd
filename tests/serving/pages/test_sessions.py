"""Sessions over HTTP: the page token continues a session to its end, whatever its length."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module")
def ids_of_sessions(tmp_path_factory):
    """Return the item ids of whole sessions over a catalog of 460 items, guided and unguided."""
    from tests.serving.conftest import running

    with running(tmp_path_factory.mktemp("sessions")) as service:
        service.stock(460)
        return {guided: list(pages(service, guided)) for guided in (True, False)}


def pages(service, guided):
    page_token = None
    for _ in range(30):
        body = {"slots": 24, "guided": guided, "placement": "cn.zj-tv-home"}
        page = service.page(**body, **({"page_token": page_token} if page_token else {}))
        yield [slot["item"]["id"] for slot in page["items"]]
        page_token = page["next_page_token"]
        if page_token is None:
            return
    raise AssertionError("the session does not end")


@pytest.mark.parametrize("guided", [True, False])
def test_a_session_shows_every_item_once_and_ends(ids_of_sessions, guided: bool) -> None:
    listed = ids_of_sessions[guided]
    shown = [item_id for page in listed for item_id in page]
    assert len(shown) == len(set(shown)) == 460
    assert all(len(page) == 24 for page in listed[:-1])
