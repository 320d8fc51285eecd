"""Signed tokens: page tokens, which continue a session or a list, and attributions, which tie an event to its page.

A token is a payload of itsdangerous' `URLSafeSerializer` (JSON, zlib where that makes it shorter, base64url), a dot,
and its signature: HMAC-SHA-256 cut to 144 bits. Anybody can read a token; only who has the secret can make or alter it.
Each kind of token is signed under a salt of its own, so a page token never passes for an attribution.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from pathlib import Path
from typing import Any, NamedTuple

from itsdangerous import BadData, BadSignature, URLSafeSerializer
from itsdangerous.signer import HMACAlgorithm

from recsys.domain.errors import EventError, Finding, InvalidInput, PageTokenError

SHOWN_MAX = 300
"""Items a page token remembers; on a longer session the oldest may come again."""

PAGE_TOKEN_LIFE_S = 6 * 3600.0
"""A session that paused longer than this starts anew."""

ATTRIBUTION_LIFE_S = 90 * 86_400.0
"""An event later than this is no longer put down to its page."""

_MAX_CHARS = 200_000
_FORM = re.compile(r"[A-Za-z0-9_.-]+", re.ASCII)
_KINDS = ("page", "list", "attribution")


class PageToken(NamedTuple):
    """Where a session stands: what it was shown, and everything else that must stay as it began."""

    placement: str
    viewer_id: str
    shown: tuple[str, ...]  # item ids in slot order, oldest first, at most SHOWN_MAX
    seed: int
    at: float  # unix seconds


class Attribution(NamedTuple):
    """Which page an event belongs to."""

    request_id: str
    placement: str
    viewer_id: str
    at: float  # unix seconds


class _TruncatedHMAC(HMACAlgorithm):
    """HMAC-SHA-256 cut to 18 bytes (RFC 2104, section 5).

    They make 24 characters of base64 without spare bits, so a signature has exactly one spelling.
    """

    def get_signature(self, key: bytes, value: bytes) -> bytes:
        return super().get_signature(key, value)[:18]


class Tokens:
    """Writes and reads tokens under one secret, which every serving process must share."""

    def __init__(self, secret: bytes) -> None:
        options = {
            "key_derivation": "hmac",
            "digest_method": hashlib.sha256,  # derives the key of each salt
            "algorithm": _TruncatedHMAC(hashlib.sha256),
        }
        self._serializers = {
            kind: URLSafeSerializer(secret, salt=f"mainstay.{kind}", signer_kwargs=options) for kind in _KINDS
        }

    def write_page_token(self, page_token: PageToken) -> str:
        """Return the page token as opaque text."""
        return self._sign("page", list(page_token._replace(shown=page_token.shown[-SHOWN_MAX:])))

    def read_page_token(self, token: str, *, placement: str, viewer_id: str, now: float) -> PageToken:
        """Raises PageTokenError for a token that is broken, altered, expired, or of another placement or viewer."""
        try:
            fields = self._verify("page", token)
        except ValueError as error:
            raise _unusable("body", str(error)) from error
        page_token = PageToken(fields[0], fields[1], tuple(fields[2]), fields[3], fields[4])
        wrong = ""
        if page_token.placement != placement:
            wrong = f"it continues a session on {page_token.placement}, not on {placement}"
        elif page_token.viewer_id != viewer_id:
            wrong = "it continues another viewer's session"
        elif now - page_token.at > PAGE_TOKEN_LIFE_S:
            wrong = f"it is older than {PAGE_TOKEN_LIFE_S / 3600:.0f} hours; begin a new session without a page token"
        if wrong:
            raise _unusable("body", wrong)
        return page_token

    def write_list_token(self, name: str, after: Any) -> str:
        """Return a token that continues the list of this name after an entry; `after` is the entry's key, as JSON."""
        return self._sign("list", [name, after])

    def read_list_token(self, token: str, *, name: str) -> Any:
        """Return the key of the entry to continue after.

        Raises PageTokenError for a token that is broken, altered, or of a list of another name.
        """
        try:
            sent_name, after = self._verify("list", token)
            if sent_name != name:
                raise ValueError("it continues another list, or this one with another filter or order")
        except ValueError as error:
            raise _unusable("query", str(error)) from error
        return after

    def write_attribution(self, attribution: Attribution) -> str:
        """The attribution as opaque text."""
        return self._sign("attribution", list(attribution))

    def read_attribution(self, token: str, *, viewer_id: str, now: float) -> Attribution:
        """Raises EventError for a token that is broken, altered, expired, or of another viewer."""
        try:
            attribution = Attribution(*self._verify("attribution", token))
            if attribution.viewer_id != viewer_id:
                raise ValueError("it was given to another viewer")
            if now - attribution.at > ATTRIBUTION_LIFE_S:
                raise ValueError(f"it is older than {ATTRIBUTION_LIFE_S / 86_400:.0f} days")
        except ValueError as error:
            raise EventError("unreadable event", [Finding("attributiontoken", str(error))]) from error
        return attribution

    def _sign(self, kind: str, fields: list[object]) -> str:
        return self._serializers[kind].dumps(fields)

    def _verify(self, kind: str, token: str) -> list[Any]:
        """Return the fields of a token of this kind; raise ValueError. The payload is read after its signature."""
        if len(token) > _MAX_CHARS or not _FORM.fullmatch(token):
            raise ValueError("it is not a token of this service")
        try:
            fields: list[Any] = self._serializers[kind].loads(token)
        except BadSignature as error:
            for other, serializer in self._serializers.items():
                if serializer.make_signer().validate(token):  # does not read the payload
                    raise ValueError(f"it is a token for {other}, not for {kind}") from error
            raise ValueError("its signature does not hold: it was altered, or signed by another service") from error
        except BadData as error:
            raise ValueError("it is not a token of this service") from error
        return fields


def _unusable(part: str, why: str) -> PageTokenError:
    return PageTokenError("this page token cannot be used", [Finding(f"{part}.page_token", why)])


def home_secret(home: str) -> bytes:
    """The secret of this home: made once, readable by its owner only, shared by all processes of the home."""
    path = Path(home) / "secret"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        draft = path.with_name(f"secret.{os.getpid()}.{secrets.token_hex(4)}")
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_hex(32).encode())
        try:
            os.link(draft, path)  # whole or not at all: of two processes that begin together one wins, both read it
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    secret = path.read_bytes().strip()
    if len(secret) < 16:
        raise InvalidInput(f"{path} is too short to sign with; remove it and a new one is made")
    return secret
