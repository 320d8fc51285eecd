"""`mainstay quarantine`: corrupt states that were set aside."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from features.commands.flags import WORKER, command_group, with_settings
from features.settings import Settings

quarantine = command_group("quarantine", "List or show corrupt states found in the online store.")


@quarantine.command(name="list")
@with_settings(*WORKER)
def list_(settings: Settings) -> int:
    """List quarantined states with size, time, cause and repair.

    Exit codes: 0 listed, 1 the online store is unavailable, 2 usage.
    """
    from features.worker import maintenance

    with maintenance.open_context(settings) as context:
        return maintenance.list_quarantine(context)


@quarantine.command
@with_settings(*WORKER)
def show(settings: Settings, key: Annotated[str, Parameter(name="KEY", help="a key from `quarantine list`")], /) -> int:
    """Show the quarantined states of one key, their bytes in base64.

    Exit codes: 0 shown, 1 nothing is quarantined under this key, or the online store is unavailable, 2 usage.
    """
    from features.worker import maintenance

    with maintenance.open_context(settings) as context:
        return maintenance.show_quarantine(context, key)
