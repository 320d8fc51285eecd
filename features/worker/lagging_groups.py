"""Report and delete consumer groups that hold back retention in the embedded stream.

A message stays in the stream until every group that ever committed has passed it, however old the message is; messages
of an erased viewer stay with it. Only an operator can decide whether a group will return.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

from features.events.change_feed import changes_topic
from features.events.dead_letters import dead_topic
from features.events.stream.port import Backlog, Retention
from features.settings import Settings
from recsys.domain.decay import DAY_S
from recsys.domain.errors import Conflict

LOG_EVERY_S = 3600.0
DELETE_HINT = "mainstay consumer-groups delete NAME"

logger = logging.getLogger(__name__)


class LagReporter:
    """A periodic check that logs the groups that hold back messages beyond the retention period."""

    def __init__(
        self, retention: Retention | None, settings: Settings, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Report on this stream.

        retention  of the stream; None for a broker, which retains messages for no group
        """
        self._retention, self._settings, self._clock = retention, settings, clock
        self._logged_at = float("-inf")

    def report(self, now: float) -> None:
        """Log a warning for each topic with lagging groups, at most once an hour; `now` in unix seconds.

        Raises Unavailable.
        """
        if self._retention is None or self._clock() - self._logged_at < LOG_EVERY_S:
            return
        days = self._settings.stream_days
        for topic, groups in _topics(self._settings).items():
            if backlogs := self._retention.backlog(topic, now - days * DAY_S, groups):
                self._logged_at = self._clock()
                logger.warning(
                    "retention of %s is held back: messages older than %d days wait for consumer groups %s. To delete "
                    "a group that will not return: %s",
                    topic,
                    days,
                    describe(backlogs, now),
                    DELETE_HINT,
                )


def describe(backlogs: Mapping[str, Backlog], now: float) -> str:
    """Return the groups and their backlogs as text; `now` in unix seconds.

    >>> describe({"old": Backlog(1200, 0.0)}, 40 * DAY_S)
    'old (1,200 messages, the oldest 40 days old)'
    """
    return ", ".join(
        f"{group} ({backlog.messages:,} messages, the oldest {(now - backlog.since) / DAY_S:.0f} days old)"
        for group, backlog in backlogs.items()
    )


def list_groups(retention: Retention, settings: Settings, now: float) -> None:
    """Print a line for each group that has not read all messages of a topic. Raises Unavailable."""
    for topic, groups in _topics(settings).items():
        for group, backlog in retention.backlog(topic, float("inf"), groups).items():
            age_days = (now - backlog.since) / DAY_S
            print(f"{topic}\t{group}\t{backlog.messages:,} unread\tthe oldest {age_days:.1f} days old")


def delete_group(retention: Retention, settings: Settings, group: str) -> bool:
    """Delete a consumer group from all topics and return whether it existed.

    Raises Conflict for the workers' own group and for a group with an active member, and Unavailable.
    """
    if group == settings.group:
        raise Conflict(f"{group} is the group of the workers: without its offsets they would read every message again")
    deleted = [retention.delete_group(topic, group) for topic in _topics(settings)]
    return any(deleted)


def _topics(settings: Settings) -> dict[str, list[str]]:
    """Return the topics of this engine, each with the groups that count even before their first commit."""
    return {settings.topic: [settings.group], changes_topic(settings.topic): [], dead_topic(settings.topic): []}
