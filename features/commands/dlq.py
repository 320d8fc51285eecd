"""`mainstay dlq`: dead letters, the messages that could not be read."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

from cyclopts import Parameter

from features.commands.flags import WORKER, Switch, command_group, with_settings
from features.events.stream.connect import open_stream
from features.settings import Settings

dlq = command_group("dlq", "List, show or replay messages that could not be read.")

Location = Annotated[
    str | None,
    Parameter(name="LOCATION", help="one dead letter, as TOPIC/PARTITION@OFFSET (see `dlq list`); default: all"),
]


@dlq.command(name="list")
@with_settings(*WORKER)
def list_(settings: Settings, location: Location = None, /) -> int:
    """List dead letters with size, cause and the time of the replay.

    Exit codes: 0 listed, 1 no such dead letter, or the stream is unavailable, 2 usage.
    """
    from features.worker.dead_letter_commands import list_dead_letters

    with closing(open_stream(settings.stream_url, partitions=settings.partitions)) as stream:
        return list_dead_letters(stream, settings.topic, location)


@dlq.command
@with_settings(*WORKER)
def show(settings: Settings, location: Location = None, /) -> int:
    """Show causes and contents of dead letters.

    Exit codes: 0 shown, 1 no such dead letter, or the stream is unavailable, 2 usage.
    """
    from features.worker.dead_letter_commands import show_dead_letters

    with closing(open_stream(settings.stream_url, partitions=settings.partitions)) as stream:
        return show_dead_letters(stream, settings.topic, location)


@dlq.command
@with_settings(*WORKER)
def replay(
    settings: Settings,
    location: Location = None,
    /,
    *,
    without_client_time: Annotated[
        Switch,
        Parameter(
            help="drop the clients' timestamps, so that events dated in the future are accepted at their arrival time",
        ),
    ] = False,
) -> int:
    """Publish dead letters again that can be read by now.

    Each dead letter is replayed once, however often the command runs. A dead letter named by LOCATION is replayed
    again; its event still counts once while its id is among the newest ids of its viewer.

    Exit codes: 0 replayed, 1 a dead letter is still unreadable or does not exist, or the stream is unavailable, 2
    usage.
    """
    from features.worker.dead_letter_commands import replay_dead_letters

    with closing(open_stream(settings.stream_url, partitions=settings.partitions)) as stream:
        return replay_dead_letters(stream, settings.topic, location, without_client_time)
