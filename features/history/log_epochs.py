"""The lives of a log: which logs have stood under a topic's name, oldest first.

A broker that was wiped gives its offsets out again, under another identity. States remember offsets by source, so a
source names the log as well: partitions of the first log are "topic/0", those of the second "topic~001/0", and so on,
which is the order of time when they are sorted as text. The first has no number: what was written before lives were
told apart goes on as it is.

The list stands in the online store, beside the offsets that it explains, and in a file of the event log, whose sources
it names. What one of them has lost it is told by the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import msgspec

from features.history import files
from features.state.keys import LOG_EPOCHS
from features.state.online.port import OnlineStore
from recsys.domain.errors import Conflict, Unavailable

NAME = "lives.json"

TRIES = 10
_LOCK = "lives"


class LogEpoch(msgspec.Struct, frozen=True):
    """One log. `identity` as `features.events.stream.port.Stream.identity` says it."""

    identity: str
    partitions: int


_lives = msgspec.json.Decoder(tuple[LogEpoch, ...])
_file = msgspec.json.Decoder(dict[str, tuple[LogEpoch, ...]])


def log_name(topic: str, life: int) -> str:
    """What the log of a topic is called in sources; `life` counts from 0.

    >>> log_name("t", 0), log_name("t", 1)
    ('t', 't~001')
    """
    return f"{topic}~{life:03}" if life else topic


@lru_cache(maxsize=10_000)
def epoch_partition(log: str, partition: int) -> str:
    """What states call a partition of a log.

    >>> source_of("t~001", 3)
    't~001/3'
    """
    return f"{log}/{partition}"


def epoch_partitions(online: OnlineStore, topic: str, partitions: int) -> list[str]:
    """Every source that states in this store may name; `partitions`: of the log there is now. Raises Unavailable."""
    lives = _there(online, topic)[1] or (LogEpoch("", partitions),)
    return [
        epoch_partition(log_name(topic, number), partition)
        for number, life in enumerate(lives)
        for partition in range(max(life.partitions, partitions))
    ]


class LogEpochs:
    """The lives of the topics of one event log."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._known: dict[str, tuple[LogEpoch, ...]] = {}

    def name(self, online: OnlineStore, topic: str, life: LogEpoch) -> str:
        """What this log is called. A log that was not known yet is noted, on the disk and in the store on return.

        Raises Unavailable, and Conflict when event log and store remember different logs: only a rebuild helps then.
        """
        if not life.identity:
            return topic  # it cannot be told from others
        if (number := _epoch_number(self._known.get(topic, ()), life)) is None:
            self._known[topic] = lives = self._record(online, topic, life)
            number = _epoch_number(lives, life)
            assert number is not None
        return log_name(topic, number)

    def restore(self, online: OnlineStore, topic: str) -> None:
        """Let the store remember what the event log does: for a store that is made anew from it. Raises Unavailable."""
        here = self._stored_locally().get(topic)
        if here:
            online.put({LOG_EPOCHS + topic: msgspec.json.encode(here)})

    def _record(self, online: OnlineStore, topic: str, life: LogEpoch) -> tuple[LogEpoch, ...]:
        """The list with this life in it, in store and file; the store decides between workers that note one at once."""
        here = self._stored_locally().get(topic, ())
        for _ in range(TRIES):
            raw, there = _there(online, topic)
            lives = _longer(topic, here, there)
            if _epoch_number(lives, life) is None:
                lives = (*lives, life)
            if lives == there or not online.compare_and_set({LOG_EPOCHS + topic: (raw, msgspec.json.encode(lives))}):
                self._write(topic, lives)
                return lives
        raise Unavailable(f"{LOG_EPOCHS}{topic}: another worker keeps changing it")

    def _write(self, topic: str, lives: tuple[LogEpoch, ...]) -> None:
        """Into the file, unless another worker has written more."""
        try:
            with files.locked(self._directory, _LOCK):
                here = self._stored_locally()
                if len(lives) > len(here.get(topic, ())):
                    told = msgspec.json.encode({**here, topic: lives})
                    files.write(self._directory / NAME, lambda out: out.write(told))
        except OSError as error:
            raise Unavailable(f"{self._directory / NAME}: {error}") from error

    def _stored_locally(self) -> dict[str, tuple[LogEpoch, ...]]:
        try:
            return _file.decode((self._directory / NAME).read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.DecodeError) as error:
            raise Unavailable(f"{self._directory / NAME}: {error}") from error


def _there(online: OnlineStore, topic: str) -> tuple[bytes | None, tuple[LogEpoch, ...]]:
    raw = online.get([LOG_EPOCHS + topic])[0]
    try:
        return raw, () if raw is None else _lives.decode(raw)
    except msgspec.DecodeError as error:
        raise Unavailable(f"{LOG_EPOCHS}{topic}: {error}") from error


def _epoch_number(lives: Sequence[LogEpoch], life: LogEpoch) -> int | None:
    return next((n for n, one in enumerate(lives) if one.identity == life.identity), None)


def _longer(topic: str, here: tuple[LogEpoch, ...], there: tuple[LogEpoch, ...]) -> tuple[LogEpoch, ...]:
    """The list of which the other is the beginning. Raises Conflict when neither is."""
    ids, others = [one.identity for one in here], [one.identity for one in there]
    if ids[: len(others)] == others[: len(ids)]:
        return here if len(here) > len(there) else there
    raise Conflict(
        f"event log and online store remember different logs of topic {topic} ({', '.join(ids)}; {', '.join(others)}): "
        "run `mainstay rebuild`"
    )
