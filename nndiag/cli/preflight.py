"""`nndiag preflight SCRIPT [ARGS...]`"""

from __future__ import annotations

from pathlib import Path

import typer

from nndiag.cli import options
from nndiag.cli.watch import CONTEXT as CONTEXT  # what follows SCRIPT is the script's

STEPS = 20  # enough for each parameter to get a gradient, and for 64 samples of any batch size > 3
TIMEOUT_S = 300.0


def preflight(
    target: list[str] = typer.Argument(
        ..., metavar="SCRIPT [ARGS]", help="A script; -m MODULE; or a launcher, after --."
    ),
    steps: int = typer.Option(STEPS, metavar="N", min=1, help="Optimizer steps to look at."),
    timeout: float = typer.Option(
        TIMEOUT_S, metavar="SECONDS", min=0.1, help="End the script after this in any case."
    ),
    fail_on: options.FailOn = None,
    strict: bool = typer.Option(False, "--strict", help="What cannot be judged fails too."),
    select: options.Select = None,
    ignore: options.Ignore = None,
    format: options.Format = None,
    json: options.Json = False,
    output: options.Output = None,
    show_output: bool = typer.Option(
        False, "--show-output", "-s", help="Pass the script's output on, to standard error."
    ),
    run_dir: Path | None = typer.Option(
        None, metavar="DIR", help="Keep what was recorded. Default: it is thrown away."
    ),
    config: options.Config = None,
) -> None:
    """Run only the first steps of an unmodified script, and check how it starts.

    Is every parameter trained, are gradients cleared, do signal and gradient get through all
    layers, does the loss start at chance, are the first updates of a useful size? The script is
    stopped after N optimizer steps; its output is shown only if it fails.

    Exit status: 0 healthy, or undecided without --strict; 1 when a finding fails the check; 2 when
    the script could not be run, failed by itself, or did not train.

    Examples: nndiag preflight train.py --lr 3e-4;  nndiag preflight -m package.train;
    nndiag preflight -- torchrun --nproc-per-node 2 train.py
    """
    from nndiag import analysis
    from nndiag.cli import first_run
    from nndiag.cli import output as out
    from nndiag.cli.watching import finding_names
    from nndiag.gate import Gate
    from nndiag.preflight import first_look
    from nndiag.watcher import command

    shape = out.chosen_format(format, json)
    finding_names("--fail-on", fail_on)
    settings = analysis.project_settings(config).with_options(
        select=select, ignore=ignore, fail_on=fail_on
    )
    asked = first_look.detectors(settings.select, settings.ignore, settings.thresholds)
    to_run = command.parse(target, asked_by="nndiag preflight")
    first_run.refuse_nested()
    request = first_run.Request(
        to_run, steps, timeout, run_dir, show_output, shape, arguments=tuple(target)
    )
    seen = first_run.observe(request, asked)
    if seen.signal:
        first_run.end_as_asked(seen.signal)
    gate = Gate(settings, strict)
    first_run.show(seen, gate, shape, output)
    raise typer.Exit(gate.status(seen.diagnoses, len(seen.errors)))
