"""`mainstay demo`: the whole engine on this machine."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from features.commands.flags import Switch, with_settings
from features.settings import Settings


@with_settings("home", "stream", "online", "control", "host", "port", "insecure", "encoder")
def demo(
    settings: Settings,
    *,
    once: Annotated[Switch, Parameter(help="exit after the report; the last line is then one JSON object")] = False,
    training_config: Annotated[str, Parameter(help="a TOML file, or one of the package: base, demo")] = "demo",
) -> int:
    """Run the whole engine on this machine.

    Replays real interactions, trains a model and shows guided pages. Starts a worker and the API as child
    processes, stays until Ctrl-C and stops them in order.

    Exit codes: 0 done, 1 failed, 2 usage, 130 interrupted before the report was done.
    """
    from serving.demo.main import run_demo

    return run_demo(settings, once, training_config)
