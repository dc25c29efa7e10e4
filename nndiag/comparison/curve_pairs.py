"""Each series that both sides have: who is lower at the common end, and along the way."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from nndiag.comparison.axes import Axis, Course
from nndiag.comparison.facts import (
    CONFIDENCE,
    Basis,
    CurveDifference,
    Difference,
    Drawn,
    Extreme,
    Outcome,
    Reached,
    WayPoint,
)
from nndiag.comparison.levels import Window, difference, end_window, is_paired, level, part
from nndiag.curves.long_run import FEWEST
from nndiag.curves.student_t import two_sided
from nndiag.records import Series

Name = tuple[str, str, str]  # metric, owner, label where the metric is "other"

# In the order in which they are shown; which way is better, and whether ratios say more.
METRICS = {
    "loss": ("lower", False),
    "val_loss": ("lower", False),
    "accuracy": ("higher", False),
    "val_accuracy": ("higher", False),
    "grad_norm": ("", True),
    "update_ratio": ("", True),
    "update_gradient_cosine": ("", False),
    "step_time_s": ("lower", True),
}
GOALS = ("loss", "val_loss")  # half of the chance of a false alarm is theirs
# Courses without noise: the settings tell of them. And columns that only count.
NO_CURVES = frozenset({"lr", "clip_threshold", "loss_scale", "epoch"})
MOST_OTHERS = 40  # series without a meaning to us that are compared
WINDOWS = 10  # on the way
PARTS = 64  # of a drawn curve
STRETCHES = 50  # in which it is looked for the step where a level was reached


def curve_differences(
    a: Sequence[Axis], b: Sequence[Axis], marks: tuple[str, str] = ("A", "B")
) -> list[CurveDifference]:
    """Every series in common. The chance of a false alarm is shared by all of them."""
    named_a, named_b = [_named(axis) for axis in a], [_named(axis) for axis in b]
    common = [name for name in _order(named_a[0]) if all(name in n for n in named_a[1:] + named_b)]
    told = [name for name in common if name[0] != "other"]
    others = [name for name in common if name[0] == "other"][:MOST_OTHERS]
    goals = [name for name in told if name[0] in GOALS]
    rest = [name for name in told if name[0] not in GOALS]
    share = 1.0 if not goals or not rest else 0.5
    found = []
    for family, of_family in ((goals, share), (rest, share), (others, 1.0)):
        alpha = (1.0 - CONFIDENCE) * of_family / max(1, len(family))
        for name in family:
            of_a = [(axis, known[name]) for axis, known in zip(a, named_a, strict=True)]
            of_b = [(axis, known[name]) for axis, known in zip(b, named_b, strict=True)]
            one = _difference(name, of_a, of_b, alpha, marks)
            if one is not None:
                found.append(one)
    return found


def drawn(one: CurveDifference, a: Sequence[Axis], b: Sequence[Axis]) -> Drawn | None:
    """The curve of both sides, as far as each of them goes: means of equal parts."""
    sides = []
    for axes in (a, b):
        name = (one.metric, one.owner, "" if one.metric != "other" else one.label_a)
        courses = [axis.course(_named(axis)[name]) for axis in axes]
        x_T = np.concatenate([course.x_T for course in courses])
        sides.append((x_T, np.concatenate([course.y_T for course in courses])))
    if not all(x_T.size for x_T, _ in sides):
        return None
    start = min(float(x_T.min()) for x_T, _ in sides)
    end = max(float(x_T.max()) for x_T, _ in sides)
    if end <= start:
        return None
    of_a, of_b = (_means(x_T, y_T, start, end) for x_T, y_T in sides)
    return Drawn(one.label_a, start, end, one.end, of_a, of_b)


def _means(x_T: np.ndarray, y_T: np.ndarray, start: float, end: float) -> tuple[float, ...]:
    """The mean of each part; between parts without values a straight line."""
    part_T = np.minimum(((x_T - start) / (end - start) * PARTS).astype(np.int64), PARTS - 1)
    counts = np.bincount(part_T, minlength=PARTS)
    sums = np.bincount(part_T, weights=y_T, minlength=PARTS)
    filled = np.flatnonzero(counts)
    means = np.interp(
        np.arange(PARTS), filled, sums[filled] / counts[filled], left=np.nan, right=np.nan
    )
    return tuple(means.tolist())


def lacking(a: Sequence[Axis], b: Sequence[Axis]) -> tuple[str, ...]:
    """Labels of series of the first side that a run of the second has not."""
    known = [set(_named(axis)) for axis in b]
    return tuple(
        series.label
        for name, series in _named(a[0]).items()
        if not all(name in other for other in known)
    )


def _named(axis: Axis) -> dict[Name, Series]:
    """The series of a whole run by what they are; the longest where several are the same."""
    named: dict[Name, Series] = {}
    for series in axis.run.series:
        if series.where or series.metric in NO_CURVES or not len(series):
            continue
        name = series.metric, series.owner, series.label if series.metric == "other" else ""
        if name not in named or series.recorded > named[name].recorded:
            named[name] = series
    return named


def _order(names: Iterable[Name]) -> list[Name]:
    rank = {metric: i for i, metric in enumerate(METRICS)}
    return sorted(names, key=lambda name: (rank.get(name[0], 99), name))


def _difference(
    name: Name,
    a: Sequence[tuple[Axis, Series]],
    b: Sequence[tuple[Axis, Series]],
    alpha: float,
    marks: tuple[str, str],
) -> CurveDifference | None:
    metric, owner, _ = name
    courses_a = [axis.course(series) for axis, series in a]
    courses_b = [axis.course(series) for axis, series in b]
    both = [*courses_a, *courses_b]
    if not all(course.x_T.size for course in both):
        return _empty(name, a, b, courses_a, courses_b)
    start = max(float(course.x_T[0]) for course in both)
    end = min(float(course.x_T[-1]) for course in both)
    better, is_ratio = METRICS.get(metric, ("", False))
    if is_ratio and all((course.y_T > 0).all() for course in both):
        courses_a = [Course(c.x_T, np.log(c.y_T), c.broken_from) for c in courses_a]
        courses_b = [Course(c.x_T, np.log(c.y_T), c.broken_from) for c in courses_b]
    else:
        is_ratio = False
    if end <= start:
        return _empty(name, a, b, courses_a, courses_b)
    window = end_window([*courses_a, *courses_b], start, end)
    last = difference(courses_a, courses_b, window, alpha)
    if last.outcome is Outcome.IDENTICAL and not _are_equal(courses_a, courses_b, start, end):
        last = replace(last, outcome=Outcome.SAME)  # only at the end
    way = _way(courses_a, courses_b, start, end, alpha)
    single = len(a) == len(b) == 1
    target = reached_a = reached_b = None
    if single and better and not is_ratio and last.outcome in (Outcome.LOWER, Outcome.HIGHER):
        sign = 1.0 if better == "lower" else -1.0
        target = sign * max(sign * last.a, sign * last.b)
        reached_a = _reached(courses_a[0], a[0][0], target, sign, start, end, alpha)
        reached_b = _reached(courses_b[0], b[0][0], target, sign, start, end, alpha)
    back = _exponential if is_ratio else _itself
    return CurveDifference(
        metric=metric,
        owner=owner,
        label_a=a[0][1].label,
        label_b=b[0][1].label,
        is_ratio=is_ratio,
        better=better,
        start=start,
        end=end,
        window_start=window.start,
        difference=back(last),
        way=tuple(WayPoint(one.start, one.end, back(one.difference)) for one in way),
        since=_since(courses_a, courses_b, start, end, alpha, last),
        best_a=_best(courses_a[0], better, start, end) if single and not is_ratio else None,
        best_b=_best(courses_b[0], better, start, end) if single and not is_ratio else None,
        target=target,
        reached_a=reached_a,
        reached_b=reached_b,
        is_paired=single and is_paired(courses_a[0], courses_b[0], window),
        notes=tuple(_notes(courses_a, courses_b, marks)),
    )


def _are_equal(a: Sequence[Course], b: Sequence[Course], start: float, end: float) -> bool:
    """Whether all values of the common stretch are the same, run by run."""
    if len(a) != len(b):
        return False
    return all(
        np.array_equal(x, y)
        for one, other in zip(a, b, strict=True)
        for x, y in zip(part(one, start, end), part(other, start, end), strict=True)
    )


def _empty(
    name: Name,
    a: Sequence[tuple[Axis, Series]],
    b: Sequence[tuple[Axis, Series]],
    courses_a: Sequence[Course],
    courses_b: Sequence[Course],
) -> CurveDifference:
    """A series in common that cannot be compared: nothing finite, or no steps in common."""
    finite = all(course.x_T.size for course in (*courses_a, *courses_b))
    reason = "no steps in common" if finite else "one side has no finite value"
    nan = math.nan
    better, _ = METRICS.get(name[0], ("", False))
    return CurveDifference(
        name[0], name[1], a[0][1].label, b[0][1].label, False, better, nan, nan, nan,
        Difference(Outcome.UNDECIDED, nan, nan, nan, nan, Basis.NONE, reason),
    )  # fmt: skip


def _way(
    a: Sequence[Course], b: Sequence[Course], start: float, end: float, alpha: float
) -> list[WayPoint]:
    """The differences in equal windows from start to end, each with its share of `alpha`."""
    windows = _windows(a, b, start, end)
    return [
        WayPoint(one.start, one.end, difference(a, b, one, alpha / len(windows))) for one in windows
    ]


def _windows(a: Sequence[Course], b: Sequence[Course], start: float, end: float) -> list[Window]:
    fewest = min(part(course, start, end)[0].size for course in (*a, *b))
    count = min(WINDOWS, fewest // (2 * FEWEST))
    if count < 2:
        return []
    edges = np.linspace(start, end, count + 1)
    width = edges[1] - edges[0]
    # noise is told by twice the window on each side: it changes over a training
    return [
        Window(low, high, max(start, low - 2 * width), min(end, high + 2 * width))
        for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
    ]


def _since(
    a: Sequence[Course],
    b: Sequence[Course],
    start: float,
    end: float,
    alpha: float,
    last: Difference,
) -> float | None:
    """The start of the windows up to the end that all differ as the end does.

    They are asked backwards from the end until one says no, in a fixed order: so each of them may
    use the whole `alpha`, and the chance of a false alarm is still no larger.
    """
    if last.outcome not in (Outcome.LOWER, Outcome.HIGHER):
        return None
    since = None
    for one in reversed(_windows(a, b, start, end)):
        if difference(a, b, one, alpha).outcome is not last.outcome:
            break
        since = one.start
    return since


def _best(course: Course, better: str, start: float, end: float) -> Extreme | None:
    """The best single value in the common stretch."""
    x_W, y_W = part(course, start, end)
    if not better or not x_W.size:
        return None
    i = int(np.argmin(y_W) if better == "lower" else np.argmax(y_W))
    return Extreme(float(y_W[i]), float(x_W[i]))


def _reached(
    course: Course, axis: Axis, target: float, sign: float, start: float, end: float, alpha: float
) -> Reached | None:
    """When the smoothed curve first came to `target`, and stayed there for two windows."""
    x_T, _ = part(course, start, end)
    windows = min(STRETCHES, x_T.size // FEWEST)
    if windows < 4:
        return None
    edges = np.linspace(start, end, windows + 1)
    width = edges[1] - edges[0]
    places, values, bands = [], [], []
    for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        around = Window(low, high, max(start, low - 3 * width), min(end, high + 3 * width))
        here = level(course, around)
        if math.isfinite(here.value):
            places.append(around.middle)
            values.append(sign * here.value)
            known = math.isfinite(here.error)
            bands.append(here.error * two_sided(alpha, here.freedom) if known else 0.0)
    x, y, band = np.array(places), np.array(values), np.array(bands)
    at = _first_at_or_below(x, y, sign * target)
    if at is None:
        return None
    earliest = _first_at_or_below(x, y - band, sign * target)
    latest = _first_at_or_below(x, y + band, sign * target)
    return Reached(
        at,
        at if earliest is None else min(at, earliest),
        end if latest is None else max(at, latest),
        axis.seconds(at),
    )


def _first_at_or_below(x: np.ndarray, y: np.ndarray, target: float) -> float | None:
    below = np.flatnonzero(y <= target)
    if not below.size:
        return None
    i = int(below[0])
    if i == 0 or y[i - 1] <= y[i]:
        return float(x[i])
    share = (y[i - 1] - target) / (y[i - 1] - y[i])
    return float(x[i - 1] + share * (x[i] - x[i - 1]))


def _notes(a: Sequence[Course], b: Sequence[Course], marks: tuple[str, str]) -> Iterator[str]:
    for mark, courses in zip(marks, (a, b), strict=True):
        for course in courses:
            if course.broken_from is not None:
                yield f"{mark} has no finite value from {course.broken_from:.6g} on"
                break


def _itself(one: Difference) -> Difference:
    return one


def _exponential(one: Difference) -> Difference:
    """Levels back from logarithms; the difference and its band stay a ratio's logarithm."""
    return Difference(
        one.outcome, _level(one.a), _level(one.b), one.value, one.band, one.basis, one.reason
    )


def _level(logarithm: float) -> float:
    return math.exp(min(700.0, logarithm))
