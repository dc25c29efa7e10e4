"""`nndiag demo`"""

from __future__ import annotations

from pathlib import Path

import typer

EVERY = 10  # steps: a run of seconds leaves `auto` little to choose from, and it must not vary


def demo(
    run_dir: Path | None = typer.Option(
        None, metavar="DIR", help="Default: nndiag-runs/demo-<timestamp>."
    ),
    live: bool | None = typer.Option(
        None, "--live/--no-live", help="Draw while it runs. Default: on a terminal."
    ),
) -> None:
    """Watch a small training that goes wrong, and say why: the first minute with nndiag.

    A real script, watched and diagnosed as your own would be; about ten seconds on a CPU.
    """
    import sys
    from dataclasses import replace

    from nndiag.cli import watching
    from nndiag.errors import MissingLibrary
    from nndiag.watcher import command
    from nndiag.watcher.supervisor import WatchSettings

    script = Path(watching.__file__).parents[1] / "demo" / "train.py"
    to_run = replace(command.parse([str(script)]), label="train.py", stem="demo")
    if not command.finds_torch(to_run.argv[0]):
        raise MissingLibrary(command="nndiag demo", library="torch", extra="torch")
    shown = watching.shortest(script)
    print(
        "Five rings to tell apart, and a classifier that fails to learn it. Watched by\n"
        f"    nndiag watch --every {EVERY} {shown}\n",
        file=sys.stderr,
        flush=True,
    )
    ending = watching.run(to_run, WatchSettings(every=EVERY), run_dir=run_dir, live=live)
    if ending.succeeded:
        print(
            "\nNothing was added to the script. With a lower learning rate it learns:\n"
            f"    nndiag watch {shown} --lr 0.05\n"
            "Your own script:\n"
            "    nndiag watch train.py",
            file=sys.stderr,
        )
    watching.end_as(ending)
