"""A comparison as JSON, schema "nndiag.compare/1": docs/compare.md names its keys."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from nndiag import __version__
from nndiag.comparison.facts import (
    CONFIDENCE,
    Comparison,
    CurveDifference,
    Difference,
    Extreme,
    FindingChange,
    LayerDifference,
    Pair,
    Reached,
    Side,
)
from nndiag.errors import NndiagError
from nndiag.records import Finding
from nndiag.reports import comparison_wording as words
from nndiag.reports.json_report import value
from nndiag.reports.wording import recorded_steps

SCHEMA = "nndiag.compare/1"


def text(comparison: Comparison | None, errors: Sequence[NndiagError] = ()) -> str:
    """The document, ending in a newline. Without a comparison it holds the errors only."""
    document: dict[str, object] = {
        "schema": SCHEMA,
        "nndiag": __version__,
        "confidence": CONFIDENCE,
        "sides": [] if comparison is None else [_side(side) for side in comparison.sides],
        "ranking": [] if comparison is None else _ranking(comparison),
        "pairs": [] if comparison is None else [_pair(pair) for pair in comparison.pairs],
        "errors": [{"path": value(e.where), "what": e.what, "do": e.do} for e in errors],
    }
    # ASCII only, and DEL escaped too: so no text from data can do anything to a terminal.
    told = json.dumps(_plain(document), indent=2, allow_nan=False)
    return told.replace("\x7f", "\\u007f") + "\n"


def _plain(given: Any) -> Any:
    """The same with nothing in it that JSON lacks: NaN as "NaN", halves of surrogates replaced."""
    if isinstance(given, dict):
        return {str(value(key)): _plain(one) for key, one in given.items()}
    if isinstance(given, list | tuple):
        return [_plain(one) for one in given]
    return value(given)


def _side(side: Side) -> dict[str, Any]:
    return {
        "mark": side.mark,
        "runs": [
            {
                "path": diagnosis.run.path,
                "format": diagnosis.run.format,
                "verdict": str(diagnosis.verdict),
                "steps": dict(
                    zip(
                        ("first", "last", "recorded"),
                        recorded_steps(diagnosis.run) or (None, None, 0),
                        strict=True,
                    )
                ),
                "findings": list(dict.fromkeys(f.name for f in diagnosis.findings)),
            }
            for diagnosis in side.diagnoses
        ],
    }


def _ranking(comparison: Comparison) -> list[dict[str, Any]]:
    return [
        {
            "mark": rank.mark,
            "series": comparison.ranked_by,
            "level": _known(rank.level),
            "band": _known(rank.band),
            "at": rank.at,
        }
        for rank in comparison.ranking
    ]


def _pair(pair: Pair) -> dict[str, Any]:
    return {
        "a": pair.a.mark,
        "b": pair.b.mark,
        "align": pair.align,
        "unit": pair.unit,
        "summary": words.headline(pair),
        "not_comparable": pair.not_comparable,
        "findings": [_finding(one) for one in pair.findings],
        "curves": [_curve(pair, curve) for curve in pair.curves],
        "only_in_a": list(dict.fromkeys(pair.only_a)),
        "only_in_b": list(dict.fromkeys(pair.only_b)),
        "layers": {
            "compared": pair.layers.compared,
            "different": [_layer(one) for one in pair.layers.different],
            "renamed": [{"from": was, "to": now} for was, now in pair.layers.renamed],
            "only_in_a": list(pair.layers.removed),
            "only_in_b": list(pair.layers.added),
        },
        "settings": [
            {"name": one.name, "a": list(one.a), "b": list(one.b)} for one in pair.settings
        ],
        "settings_compared": pair.settings_compared,
        "notes": [*pair.notes, *dict.fromkeys(n for curve in pair.curves for n in curve.notes)],
    }


def _finding(one: FindingChange) -> dict[str, Any]:
    return {
        "change": one.change.value,
        "name": one.fingerprint.name,
        "fingerprint": one.fingerprint.text,
        "why": one.why,
        "runs_a": one.runs_a,
        "runs_b": one.runs_b,
        "before": _seen(one.before),
        "after": _seen(one.after),
    }


def _seen(finding: Finding | None) -> dict[str, Any] | None:
    if finding is None:
        return None
    return {
        "severity": str(finding.severity),
        "confidence": finding.confidence,
        "series": finding.series,
        "owner": finding.owner,
        "layers": list(finding.layers),
        "step_start": finding.step_start,
        "step_end": finding.step_end,
        "message": finding.message,
    }


def _curve(pair: Pair, curve: CurveDifference) -> dict[str, Any]:
    return {
        "metric": curve.metric,
        "owner": curve.owner,
        "series_a": curve.label_a,
        "series_b": curve.label_b,
        "better": curve.better,
        "summary": words.verdict(pair, curve),
        "start": _known(curve.start),
        "end": _known(curve.end),
        "window_start": _known(curve.window_start),
        **_difference(curve.difference, curve.is_ratio),
        "paired": curve.is_paired,
        "since": curve.since,
        "way": [
            {"start": p.start, "end": p.end, **_difference(p.difference, curve.is_ratio)}
            for p in curve.way
        ],
        "best_a": _extreme(curve.best_a),
        "best_b": _extreme(curve.best_b),
        "target": curve.target,
        "reached_a": _reached(curve.reached_a),
        "reached_b": _reached(curve.reached_b),
    }


def _difference(one: Difference, is_ratio: bool) -> dict[str, Any]:
    """`difference` is b - a, on the ratio scale ln b - ln a; null where it is not known."""
    return {
        "outcome": one.outcome.name.lower(),
        "reason": one.reason,
        "level_a": _known(one.a),
        "level_b": _known(one.b),
        "scale": "ratio" if is_ratio else "linear",
        "difference": _known(one.value),
        "band": _known(one.band),
        "basis": one.basis.name.lower(),
    }


def _extreme(one: Extreme | None) -> dict[str, float] | None:
    return None if one is None else {"value": one.value, "at": one.at}


def _reached(one: Reached | None) -> dict[str, float | None] | None:
    if one is None:
        return None
    return {
        "at": one.at, "earliest": one.earliest, "latest": one.latest, "seconds": one.seconds,
    }  # fmt: skip


def _layer(one: LayerDifference) -> dict[str, Any]:
    return {
        "layer": one.layer,
        "measure": one.measure,
        "phase": one.phase,
        **_difference(one.difference, one.is_ratio),
    }


def _known(number: float) -> float | None:
    return number if math.isfinite(number) else None
