"""Assembles the commands, and is the one place where an error becomes a line and an exit status.

A command is one module of this folder with a function of its name; the function's docstring is the
help text. Its module is imported when help or the command itself is asked for, so it must not
import anything heavy at its top: numpy, rich and the rest of nndiag belong into the function.

To add a command: write `nndiag/cli/NAME.py` with a function `NAME`, and add the name to `COMMANDS`.
A module may have `CONTEXT`, the context settings of its command (`watch` passes options on).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from nndiag import __version__
from nndiag.cli import planned
from nndiag.errors import NndiagError

# In the order of the help text.
COMMANDS = (
    "watch",
    "demo",
    "preflight",
    "analyze",
    "check",
    "report",
    "compare",
    "attribute",
    "export",
    "explain",
    "rules",
    "formats",
)

INTERRUPTED = 128 + 2  # as a shell counts SIGINT
BROKEN_PIPE = 128 + 13  # and SIGPIPE
USAGE = 2


class PlainCommand(TyperCommand):
    """Help without typer's notation for types: `PATH...`, not `{PATH}... <list[str]>`.

    In the list of commands stands the first sentence of a docstring, not its first 45 characters.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        for parameter in self.params:
            if parameter.param_type_name == "argument":
                parameter.display_type_rich = lambda ctx: ""  # type: ignore[attr-defined]

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        pieces = super().collect_usage_pieces(ctx)
        return [piece.replace("{", "").replace("}", "") for piece in pieces]

    def get_short_help_str(self, limit: int = 0) -> str:
        return " ".join((self.help or "").split("\n\n")[0].split()).split(". ")[0].rstrip(".")


class Commands(TyperGroup):
    """Commands by name, each from its own module, in our order."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in planned.COMMANDS:
            built = f"built so far: {', '.join(COMMANDS)}"
            raise planned.not_built_yet(f"nndiag {cmd_name}", built)
        return _command(cmd_name) if cmd_name in COMMANDS else None


def _command(name: str) -> Any:
    """The command of the module of that name, as typer's parser wants it."""
    module = import_module(f"nndiag.cli.{name}")
    single = typer.Typer(add_completion=False, rich_markup_mode=None)
    context = {"help_option_names": ["-h", "--help"], **getattr(module, "CONTEXT", {})}
    single.command(name, cls=PlainCommand, context_settings=context)(getattr(module, name))
    return get_command(single)


app = typer.Typer(
    cls=Commands,
    rich_markup_mode=None,  # plain help: fast, and the same in a pipe
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=f"Planned, not built yet: {', '.join(planned.COMMANDS)}.",
)


def _show_version(asked: bool) -> None:
    if asked:
        print(f"nndiag {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def nndiag(
    context: typer.Context,
    version: bool = typer.Option(
        False, "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
    ),
) -> None:
    """Watch a training script, say what is wrong with the learning, and what to change.

    The first minute: nndiag demo. Your own script: nndiag watch train.py
    """
    if context.invoked_subcommand is None:
        print(context.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line, by default the process's own; its exit status."""
    _print_anything()
    try:
        status = app(
            list(sys.argv[1:] if arguments is None else arguments),
            prog_name="nndiag",
            standalone_mode=False,
        )
        sys.stdout.flush()
    except NndiagError as error:
        return _fail(error)
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except SystemExit as ending:
        if isinstance(ending.__context__, BrokenPipeError):  # typer makes a status 1 of it
            return BROKEN_PIPE
        raise
    except BrokenPipeError:
        # The reader of our pipe has left: nobody to tell. Python's own flush at exit must not try.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except Exception as error:
        # typer and click keep their usage errors in private modules; this is what they promise.
        if hasattr(error, "format_message") and hasattr(error, "exit_code"):
            return _usage(error)
        return _our_fault(error)
    return status if isinstance(status, int) else 0


def _print_anything() -> None:
    """A character that the terminal's encoding lacks is shown as an escape, not as a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _fail(error: NndiagError) -> int:
    from nndiag.reports import page, plain

    print(plain.text(page.error_lines([error])), end="", file=sys.stderr)
    return error.exit_status


def _usage(error: Any) -> int:
    """A wrong command line, in our own form."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "nndiag"
    message = error.format_message().rstrip(".")
    what = message[:1].lower() + message[1:]
    return _fail(NndiagError(where=command, what=what, do=f"see: {command} --help"))


def _our_fault(error: Exception) -> int:
    """A bug of ours: say so in two lines; the traceback for those who want to mend it."""
    if os.environ.get("NNDIAG_TRACEBACK"):
        raise error
    what = f"a fault of nndiag itself: {type(error).__name__}: {error}"
    do = "please report it; NNDIAG_TRACEBACK=1 in the environment shows where it happened"
    _fail(NndiagError(where="nndiag", what=what, do=do))
    return USAGE
