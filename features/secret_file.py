"""A secret in a file that only its owner can read, shared by all processes of a home directory."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from recsys.domain.errors import InvalidInput, Unavailable

MIN_BYTES = 16


def read_secret(path: Path) -> bytes | None:
    """Return the secret; None if there is no file. Raises InvalidInput if it is too short, and Unavailable."""
    try:
        secret = path.read_bytes().strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Unavailable(f"{path}: {error.strerror}") from error
    if len(secret) < MIN_BYTES:
        raise InvalidInput(f"the secret in {path} is too short; delete the file, and the next start creates a new one")
    return secret


def read_or_create_secret(path: Path) -> bytes:
    """Return the secret; create it with mode 600 if it does not exist. Raises InvalidInput and Unavailable."""
    if (secret := read_secret(path)) is not None:
        return secret
    draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_hex(32).encode())
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)  # atomic: if two processes start together, both read the secret of the first
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    except OSError as error:
        raise Unavailable(f"{path}: {error.strerror}") from error
    secret = read_secret(path)
    assert secret is not None
    return secret
