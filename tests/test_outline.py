from __future__ import annotations

import pickle

import numpy as np

from nndiag.outline import outline
from nndiag.records import Diagnosis, Layer, Run, Series, Verdict
from nndiag.reports import page
from nndiag.reports.lines import Line

LONG = 200_000


def loss(count: int = LONG) -> Series:
    steps = np.arange(count) * 3
    values = 2 * np.exp(-steps / 60_000) + 0.4 + 0.01 * np.sin(steps)
    values[count // 2] = 99.0  # one spike of one step
    values[count // 3] = np.nan
    return Series("loss", steps, values, name="train_loss")


def diagnosis() -> Diagnosis:
    ramp = np.linspace(1e-3, 0, LONG)
    steps = np.arange(LONG)
    series = (
        loss(),
        Series("lr", steps, ramp),
        Series("activation_mean", steps, ramp, where="net.0"),
    )
    run = Run("runs/long", "csv", series, layers=(Layer("net.0", "Linear", 0),))
    return Diagnosis(run, Verdict.HEALTHY)


def test_an_outline_of_a_long_run_is_small() -> None:
    whole = diagnosis()

    assert len(pickle.dumps(whole)) > 6_000_000
    assert len(pickle.dumps(outline(whole))) < 60_000


def test_the_first_page_of_an_outline_is_that_of_the_whole() -> None:
    def first_lines(given: Diagnosis) -> list[Line]:
        return list(page.page(given, is_calm=True))

    assert first_lines(outline(diagnosis())) == first_lines(diagnosis())


def test_an_outline_counts_the_points_of_the_log_and_keeps_names_and_layers() -> None:
    run = outline(diagnosis()).run

    assert [(s.metric, s.label, s.recorded) for s in run.series] == [
        ("loss", "train_loss", LONG),
        ("lr", "lr", LONG),
    ]
    assert len(run.layers) == 1
