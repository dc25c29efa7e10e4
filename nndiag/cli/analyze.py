"""`nndiag analyze PATH...`"""

from __future__ import annotations

import os
from pathlib import Path

import typer

NAMES = "NAME,..."
INTERRUPTED = 128 + 2  # as a shell counts SIGINT


def analyze(
    paths: list[str] = typer.Argument(
        ..., metavar="PATH", help="Logs, run directories, globs; - is standard input."
    ),
    format: str | None = typer.Option(
        None,
        metavar="rich|json|markdown|github|sarif|junit",
        help="Default: rich on a terminal, plain text in a pipe.",
    ),
    json: bool = typer.Option(False, "--json", help="Short for --format json."),
    output: Path | None = typer.Option(
        None, "--output", "-o", metavar="FILE", help="Write the report to FILE."
    ),
    select: str | None = typer.Option(None, metavar=NAMES, help="Only these findings."),
    ignore: str | None = typer.Option(None, metavar=NAMES, help="All but these findings."),
    loss: str | None = typer.Option(None, metavar="SERIES", help="The series that is the loss."),
    reader: str | None = typer.Option(None, metavar="NAME", help="Read the logs in this format."),
    config: Path | None = typer.Option(
        None, metavar="FILE", help="Settings from FILE, not from pyproject.toml or nndiag.toml."
    ),
    verbose: bool = typer.Option(
        False, "--verbose", "-v", help="Of many runs, a page for each, and each file left out."
    ),
    jobs: int | None = typer.Option(
        None, "--jobs", "-j", metavar="N", min=1, help="Processes at work. Default: one a core."
    ),
    timeout: float | None = typer.Option(
        None, metavar="SECONDS", min=0.01, help="Give up a run after this. Default of several: 600."
    ),
) -> None:
    """Diagnose logs: our own run directories, or anybody's.

    Exit status: 0 when every path could be read, whatever was found; 2 when one could not.
    """
    # Before numpy is loaded: threads of its own only slow our small sums, and would make their
    # last digits depend on the number of cores.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from nndiag import analysis
    from nndiag.cli.output import chosen_format, progress_line, rules_asked, show_report

    shape = chosen_format(format, json)
    settings = analysis.project_settings(config).with_options(select=select, ignore=ignore)
    interrupted = False
    with progress_line(shape) as progress:
        try:
            result = analysis.analyze(
                *paths,
                settings=settings,
                loss=loss,
                reader=reader,
                jobs=jobs,
                timeout_s=timeout,
                progress=progress,
            )
        except analysis.Interrupted as interruption:
            if not interruption.known.diagnoses:
                raise
            result, interrupted = interruption.known, True
    show_report(
        result.diagnoses,
        result.errors,
        skipped=result.skipped,
        format=shape,
        output=output,
        verbose=verbose,
        unfinished=result.unfinished,
        rules=rules_asked(settings),
    )
    raise typer.Exit(INTERRUPTED if interrupted else 2 if result.errors else 0)
