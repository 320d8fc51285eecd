"""Durability of the spool: acknowledged records, and the names of their files, are synced to disk."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from features.events.spool.durable import DurableSpool
from features.events.stream.memory import MemoryStream
from features.events.stream.port import Record
from recsys.domain.errors import Unavailable


class PowerCut:
    """Records what was synced below a root directory, to restore the state after a power cut.

    Only synced file contents and synced directory entries survive.
    """

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self._root, self._bytes = root, dict[int, bytes]()
        self._names: dict[int, dict[str, int]] = {root.stat().st_ino: {}}
        self._sync = {"fsync": os.fsync, "fdatasync": os.fdatasync}
        patch.setattr("os.fsync", lambda handle: self._record_sync("fsync", handle))
        patch.setattr("os.fdatasync", lambda handle: self._record_sync("fdatasync", handle))

    def _record_sync(self, name: str, handle: int) -> None:
        self._sync[name](handle)
        path, number = Path(f"/proc/self/fd/{handle}"), os.fstat(handle).st_ino
        if path.is_dir():
            self._names[number] = {entry.name: entry.inode() for entry in os.scandir(handle)}
        else:
            self._bytes[number] = path.read_bytes()

    def restore_to(self, target: Path) -> None:
        """Write the root directory as it would be after a power cut at this time."""
        self._restore(self._root.stat().st_ino, target)

    def _restore(self, folder: int, target: Path) -> None:
        target.mkdir()
        for name, number in self._names.get(folder, {}).items():
            if number in self._names:
                self._restore(number, target / name)
            else:
                (target / name).write_bytes(self._bytes.get(number, b""))


class DeadStream(MemoryStream):
    """A stream that is down, so that all accepted records stay on disk."""

    def publish(self, topic: str, records: Sequence[Record]) -> Mapping[int, int]:
        raise Unavailable("the stream is down")


@pytest.mark.parametrize("segment_bytes", [100, 8 << 20], ids=["segment per record", "one segment"])
def test_acknowledged_records_survive_a_power_cut_at_any_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, segment_bytes: int
) -> None:
    """When a future completes, all of its records can be recovered from the synced data."""
    (home := tmp_path / "home").mkdir()
    with monkeypatch.context() as patched:
        power = PowerCut(home, patched)
        spool = DurableSpool(home, DeadStream(), "t")
        spool._segments._segment_bytes = segment_bytes
        spool.start()
        for number in range(6):
            future = spool.put([Record(f"v{n}", str(3 * number + n).encode()) for n in range(3)])
            future.add_done_callback(lambda _, to=tmp_path / f"cut-{number}": power.restore_to(to))  # type: ignore[misc]
            future.result(10)
        spool.close(0.1)
    for number in range(6):
        stream = MemoryStream(2)
        spool_after_cut = DurableSpool(tmp_path / f"cut-{number}", stream, "t")
        spool_after_cut.start()
        deadline = time.monotonic() + 20
        while spool_after_cut.state().records:
            assert time.monotonic() < deadline, "the records were not delivered in time"
            time.sleep(0.01)
        spool_after_cut.close()
        got = [int(m.value) for p in range(stream.partitions("t")) for m in stream.read("t", p, 0, 10**6)]
        assert sorted(got) == list(range(3 * number + 3))
