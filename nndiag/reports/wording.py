"""The sentences and numbers that all reports share, and the one door for text that comes from data.

A layer name, a path or a metric name is somebody else's text. Before it may reach a terminal or a
file, `clean` takes out everything that could move a cursor, recolour a screen or reorder a line.
"""

from __future__ import annotations

import math
import re
import shlex
import unicodedata
from collections.abc import Iterable, Sequence

from nndiag.records import Diagnosis, Evidence, Finding, Number, Remedy, Run, Series, Verdict

# C0 and C1 controls with ESC and DEL, line and paragraph separators, bidirectional controls,
# zero-width characters, the byte order mark, and halves of surrogate pairs (undecodable paths).
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)
_SPACE = re.compile(r"[\t\n\r\v\f]+")


def clean(text: object) -> str:
    """`text` on one line, with control characters shown as escapes (`\\x1b`) instead of obeyed."""
    one_line = _SPACE.sub(" ", str(text))
    return _UNSAFE.sub(lambda match: ascii(match[0])[1:-1], one_line)


def number(value: Number | bool | str | None) -> str:
    """Four significant digits, as a person writes them: 0.8217, 12346, 3e-5, NaN, yes."""
    if value is None:
        return "-"
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, bool) or type(value).__name__ in ("bool", "bool_"):  # numpy's too
        return "yes" if value else "no"
    if isinstance(value, int) and abs(value) < 10**7:
        return str(value)
    value = float(value)
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "infinity" if value > 0 else "-infinity"
    size = abs(value)
    if size == 0:
        return "0"
    if 1e-4 <= size < 1e7:
        # Digits before the point are never rounded away: 12345.6 is 12346, not 12350.
        decimals = max(0, 3 - math.floor(math.log10(size)))
        text = f"{value:.{decimals}f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    mantissa, exponent = f"{value:.3e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


_EXPONENT = re.compile(r"(?<![\w.])(-?\d+(?:\.\d+)?)e([+-]?)0*(\d+)(?!\w|\.\d)")
_ONE = re.compile(r"(?<![\w.,:-])1 (layer|step|point|validation|value|file|run|row|epoch)s\b")


def told(text: object) -> str:
    """A text of a detector or a reader as reports print it: 8.2e16 for 8.2e+16, `1 step`."""
    in_our_numbers = _EXPONENT.sub(_plain_exponent, clean(text))
    return _ONE.sub(r"1 \1", in_our_numbers)


def _plain_exponent(match: re.Match[str]) -> str:
    return f"{match[1]}e{'-' if match[2] == '-' else ''}{match[3]}"


def cells(text: str) -> int:
    """Columns that a text takes on a terminal: two for a wide character, none for an accent."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def padded(text: str, width: int) -> str:
    """`text` filled up to `width` columns."""
    return text + " " * max(0, width - cells(text))


def shortened(text: str, width: int, gap: str = "\u2026") -> str:
    """`text` in at most `width` columns, its middle left out: the ends tell names apart."""
    if cells(text) <= width:
        return text
    tail = max(1, (width - len(gap)) * 2 // 3)
    head = max(0, width - len(gap) - tail)
    front, back = text[:head], text[-tail:]
    while cells(front) > head:
        front = front[:-1]
    while cells(back) > tail:
        back = back[1:]
    return f"{front}{gap}{back}"


def short_names(paths: Sequence[str]) -> tuple[str, list[str]]:
    """(the folder that all lie in, their names from there without a file name that all share).

    ("runs", ["a", "b"]) for runs/a/log.csv and runs/b/log.csv.
    """
    parts = [path.split("/") for path in paths]
    if len(parts) < 2:
        return "", list(paths)
    shortest = min(len(one) for one in parts) - 1
    common = 0
    while common < shortest and len({one[common] for one in parts}) == 1:
        common += 1
    rest = [one[common:] for one in parts]
    if len({one[-1] for one in rest}) == 1 and all(len(one) > 1 for one in rest):
        rest = [one[:-1] for one in rest]
    return "/".join(parts[0][:common]), ["/".join(one) for one in rest]


def listed(names: Iterable[str], most: int = 4) -> str:
    """`a, b, c and 7 more`."""
    cleaned = [clean(name) or "(the model)" for name in names]
    rest = len(cleaned) - most
    if rest <= 1:  # "and 1 more" is longer than most names
        return ", ".join(cleaned)
    return f"{', '.join(cleaned[:most])} and {rest} more"


def counted(count: int, noun: str) -> str:
    """`1 step`, `3 steps`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def step_range(finding: Finding) -> str:
    """`steps 612-640`, `step 5`, `from step 80`; "" where no step is known."""
    start, end = finding.step_start, finding.step_end
    if start is None:
        return "" if end is None else f"until step {end}"
    if end is None:
        return f"from step {start}"
    return f"step {start}" if start == end else f"steps {start}-{end}"


def place(finding: Finding) -> str:
    """Where a finding was seen: its series or layers, then its owner."""
    seen_in = clean(finding.series)
    if finding.layers:
        seen_in = f"{'layer' if len(finding.layers) == 1 else 'layers'} {listed(finding.layers, 3)}"
    owner = clean(finding.owner)
    return f"{seen_in} of {owner}" if owner and seen_in else seen_in or owner


def evidence_item(evidence: Evidence) -> str:
    """`peak 7.9`, `score 41.2 (limit 6)`."""
    text = f"{clean(evidence.name).replace('_', ' ')} {number(evidence.measured)}"
    return text if evidence.limit is None else f"{text} (limit {number(evidence.limit)})"


def change(remedy: Remedy) -> str:
    """`lr 0.003 -> 0.001`; "" where the run tells no value."""
    setting = clean(remedy.setting)
    if remedy.new is None:
        return ""
    if remedy.old is None:
        return f"{setting} -> {number(remedy.new)}".strip()
    return f"{setting} {number(remedy.old)} -> {number(remedy.new)}".strip()


def advice(remedy: Remedy, before: Remedy | None = None) -> str:
    """What to do, and why, as sentences; the reason of the remedy `before` is not told again."""
    why = "" if before is not None and before.why == remedy.why else remedy.why
    return " ".join(sentence(part) for part in (remedy.text, why) if part)


def sentence(text: str) -> str:
    """`text` with a capital at its start and a full stop at its end; code words stay small."""
    text = told(text).strip()
    word = text.split(" ", 1)[0]
    if word.isalpha() and word.islower() and word != "lr":
        text = text[0].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."


def loss_series(run: Run) -> tuple[Series, ...]:
    """What was taken for the training loss: one series for each optimizer or model."""
    return tuple(run.series_of("loss"))


def main_loss(run: Run) -> Series | None:
    """The loss to draw: the longest one, the validation loss where there is no other."""
    found = [s for s in loss_series(run) if len(s)] or [
        s for s in run.series_of("val_loss") if len(s)
    ]
    return max(found, key=lambda series: series.recorded, default=None)


def recorded_steps(run: Run) -> tuple[int, int, int] | None:
    """First step, last step, number of recorded steps: of the loss, else of the longest series."""
    series = [s for s in loss_series(run) if len(s)]
    if not series:
        filled = (s for s in run.series if len(s))
        series = sorted(filled, key=lambda s: s.recorded)[-1:]
    if not series:
        return None
    first = min(int(s.steps[0]) for s in series)
    last = max(int(s.steps[-1]) for s in series)
    return first, last, max(s.recorded for s in series)


def steps_read(run: Run) -> str:
    """`1240 steps (0-1239)`, `41 of the steps 0-4000`, `no steps`."""
    recorded = recorded_steps(run)
    if recorded is None:
        return "no steps"
    first, last, count = recorded
    if count == last - first + 1:
        return f"{counted(count, 'step')} ({first}-{last})"
    return f"{count} of the steps {first}-{last}"


def loss_read(run: Run) -> str:
    """What was read as the loss, and where it went: `loss = train_ce 2.31 -> 0.42`."""
    parts = [_course("loss", series) for series in loss_series(run) if len(series)]
    parts += [_course("val_loss", series) for series in run.series_of("val_loss") if len(series)]
    if not parts:
        return "no loss found"
    rest = len(parts) - 3
    return "; ".join(parts[:3]) + (f"; and {rest} more" if rest > 0 else "")


def _course(metric: str, series: Series) -> str:
    known_as = metric if series.label == metric else f"{metric} = {clean(series.label)}"
    if series.owner:
        known_as += f" of {clean(series.owner)}"
    return f"{known_as} {number(float(series.values[0]))} -> {number(float(series.values[-1]))}"


def verdict_line(diagnosis: Diagnosis) -> str:
    """One sentence under the verdict."""
    serious = [finding for finding in diagnosis.findings if finding.severity > 1]
    if diagnosis.verdict is Verdict.UNDECIDED:
        reason = undecided_note(diagnosis).partition(": ")[2]
        return f"too little to judge this run{': ' if reason else ''}{told(reason)}"
    if not serious:
        blind = diagnosis.run.blind
        unseen = f"; it cannot show: {listed(blind)}" if blind else ""
        return f"nothing is wrong that this log can show{unseen}"
    return f"{counted(len(serious), 'finding')}: {listed(dict.fromkeys(f.name for f in serious))}"


def undecided_note(diagnosis: Diagnosis) -> str:
    """The note in which the diagnosis says why it is undecided."""
    return next((note for note in diagnosis.notes if note.startswith("undecided: ")), "")


def tally(diagnoses: Sequence[Diagnosis], errors: int) -> str:
    """`3 runs: 1 critical, 2 healthy; 1 path could not be read`."""
    counts = verdict_counts(diagnoses)
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    unread = f"; {counted(errors, 'path')} could not be read" if errors else ""
    return f"{counted(len(diagnoses), 'run')}{': ' if verdicts else ''}{verdicts}{unread}"


def verdict_counts(diagnoses: Sequence[Diagnosis]) -> dict[Verdict, int]:
    """How many runs have each verdict, worst first; verdicts that none has are left out."""
    order = (Verdict.CRITICAL, Verdict.WARNING, Verdict.UNDECIDED, Verdict.HEALTHY)
    counts = {verdict: sum(d.verdict is verdict for d in diagnoses) for verdict in order}
    return {verdict: count for verdict, count in counts.items() if count}


def command(path: str) -> str:
    """The command that shows one run, to be pasted into a shell."""
    looks_like_an_option = path.startswith("-") and path != "-"
    return f"nndiag analyze {shlex.quote(f'./{path}' if looks_like_an_option else path)}"
