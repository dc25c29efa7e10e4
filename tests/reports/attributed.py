"""Hand-built attributions with a name: what reports have to be able to show."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from nndiag.records import AttributedInput, AttributedSample, Attribution, OddInput

LOSSES = np.full(32, 0.02)
LOSSES[7] = 559.0

SPIKE = Attribution(
    path="runs/a/rank-0/attributions/step-200-integrated-gradients.json",
    step=200,
    why="spike",
    model="Net",
    method="integrated-gradients",
    of="loss",
    inputs=(
        AttributedInput(
            "0",
            "tabular",
            np.array([[0.1, 80.0, -2.5, 0.3]]),
            np.array([[0.5, 540.0, -12.0, 0.0]]),
            np.array([0.0, 0.04, -0.5, 0.1]),
        ),
    ),
    samples=(AttributedSample(7, 559.0, "the loss (cross-entropy)", 550.5, 0.0023, 0.9),),
    batch=LOSSES,
    batch_size=32,
    loss=17.47,
    before=0.022,
    relative_delta=0.0016,
    steps=32,
    seconds=0.013,
)

SPREAD = replace(SPIKE, batch=np.linspace(5.0, 6.0, 32), loss=5.5, before=0.5)

WRONG_LABEL = replace(SPIKE, samples=(replace(SPIKE.samples[0], at_sample=7.41, at_baseline=7.2),))

TEXT = replace(
    SPIKE,
    inputs=(
        AttributedInput(
            "input_ids", "tokens", np.array([[4, 8, 15, 16]]), np.array([[0.1, -0.8, 0.05, 0.05]])
        ),
    ),
    elements=np.array([[0.01, np.nan, 8.2, 0.02, 0.01, 3.1]]),
)

ODD_BATCH = replace(
    SPREAD,
    odd=(OddInput(25, "0", (0, 3), 200.0, 1.8), OddInput(3, "0", (0, 1), -31.0, 1.8)),
    samples=(replace(SPIKE.samples[0], row=25),),
)

TWO_INPUTS = replace(
    SPIKE,
    inputs=(
        AttributedInput("cat", "tokens", np.array([[17]]), np.array([[-1.0]])),
        replace(SPIKE.inputs[0], name="num"),
        AttributedInput("mask", "tabular", np.array([[1.0]]), np.array([[0.001]])),
    ),
)

UNKNOWN_LOSS = replace(
    SPIKE,
    batch=None,
    of="output",
    samples=(AttributedSample(0, float("nan"), "output 2 (the largest)", 3.5, 0.5, 2.1),),
    relative_delta=0.7,
    steps=256,
    notes=("the loss (a loss of its own making) cannot be worked out anew",),
)

TWO_RANKS = [replace(UNKNOWN_LOSS, rank=0), replace(SPIKE, rank=1)]

BAD_NUMBERS = replace(
    SPIKE,
    why="nonfinite",
    loss=float("nan"),
    batch=np.where(np.arange(32) == 5, np.nan, 0.1),
    samples=(),
    inputs=(),
    relative_delta=None,
    failed="Net: sample 5: the loss (mse) is nan; input 0 is not finite at 3, 8",
    do="works on any model: --method feature-ablation",
)

PLANTED = np.zeros((2, 3, 16, 24))
PLANTED[:, :, 4:8, 12:18] = 1.0
IMAGE = replace(
    SPIKE,
    why="end",
    of="output",
    inputs=(AttributedInput("0", "image", PLANTED + 0.1, PLANTED - 0.01),),
    samples=tuple(
        AttributedSample(row, 0.1, f"output {row} (the label)", 2.0, 0.0, 0.01) for row in range(2)
    ),
)

TOKENS = replace(
    IMAGE,
    inputs=(
        AttributedInput(
            "input_ids",
            "tokens",
            np.array([[4, 8, 15, 16], [23, 42, 0, 0]]),
            np.array([[0.1, -0.8, 0.05, 0.05], [0.2, 0.6, 0.0, 0.0]]),
        ),
    ),
)

SEQUENCE = replace(
    IMAGE,
    inputs=(
        AttributedInput("x", "sequence", np.ones((2, 5, 3)), np.eye(5)[None, :, :3].repeat(2, 0)),
    ),
)

LAYER = replace(
    IMAGE,
    method="layer-conductance",
    layer="features.4",
    inputs=(replace(IMAGE.inputs[0], attributions=None),),
    units=np.array([[0.1, -2.0, 0.0, 1.0], [0.2, -1.0, 0.1, 0.5]]),
)

GRADCAM = replace(
    LAYER, method="layer-gradcam", units=PLANTED[:, :1, ::2, ::2], relative_delta=None
)

MUSEUM = {
    "a_sample_that_carries_the_loss": [SPIKE],
    "a_loss_that_all_samples_share": [SPREAD],
    "a_sample_whose_target_is_to_blame": [WRONG_LABEL],
    "places_that_make_the_loss_of_a_text": [TEXT],
    "an_odd_sample_in_a_batch_with_batch_norm": [ODD_BATCH],
    "several_inputs": [TWO_INPUTS],
    "two_ranks": TWO_RANKS,
    "a_sample_that_is_not_finite": [BAD_NUMBERS],
    "a_loss_that_is_not_known": [UNKNOWN_LOSS],
    "an_image": [IMAGE],
    "tokens_and_a_sequence": [TOKENS, SEQUENCE],
    "units_of_a_layer": [LAYER, GRADCAM],
}
