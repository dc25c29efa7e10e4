"""What people call their metrics, and how they print them: "Val Loss: 0.31" is a `val_loss`.

Standard library only: this also runs inside the training process.

    canonical("eval_loss")             the metric name of records.py, "other" where we know none
    describe("train/box_loss_epoch")   all that a name tells: family, split, period, what is left
    step_axis(names)                   which columns count steps, and which epochs
    numbers_in("iter 5: loss 2.1")     [("iter", 5.0), ("loss", 2.1)]
"""

from nndiag.vocabulary.names import Meaning, StepAxis, canonical, describe, step_axis
from nndiag.vocabulary.printed import MAX_LINE, numbers_in, without_colours

__all__ = [
    "MAX_LINE",
    "Meaning",
    "StepAxis",
    "canonical",
    "describe",
    "numbers_in",
    "step_axis",
    "without_colours",
]
