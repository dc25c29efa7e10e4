"""Where a report goes and in which form: shared by all commands that print findings."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from nndiag.cli import planned
from nndiag.errors import BadUsage, NndiagError

if TYPE_CHECKING:
    from nndiag.analysis import Progress
    from nndiag.gate import Gate
    from nndiag.records import Attribution, Diagnosis
    from nndiag.reports.lines import Line
    from nndiag.reports.rules import Rule
    from nndiag.settings import Settings

FORMATS = ("rich", "json", "markdown", "html", "github", "sarif", "junit")


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
    verbose: bool = False,
    unfinished: int = 0,
    gate: Gate | None = None,
    rules: Sequence[Rule] = (),
    has_baseline: bool = False,
) -> None:
    """Print a report, or write it to a file; `unfinished` runs were interrupted.

    A `gate` is that of `check`, whose reports tell what fails it; `rules` are those asked.
    In JSON errors are a part of the report; else they go to standard error, which a pipe does not
    swallow. Of many runs a screen shows the pages of the worst, and last, where it is seen, how all
    of them stand; a pipe gets a line for each.
    """
    from nndiag.reports import overview, page

    if format == "json":
        from nndiag.reports import json_report

        write(json_report.text(diagnoses, errors, skipped, unfinished, gate), output)
        return
    if format == "html":
        write(html_page(diagnoses, errors, skipped, gate, unfinished), output)
        tell_rest(errors, unfinished)
        return
    if format not in (None, "rich"):
        write(document(format, diagnoses, errors, skipped, gate, rules, has_baseline), output)
        tell_rest(errors, unfinished)
        return
    from nndiag.reports.lines import FIXED

    stream = sys.stdout
    on_screen = output is None and (format == "rich" or is_terminal(stream))
    width = screen_width(stream, format) if output is None else FIXED
    ascii_only = output is None and not can_draw(stream)
    unread = len(errors)
    if len(diagnoses) < overview.FROM:
        lines = page.report(
            diagnoses,
            skipped=skipped,
            unread=unread,
            width=width,
            ascii_only=ascii_only,
            verbose=verbose,
        )
    else:
        lines = page.pages(diagnoses if verbose else overview.worst(diagnoses), width, ascii_only)
        if on_screen:
            lines += overview.on_a_screen(
                diagnoses,
                skipped=skipped,
                unread=unread,
                width=width,
                ascii_only=ascii_only,
                verbose=verbose,
            )
        else:
            lines = overview.in_a_pipe(
                diagnoses, skipped=skipped, unread=unread, verbose=verbose
            ) + (lines if verbose else [])
    if output is not None:
        from nndiag.reports import plain

        write(plain.text(lines), output)
    else:
        show_lines(lines, stream, format)
    tell_rest(errors, unfinished)


def document(
    format: str,
    diagnoses: Sequence[Diagnosis],
    errors: Sequence[NndiagError] = (),
    skipped: Sequence[NndiagError] = (),
    gate: Gate | None = None,
    rules: Sequence[Rule] = (),
    has_baseline: bool = False,
) -> str:
    """A report in one of the formats that other programs read."""
    if format == "markdown":
        from nndiag.reports import markdown

        return markdown.text(diagnoses, errors, gate=gate, skipped=skipped)
    if format == "html":
        return html_page(diagnoses, errors, skipped, gate)
    if format == "github":
        from nndiag.reports import github

        return github.text(diagnoses, errors, gate=gate)
    if format == "sarif":
        from nndiag.reports import sarif

        return sarif.text(diagnoses, errors, rules=rules, gate=gate, has_baseline=has_baseline)
    from nndiag.reports import junit

    return junit.text(diagnoses, errors, rules=rules, gate=gate)


def html_page(
    diagnoses: Sequence[Diagnosis],
    errors: Sequence[NndiagError] = (),
    skipped: Sequence[NndiagError] = (),
    gate: Gate | None = None,
    unfinished: int = 0,
) -> str:
    """The report as a page for a browser, with the attributions of runs that have some."""
    from nndiag.reports import html_page

    return html_page.text(
        diagnoses,
        errors,
        skipped=skipped,
        gate=gate,
        unfinished=unfinished,
        sections={
            one.run.path: (html_page.attribution_section(found),)
            for one in html_page.in_full(diagnoses)
            if (found := _attributions(one))
        },
    )


def _attributions(diagnosis: Diagnosis) -> list[Attribution]:
    """Those of the batches that a finding is about, and of the last one; none of other logs."""
    from nndiag.errors import UnreadableLog
    from nndiag.readers.attributions import attributions_of
    from nndiag.reports.attribution_facts import belongs_to

    if diagnosis.run.format != "nndiag":
        return []
    try:
        found, _ = attributions_of(diagnosis.run.path)
    except UnreadableLog:  # the run was read a moment ago: it may be a file within it
        return []
    return [one for one in found if belongs_to(one, diagnosis.findings)]


def rules_asked(settings: Settings, *, with_baseline: bool = False) -> list[Rule]:
    """The rules that a report lists: those that were asked for and could say something."""
    from nndiag.detectors import catalogue
    from nndiag.reports.rules import Rule

    asked = catalogue.selected(settings.select, settings.ignore)
    return [
        Rule(one.name, one.headline(), one.page())
        for one in asked
        if with_baseline or one.name != "outside-baseline"
    ]


def tell_rest(errors: Sequence[NndiagError], unfinished: int) -> None:
    """On standard error: what could not be read, and what was not analysed."""
    from nndiag.reports import page

    sys.stdout.flush()
    show_lines(page.error_lines(errors), sys.stderr)
    if unfinished:
        runs = f"{unfinished} run{'s' if unfinished > 1 else ''}"
        print(f"interrupted: {runs} not analysed", file=sys.stderr)


def in_github_actions() -> bool:
    """Whether a runner of GitHub Actions reads what we print."""
    return os.environ.get("GITHUB_ACTIONS") == "true"


def progress_line(format: str | None) -> AbstractContextManager[Progress | None]:
    """A line on standard error that tells a waiting person how far we are; else nothing.

    Not with JSON, which programs ask for, nor into a pipe: its reader (`less`) may draw as well.
    """
    with contextlib.suppress(OSError, ValueError):
        to_a_pipe = stat.S_ISFIFO(os.fstat(sys.stdout.fileno()).st_mode)
        if format != "json" and not to_a_pipe and is_drawable(sys.stderr):
            from nndiag.reports.progress import ProgressLine

            return ProgressLine(sys.stderr, ascii_only=not can_draw(sys.stderr))
    return contextlib.nullcontext()


def show_lines(lines: Sequence[Line], stream: TextIO, format: str | None = None) -> None:
    """Print lines: in colour on a terminal, plain elsewhere."""
    if in_github_actions():
        from nndiag.reports import github

        lines = github.harmless(lines)
    if format == "rich" or is_terminal(stream):
        from nndiag.reports import terminal

        terminal.show(lines, stream)
    else:
        from nndiag.reports import plain

        stream.write(plain.text(lines))


def is_drawable(stream: TextIO) -> bool:
    """Whether a line on `stream` can be drawn over."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def is_terminal(stream: TextIO) -> bool:
    """Whether a person looks at `stream` through something that can show more than text."""
    if os.environ.get("FORCE_COLOR"):
        return True
    return is_drawable(stream)


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


def write(text: str, output: Path | None) -> None:
    """Print a report, or write it to a file."""
    if output is None:
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    write_bytes(text.encode("utf-8", errors="backslashreplace"), output)


def write_bytes(content: bytes, output: Path) -> None:
    """Write a file whole or not at all: a full disk or a Ctrl-C leaves what was there before.

    What is no regular file (a pipe, a device) is written to as it is, and so is a file in a folder
    that takes no other one. Raises `BadUsage`.
    """
    try:
        if output.exists() and not output.is_file():
            output.write_bytes(content)
        else:
            _replace(Path(os.path.realpath(output)), content)  # a link goes on pointing to it
    except OSError as error:
        raise BadUsage(where=f"-o {output}", what=f"cannot be written: {error.strerror}") from None


def _replace(target: Path, content: bytes) -> None:
    try:
        number, name = tempfile.mkstemp(dir=target.parent, prefix=".nndiag-")
    except OSError:
        target.write_bytes(content)
        return
    try:
        with os.fdopen(number, "wb") as file:
            file.write(content)
        os.chmod(name, target.stat().st_mode & 0o777 if target.exists() else 0o666 & ~_umask())
        os.replace(name, target)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(name)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
