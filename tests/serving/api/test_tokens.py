"""Page tokens and attributions cannot be changed, forged, exchanged or used after their expiry."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.domain.errors import EventError, PageTokenError
from recsys.domain.query import MAX_RECENT_ITEMS
from serving.schemas.tokens import PAGE_TOKEN_TTL_S, Attribution, PageToken, Tokens, home_secret
from tests.conftest import scaled

TOKENS = Tokens(b"a secret of this test")
AT = 1_800_000_000.0
PAGE_TOKEN = PageToken("cn.zj-tv-home", "v1", ("a", "b", "片子"), 7, AT)


def read(token: str, placement: str = "cn.zj-tv-home", viewer: str = "v1", now: float = AT) -> PageToken:
    return TOKENS.read_page_token(token, placement=placement, viewer_id=viewer, now=now)


@settings(max_examples=scaled(1_000, minimum=10))
@given(st.lists(st.text(min_size=1, max_size=9), max_size=300), st.integers(0, 2**31 - 1), st.binary(max_size=2_000))
def test_a_page_token_is_read_back_unchanged(shown: list[str], seed: int, before: bytes) -> None:
    page_token = PAGE_TOKEN._replace(shown=tuple(shown), seed=seed, shown_before=before)
    assert read(TOKENS.write_page_token(page_token)) == page_token


def test_the_largest_page_token_is_accepted() -> None:
    """It has the longest ids, and a session through half of a catalog of a million items."""
    shown = tuple(f"{n}".zfill(200) for n in range(MAX_RECENT_ITEMS))
    bitmap = np.random.default_rng(1).bytes(1_000_000 // 8)
    page_token = PAGE_TOKEN._replace(shown=shown, shown_before=bitmap)
    assert read(TOKENS.write_page_token(page_token)) == page_token


@given(st.data())
def test_a_page_token_with_one_changed_character_is_rejected(data: st.DataObject) -> None:
    token = TOKENS.write_page_token(PAGE_TOKEN)
    index = data.draw(st.integers(0, len(token) - 1))
    character = data.draw(st.characters(codec="utf-8").filter(lambda c: c != token[index]))
    with pytest.raises(PageTokenError, match="page token"):
        read(token[:index] + character + token[index + 1 :])


@given(st.text(max_size=80))
def test_arbitrary_text_is_rejected_as_a_page_token(text: str) -> None:
    with pytest.raises(PageTokenError):
        read(text)


def test_a_page_token_continues_its_own_session_only() -> None:
    token = TOKENS.write_page_token(PAGE_TOKEN)
    with pytest.raises(PageTokenError, match=r"cn\.zj-tv-home, not on cn-tv-home"):
        read(token, placement="cn-tv-home")
    with pytest.raises(PageTokenError, match="another viewer"):
        read(token, viewer="v2")
    with pytest.raises(PageTokenError, match="6 hours"):
        read(token, now=AT + PAGE_TOKEN_TTL_S + 1)


def test_a_token_of_another_secret_or_kind_is_rejected() -> None:
    forged = Tokens(b"another secret").write_page_token(PAGE_TOKEN)
    with pytest.raises(PageTokenError, match="signature"):
        read(forged)
    attribution = TOKENS.write_attribution(Attribution("r1", "cn.zj-tv-home", "v1", AT))
    with pytest.raises(PageTokenError, match="token of kind attribution"):
        read(attribution)
    with pytest.raises(EventError, match="token of kind page"):
        TOKENS.read_attribution(TOKENS.write_page_token(PAGE_TOKEN), viewer_id="v1", now=AT)


def test_a_list_token_continues_its_own_list_only() -> None:
    token = TOKENS.write_list_token("audit, newest first", 7)
    assert TOKENS.read_list_token(token, name="audit, newest first") == 7
    with pytest.raises(PageTokenError, match="another list"):
        TOKENS.read_list_token(token, name="audit, oldest first")
    for wrong, reason in ((TOKENS.write_page_token(PAGE_TOKEN), "token of kind page"), ("7", "invalid signature")):
        with pytest.raises(PageTokenError, match=reason):
            TOKENS.read_list_token(wrong, name="audit, newest first")


def test_an_attribution_belongs_to_one_viewer() -> None:
    attribution = Attribution("r1", "cn.zj-tv-home", "v1", AT)
    token = TOKENS.write_attribution(attribution)
    assert TOKENS.read_attribution(token, viewer_id="v1", now=AT + 60) == attribution
    with pytest.raises(EventError, match="another viewer"):
        TOKENS.read_attribution(token, viewer_id="v2", now=AT)


def test_all_processes_of_a_home_share_a_secret_that_only_its_owner_can_read(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        secrets = set(pool.map(lambda _: home_secret(str(tmp_path / "home")), range(16)))
    assert len(secrets) == 1
    assert len(secrets.pop()) >= 32
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["secret"]
    assert stat.S_IMODE((tmp_path / "home" / "secret").stat().st_mode) == 0o600
