"""Logs that other people's programs wrote, where a collection of them is at hand.

The collection is a folder with MANIFEST.jsonl: one object a log with its `file`, `format`, and the
`rows`, `first_step`, `last_step` of its training loss. It is found through NNDIAG_REAL_RUNS, or
beside this repository.
"""

import json
import os
from pathlib import Path

import pytest

from nndiag.readers.sniffing import find_runs

FOLDER = Path(
    os.environ.get("NNDIAG_REAL_RUNS") or Path(__file__).parents[2].parent / "shared" / "real_runs"
)
NOT_YET: set[str] = set()

# Logs where we mean something else than the manifest does by a row or a step.
STOPS = "'loss' stops after 100 steps of over 100 000: we judge 'train/loss', which goes on"
EXCEPTIONS = {
    "r005": STOPS,
    "r016": STOPS,
    "r052": "three starts in one file: we judge the last, the manifest counts all rows",
    "r072": "one step is logged twice: we keep the last value",
    "r076": "three starts in one file: we judge the last, the manifest counts all rows",
    "r077": STOPS,
    "r099": "four seeds in one file: we judge the last, the manifest counts all rows",
}


def manifest():
    file = FOLDER / "MANIFEST.jsonl"
    if not file.is_file():
        return []
    entries = map(json.loads, file.read_text(encoding="utf-8").splitlines())
    return [entry for entry in entries if entry["format"] not in NOT_YET]


LOGS = manifest()


@pytest.mark.skipif(not LOGS, reason=f"no collection of real runs at {FOLDER}")
@pytest.mark.parametrize("entry", LOGS, ids=[f"{e['id']}-{e['format']}" for e in LOGS])
def test_the_training_loss_of_a_real_log_is_all_there(entry):
    [run] = find_runs(FOLDER / entry["file"]).runs
    loss = next(run.series_of("loss"))

    measured = len(loss), int(loss.steps[0]), int(loss.steps[-1])
    expected = entry["rows"], entry["first_step"], entry["last_step"]
    assert (measured == expected) == (entry["id"] not in EXCEPTIONS)


@pytest.mark.skipif(not LOGS, reason=f"no collection of real runs at {FOLDER}")
@pytest.mark.parametrize(
    "entry",
    [e for e in LOGS if e["val_key"]],
    ids=[e["id"] for e in LOGS if e["val_key"]],
)
def test_the_validation_loss_of_a_real_log_is_found(entry):
    [run] = find_runs(FOLDER / entry["file"]).runs
    held_out = [series.name for series in run.series_of("val_loss")]
    judged = [series.name for series in run.series_of("loss")]

    assert held_out or entry["val_key"] in judged or len(judged) > 1
