"""`mainstay viewers`: export and erase the data of one viewer."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from features.commands.flags import WORKER, command_group, with_settings
from features.settings import Settings
from recsys.domain.fields import normalize

viewers = command_group("viewers", "Export or erase the data of a viewer.")

ViewerId = Annotated[str, Parameter(name="ID", help="the viewer_id of the events")]


@viewers.command
@with_settings(*WORKER)
def export(settings: Settings, viewer_id: ViewerId, /) -> int:
    """Print all data of a viewer as JSON lines.

    Exit codes: 0 exported, 1 the stream, the event log or the online store is unavailable, 2 usage.
    """
    from features.worker import maintenance

    with maintenance.open_context(settings) as context:
        return maintenance.export(context, normalize(viewer_id))


@viewers.command
@with_settings(*WORKER)
def erase(settings: Settings, viewer_id: ViewerId, /) -> int:
    """Erase all data of a viewer for good.

    Exit codes: 0 erased, 1 the stream, the event log or the online store is unavailable, 2 usage.
    """
    from features.worker import maintenance

    with maintenance.open_context(settings) as context:
        return maintenance.erase(context, normalize(viewer_id))
