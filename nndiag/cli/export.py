"""`nndiag export RUN --to FORMAT`"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from nndiag.cli import options
from nndiag.errors import BadUsage

if TYPE_CHECKING:
    from nndiag.exports.tables import Tables

FORMATS = ("parquet", "csv", "jsonl", "tensorboard", "wandb")
TABLES = ("steps", "layers", "findings")
NOUNS = {"steps": "step", "layers": "layer value", "findings": "finding"}
STANDARD_OUTPUT = "-"


def export(
    run: str = typer.Argument(
        ..., metavar="RUN", help="A run directory or any log that analyze reads; STORE#RUN; -."
    ),
    to: str = typer.Option(
        ..., "--to", metavar="|".join(FORMATS), help="The format, or the tool, that it is for."
    ),
    output: str | None = typer.Option(
        None,
        "--output",
        "-o",
        metavar="PATH",
        help="Default: beside RUN, named after it and the format. - is standard output (csv, "
        "jsonl).",
    ),
    table: str | None = typer.Option(
        None,
        "--table",
        metavar="|".join(TABLES),
        help="One table as one file. Default: a folder with all three; to - the steps.",
    ),
    force: bool = typer.Option(False, "--force", help="Replace files that are there."),
    select: options.Select = None,
    ignore: options.Ignore = None,
    loss: options.Loss = None,
    reader: options.Reader = None,
    config: options.Config = None,
) -> None:
    """Write a run and its diagnosis in a format of other tools.

    Where it went is printed on standard output. Of several runs name one: STORE#RUN.

    Exit status: 0 when it is written, whatever was found; 2 when RUN could not be read.
    """
    _check(to, output, table)
    options.one_blas_thread()
    from nndiag import analysis
    from nndiag.cli import exporting

    exporting.format_of(to)  # a library that is missing is said before a long log is read
    settings = analysis.project_settings(config).with_options(select=select, ignore=ignore)
    result = analysis.analyze(run, settings=settings, loss=loss, reader=reader, whole_runs=True)
    tables = exporting.only_run(run, result)
    if output == STANDARD_OUTPUT:
        exporting.to_stream(tables, to, table or TABLES[0], sys.stdout.buffer)
        return
    _write(tables, to, Path(output) if output else None, table, force)


def _check(to: str, output: str | None, table: str | None) -> None:
    """Raise `BadUsage` for what does not fit together, before anything is read."""
    if to not in FORMATS:
        raise BadUsage(
            where=f"--to {to}", what="no such format", do=f"one of: {', '.join(FORMATS)}"
        )
    if table is not None and table not in TABLES:
        raise BadUsage(
            where=f"--table {table}", what="no such table", do=f"one of: {', '.join(TABLES)}"
        )
    if table is not None and to in ("tensorboard", "wandb"):
        raise BadUsage(where=f"--table {table}", what=f"means nothing for --to {to}")
    if output == STANDARD_OUTPUT and to not in ("csv", "jsonl"):
        raise BadUsage(where="-o -", what=f"{to} is no text", do="name a file or a folder: -o PATH")


def _write(tables: Tables, to: str, output: Path | None, table: str | None, force: bool) -> None:
    from nndiag.cli import exporting

    if to == "wandb":
        name = Path(tables.diagnosis.run.path).name or "run"
        written = exporting.into_wandb(tables, name, output)
        for line in exporting.told(written):
            print(f"nndiag: {line}", file=sys.stderr)
        print(written.url or written.folder)
        return
    target = output or exporting.default_place(tables.diagnosis.run.path, to, table)
    if table is not None:
        exporting.to_file(tables, to, table, target, force=force)
    else:
        exporting.to_folder(tables, to, target, force=force)
    counts = [
        exporting.counted(tables.rows[one], NOUNS[one]) for one in ([table] if table else TABLES)
    ]
    print(f"nndiag: wrote {', '.join(counts)}", file=sys.stderr)
    print(target)
