"""`nndiag watch SCRIPT [ARGS...]`"""

from __future__ import annotations

from pathlib import Path

import typer

from nndiag.cli import options
from nndiag.errors import BadUsage

COMPILED = ("hidden", "eager", "traced")
# What follows SCRIPT is the script's, whatever it looks like.
CONTEXT = {
    "allow_extra_args": True,
    "ignore_unknown_options": True,
    "allow_interspersed_args": False,
}


def watch(
    target: list[str] = typer.Argument(
        ..., metavar="SCRIPT [ARGS]", help="A script; -m MODULE; or a launcher, after --."
    ),
    run_dir: Path | None = typer.Option(
        None, metavar="DIR", help="Default: nndiag-runs/<script>-<timestamp>."
    ),
    live: bool | None = typer.Option(
        None, "--live/--no-live", help="Draw while it runs. Default: on a terminal."
    ),
    every: str = typer.Option(
        "auto", metavar="N|auto", help="Optimizer steps between two layer statistics."
    ),
    overhead: float = typer.Option(
        2.0, metavar="PERCENT", min=0.0, help="Time that --every auto may take from the training."
    ),
    compiled: str = typer.Option(
        "hidden",
        metavar="hidden|eager|traced",
        help="Layers inside torch.compile: left alone; measured steps uncompiled; or statistics "
        "compiled in. The last two change the last bits of the results.",
    ),
    fail_on: str | None = typer.Option(
        None,
        metavar="SEVERITY|NAME,...",
        help="Exit with 1 if the script succeeds but one is found.",
    ),
    stop_on: str | None = typer.Option(
        None, metavar="NAME,...", help="Stop the script when one of these is found."
    ),
    max_steps: int | None = typer.Option(
        None, metavar="N", min=1, help="Stop the script after N optimizer steps."
    ),
    wandb: bool = typer.Option(
        False,
        "--wandb",
        help="Headline numbers and findings into the script's own W&B run; where it has none, all "
        "of it into a new one.",
    ),
    attribute: str | None = typer.Option(
        None,
        metavar="METHOD|auto",
        help="Captum attributions: of the batch of each loss spike, and of the last one.",
    ),
) -> None:
    """Run an unmodified script under observation, then diagnose it.

    After SCRIPT every argument is the script's. Its output, signals and exit status are its own;
    what nndiag says goes to standard error.

    Examples: nndiag watch train.py --lr 3e-4;  nndiag watch -m package.train;
    nndiag watch -- torchrun --nproc-per-node 2 train.py
    """
    from nndiag.cli import watching
    from nndiag.watcher import command
    from nndiag.watcher.supervisor import WatchSettings

    settings = WatchSettings(
        every=_every(every),
        overhead_percent=overhead,
        max_steps=max_steps,
        stop_on=watching.finding_names("--stop-on", stop_on),
        compiled=_compiled(compiled),
        attribute=options.method_name("--attribute", attribute),
        wandb=wandb,
    )
    wanted = watching.failing_names(fail_on)
    to_run = command.parse(target)
    if settings.attribute:
        watching.need_captum(to_run)
    ending = watching.run(to_run, settings, run_dir=run_dir, live=live, fail_on=wanted)
    watching.end_as(ending)


def _every(text: str) -> int | str:
    if text == "auto":
        return text
    if not text.isdecimal() or int(text) < 1:
        raise BadUsage(where=f"--every {text}", what="is neither auto nor a number of steps")
    return int(text)


def _compiled(text: str) -> str:
    if text not in COMPILED:
        raise BadUsage(where=f"--compiled {text}", what=f"is none of {', '.join(COMPILED)}")
    return text
