"""Command-line flags for settings, shared by all subcommands."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Concatenate, ParamSpec

from cyclopts import App, Group, Parameter

from features.commands.output import reflow
from features.settings import DEFAULT_CONFIG, Settings, find_config

P = ParamSpec("P")

WORKER = ("home", "stream", "online", "event_log", "topic", "group", "partitions", "stream_days", "item_ttl_days",
          "viewer_ttl_days")  # fmt: skip
"""Settings of the worker and of the commands that maintain its log and its stores."""

Switch = Annotated[bool, Parameter(negative="", show_default=False)]
"""The type of a flag without a value."""

_GROUP = Group("Settings", sort_key=1)
_CONFIG = f"TOML file of settings (default {DEFAULT_CONFIG} in the working directory, if it exists) [MAINSTAY_CONFIG]"


def with_settings(*names: str) -> Callable[[Callable[Concatenate[Settings, P], int]], Callable[..., int]]:
    """Return a decorator that passes Settings as the first argument and adds a flag for each of these settings.

    The command also takes `--config FILE`. Raises SettingsError when the command is called with invalid settings.
    """

    def decorate(command: Callable[Concatenate[Settings, P], int]) -> Callable[..., int]:
        @wraps(command)
        def run(*args: Any, config: Path | None = None, **values: Any) -> int:
            flags = {name: values.pop(name, None) for name in names}
            return command(Settings.read(find_config(config), **flags), *args, **values)

        _, *own = inspect.signature(command, eval_str=True).parameters.values()
        flags = [_flag("config", Path, _CONFIG), *(_flag(name, _type(name), Settings.help_of(name)) for name in names)]
        run.__doc__ = reflow(inspect.getdoc(command) or "")
        run.__signature__ = inspect.Signature([*own, *flags], return_annotation=int)  # type: ignore[attr-defined]
        return run

    return decorate


def command_group(name: str, help: str) -> App:
    """Return the command `mainstay NAME`, which has subcommands of its own."""
    return App(name=name, help=help, help_format="plaintext")


def _type(name: str) -> Any:
    return Settings.model_fields[name].annotation


def _flag(name: str, of_type: Any, help: str) -> inspect.Parameter:
    annotation = Annotated[of_type | None, Parameter(help=help, group=_GROUP)]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
