"""A run as three tables, whatever file they end up in; docs/export.md describes them.

steps       one row a step, one column for each series of the whole run, under its own name
layers      step, metric, where, owner, value: all series of layers and parameters
findings    one row for each finding of the diagnosis
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nndiag.records import Diagnosis, Run, Series
from nndiag.reports import json_report

TABLES = ("steps", "layers", "findings")
STEP = "step"
OF_LAYERS = ("activation_", "dead_unit_", "saturated_unit_", "param_")  # how their metrics begin


@dataclass(frozen=True, slots=True)
class Column:
    """One series, laid out over the steps of all of them."""

    name: str
    values: np.ndarray  # (N,) float64; NaN can be a measurement
    is_there: np.ndarray  # (N,) bool; where it is False nothing was recorded


@dataclass(frozen=True, slots=True)
class Steps:
    """The series of the whole run, side by side."""

    steps: np.ndarray  # (N,) int64, increasing
    columns: tuple[Column, ...]


@dataclass(frozen=True, slots=True)
class Tables:
    """All that is exported of a run."""

    diagnosis: Diagnosis
    steps: Steps
    layers: tuple[Series, ...]
    findings: tuple[dict[str, Any], ...]  # each as in the JSON report

    @property
    def rows(self) -> dict[str, int]:
        """How many rows each table has."""
        layers = sum(len(series) for series in self.layers)
        return {"steps": self.steps.steps.size, "layers": layers, "findings": len(self.findings)}


def tables_of(diagnosis: Diagnosis) -> Tables:
    """The tables of a complete run (`Analysis` of one path, not an outline)."""
    run = diagnosis.run
    layers = tuple(series for series in run.series if is_of_layer(series))
    findings = tuple(json_report.finding(finding) for finding in diagnosis.findings)
    return Tables(diagnosis, _side_by_side(whole_run(run)), layers, findings)


def is_of_layer(series: Series) -> bool:
    """Of a module or a parameter. A group's learning rate has a place too and is none."""
    return series.metric.startswith(OF_LAYERS)


def whole_run(run: Run) -> list[Series]:
    """The series that are of no layer."""
    return [series for series in run.series if not is_of_layer(series)]


def names_of(series: Sequence[Series], *, taken: Iterable[str] = ()) -> list[str]:
    """A name for each, all different: its label, with its owner or a number where that repeats.

    A loss that the script printed beside the measured one is "reported/loss".
    """
    measured = {one.label for one in series if one.metric == one.label}
    labels = []
    for one in series:
        is_reported = one.metric != one.label and one.label in measured
        parts = ["reported" if is_reported else "", one.label, one.where]
        label = "/".join(filter(None, parts))
        labels.append(label.encode("utf-8", "replace").decode())  # halves of surrogate pairs go
    used, names = set(taken), []
    for one, label in zip(series, labels, strict=True):
        name = f"{one.owner}/{label}" if one.owner and labels.count(label) > 1 else label
        names.append(unused(name, used))
        used.add(names[-1])
    return names


def unused(name: str, used: set[str]) -> str:
    """`name`, with a number where it is taken."""
    candidate, number = name, 1
    while candidate in used:
        number += 1
        candidate = f"{name}_{number}"
    return candidate


def _side_by_side(series: Sequence[Series]) -> Steps:
    every = [one.steps for one in series] or [np.empty(0, np.int64)]
    same = all(np.array_equal(one, every[0]) for one in every[1:])
    steps = every[0] if same else np.unique(np.concatenate(every))
    return Steps(steps, tuple(_columns(series, steps)))


def _columns(series: Sequence[Series], steps: np.ndarray) -> Iterator[Column]:
    for one, name in zip(series, names_of(series, taken=[STEP]), strict=True):
        values, is_there = np.full(steps.size, np.nan), np.zeros(steps.size, bool)
        places = np.searchsorted(steps, one.steps)
        values[places], is_there[places] = one.values, True
        yield Column(name, values, is_there)
