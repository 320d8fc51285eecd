"""What the spool took is on the disk: not in a file's cache, nor in a file whose name is."""

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
    """What is left of the directories below a root when the power goes: names and bytes that were synced, no others."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self._root, self._bytes = root, dict[int, bytes]()
        self._names: dict[int, dict[str, int]] = {root.stat().st_ino: {}}
        self._sync = {"fsync": os.fsync, "fdatasync": os.fdatasync}
        patch.setattr("os.fsync", lambda handle: self._record_sync("fsync", handle))
        patch.setattr("os.fdatasync", lambda handle: self._record_sync("fdatasync", handle))

    def _record_sync(self, how: str, handle: int) -> None:
        self._sync[how](handle)
        at, number = Path(f"/proc/self/fd/{handle}"), os.fstat(handle).st_ino
        if at.is_dir():
            self._names[number] = {one.name: one.inode() for one in os.scandir(handle)}
        else:
            self._bytes[number] = at.read_bytes()

    def restore_to(self, to: Path) -> None:
        """The same root after a cut that comes now."""
        self._restore(self._root.stat().st_ino, to)

    def _restore(self, folder: int, to: Path) -> None:
        to.mkdir()
        for name, number in self._names.get(folder, {}).items():
            if number in self._names:
                self._restore(number, to / name)
            else:
                (to / name).write_bytes(self._bytes.get(number, b""))


class DeadStream(MemoryStream):
    """Nothing is delivered, so all that was taken waits on the disk."""

    def publish(self, topic: str, records: Sequence[Record]) -> Mapping[int, int]:
        raise Unavailable("the stream is dead")


@pytest.mark.parametrize("segment_bytes", [100, 8 << 20], ids=["a file each", "one file"])
def test_what_was_taken_survives_a_power_cut_at_any_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, segment_bytes: int
) -> None:
    """The moment a future is done, all of its records are found again on what was synced by then."""
    (home := tmp_path / "home").mkdir()
    with monkeypatch.context() as watched:
        power = PowerCut(home, watched)
        spool = DurableSpool(home, DeadStream(), "t")
        spool._segments._segment_bytes = segment_bytes
        spool.start()
        for number in range(6):
            taken = spool.put([Record(f"v{n}", str(3 * number + n).encode()) for n in range(3)])
            taken.add_done_callback(lambda _, to=tmp_path / f"cut-{number}": power.restore_to(to))  # type: ignore[misc]
            taken.result(10)
        spool.close(0.1)
    for number in range(6):
        stream = MemoryStream(2)
        again = DurableSpool(tmp_path / f"cut-{number}", stream, "t")
        again.start()
        give_up = time.monotonic() + 20
        while again.state().records:
            assert time.monotonic() < give_up, "it was not delivered in time"
            time.sleep(0.01)
        again.close()
        got = [int(m.value) for p in range(stream.partitions("t")) for m in stream.read("t", p, 0, 10**6)]
        assert sorted(got) == list(range(3 * number + 3))
