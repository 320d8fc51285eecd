"""How commands print."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

from features.redaction import redact


def rfc3339(at: float) -> str:
    """Return unix seconds as text, in whole seconds UTC.

    >>> rfc3339(0.0)
    '1970-01-01T00:00:00Z'
    """
    return datetime.fromtimestamp(int(at), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def fail(command: str, message: str) -> int:
    """Print an error to stderr and return exit code 1."""
    print(redact(f"mainstay {command}: {message}"), file=sys.stderr)
    return 1


def reflow(text: str) -> str:
    """Return the text with one line per paragraph, since the help wraps lines itself."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))
