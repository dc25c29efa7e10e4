"""`nndiag attribute [OPTIONS] RUN [-- SCRIPT ARGS...]`"""

from __future__ import annotations

from pathlib import Path

import typer

from nndiag.cli import options

SAMPLES, SECONDS = 4, 60.0


def attribute(
    target: list[str] = typer.Argument(
        ..., metavar="RUN [-- SCRIPT ARGS]", help="A watched run; and its script, to work anew."
    ),
    method: str | None = typer.Option(
        None, "--method", "-m", metavar="METHOD|auto", help="Default: what there is; else auto."
    ),
    step: str | None = typer.Option(
        None, metavar="N|end", help="Only the batch captured at this step. Default: all."
    ),
    layer: str = typer.Option("", metavar="NAME", help="For layer-conductance and layer-gradcam."),
    output_index: int | None = typer.Option(
        None,
        "--target",
        metavar="K",
        min=0,
        help="Attribute output K. Default: the label; of a spike the loss.",
    ),
    samples: int | None = typer.Option(
        None, metavar="N", min=1, help=f"At most so many of each batch. Default: {SAMPLES}."
    ),
    seconds: float | None = typer.Option(
        None,
        metavar="S",
        min=0.1,
        help=f"Begin no sample after this. Default: {SECONDS:g}.",
    ),
    json: options.Json = False,
    output: Path | None = typer.Option(
        None, "--output", "-o", metavar="FILE", help="Write to FILE: .html, .png, .json, or text."
    ),
) -> None:
    """Captum attributions of a watched run: which samples and which features it was.

    A run keeps batches where it was watched with --attribute: that of each loss spike, with the
    parameters of that step, and the last one. Without SCRIPT, what was worked out then is shown.
    With it, the script runs again until its model is called first, and is then stopped: the run
    holds numbers, no code, and nothing in it is unpickled.

    Exit status: 0 when there are attributions to show; 2 when there are none.

    Methods: integrated-gradients, input-x-gradient, saliency, layer-conductance, layer-gradcam,
    feature-ablation.

    Examples: nndiag attribute RUN;  nndiag attribute RUN -o page.html;
    nndiag attribute RUN --method saliency -- train.py --lr 3e-4
    """
    options.one_blas_thread()
    from nndiag.cli import attributing

    run, *script = target
    name = options.method_name("--method", method)
    anew = {"--target": output_index, "--samples": samples, "--seconds": seconds}
    for option in (option for option, given in anew.items() if given is not None and not script):
        attributing.refuse_without_script(option, run)
    asked = attributing.Asked(
        name, step, layer, output_index, samples or SAMPLES, seconds or SECONDS
    )
    if script:
        attributing.work_out(run, script, asked)
    found = attributing.chosen(run, asked)
    attributing.show(run, found, json=json, output=output)
    raise typer.Exit(2 if all(one.failed for one in found) else 0)
