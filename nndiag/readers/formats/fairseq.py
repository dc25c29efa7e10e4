"""fairseq's training log, in its formats `simple`, `tqdm` and `json`, old and new.

A line of an interval gives its means: "epoch 001:  100 / 1000 loss=9.1, ppl=479.9, ...", or as
JSON with all numbers as texts. Summaries of the epoch (" | loss 8.7 | ") and of a validation stand
between them; a summary repeats the loss of the intervals and is another series. Counted are
updates (`num_updates`): the numbers beside the epoch are batches. Losses are in base 2 as a rule,
which the perplexity shows. Updates that overflowed are only told in words.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np

from nndiag.readers.formats.dialect import Pairs, fields, present, table_of_lines, with_columns
from nndiag.readers.lines.text_lines import text_of
from nndiag.readers.tables.columns import run_of
from nndiag.readers.tables.table import Table
from nndiag.records import Run

name = "fairseq"

STEP = "num_updates"
OVERFLOW = "overflow"
CLOSE = 0.02  # relative; perplexities are printed with two digits
# " | INFO | train_inner | ", or "| " alone in logs before 2020
_EPOCH = re.compile(r"(?:^|\| )epoch ([0-9]{1,15})(:| \|)(.*)")
_FIELD = re.compile(r"(?<![\w.@-])([A-Za-z_][\w.@-]{0,60})=([^\s,\]]{1,40})")
_SUBSET = re.compile(r"valid on '([^']{1,60})' subset")
_TAGGED_JSON = re.compile(r'(?:\| ([\w-]{1,40}) \| )?\{"epoch": ([0-9]{1,15}), ')
_SIGN = re.compile(
    r"\| (?:fairseq|fairseq_cli)[.\w]* \| "
    r"|\| (?:INFO )?\| (?:train|train_inner|valid) \| (?:epoch [0-9]{3}|\{\"epoch\": )"
    r"|^\| epoch [0-9]{3}(?::| \|) .*\bnum_updates[ =]",
    re.MULTILINE,
)


def recognises(path: Path, head: bytes) -> str | None:
    """Why this looks like fairseq's log; None if it does not."""
    text = text_of(head)
    if not _SIGN.search(text):
        return None
    return "lines of fairseq's progress log"


def read(path: Path, loss: str | None = None) -> Run:
    """The run in fairseq's log; `loss` names the series to take for the loss.

    Raises:
        UnreadableLog: no line of it is fairseq's, or no series is called `loss`.
    """
    table = table_of_lines(path, _pairs, name)
    notes = _base(table)
    overflows = table.columns.get(OVERFLOW)
    if overflows is not None:
        notes.append(f"{len(overflows)} updates skipped: their gradient overflowed (fp16)")
        table = with_columns(table, (), [OVERFLOW])
    return run_of(table, path=str(path), format=name, loss=loss, notes=notes)


def _pairs(line: str) -> Pairs | None:
    if "overflow detected" in line:
        return [(OVERFLOW, 1.0)]
    if "epoch" not in line:
        return None
    if '{"epoch": ' in line:
        return _of_json(line)
    found = _EPOCH.search(line)
    if not found:
        return None
    epoch, kind, rest = found.groups()
    if kind == ":":
        return _row(epoch, present(_FIELD.findall(rest)))
    subset = _SUBSET.search(rest)
    measured = dict(fields(rest.replace(" | ", "|").strip(), "|", " "))
    return _row(epoch, _summary(measured, subset[1] if subset else ""))


def _row(epoch: str, measured: Pairs) -> Pairs | None:
    if not any("loss" in name or name.endswith("ppl") for name, _ in measured):
        return None
    return [("epoch", float(epoch)), *measured]


def _summary(values: dict[str, float], subset: str) -> Pairs:
    """What closes an epoch or a validation, under names that keep it apart from the intervals."""
    own = [(k, v) for k, v in values.items() if k not in (STEP, "epoch")]
    steps = [(STEP, values[STEP])] if STEP in values else []
    if not subset:
        return [*steps, *((k if k == "lr" else f"{k}_epoch", v) for k, v in own)]
    kept = [(f"{subset}_{k}", v) for k, v in own if "loss" in k or k in ("ppl", "accuracy")]
    return [*steps, *kept]


def _of_json(line: str) -> Pairs | None:
    found = _TAGGED_JSON.search(line)
    if not found:
        return None
    try:
        record = json.loads(line[line.index("{", found.start()) :])
    except (ValueError, RecursionError):
        return None
    tag, epoch = found.groups()
    values = dict(present((k, str(v)) for k, v in record.items()))
    if "update" in record:
        return _row(epoch, [(k, v) for k, v in values.items() if k not in ("epoch", "update")])
    steps = next((key for key in values if key.endswith(f"_{STEP}")), None)
    subset = steps[: -len(STEP) - 1] if steps else tag or "train"
    own = {k.removeprefix(f"{subset}_"): v for k, v in values.items()}
    return _row(epoch, _summary(own, "" if subset == "train" else subset))


def _base(table: Table) -> list[str]:
    """Whether the losses are in bits or in nats, as the perplexity tells."""
    perplexity = table.columns.get("ppl")
    for of in ("nll_loss", "loss"):
        entropy = table.columns.get(of)
        if perplexity is None or entropy is None:
            continue
        _, its, own = np.intersect1d(
            perplexity.rows, entropy.rows, assume_unique=True, return_indices=True
        )
        ppl, values = perplexity.values[its], entropy.values[own]
        usable = np.isfinite(ppl) & np.isfinite(values) & (values > 0.1) & (values < 30)
        if not usable.any():
            continue
        for base, said in ((2.0, "2 (bits): times 0.693 in nats"), (np.e, "e (nats)")):
            expected = base ** values[usable]
            if np.median(np.abs(ppl[usable] / expected - 1)) < CLOSE:
                return [f"the losses are in base {said}, as {'ppl'!r} shows"]
    return []
