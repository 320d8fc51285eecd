"""The command `mainstay`. Its subcommands are entry points of the group `mainstay.commands`, loaded when they are used.

An entry point names a function that returns an exit code, or a cyclopts App. Any installed package can add one.
"""

from __future__ import annotations

import inspect
import os
import signal
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import EntryPoint, entry_points, version

from cyclopts import App, CycloptsError

from features.commands.output import reflow
from features.redaction import print_exception, redact
from recsys.domain.errors import MainstayError, SettingsError

GROUP = "mainstay.commands"
DISTRIBUTION = "mainstay-recsys"
EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130
EXIT_READER_GONE = 128 + signal.SIGPIPE
"""The exit code when the reader of the output has closed it, as shells report it for any command in a pipe."""

HELP = """Mainstay: recommendations that broadcasters steer.

Exit codes: 0 success; 1 failure, or differences found; 2 wrong command line or settings; 3 inconclusive (verify,
measure --skew); 130 interrupted; 141 the reader of the output has closed it."""

EPILOGUE = """Settings come from flags, then MAINSTAY_* environment variables, then a TOML file (--config FILE, or
mainstay.toml in the working directory), then defaults."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line, by default that of the process, and return its exit code."""
    sys.excepthook = print_exception
    tokens = list(sys.argv[1:] if argv is None else argv)
    app = build_app(entry_points(group=GROUP), with_help=not tokens or tokens[0] in ("-h", "--help"))
    program = " ".join(["mainstay", *tokens[:1]]) if tokens and tokens[0] in app else "mainstay"
    try:
        code = app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
        return int(code or 0)
    except CycloptsError as error:
        return _fail(f"{program}: {error} Run `{program} --help` for usage.", EXIT_USAGE)
    except SettingsError as error:
        return _fail(f"{program}: {error}", EXIT_USAGE)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python reports the pipe once more at exit
        return EXIT_READER_GONE
    except (MainstayError, OSError) as error:
        return _fail(f"{program}: {error}", EXIT_FAILED)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def build_app(commands: Iterable[EntryPoint], with_help: bool = False) -> App:
    """Return the root command. Only `with_help`, which the list of commands needs, are the commands loaded."""
    app = App(
        name="mainstay",
        help=reflow(HELP),
        help_epilogue=reflow(EPILOGUE),
        help_format="plaintext",
        version=lambda: version(DISTRIBUTION),
        suppress_keyboard_interrupt=False,  # main() returns EXIT_INTERRUPTED itself
    )
    for command in sorted(commands, key=lambda command: command.name):
        help = {"help": _summary(command)} if with_help else {}
        app.command(command.value, name=command.name, **help)
    return app


def _summary(command: EntryPoint) -> str:
    """Return the first line of the help of a command, or why the command cannot be loaded."""
    try:
        target = command.load()
    except (ImportError, AttributeError) as error:
        return f"(cannot be loaded: {error})"
    text = target.help if isinstance(target, App) else inspect.getdoc(target)
    return (text or "").partition("\n")[0]


def _fail(message: str, code: int) -> int:
    print(redact(message), file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
