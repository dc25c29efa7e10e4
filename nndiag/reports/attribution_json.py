"""Attributions as JSON, `nndiag.attributions/1`: what is said of each, and its largest parts.

The whole arrays stand in the run directory, beside the `path` of each entry, as `.safetensors`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from nndiag.records import AttributedInput, Attribution, OddInput
from nndiag.reports import attribution_facts as facts
from nndiag.reports.attribution_facts import Part, Places
from nndiag.reports.json_report import value

SCHEMA = "nndiag.attributions/1"
MOST_PARTS = 20


def text(attributions: Sequence[Attribution]) -> str:
    told = {"schema": SCHEMA, "attributions": [_one(one) for one in attributions]}
    return json.dumps(told, indent=2, allow_nan=False) + "\n"


def _one(one: Attribution) -> dict[str, object]:
    carried = facts.carriers(one)
    return {
        "path": value(one.path),
        "step": one.step,
        "why": value(one.why),
        "model": value(one.model),
        "method": value(one.method),
        "of": value(one.of),
        "layer": value(one.layer),
        "loss": value(one.loss),
        "before": value(one.before),
        "batch_size": one.batch_size,
        "rank": one.rank,
        "differs_at_rest": one.differs_at_rest,
        "odd_inputs": [_odd(odd) for odd in one.odd],
        "carriers": None
        if carried is None
        else {
            "rows": list(carried.rows),
            "shares": [value(share) for share in carried.shares],
            "stand_out": carried.stand_out,
            "nonfinite": list(carried.nonfinite),
        },
        "samples": [_sample(one, i) for i in range(len(one.samples))],
        "units": [_part(part) for part in facts.units(one, MOST_PARTS)],
        "relative_delta": value(one.relative_delta),
        "converged": None if one.relative_delta is None else not facts.is_unconverged(one),
        "steps": one.steps,
        "seconds": value(one.seconds),
        "notes": [value(note) for note in one.notes],
        "failed": value(one.failed),
        "do": value(one.do),
    }


def _sample(one: Attribution, i: int) -> dict[str, object]:
    sample = one.samples[i]
    return {
        "row": sample.row,
        "loss": value(sample.loss),
        "what": value(sample.what),
        "at_sample": value(sample.at_sample),
        "at_baseline": value(sample.at_baseline),
        "delta": value(sample.delta),
        "inputs": [_input(one, given, i) for given in facts.by_share(one, i)],
        "places": _places(facts.places(one, i)),
    }


def _odd(odd: OddInput) -> dict[str, object]:
    told = {"row": odd.row, "input": value(odd.name), "index": list(odd.index)}
    return {**told, "value": value(odd.value), "usual": value(odd.usual)}


def _places(found: Places | None) -> dict[str, object] | None:
    """Where in the sample its loss is made; null where no few places make it."""
    if found is None:
        return None
    return {
        "indices": [list(index) for index in found.indices[:MOST_PARTS]],
        "losses": [value(loss) for loss in found.losses[:MOST_PARTS]],
        "share": value(found.share),
        "of": found.total,
    }


def _input(one: Attribution, given: AttributedInput, i: int) -> dict[str, object]:
    return {
        "name": value(given.name),
        "kind": given.kind,
        "share": value(facts.share_of(one, given, i)),
        "features": [_part(part) for part in facts.parts(one, given, i, MOST_PARTS)],
    }


def _part(part: Part) -> dict[str, object]:
    return {
        "index": list(part.index),
        "share": value(part.share),
        "sign": part.sign,
        "value": value(part.value),
        "typical": value(part.typical),
    }
