"""Runs to export: one with everything that can go wrong in a table, and a real one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nndiag.analysis import analyze
from nndiag.exports.tables import Tables, tables_of
from nndiag.records import Diagnosis, Finding, Optimizer, Remedy, Run, Series, Severity, Verdict

ROOT = Path(__file__).parents[2]
NAN, INF = float("nan"), float("inf")
TINY = 5e-324


def series(metric: str, points: dict[int, float], **more: str) -> Series:
    return Series(metric, np.array(list(points), np.int64), np.array(list(points.values())), **more)


HOSTILE = Run(
    path="runs/=cmd()",
    format="csv",
    series=(
        series("loss", {-2: 1 / 3, 0: NAN, 1: INF, 5: -INF, 300: TINY, 2**40: 1e300}),
        series("lr", {0: 0.1, 5: 1e-05}, owner="Adam"),
        series("lr", {0: 0.2}, owner="SGD"),
        series("other", {1: 7.0}, name='=HYPERLINK("http://x","y")'),
        series("other", {1: 8.0}, name='comma, "quote"\nline'),
        series("other", {1: 9.0}, name="step"),
        series("other", {1: 10.0}, name="loss"),
        series("other", {1: 11.0}, name="half \ud800 a pair"),
        series("param_norm", {0: 2.5, 5: NAN}, where="@net.0.weight", owner="Adam"),
        series("activation_variance", {5: INF}, where=""),
    ),
    optimizers=(Optimizer("Adam", "Adam", 6, (("lr", 0.1),)), Optimizer("SGD", "SGD", 1)),
)
FINDING = Finding(
    name="loss-nonfinite",
    severity=Severity.CRITICAL,
    confidence=0.5,
    message="=the loss, is NaN",
    step_start=0,
    step_end=5,
    series="loss",
    layers=("@net.0", "net.1"),
    remedies=(Remedy("lower-lr", "lower it", "why", "lr", 0.1, 0.03),),
)


@pytest.fixture
def hostile() -> Tables:
    return tables_of(Diagnosis(HOSTILE, Verdict.CRITICAL, (FINDING,), notes=("a note",)))


@pytest.fixture(scope="session")
def watched() -> Diagnosis:
    """A watched run with a spike, printed losses and layers."""
    path = ROOT / "sample_runs" / "spike_recovered" / "run"
    [diagnosis] = analyze(str(path)).diagnoses
    return diagnosis


@pytest.fixture(scope="session")
def spike(watched: Diagnosis) -> Tables:
    return tables_of(watched)


@pytest.fixture
def nothing(watched: Diagnosis) -> Tables:
    """A run without layers and without findings."""
    [loss] = [s for s in watched.run.series if s.metric == "loss"]
    run = replace(watched.run, series=(loss,))
    return tables_of(Diagnosis(run, Verdict.HEALTHY))
