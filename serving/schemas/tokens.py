"""Signed tokens: page tokens, which continue a session or a list, and attributions, which assign an event to its page.

A token consists of a payload of itsdangerous' `URLSafeSerializer` (JSON, compressed with zlib if that is shorter, in
base64url), a dot, and its signature: HMAC-SHA-256 truncated to 144 bits. Anybody can read a token, but only an owner of
the secret can create or change it. Each kind of token has its own salt: a page token is not a valid attribution.
"""

from __future__ import annotations

import hashlib
import re
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any, NamedTuple

from itsdangerous import BadData, BadSignature, URLSafeSerializer
from itsdangerous.signer import HMACAlgorithm

from features.secret_file import read_or_create_secret
from recsys.domain.errors import EventError, Finding, PageTokenError

PAGE_TOKEN_TTL_S = 6 * 3600.0
"""Lifetime of a page token. After a longer pause, a new session starts."""

ATTRIBUTION_TTL_S = 90 * 86_400.0
"""Lifetime of an attribution. A later event is not assigned to its page."""

_MAX_CHARS = 300_000
"""Maximum length of a token. A page token has at most one bit for each item of the catalog, and the ids of the last
MAX_RECENT_ITEMS items: for ids of 12 characters at most 5 kB with 10,000 items, and 170 kB with a million."""

_FORM = re.compile(r"[A-Za-z0-9_.-]+", re.ASCII)
_KINDS = ("page", "list", "attribution")


class PageToken(NamedTuple):
    """The state of a session: the items shown so far, and the parameters that stay constant.

    shown, shown_before  as in `recsys.domain.query.Query`
    """

    placement: str
    viewer_id: str
    shown: tuple[str, ...]
    seed: int
    at: float  # unix seconds
    shown_before: bytes = b""


class Attribution(NamedTuple):
    """The page to which an event belongs."""

    request_id: str
    placement: str
    viewer_id: str
    at: float  # unix seconds


class _TruncatedHMAC(HMACAlgorithm):
    """HMAC-SHA-256 truncated to 18 bytes (RFC 2104, section 5).

    18 bytes are exactly 24 base64 characters without padding bits, so each signature has only one encoding.
    """

    def get_signature(self, key: bytes, value: bytes) -> bytes:
        return super().get_signature(key, value)[:18]


class Tokens:
    """A writer and reader of tokens. All serving processes must use the same secret."""

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
        """Return the signed page token."""
        return self._sign("page", [*page_token[:-1], b64encode(page_token.shown_before).decode()])

    def read_page_token(self, token: str, *, placement: str, viewer_id: str, now: float) -> PageToken:
        """Return the content of a page token.

        Raises PageTokenError if the token is malformed, changed, expired, or of a different placement or viewer.
        """
        try:
            fields = self._verify("page", token)
        except ValueError as error:
            raise _unusable("body", str(error)) from error
        shown_before = b64decode(fields[5]) if len(fields) > 5 else b""  # tokens of older engines lack it
        page_token = PageToken(fields[0], fields[1], tuple(fields[2]), fields[3], fields[4], shown_before)
        fault = ""
        if page_token.placement != placement:
            fault = f"the token belongs to a session on {page_token.placement}, not on {placement}"
        elif page_token.viewer_id != viewer_id:
            fault = "the token belongs to the session of another viewer"
        elif now - page_token.at > PAGE_TOKEN_TTL_S:
            fault = (
                f"the token is older than {PAGE_TOKEN_TTL_S / 3600:.0f} hours; start a new session without a page token"
            )
        if fault:
            raise _unusable("body", fault)
        return page_token

    def write_list_token(self, name: str, after: Any) -> str:
        """Return a token that continues a list after an entry. `after` is the key of the entry, a JSON value."""
        return self._sign("list", [name, after])

    def read_list_token(self, token: str, *, name: str) -> Any:
        """Return the key of the entry after which the list continues.

        Raises PageTokenError if the token is malformed, changed, or of a list with a different name.
        """
        try:
            sent_name, after = self._verify("list", token)
            if sent_name != name:
                raise ValueError("the token belongs to another list, or to this list with another filter or order")
        except ValueError as error:
            raise _unusable("query", str(error)) from error
        return after

    def write_attribution(self, attribution: Attribution) -> str:
        """Return the signed attribution."""
        return self._sign("attribution", list(attribution))

    def read_attribution(self, token: str, *, viewer_id: str, now: float) -> Attribution:
        """Return the content of an attribution.

        Raises EventError if the token is malformed, changed, expired, or of a different viewer.
        """
        try:
            attribution = Attribution(*self._verify("attribution", token))
            if attribution.viewer_id != viewer_id:
                raise ValueError("the token was issued to another viewer")
            if now - attribution.at > ATTRIBUTION_TTL_S:
                raise ValueError(f"the token is older than {ATTRIBUTION_TTL_S / 86_400:.0f} days")
        except ValueError as error:
            raise EventError("unreadable event", [Finding("attributiontoken", str(error))]) from error
        return attribution

    def _sign(self, kind: str, fields: list[object]) -> str:
        return self._serializers[kind].dumps(fields)

    def _verify(self, kind: str, token: str) -> list[Any]:
        """Return the fields of a token of this kind. Raises ValueError. The signature is verified before parsing."""
        if len(token) > _MAX_CHARS or not _FORM.fullmatch(token):
            raise ValueError("not a token of this service")
        try:
            fields: list[Any] = self._serializers[kind].loads(token)
        except BadSignature as error:
            for actual_kind, serializer in self._serializers.items():
                if serializer.make_signer().validate(token):  # does not read the payload
                    raise ValueError(f"this is a token of kind {actual_kind}, expected kind {kind}") from error
            raise ValueError("invalid signature: the token was changed, or signed by another service") from error
        except BadData as error:
            raise ValueError("not a token of this service") from error
        return fields


def _unusable(part: str, reason: str) -> PageTokenError:
    return PageTokenError("invalid page token", [Finding(f"{part}.page_token", reason)])


def home_secret(home: str) -> bytes:
    """Return the secret of a home directory, which all its processes share. Create it if it does not exist.

    Only the owner of the file can read it. Raises InvalidInput if the stored secret is too short, and Unavailable.
    """
    return read_or_create_secret(Path(home) / "secret")
