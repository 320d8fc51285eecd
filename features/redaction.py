"""Removal of passwords and keys from texts that people see: errors, logs, health reports.

Texts of libraries may repeat a URL or a part of it. So passwords are removed by their form in a URL, and the secrets of
the settings also wherever they occur.
"""

from __future__ import annotations

import logging
import re
import sys
import traceback
from collections.abc import Mapping
from types import TracebackType
from urllib.parse import unquote

MASK = "***"
SECRET_SETTINGS = ("secret", "admin_token", "audit_key")
MIN_LENGTH = 4
"""Shorter secrets are removed from URLs only: elsewhere they would also match parts of words."""

_USERINFO = re.compile(r"([a-z][a-z0-9+.-]*://)([^\s/@:?#'\"]*):[^ \t\r\n]*@", re.IGNORECASE)
_PARAMETER = re.compile(
    r"([?&](?:password|passwd|pwd|secret|token|api_key|access_key|sslpassword)=)[^&\s'\"]*", re.IGNORECASE
)
_secrets: set[str] = set()


def redact(text: str) -> str:
    """Return the text without passwords and without the known secrets.

    >>> redact("cannot connect to redis://:p@ss/w@host:6379/0?password=x&db=1")
    'cannot connect to redis://:***@host:6379/0?password=***&db=1'
    """
    text = _PARAMETER.sub(rf"\1{MASK}", _USERINFO.sub(rf"\1\2:{MASK}@", text))
    for secret in sorted(_secrets, key=len, reverse=True):
        text = text.replace(secret, MASK)
    return text


def register_secrets(settings: Mapping[str, object]) -> None:
    """Remember the secrets of these settings, and the passwords in their URLs, for `redact`."""
    for name, value in settings.items():
        if not isinstance(value, str):
            continue
        userinfo, has_host, _ = value.partition("://")[2].rpartition("@")
        _, has_password, password = userinfo.partition(":")
        secrets = [value] if name in SECRET_SETTINGS else [password] if has_host and has_password else []
        for secret in secrets:
            parts = {secret, unquote(secret), *re.split(r"[/@:?#]", secret)}  # a URL parser may cut it
            _secrets.update(part for part in parts if len(part) >= MIN_LENGTH)


class RedactingFormatter(logging.Formatter):
    """A formatter of log lines, tracebacks included, without passwords."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        return redact(super().format(record))


def configure_logging(pattern: str) -> None:
    """Log warnings to stderr, and uncaught exceptions too, without passwords."""
    handler = logging.StreamHandler()
    handler.setFormatter(RedactingFormatter(pattern))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    sys.excepthook = print_exception


def print_exception(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print an uncaught exception to stderr, without passwords."""
    print(redact("".join(traceback.format_exception(kind, error, trace))), end="", file=sys.stderr)
