"""What several commands have in common: their options, and the analysis of their paths."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from nndiag.analysis import Analysis

NAMES = "NAME,..."
INTERRUPTED = 128 + 2  # as a shell counts SIGINT

Paths = Annotated[
    list[str],
    typer.Argument(metavar="PATH", help="Logs, run directories, globs; - is standard input."),
]
FailOn = Annotated[
    str | None,
    typer.Option(
        metavar="SEVERITY|NAME,...",
        help="What fails: findings of this severity or graver, or of this name. Default: warning.",
    ),
]
Format = Annotated[
    str | None,
    typer.Option(
        metavar="rich|json|markdown|html|github|sarif|junit",
        help="Default: rich on a terminal, plain text in a pipe.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Short for --format json.")]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", help="Write the report to FILE."),
]
Select = Annotated[str | None, typer.Option(metavar=NAMES, help="Only these findings.")]
Ignore = Annotated[str | None, typer.Option(metavar=NAMES, help="All but these findings.")]
Loss = Annotated[str | None, typer.Option(metavar="SERIES", help="The series that is the loss.")]
Reader = Annotated[str | None, typer.Option(metavar="NAME", help="Read the logs in this format.")]
Config = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Settings from FILE, not from pyproject.toml or nndiag.toml."
    ),
]
Verbose = Annotated[
    bool,
    typer.Option("--verbose", "-v", help="Of many runs, a page for each, and each file left out."),
]
Jobs = Annotated[
    int | None,
    typer.Option(
        "--jobs", "-j", metavar="N", min=1, help="Processes at work. Default: one a core."
    ),
]
Timeout = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS", min=0.01, help="Give up a run after this. Default of several: 600."
    ),
]


def method_name(option: str, given: str | None) -> str:
    """Our name of an attribution method, "auto", or "" where none was asked for.

    Raises `BadUsage` for one that does not exist.
    """
    from nndiag.errors import BadUsage
    from nndiag.vocabulary import methods

    if given in (None, methods.AUTO):
        return given or ""
    found = methods.find(given)
    if found is None:
        raise BadUsage(
            where=f"{option} {given}",
            what="no such method",
            do=f"one of: auto, {', '.join(methods.names())}",
        )
    return found.name


def one_blas_thread() -> None:
    """To be called before numpy is loaded.

    Threads of its own only slow our small sums, and would make their last digits depend on the
    number of cores.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def analysed(paths: list[str], shape: str | None, **asked: Any) -> tuple[Analysis, bool]:
    """What came of `paths`, and whether a Ctrl-C ended it before all of them were done.

    `asked`: the arguments of `nndiag.analyze`. A Ctrl-C with nothing done is passed on. For a page
    the worst of several runs are complete, for it draws their layers; `nndiag.analyze` says of what
    the others are left.
    """
    from nndiag import analysis
    from nndiag.cli.output import progress_line

    with progress_line(shape) as progress:
        try:
            result = analysis.analyze(*paths, **asked, progress=progress)
        except analysis.Interrupted as interruption:
            if not interruption.known.diagnoses:
                raise
            return interruption.known, True
    if shape != "html" or len(result.diagnoses) < 2 or asked.get("whole_runs"):
        return result, False
    return _with_whole_runs(result, asked)


def _with_whole_runs(result: Analysis, asked: dict[str, Any]) -> tuple[Analysis, bool]:
    """The runs that a page shows in full, read once more: all of them would not fit into memory."""
    from nndiag import analysis
    from nndiag.reports import html_page

    worst = html_page.in_full(result.diagnoses)
    paths = [one.run.path for one in worst if _can_be_read_again(one.run.path)]
    quick = asked["settings"].with_options(select="converged", ignore="")  # judged they are already
    try:
        again = analysis.analyze(*paths, **{**asked, "settings": quick, "whole_runs": True})
    except analysis.Interrupted:
        return result, True
    whole = {one.run.path: one.run for one in again.diagnoses}
    diagnoses = [replace(one, run=whole.get(one.run.path, one.run)) for one in result.diagnoses]
    return replace(result, diagnoses=tuple(diagnoses)), False


def _can_be_read_again(path: str) -> bool:
    """Whether it is a file, a folder, or a run of a store; standard input is gone."""
    return os.path.exists(path) or os.path.exists(path.rpartition("#")[0])
