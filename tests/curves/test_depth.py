from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from nndiag.curves import depth
from nndiag.records import Layer
from tests.detectors.nets import breaks, crawls, drops, learns, net, series, stays

FALLS_TO_CHANCE = series("loss", 2.3 + 0.25 * np.exp(-np.arange(400) / 10))


@pytest.mark.parametrize(
    ("loss", "stuck"),
    [
        (stays(), True),
        (FALLS_TO_CHANCE, True),
        (learns(), False),
        (crawls(), False),
        (drops(1e6, 2.0), False),
        (stays(points=10), False),
    ],
    ids=["flat", "falls to chance", "learns", "a high floor", "a bad start", "too short to tell"],
)
def test_stuck_means_no_progress_worth_the_name(loss, stuck):
    assert depth.progress(net(loss)).stuck is stuck


def test_one_spike_or_nan_does_not_move_the_levels():
    values = learns().values.copy()
    values[[0, 100, 399]] = 1e9, math.nan, 1e9
    clean, dirty = depth.progress(net(learns())), depth.progress(net(series("loss", values)))

    assert dirty.start == pytest.approx(clean.start, rel=0.1)
    assert dirty.end == pytest.approx(clean.end, rel=0.1)
    assert not dirty.broke


def test_a_loss_breaks_at_its_first_value_after_the_last_finite_one():
    assert depth.broken_from(net(breaks(after=30))) == 30
    assert depth.broken_from(net(learns())) == math.inf


def test_a_normalisation_layer_and_a_recurrent_cell_cut_a_chain():
    kinds = ["Linear", "ReLU", "Conv2d", "BatchNorm2d", "Linear", "LSTM", "Embedding", "Linear"]
    layers = [Layer(str(i), kind, i) for i, kind in enumerate(kinds)]

    chains = [[layer.name for layer in chain] for chain in depth.chains(layers)]

    assert chains == [["0", "2"], ["4"], ["7"]]


def test_two_models_with_the_same_names_keep_their_own_series():
    run = net(learns())
    mine = series("activation_mean", [1.0], "0", owner="SGD")
    other = series("activation_mean", [2.0], "0", owner="Adam")
    index = depth.Index(replace(run, series=(other, mine)), ["activation_mean"])

    assert index.of_layer("activation_mean", run.layers[0]) is mine


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ("", ""),
        ("a", "`a`"),
        ("ab", "`a` and `b`"),
        ("abcd", "`a`, `b`, `c` and `d`"),
        ("abcdef", "`a`, `b`, `c` and 3 more"),
    ],
)
def test_layer_names_in_a_message(names, text):
    assert depth.named(names) == text
