"""`nndiag report PATH... -o FILE.html`"""

from __future__ import annotations

import os
import sys
import webbrowser
from pathlib import Path

import typer

from nndiag.cli import options
from nndiag.errors import BadUsage

DEFAULT = Path("nndiag-report.html")
OURS = b'<meta name="generator" content="nndiag '  # in the head of every page that we wrote
_HEAD_BYTES = 4096


def report(
    paths: options.Paths,
    output: Path | None = typer.Option(
        None, "--output", "-o", metavar="FILE", help=f"Write the page to FILE. Default: {DEFAULT}."
    ),
    open_it: bool = typer.Option(False, "--open", help="Open the page in the browser."),
    select: options.Select = None,
    ignore: options.Ignore = None,
    loss: options.Loss = None,
    reader: options.Reader = None,
    config: options.Config = None,
    jobs: options.Jobs = None,
    timeout: options.Timeout = None,
) -> None:
    """Write one self-contained HTML page: findings, curves, layers over time.

    It is opened from disk, loads nothing and sends nothing. Of several runs it has a table, and the
    worst of them in full.

    Exit status: 0 when every path could be read, whatever was found; 2 when one could not.
    """
    options.one_blas_thread()
    from nndiag import analysis
    from nndiag.cli.output import show_report, tell_rest

    target = output if output is not None else _default()
    settings = analysis.project_settings(config).with_options(select=select, ignore=ignore)
    result, interrupted = options.analysed(
        paths,
        "html",
        settings=settings,
        loss=loss,
        reader=reader,
        jobs=jobs,
        timeout_s=timeout,
    )
    if result.diagnoses:
        show_report(
            result.diagnoses,
            result.errors,
            skipped=result.skipped,
            format="html",
            output=target,
            unfinished=result.unfinished,
        )
        _tell(target, len(result.diagnoses))
        if open_it:
            _open(target)
    else:
        tell_rest(result.errors, result.unfinished)
    raise typer.Exit(options.INTERRUPTED if interrupted else 2 if result.errors else 0)


def _default() -> Path:
    """The name for a page that was given none; refuses to replace what is no page of ours."""
    if not DEFAULT.exists():
        return DEFAULT
    try:
        with open(DEFAULT, "rb") as page:
            is_ours = OURS in page.read(_HEAD_BYTES)
    except OSError:
        is_ours = False
    if is_ours:
        return DEFAULT
    raise BadUsage(
        where=str(DEFAULT), what="is there, and no page of ours", do="name another: -o FILE.html"
    )


def _tell(target: Path, runs: int) -> None:
    size = ""
    if target.is_file():
        size = f", {target.stat().st_size / 1e6:.2f} MB"
    print(f"{target}: {runs} {'run' if runs == 1 else 'runs'}{size}", file=sys.stderr)


def _open(target: Path) -> None:
    if not webbrowser.open(Path(os.path.abspath(target)).as_uri()):
        print("nndiag: there is no browser to open it in", file=sys.stderr)
