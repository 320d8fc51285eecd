"""`mainstay audit`: the audit trail of items, outlets, policies and targets."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from features.commands.flags import command_group, with_settings
from features.commands.output import fail, rfc3339
from features.settings import Settings
from recsys.domain.errors import InvalidInput

FLAGS = ("home", "control", "audit_key", "audit_checkpoint")

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
    from features.control.connect import open_control_of

    with closing(open_control_of(settings)) as control:
        rows = control.audit(after=after, limit=limit, newest_first=True)
    for row in reversed(rows):
        detail = json.dumps(row.detail, ensure_ascii=False)
        print(row.seq, rfc3339(row.at), row.actor, row.action, row.subject, detail, sep="\t")
    return 0


@audit.command
@with_settings(*FLAGS)
def verify(
    settings: Settings,
    *,
    checkpoint: Annotated[
        Path | None,
        Parameter(help="checkpoint file that was kept elsewhere (default the setting audit_checkpoint, if it exists)"),
    ] = None,
) -> int:
    """Verify the signatures of the audit trail, and name the first entry that is missing, altered or inserted.

    The checkpoint file also shows whether the whole database was replaced by an older state: keep a copy elsewhere.

    Exit codes: 0 intact, 1 an entry is missing or altered, or the control plane is unavailable, 2 usage.
    """
    from features.control.audit_checkpoint import read_checkpoint
    from features.control.connect import AUDIT_KEY_FILE, checkpoint_of, open_control_of

    file = checkpoint or checkpoint_of(settings).path
    seal = read_checkpoint(file) if checkpoint or file.exists() else None
    has_key = bool(settings.audit_key) or (Path(settings.home) / AUDIT_KEY_FILE).exists()
    hint = f"; there was no {AUDIT_KEY_FILE} in {settings.home}: set audit_key if the trail has another key"
    with closing(open_control_of(settings)) as control:
        last = control.audit(limit=1, newest_first=True)
        try:
            entries, fault = control.verify_audit(seal)
        except InvalidInput as error:  # the checkpoint
            return fail("audit", str(error) if has_key else f"{error}{hint}")
    if fault is not None:
        text = f"the audit trail breaks at entry {fault.seq}, which {fault.reason}"
        return fail("audit", text if has_key else text + hint)
    if not last:
        print("audit trail is empty")
        return 0
    covered = f", checkpoint {file} at entry {seal.seq:,}" if seal else f"; there is no checkpoint file {file}"
    print(f"audit trail intact: {entries:,} entries, last hash {last[0].hash}{covered}")
    return 0
