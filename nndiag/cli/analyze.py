"""`nndiag analyze PATH...`"""

from __future__ import annotations

from pathlib import Path

import typer

NAMES = "NAME,..."


def analyze(
    paths: list[str] = typer.Argument(
        ..., metavar="PATH", help="Logs, run directories, globs; - is standard input."
    ),
    format: str | None = typer.Option(
        None, metavar="rich|json", help="Default: rich on a terminal, plain text in a pipe."
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
) -> None:
    """Diagnose logs: our own run directories, or anybody's.

    Exit status: 0 when every path could be read, whatever was found; 2 when one could not.
    """
    from nndiag import analysis
    from nndiag.cli.output import chosen_format, show_report

    shape = chosen_format(format, json)
    settings = analysis.project_settings(config).with_options(select=select, ignore=ignore)
    result = analysis.analyze(*paths, settings=settings, loss=loss, reader=reader)
    show_report(
        result.diagnoses, result.errors, skipped=result.skipped, format=shape, output=output
    )
    raise typer.Exit(2 if result.errors else 0)
