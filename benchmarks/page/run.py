"""How large the page of a long run is, and what it costs to make.

    python benchmarks/page/run.py [--steps N] [--layers N] [--every N] [--out FILE.html]

By default 100,000 steps and 200 layers, of which every 10th step was measured. The diagnosis is not
measured here: benchmarks/reading does that.
"""

from __future__ import annotations

import argparse
import gzip
import platform
import resource
import sys
import time
from pathlib import Path

import numpy as np

from nndiag.records import Diagnosis, Finding, Layer, Parameter, Run, Series, Severity, Verdict
from nndiag.reports import html_page

SPIKE = 70_123  # at this step, or two thirds into a shorter run


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--layers", type=int, default=200)
    parser.add_argument("--every", type=int, default=10, help="layers are measured so often")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the page, too")
    chosen = parser.parse_args(arguments)
    diagnosis = long_run(chosen.steps, chosen.layers, chosen.every)
    before = peak_mb()
    start = time.perf_counter()
    page = html_page.text([diagnosis])
    seconds = time.perf_counter() - start
    data = page.encode()
    print(f"Python {platform.python_version()}, numpy {np.__version__}")
    print(f"{chosen.steps} steps, {chosen.layers} layers, measured every {chosen.every} steps")
    print(f"size    {len(data) / 1e6:.2f} MB ({len(gzip.compress(data)) / 1e6:.2f} MB packed)")
    print(f"time    {seconds:.2f} s")
    print(f"memory  {before:.0f} MB with the run, {peak_mb():.0f} MB at the peak")
    if chosen.out:
        chosen.out.write_bytes(data)
    return 0


def long_run(steps: int = 100_000, layers: int = 200, every: int = 10, seed: int = 0) -> Diagnosis:
    """A run with a spike of one step in its loss and in the gradient of one layer."""
    g = np.random.default_rng(seed)
    at = np.arange(steps)
    spike = SPIKE if steps > SPIKE else 2 * steps // 3
    loss = (2.3 * np.exp(-at / (0.2 * steps)) + 0.2) * np.exp(0.2 * g.standard_normal(steps))
    norm = loss * np.exp(0.3 * g.standard_normal(steps))
    loss[spike] = 97.5
    whole = [
        Series("loss", at, loss),
        Series("val_loss", at[::500], loss[::500] * 1.1),
        Series("lr", at, 1e-3 * 0.5 * (1 + np.cos(np.pi * at / steps))),
        Series("grad_norm", at, norm),
        Series("clip_threshold", at, np.full(steps, 1.0)),
        Series("update_ratio", at, 1e-3 * np.exp(0.2 * g.standard_normal(steps))),
        Series("step_time_s", at, 0.1 * np.exp(0.1 * g.standard_normal(steps))),
    ]
    names = [
        f"encoder.layers.{i // 4}.{('attention', 'norm1', 'mlp', 'act')[i % 4]}"
        for i in range(layers)
    ]
    rows = [one for i, name in enumerate(names) for one in layer(name, i, at[::every], spike, g)]
    run = Run(
        path="runs/long",
        format="nndiag",
        series=(*whole, *rows),
        layers=tuple(
            Layer(name, "Linear", i, parameters=(f"{name}.weight",)) for i, name in enumerate(names)
        ),
        parameters=tuple(
            Parameter(f"{name}.weight", (64, 64), True, "Adam", layer=name) for name in names
        ),
        environment=(("torch", "2.6"), ("python", "3.11"), ("device", "cuda")),
    )
    return Diagnosis(run, Verdict.CRITICAL, findings(spike, names))


def layer(
    name: str, order: int, at: np.ndarray, spike: int, g: np.random.Generator
) -> list[Series]:
    """The series of one layer."""
    gradient = 0.96**order * np.exp(0.4 * g.standard_normal(at.size))
    if order == 37:
        gradient[np.searchsorted(at, spike)] = 4321.0
    spread = np.exp(0.2 * g.standard_normal(at.size)) * (1 + order / 50)
    series = [
        Series("param_grad_norm", at, gradient, where=f"{name}.weight"),
        Series("activation_variance", at, spread, where=name),
        Series("param_norm", at, np.full(at.size, 8.0), where=f"{name}.weight"),
        Series("param_update_norm", at, 8e-3 * spread, where=f"{name}.weight"),
    ]
    if order % 4 == 3:
        dead = np.clip(np.linspace(0, 1.2, at.size) * order / 200, 0, 1)
        series.append(Series("dead_unit_fraction", at, dead, where=name))
    return series


def findings(spike: int, names: list[str]) -> tuple[Finding, ...]:
    return (
        Finding(
            "loss-spike", Severity.CRITICAL, 0.97, "The loss rose to 97.5 at one step.",
            step_start=spike, step_end=spike + 3, series="loss",
        ),
        Finding(
            "exploding-gradient", Severity.WARNING, 0.8, "One layer's gradient rose to 4321.",
            step_start=spike, step_end=spike + 20, series="param_grad_norm",
            layers=tuple(names[37:38]),
        ),
    )  # fmt: skip


def peak_mb() -> float:
    """The most memory that this process has held."""
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes / (1e6 if sys.platform == "darwin" else 1e3)


if __name__ == "__main__":
    sys.exit(main())
