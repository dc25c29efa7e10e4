"""`nndiag compare RUN RUN...`"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from nndiag.cli import options
from nndiag.errors import BadUsage, NndiagError

if TYPE_CHECKING:
    from nndiag.analysis import Analysis
    from nndiag.comparison.facts import Comparison, Side

FORMATS = ("rich", "json", "markdown")
WITH = "--with"  # stands between the runs of two sides; so it is read among the paths
CONTEXT = {"ignore_unknown_options": True}
MARKS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def compare(
    paths: list[str] = typer.Argument(
        ...,
        metavar="RUN [--with RUN]",
        help="Logs, run directories, STORE#RUN, folders and globs. The first run is the reference. "
        "With --with, the seeds before it are compared with the seeds after it.",
    ),
    align: str = typer.Option(
        "step", metavar="step|time|progress", help="What curves are laid over each other by."
    ),
    format: str | None = typer.Option(
        None,
        metavar="rich|json|markdown",
        help="Default: rich on a terminal, plain text in a pipe.",
    ),
    json: options.Json = False,
    output: options.Output = None,
    select: options.Select = None,
    ignore: options.Ignore = None,
    loss: options.Loss = None,
    reader: options.Reader = None,
    config: options.Config = None,
    verbose: bool = typer.Option(
        False, "--verbose", "-v", help="Every pair, every series and every layer that differs."
    ),
) -> None:
    """Say what differs between runs: findings, curves, layers, settings.

    Each difference of a curve has the band that noise alone would leave once in a hundred times.

    Several seeds a side: nndiag compare a1 a2 a3 --with b1 b2 b3

    Exit status: 0 whatever differs; 2 when a path could not be read.
    """
    options.one_blas_thread()
    from nndiag import analysis
    from nndiag.cli.output import chosen_format
    from nndiag.comparison import axes
    from nndiag.comparison.compare import compare as compare_sides

    shape = chosen_format(format, json)
    if shape is not None and shape not in FORMATS:
        raise BadUsage(
            where=f"--format {shape}", what="not for compare", do=f"one of: {', '.join(FORMATS)}"
        )
    if align not in axes.ALIGN:
        raise BadUsage(
            where=f"--align {align}", what="no such axis", do=f"one of: {', '.join(axes.ALIGN)}"
        )
    settings = analysis.project_settings(config).with_options(select=select, ignore=ignore)
    analyses = [
        [
            analysis.analyze(path, settings=settings, loss=loss, reader=reader, whole_runs=True)
            for path in group
        ]
        for group in groups(paths)
    ]
    errors = [error for group in analyses for one in group for error in one.errors]
    sides = sides_of(analyses, errors)
    comparison = compare_sides(sides, align) if sides else None
    show(comparison, errors, format=shape, output=output, verbose=verbose)
    raise typer.Exit(2 if errors else 0)


def groups(words: Sequence[str]) -> list[list[str]]:
    """The paths as they were given: one group, or with `--with` two."""
    found: list[list[str]] = [[]]
    for word in words:
        if word == WITH or word.startswith(f"{WITH}="):
            found.append([])
            found[-1] += [word[len(WITH) + 1 :]] if word != WITH else []
        elif word.startswith("-") and word != "-" and not os.path.lexists(word):
            raise BadUsage(
                where=f"nndiag compare {word}", what="no such option", do="nndiag compare --help"
            )
        else:
            found[-1].append(word)
    if len(found) > 2:
        raise BadUsage(where=WITH, what="may be given once: it separates two groups of runs")
    if not all(found):
        raise BadUsage(
            where=WITH, what="needs runs on both sides", do="nndiag compare A1 A2 --with B1 B2"
        )
    return found


def sides_of(analyses: Sequence[Sequence[Analysis]], errors: Sequence[NndiagError]) -> list[Side]:
    """What is compared with what; nothing where errors leave nothing to compare.

    Raises `BadUsage` where all could be read and there is one run only.
    """
    from nndiag.comparison.facts import Side

    runs = [tuple(d for one in group for d in one.diagnoses) for group in analyses]
    if len(runs) == 2:
        if all(runs):
            return [Side(mark, group) for mark, group in zip("AB", runs, strict=True)]
        return _nothing(errors, "one side holds no run")
    if len(runs[0]) < 2:
        return _nothing(errors, f"{len(runs[0])} run in these paths: nothing to compare it with")
    if not analyses[0][0].diagnoses:  # the reference is missing; another must not take its place
        return _nothing(errors, "the reference, the first path, holds no run")
    return [Side(_mark(i), (diagnosis,)) for i, diagnosis in enumerate(runs[0])]


def _mark(index: int) -> str:
    return MARKS[index] if index < len(MARKS) else f"R{index + 1}"


def _nothing(errors: Sequence[NndiagError], what: str) -> list[Side]:
    if errors:
        return []
    raise BadUsage(where="nndiag compare", what=what, do="name two runs, or a folder of several")


def show(
    comparison: Comparison | None,
    errors: Sequence[NndiagError],
    *,
    format: str | None,
    output: Path | None,
    verbose: bool,
) -> None:
    """Print the comparison, or write it to a file; errors of other formats go to stderr."""
    from nndiag.cli.output import can_draw, screen_width, show_lines, write
    from nndiag.reports import page, plain

    if format == "json":
        from nndiag.reports import comparison_json

        write(comparison_json.text(comparison, errors), output)
        return
    if format == "markdown":
        from nndiag.reports import comparison_markdown

        write(comparison_markdown.text(comparison, errors), output)
    elif comparison is not None:
        from nndiag.reports import comparison as lines_of
        from nndiag.reports.lines import FIXED

        to_file = output is not None
        lines = lines_of.report(
            comparison,
            width=FIXED if to_file else screen_width(sys.stdout, format),
            ascii_only=not to_file and not can_draw(sys.stdout),
            verbose=verbose,
        )
        if to_file:
            write(plain.text(lines), output)
        else:
            show_lines(lines, sys.stdout, format)
    sys.stdout.flush()
    show_lines(page.error_lines(errors), sys.stderr)
