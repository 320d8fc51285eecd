"""The checkpoint of the audit trail: its newest seal in a file, which can be kept on another machine.

Every change of the control plane replaces the file, so that a checkpoint is at most one change old. The file is signed
like the seal, and an older seal never replaces a newer one.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
from pathlib import Path

from features.control.audit_trail import Seal
from recsys.domain.errors import InvalidInput, Unavailable

log = logging.getLogger("mainstay.control")


class AuditCheckpoint:
    """The checkpoint file of this process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._failed = False

    def seal(self) -> Seal | None:
        """Return the stored seal; None if there is no file, or none that can be read."""
        try:
            return read_checkpoint(self.path) if self.path.exists() else None
        except (OSError, InvalidInput, Unavailable):
            return None

    def save(self, seal: Seal) -> None:
        """Store a seal, unless the file has the same or a newer one. A failure is logged, since the change is stored.

        The checkpoint is then older than the trail, which is no fault.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT, 0o600), "wb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not self.path.exists() or read_checkpoint(self.path).seq < seal.seq:
                    self._replace(json.dumps(seal._asdict()) + "\n")
        except (OSError, InvalidInput, Unavailable) as error:
            if not self._failed:
                log.error("audit checkpoint %s cannot be written: %s; it stays at an older entry", self.path, error)
            self._failed = True
        else:
            self._failed = False

    def _replace(self, text: str) -> None:
        draft = self.path.with_name(f"{self.path.name}.{os.getpid()}.draft")
        try:
            with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self.path)
        finally:
            draft.unlink(missing_ok=True)


def read_checkpoint(path: Path) -> Seal:
    """Return the seal in a checkpoint file. Raises InvalidInput if it holds none, and Unavailable."""
    try:
        fields = json.loads(path.read_text("utf-8"))
        seal = Seal(**fields)
    except OSError as error:
        raise Unavailable(f"audit checkpoint {path}: {error.strerror}") from error
    except (ValueError, TypeError) as error:
        raise InvalidInput(f"audit checkpoint {path}: not a checkpoint of an audit trail") from error
    if type(seal.seq) is not int or not isinstance(seal.hash, str) or not isinstance(seal.signature, str):
        raise InvalidInput(f"audit checkpoint {path}: not a checkpoint of an audit trail")
    return seal
