"""The same training in several logs: a later checkpoint's history, a CSV beside event files.

Two logs tell of one training if the losses at their common steps are the same but for rounding.
They are compared by a sketch, so that a thousand runs need not be held in memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nndiag.readers.formats import hf_trainer_state
from nndiag.records import Run

SKETCH = 64  # points of the loss that stand for it
FEWEST_COMMON = 8  # points; fewer could agree by chance
SAME_STEPS = 0.5  # of the smaller sketch
SAME_VALUES = 0.95  # of the common points
ROUNDING = 1e-3  # relative; logs keep three digits at least
LAST_DIGIT = 1e-4  # absolute; the Trainer keeps four decimals
CELL, CELL_MARGIN = 0.003, 0.0015  # about relative; the margin exceeds the rounding
# Of two logs of one training the one that tells more is judged: layers, exact values, more series.
RICHEST_FIRST = ("nndiag", "wandb", "tensorboard", "mlflow", "mlflow-db", "trackio", "dvclive")


@dataclass(frozen=True, slots=True)
class Sketch:
    """What is kept of a run to know it again."""

    path: str
    format: str
    points: int  # of the loss
    last: int  # step
    steps: np.ndarray  # (k,) int64, k <= SKETCH, increasing; the same steps in every log
    values: np.ndarray  # (k,) float64


def sketch_of(run: Run) -> Sketch:
    """The points of the first loss whose steps have the smallest hashes (bottom-k sampling)."""
    loss = next(run.series_of("loss"), None)
    if loss is None or not len(loss):
        nothing = np.empty(0)
        return Sketch(run.path, run.format, 0, -1, nothing.astype(np.int64), nothing)
    # Knuth's multiplicative hash: which steps are taken depends on the steps alone
    hashes = loss.steps.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    count = min(SKETCH, len(loss))
    taken = np.sort(np.argpartition(hashes, count - 1)[:count])
    last = int(loss.steps[-1])
    return Sketch(run.path, run.format, len(loss), last, loss.steps[taken], loss.values[taken])


def repeated(sketches: Sequence[Sketch]) -> dict[int, int]:
    """{a log: the one that is judged in its place}, as places in `sketches`.

    Only logs of different formats, in one folder tree, or checkpoints of one Trainer: two equal
    curves of one format are two runs with one seed.
    """
    others: dict[int, int] = {}
    newest = _newest_checkpoints(sketches)
    for i, sketch in enumerate(sketches):
        home = _home_of_checkpoint(sketch)
        if home is not None and newest[home] != i:
            others[i] = newest[home]
    by_wealth = sorted((i for i in range(len(sketches)) if i not in others), key=_wealth(sketches))
    kept = _Index()
    for i in by_wealth:
        candidates = kept.like(sketches[i])
        same = next((j for j in candidates if _is_same(sketches[i], sketches[j])), None)
        if same is None:
            kept.add(i, sketches[i])
        else:
            others[i] = same
    return {i: others.get(j, j) for i, j in others.items()}


class _Index:
    """Sketches by their points: which ones can be the same, without comparing all with all."""

    def __init__(self) -> None:
        self._of_point: dict[tuple[int, float], list[int]] = {}
        self._rank: dict[int, int] = {}

    def add(self, i: int, sketch: Sketch) -> None:
        self._rank[i] = len(self._rank)
        for point in zip(sketch.steps.tolist(), _cells(sketch.values, 0.0), strict=True):
            self._of_point.setdefault(point, []).append(i)

    def like(self, sketch: Sketch) -> list[int]:
        """Those that share enough points, in the order in which they were added."""
        shared: Counter[int] = Counter()
        both = zip(
            sketch.steps.tolist(),
            _cells(sketch.values, -CELL_MARGIN),
            _cells(sketch.values, CELL_MARGIN),
            strict=True,
        )
        for step, below, above in both:
            for cell in {below, above}:
                shared.update(self._of_point.get((step, cell), ()))
        fewest = FEWEST_COMMON * SAME_VALUES
        return sorted((i for i, n in shared.items() if n >= fewest), key=self._rank.__getitem__)


def _cells(values: np.ndarray, shift: float) -> list[float]:
    """Values on a grid on which equal ones, but for rounding, are less than the margin apart."""
    scale = LAST_DIGIT / ROUNDING
    with np.errstate(invalid="ignore"):  # infinity stays, NaN gets a cell of its own
        place = np.sign(values) * np.log1p(np.abs(values) / scale) + shift
    cells = np.floor(place / CELL)
    return np.where(np.isnan(values), 0.5, cells).tolist()  # type: ignore[no-any-return]


def _newest_checkpoints(sketches: Sequence[Sketch]) -> dict[Path, int]:
    """{output folder of a Trainer: the state with the longest history}."""
    newest: dict[Path, int] = {}
    for i, sketch in enumerate(sketches):
        home = _home_of_checkpoint(sketch)
        if home is not None and sketch.last >= sketches[newest.get(home, i)].last:
            newest[home] = i
    return newest


def _home_of_checkpoint(sketch: Sketch) -> Path | None:
    """The output folder of the Trainer that wrote a state."""
    if sketch.format != hf_trainer_state.name:
        return None
    folder = Path(sketch.path).parent
    return folder.parent if folder.name.startswith("checkpoint-") else folder


def _wealth(sketches: Sequence[Sketch]) -> Callable[[int], tuple[int, int, int]]:
    def rank(i: int) -> tuple[int, int, int]:
        one = sketches[i]
        is_rich = one.format in RICHEST_FIRST
        return RICHEST_FIRST.index(one.format) if is_rich else 99, -one.points, i

    return rank


def _is_same(one: Sketch, other: Sketch) -> bool:
    if one.format == other.format:
        return False
    common, mine, its = np.intersect1d(
        one.steps, other.steps, assume_unique=True, return_indices=True
    )
    fewest = SAME_STEPS * min(one.steps.size, other.steps.size)
    if common.size < max(FEWEST_COMMON, fewest):
        return False
    a, b = one.values[mine], other.values[its]
    is_equal = np.isclose(a, b, rtol=ROUNDING, atol=LAST_DIGIT, equal_nan=True)
    return bool(is_equal.mean() >= SAME_VALUES)
