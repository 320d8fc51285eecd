"""Files in the directory of an event log that are not of the log. Readers would take them for an empty log."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from features.history import erasures, files, log_epochs
from recsys.domain.errors import InvalidInput

ACCEPTED = (
    "an event log is a directory with day=YYYY-MM-DD/*.parquet as the worker writes them;"
    " send other events to POST /v1/events"
)
REQUIRED = frozenset({"viewer_id", "id", "kind", "at", "source", "offset"})
"""Columns that every file of the log has."""

OWN = frozenset({erasures.FILE_NAME, log_epochs.FILE_NAME})
"""Files that the log itself keeps beside the folders of its days."""


def check_event_log(directory: str | Path) -> None:
    """Check that a directory holds an event log and no files of another kind. A missing directory is an empty log.

    Only files with names that the worker does not give are opened. Raises InvalidInput, which names the file.
    """
    directory = Path(directory)
    if directory.exists() and not directory.is_dir():
        raise InvalidInput(f"event log {directory}: a file; {ACCEPTED}")
    for file in sorted(directory.glob("*.*")):
        if file.suffix in (".parquet", ".csv", ".json", ".jsonl") and file.name not in OWN and file.is_file():
            raise InvalidInput(f"event log: {file} is not part of it; {ACCEPTED}")
    for folder in files.days(directory):
        for file in sorted(folder.glob("*.parquet")):
            if files.UNTIL not in file.stem and (missing := REQUIRED.difference(_columns(file))):
                raise InvalidInput(f"event log: {file} has no column {', '.join(sorted(missing))}; {ACCEPTED}")


def _columns(file: Path) -> frozenset[str]:
    """Return the columns of a Parquet file; of a damaged one all required columns, since its reader reports it."""
    try:
        return frozenset(pq.read_schema(file).names)
    except (pa.ArrowException, OSError):
        return REQUIRED
