"""Erasures that an older version stored without checksums still hold, at their own time."""

from __future__ import annotations

import json
from pathlib import Path

from features.history.erasures import FILE_NAME, ErasureList, viewer_hash
from features.state.keys import ERASURES
from features.state.online.memory import MemoryStore


def test_erasures_without_checksums_are_read_from_file_and_store(tmp_path: Path) -> None:
    in_file, in_store = viewer_hash("v1"), viewer_hash("v2")
    line, copy = (
        json.dumps({"viewer_hash": hash_, "at": at, "had_data": True}).encode()
        for hash_, at in ((in_file, 7.0), (in_store, 8.0))
    )
    (tmp_path / FILE_NAME).write_bytes(b"\n" + line + b"\n")
    online = MemoryStore()
    online.put({ERASURES + in_store: copy})
    erasures = ErasureList(tmp_path)
    erasures.sync_with(online)
    assert erasures.all() == {in_file: 7.0, in_store: 8.0}
