"""Where a report goes and in which form: shared by all commands that print findings."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from nndiag.cli import planned
from nndiag.errors import BadUsage, NndiagError

if TYPE_CHECKING:
    from nndiag.records import Diagnosis
    from nndiag.reports.lines import Line

FORMATS = ("rich", "json")


def chosen_format(name: str | None, json: bool) -> str | None:
    """The format asked for; None: rich on a terminal, plain elsewhere. Refuses unknown ones."""
    if json and name not in (None, "json"):
        raise BadUsage(where="--json", what=f"contradicts --format {name}")
    if json:
        return "json"
    if name in planned.FORMATS:
        raise planned.not_built_yet(f"--format {name}", f"built so far: {', '.join(FORMATS)}")
    if name is not None and name not in FORMATS:
        raise BadUsage(
            where=f"--format {name}", what="no such format", do=f"one of: {', '.join(FORMATS)}"
        )
    return name


def show_report(
    diagnoses: Sequence[Diagnosis],
    errors: Sequence[NndiagError] = (),
    *,
    skipped: Sequence[NndiagError] = (),
    format: str | None = None,
    output: Path | None = None,
) -> None:
    """Print a report, or write it to a file.

    In JSON errors are a part of the report; else they go to standard error, which a pipe does not
    swallow.
    """
    from nndiag.reports import json_report, page
    from nndiag.reports.lines import FIXED

    if format == "json":
        _write(json_report.text(diagnoses, errors, skipped), output)
        return
    stream = sys.stdout
    lines = page.report(
        diagnoses,
        skipped=skipped,
        unread=len(errors),
        width=screen_width(stream, format) if output is None else FIXED,
        ascii_only=output is None and not can_draw(stream),
    )
    if output is not None:
        from nndiag.reports import plain

        _write(plain.text(lines), output)
    else:
        show_lines(lines, stream, format)
    sys.stdout.flush()
    show_lines(page.error_lines(errors), sys.stderr)


def show_lines(lines: Sequence[Line], stream: TextIO, format: str | None = None) -> None:
    """Print lines: in colour on a terminal, plain elsewhere."""
    if format == "rich" or is_terminal(stream):
        from nndiag.reports import terminal

        terminal.show(lines, stream)
    else:
        from nndiag.reports import plain

        stream.write(plain.text(lines))


def is_terminal(stream: TextIO) -> bool:
    """Whether a person looks at `stream` through something that can show more than text."""
    if os.environ.get("FORCE_COLOR"):
        return True
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def screen_width(stream: TextIO, format: str | None = None) -> int:
    """Columns for a report on `stream`."""
    from nndiag.reports.lines import FIXED

    if stream.isatty() or format == "rich":
        return shutil.get_terminal_size((FIXED, 24)).columns
    return FIXED


def can_draw(stream: TextIO) -> bool:
    """Whether the encoding of `stream` has braille and box characters."""
    try:
        "\u28ff\u2502\u2501".encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _write(text: str, output: Path | None) -> None:
    if output is None:
        sys.stdout.write(text)
        return
    try:
        output.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise BadUsage(where=f"-o {output}", what=f"cannot be written: {error.strerror}") from None
