"""`mainstay audit`: the audit trail of items, outlets, policies and targets."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from features.commands.flags import command_group, with_settings
from features.commands.output import fail, rfc3339
from features.settings import Settings

FLAGS = ("home", "control")

audit = command_group("audit", "List or verify the audit trail of the control plane.")


@audit.command(name="list")
@with_settings(*FLAGS)
def list_(
    settings: Settings,
    *,
    limit: Annotated[int, Parameter(help="number of entries, the newest ones", validator=Number(gte=1))] = 100,
    after: Annotated[int, Parameter(help="only entries with a greater sequence number")] = 0,
) -> int:
    """List audit entries, oldest first: number, time, actor, action, subject, detail.

    Exit codes: 0 listed, 1 the control plane is unavailable, 2 usage.
    """
    from features.control.connect import open_control

    with closing(open_control(settings.control_url)) as control:
        rows = control.audit(after=after, limit=limit, newest_first=True)
    for row in reversed(rows):
        detail = json.dumps(row.detail, ensure_ascii=False)
        print(row.seq, rfc3339(row.at), row.actor, row.action, row.subject, detail, sep="\t")
    return 0


@audit.command
@with_settings(*FLAGS)
def verify(settings: Settings) -> int:
    """Verify the hash chain of the audit trail.

    Prints the number and the hash of the last entry. Keep them elsewhere: the chain cannot show that entries were
    removed from its end.

    Exit codes: 0 intact, 1 an entry is missing or altered, or the control plane is unavailable, 2 usage.
    """
    from features.control.connect import open_control

    with closing(open_control(settings.control_url)) as control:
        broken = control.audit_break()
        last = control.audit(limit=1, newest_first=True)
    if broken is not None:
        return fail("audit", f"the chain breaks at entry {broken}, which is missing, altered or out of order")
    print(f"audit trail intact: {last[0].seq:,} entries, last hash {last[0].hash}" if last else "audit trail is empty")
    return 0
