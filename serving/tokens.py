"""Signed tokens: the cursor that continues a session, and the attribution that ties an event to the page it came from.

A token is a payload of itsdangerous' `URLSafeSerializer` (JSON, zlib where that makes it shorter, base64url), a dot,
and its signature: HMAC-SHA-256 cut to 144 bits. Anybody can read a token; only who has the secret can make or alter it.
Each kind of token is signed under a salt of its own, so a cursor never passes for an attribution.
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

from recsys.errors import CursorError, EventError, Finding, InvalidInput

SHOWN_MAX = 300
"""Items a cursor remembers; on a longer session the oldest may come again."""

CURSOR_LIFE_S = 6 * 3600.0
"""A session that paused longer than this starts anew."""

ATTRIBUTION_LIFE_S = 90 * 86_400.0
"""An event later than this is no longer put down to its page."""

_MAX_CHARS = 200_000
_FORM = re.compile(r"[A-Za-z0-9_.-]+", re.ASCII)
_KINDS = ("cursor", "attribution")


class Cursor(NamedTuple):
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

    def write_cursor(self, cursor: Cursor) -> str:
        """The cursor as opaque text."""
        return self._sign("cursor", list(cursor._replace(shown=cursor.shown[-SHOWN_MAX:])))

    def read_cursor(self, token: str, *, placement: str, viewer_id: str, now: float) -> Cursor:
        """Raises CursorError for a token that is broken, altered, expired, or of another placement or viewer."""
        try:
            fields = self._verify("cursor", token)
        except ValueError as error:
            raise CursorError("this cursor cannot be used", [Finding("cursor", str(error))]) from error
        cursor = Cursor(fields[0], fields[1], tuple(fields[2]), fields[3], fields[4])
        wrong = ""
        if cursor.placement != placement:
            wrong = f"it continues a session on {cursor.placement}, not on {placement}"
        elif cursor.viewer_id != viewer_id:
            wrong = "it continues another viewer's session"
        elif now - cursor.at > CURSOR_LIFE_S:
            wrong = f"it is older than {CURSOR_LIFE_S / 3600:.0f} hours; begin a new session without a cursor"
        if wrong:
            raise CursorError("this cursor cannot be used", [Finding("cursor", wrong)])
        return cursor

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
