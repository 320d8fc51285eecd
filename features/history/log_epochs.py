"""Log epochs of a topic, oldest first. A recreated log restarts at offset 0, so stored offsets name their epoch.

A broker that was wiped assigns its offsets again, under a new identity. States store offsets by source, so a source
names the epoch as well: partitions of the first log are "topic/0", those of the second "topic~001/0", and so on, which
sorts by time as text. The first epoch has no number, so sources that were stored before epochs existed remain valid.

The list is stored in the online store, next to the offsets that it explains, and in a file of the event log, whose
sources it names. Both begin with a checksum. A list that is lost or damaged in one place is restored from the other.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import msgspec

from features.checksum import decode_sealed, seal
from features.history import files
from features.state.keys import LOG_EPOCHS
from features.state.online.port import OnlineStore
from recsys.domain.errors import Conflict, DamagedData, Unavailable

FILE_NAME = "log_epochs.json"

TRIES = 10
_LOCK_NAME = "log_epochs"


class LogEpoch(msgspec.Struct, frozen=True):
    """A log of a topic. `identity` is that of `features.events.stream.port.Stream.identity`."""

    identity: str
    partitions: int


_decode = msgspec.json.Decoder(tuple[LogEpoch, ...]).decode
_decode_file = msgspec.json.Decoder(dict[str, tuple[LogEpoch, ...]]).decode
logger = logging.getLogger(__name__)


def log_name(topic: str, number: int) -> str:
    """Return the name of a topic's log in sources; `number` is that of the epoch, from 0.

    >>> log_name("t", 0), log_name("t", 1)
    ('t', 't~001')
    """
    return f"{topic}~{number:03}" if number else topic


@lru_cache(maxsize=10_000)
def epoch_partition(log: str, partition: int) -> str:
    """Return the source of a log's partition, by which states store offsets.

    >>> epoch_partition("t~001", 3)
    't~001/3'
    """
    return f"{log}/{partition}"


def epoch_partitions(online: OnlineStore, topic: str, partitions: int) -> list[str]:
    """Return every source that states in this store may name. Raises Unavailable.

    `partitions` is the number of partitions of the current log.
    """
    _, epochs = _read_store(online, topic)
    if epochs is None:
        raise Unavailable(f"online store: {LOG_EPOCHS}{topic} is damaged; running workers restore it within minutes")
    epochs = epochs or (LogEpoch("", partitions),)
    return [
        epoch_partition(log_name(topic, number), partition)
        for number, epoch in enumerate(epochs)
        for partition in range(max(epoch.partitions, partitions))
    ]


class LogEpochs:
    """The log epochs of the topics of one event log."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._epochs: dict[str, tuple[LogEpoch, ...]] = {}

    def name(self, online: OnlineStore, topic: str, epoch: LogEpoch) -> str:
        """Return the name of this log in sources. A new log is durable in the file and in the store on return.

        Raises Unavailable, and Conflict if event log and store have different epochs, which only a rebuild resolves.
        """
        if not epoch.identity:
            return topic  # a log without identity cannot be distinguished from others
        if (number := _epoch_number(self._epochs.get(topic, ()), epoch)) is None:
            self._epochs[topic] = epochs = self._record(online, topic, epoch)
            number = _epoch_number(epochs, epoch)
            assert number is not None
        return log_name(topic, number)

    def restore(self, online: OnlineStore, topic: str) -> None:
        """Copy the epochs from the event log to a store that is being rebuilt. Raises Unavailable."""
        local = self._read_file().get(topic)
        if local:
            online.put({LOG_EPOCHS + topic: seal(msgspec.json.encode(local))})

    def repair(self, online: OnlineStore, topic: str) -> None:
        """Restore the list in the store from the file if it is damaged. Raises Unavailable."""
        if _read_store(online, topic)[1] is None:
            self.restore(online, topic)

    def _record(self, online: OnlineStore, topic: str, epoch: LogEpoch) -> tuple[LogEpoch, ...]:
        """Add this epoch to the list in store and file; return the list. The store resolves concurrent additions."""
        local = self._read_file().get(topic, ())
        for _ in range(TRIES):
            raw, stored = _read_store(online, topic)
            epochs = _merge(topic, local, stored or ())
            if _epoch_number(epochs, epoch) is None:
                epochs = (*epochs, epoch)
            if epochs == stored or not online.compare_and_set(
                {LOG_EPOCHS + topic: (raw, seal(msgspec.json.encode(epochs)))}
            ):
                self._write(topic, epochs)
                return epochs
        raise Unavailable(f"{LOG_EPOCHS}{topic}: another writer changed it during each of {TRIES} attempts")

    def _write(self, topic: str, epochs: tuple[LogEpoch, ...]) -> None:
        """Write the list to the file, unless the file already has a list at least as long."""
        try:
            with files.locked(self._directory, _LOCK_NAME):
                local = self._read_file()
                if len(epochs) > len(local.get(topic, ())):
                    content = seal(msgspec.json.encode({**local, topic: epochs}))
                    files.write(self._directory / FILE_NAME, lambda out: out.write(content))
        except OSError as error:
            raise Unavailable(f"{self._directory / FILE_NAME}: {error}") from error

    def _read_file(self) -> dict[str, tuple[LogEpoch, ...]]:
        """Return the list of each topic; empty if the file is damaged, and is then restored from the online store."""
        try:
            return decode_sealed((self._directory / FILE_NAME).read_bytes(), _decode_file)
        except FileNotFoundError:
            return {}
        except DamagedData as error:
            logger.error("event log: %s is damaged: %s", self._directory / FILE_NAME, error)
            return {}
        except OSError as error:
            raise Unavailable(f"{self._directory / FILE_NAME}: {error}") from error


def _read_store(online: OnlineStore, topic: str) -> tuple[bytes | None, tuple[LogEpoch, ...] | None]:
    """Return the stored bytes and the list in them; None if they are damaged."""
    raw = online.get([LOG_EPOCHS + topic])[0]
    try:
        return raw, () if raw is None else decode_sealed(raw, _decode)
    except DamagedData as error:
        logger.error("online store: %s%s is damaged: %s", LOG_EPOCHS, topic, error)
        return raw, None


def _epoch_number(epochs: Sequence[LogEpoch], epoch: LogEpoch) -> int | None:
    return next((n for n, candidate in enumerate(epochs) if candidate.identity == epoch.identity), None)


def _merge(topic: str, local: tuple[LogEpoch, ...], stored: tuple[LogEpoch, ...]) -> tuple[LogEpoch, ...]:
    """Return the longer list if the shorter one is a prefix of it; otherwise raise Conflict."""
    local_ids, stored_ids = [epoch.identity for epoch in local], [epoch.identity for epoch in stored]
    if local_ids[: len(stored_ids)] == stored_ids[: len(local_ids)]:
        return local if len(local) > len(stored) else stored
    raise Conflict(
        f"event log and online store have different log epochs of topic {topic} "
        f"({', '.join(local_ids)}; {', '.join(stored_ids)}): run `mainstay rebuild`"
    )
