"""Groups that keep messages in the embedded stream: told by name, and let go of when they are gone for good.

What a group that ever committed has not passed stays, however old, and an erased viewer's messages with it: only people
know whether such a group comes back.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

from features.events.change_feed import changes_topic
from features.events.dead_letters import dead_topic
from features.events.stream.port import Backlog, Retention
from features.settings import Settings
from recsys.domain.errors import Conflict
from recsys.domain.viewer import DAY_S

LOG_EVERY_S = 3600.0
DELETE_HINT = "mainstay consumer-groups delete NAME"

logger = logging.getLogger(__name__)


class LagReporter:
    """Says now and then which groups keep messages that are too old."""

    def __init__(
        self, retention: Retention | None, settings: Settings, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """retention  of the stream; None for a broker, which retains messages for no group"""
        self._retention, self._settings, self._clock = retention, settings, clock
        self._said_at = float("-inf")

    def report(self, now: float) -> None:
        """A warning for each topic where there are any, once an hour at most; `now`: unix seconds. Raises
        Unavailable."""
        if self._retention is None or self._clock() - self._said_at < LOG_EVERY_S:
            return
        days = self._settings.stream_days
        for topic, groups in _topics(self._settings).items():
            if found := self._retention.backlog(topic, now - days * DAY_S, groups):
                self._said_at = self._clock()
                logger.warning(
                    "%s keeps messages of more than %d days for groups that have not passed them: %s. One that is gone "
                    "for good: %s",
                    topic,
                    days,
                    describe(found, now),
                    DELETE_HINT,
                )


def describe(found: Mapping[str, Backlog], now: float) -> str:
    """Groups in words.

    >>> named({"old": Held(1200, 0.0)}, 40 * DAY_S)
    'old (1,200 messages, the oldest 40 days old)'
    """
    return ", ".join(
        f"{group} ({one.messages:,} messages, the oldest {(now - one.since) / DAY_S:.0f} days old)"
        for group, one in found.items()
    )


def list_groups(retention: Retention, settings: Settings, now: float) -> None:
    """A line for each group that has not passed all of a topic. Raises Unavailable."""
    for topic, groups in _topics(settings).items():
        for group, one in retention.backlog(topic, float("inf"), groups).items():
            print(f"{topic}\t{group}\t{one.messages:,} not passed\tthe oldest {(now - one.since) / DAY_S:.1f} days old")


def delete_group(retention: Retention, settings: Settings, group: str) -> bool:
    """Let go of a group in all topics; whether there was one. Raises Conflict for the workers' own and for one that
    reads at this moment, Unavailable."""
    if group == settings.group:
        raise Conflict(f"{group} is the group of the workers: without its place they would read all again")
    dropped = [retention.delete_group(topic, group) for topic in _topics(settings)]
    return any(dropped)


def _topics(settings: Settings) -> dict[str, list[str]]:
    """Those of ours, with the groups that read them whether or not they have begun."""
    return {settings.topic: [settings.group], changes_topic(settings.topic): [], dead_topic(settings.topic): []}
