"""`nndiag analyze PATH...`"""

from __future__ import annotations

import typer

from nndiag.cli import options


def analyze(
    paths: options.Paths,
    format: options.Format = None,
    json: options.Json = False,
    output: options.Output = None,
    select: options.Select = None,
    ignore: options.Ignore = None,
    loss: options.Loss = None,
    reader: options.Reader = None,
    config: options.Config = None,
    verbose: options.Verbose = False,
    jobs: options.Jobs = None,
    timeout: options.Timeout = None,
) -> None:
    """Diagnose logs: our own run directories, or anybody's.

    Exit status: 0 when every path could be read, whatever was found; 2 when one could not.
    """
    options.one_blas_thread()
    from nndiag import analysis
    from nndiag.cli.output import chosen_format, rules_asked, show_report

    shape = chosen_format(format, json)
    settings = analysis.project_settings(config).with_options(select=select, ignore=ignore)
    result, interrupted = options.analysed(
        paths,
        shape,
        settings=settings,
        loss=loss,
        reader=reader,
        jobs=jobs,
        timeout_s=timeout,
    )
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
    raise typer.Exit(options.INTERRUPTED if interrupted else 2 if result.errors else 0)
