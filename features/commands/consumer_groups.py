"""`mainstay consumer-groups`: the consumer groups that hold back retention of the embedded stream."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from features.commands.flags import WORKER, command_group, with_settings
from features.settings import Settings

consumer_groups = command_group("consumer-groups", "List or delete consumer groups of the embedded stream.")


@consumer_groups.command(name="list")
@with_settings(*WORKER)
def list_(settings: Settings) -> int:
    """List consumer groups with unread messages in the embedded stream.

    Exit codes: 0 listed, 1 the stream is a broker or is unavailable, 2 usage.
    """
    from features.worker import maintenance

    with maintenance.open_context(settings) as context:
        return maintenance.print_groups(context)


@consumer_groups.command
@with_settings(*WORKER)
def delete(
    settings: Settings, name: Annotated[str, Parameter(name="NAME", help="a group from `consumer-groups list`")], /
) -> int:
    """Delete a consumer group that no longer runs, so that it holds back retention no more.

    Exit codes: 0 deleted, 1 no such group, it belongs to the workers or is reading now, or the stream is a broker, 2
    usage.
    """
    from features.worker import maintenance

    with maintenance.open_context(settings) as context:
        return maintenance.delete_consumer_group(context, name)
