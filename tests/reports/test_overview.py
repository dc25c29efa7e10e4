"""Many runs on one screen, and in a pipe; the files that a search left out; the waiting line."""

from __future__ import annotations

import io
import shlex
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from nndiag.errors import UnreadableLog
from nndiag.records import Diagnosis, Verdict
from nndiag.reports import overview, plain, terminal, wording
from nndiag.reports.left_out import left_out_lines
from nndiag.reports.lines import Line
from nndiag.reports.progress import ProgressLine
from tests.reports.museum import DEAD, DESCENT, EXPLODED, SPIKE, run, spiky
from tests.reports.test_hostile_text import COLOUR, TEXTS, diagnosis, harmful

GOLDEN = Path(__file__).parent / "golden"
Compare = Callable[[Path, str], None]


def sweep(count: int) -> list[Diagnosis]:
    """Runs of a sweep by name: of ten, two are critical, one warning, one too short."""
    kinds = {
        3: (spiky(), Verdict.CRITICAL, (SPIKE, EXPLODED)),
        4: (DESCENT, Verdict.WARNING, (DEAD,)),
        7: (np.append(DESCENT[:400], np.nan), Verdict.CRITICAL, (SPIKE.with_(name="loss-nan"),)),
        8: (DESCENT[:7], Verdict.UNDECIDED, ()),
    }
    diagnoses = []
    for i in range(count):
        values, verdict, findings = kinds.get(i % 10, (DESCENT, Verdict.HEALTHY, ()))
        path = f"runs/sweep/lr-{i % 3}/seed-{i:04d}/metrics.csv"
        notes = ("undecided: the loss has 7 points; 20 are needed",)
        diagnoses.append(
            Diagnosis(
                run(values, path, format="csv", layers=()),
                verdict,
                findings,
                notes=notes if verdict is Verdict.UNDECIDED else (),
            )
        )
    return diagnoses


SKIPPED = [
    *(UnreadableLog(where=f"runs/sweep/{i}/a.csv", what="is empty") for i in range(12)),
    UnreadableLog(
        where="runs/sweep/b.csv",
        what="no series in it looks like a loss",
        do="name it: nndiag analyze runs/sweep/b.csv --loss ce  (columns: ce, lr)",
    ),
    *(
        UnreadableLog(where=f"runs/{i}.csv", what=f"the same training as runs/{i}.jsonl")
        for i in range(3)
    ),
]


def widest(lines: list[Line]) -> int:
    return max(wording.cells("".join(span.text for span in line)) for line in lines)


@pytest.mark.parametrize("width", [80, 140])
def test_a_screen(width: int, golden: Compare) -> None:
    lines = overview.on_a_screen(sweep(100), skipped=SKIPPED, unread=2, width=width)

    assert widest(lines) <= width and len(lines) <= 50
    golden(GOLDEN / f"overview_{width}.txt", plain.text(lines))


def test_a_screen_in_ascii(golden: Compare) -> None:
    text = plain.text(overview.on_a_screen(sweep(12), width=80, ascii_only=True))

    assert text.isascii()
    golden(GOLDEN / "overview_ascii.txt", text)


def test_a_pipe_gets_each_run_on_a_line_of_its_own(golden: Compare) -> None:
    text = plain.text(overview.in_a_pipe(sweep(12), skipped=SKIPPED, unread=1))

    golden(GOLDEN / "overview_pipe.txt", text)
    lines = text.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("critical ")] == [
        "runs/sweep/lr-0/seed-0003/metrics.csv",
        "runs/sweep/lr-1/seed-0007/metrics.csv",
    ]
    assert sum("seed-" in line for line in lines[:12]) == 12


def test_a_thousand_runs_still_fit_on_a_screen_and_are_shown_in_no_time() -> None:
    start = time.perf_counter()
    lines = overview.on_a_screen(sweep(1000), skipped=SKIPPED * 30)

    assert len(lines) <= 50
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize("width", [40, 60, 80, 100, 140, 300])
@pytest.mark.parametrize("count", [5, 40])
def test_every_line_of_the_table_fits(width: int, count: int) -> None:
    lines = overview.on_a_screen(sweep(count), width=width, verbose=True)

    assert widest(lines) <= max(64, width)


def test_the_worst_come_first_and_healthy_ones_are_only_counted() -> None:
    text = plain.text(overview.on_a_screen(sweep(100), width=120))

    assert text.startswith("100 runs  20 critical  10 warning  10 undecided  60 healthy\n")
    assert "the worst 20 of 40" in text and "and 20 more" in text
    assert "healthy  " not in text.split("\n", 3)[3]
    names = [diagnosis.verdict for diagnosis in overview.worst_first(sweep(30))]
    assert names == sorted(names, key=overview._ORDER.index)


def test_the_share_of_each_verdict_is_seen_in_the_bar() -> None:
    bar = plain.text(overview.on_a_screen(sweep(1000), width=80)).splitlines()[1]

    assert {glyph: bar.count(glyph) for glyph in "█▓░─"} == {"█": 12, "▓": 6, "░": 6, "─": 36}


def test_a_single_sick_run_in_a_thousand_is_seen() -> None:
    [healthy, *_, sick] = sweep(4)
    lines = overview.on_a_screen([*[healthy] * 999, sick], width=120)

    assert plain.text(lines).splitlines()[1].startswith("█─")
    assert "critical  runs/sweep/lr-0/seed-0003" in plain.text(lines)


def test_what_was_left_out_is_counted_by_reason_and_listed_when_asked() -> None:
    short = plain.text(left_out_lines(SKIPPED, 100))

    assert "16 files" in short and "12 is empty: 0, 1, 2 and 9 more" in short
    assert "3 the same training as ...: 0.csv, 1.csv, 2.csv" in short
    assert "nndiag analyze runs/sweep/b.csv --loss ce" in short
    assert len(plain.text(left_out_lines(SKIPPED, 100, verbose=True)).splitlines()) == 16


def test_the_next_command_can_be_pasted() -> None:
    [sick] = [d for d in sweep(5) if d.verdict is Verdict.CRITICAL]
    odd = Diagnosis(run(path="-my runs/it's.csv"), sick.verdict, sick.findings)
    lines = plain.text(overview.in_a_pipe([odd])).splitlines()
    command = next(line for line in lines if line.startswith("next"))

    assert shlex.split(command)[1:] == ["nndiag", "analyze", "./-my runs/it's.csv"]


PATHS = {
    ("runs/a/log.csv", "runs/b/log.csv"): ("runs", ["a", "b"]),
    ("runs/a/x.csv", "runs/b/y.csv"): ("runs", ["a/x.csv", "b/y.csv"]),
    ("a/log.csv", "log.csv"): ("", ["a/log.csv", "log.csv"]),
    ("log.csv", "log.csv"): ("", ["log.csv", "log.csv"]),
    ("/x/m.db#1", "/x/m.db#2"): ("/x", ["m.db#1", "m.db#2"]),
    ("only/one.csv",): ("", ["only/one.csv"]),
}


@pytest.mark.parametrize(("paths", "short"), PATHS.items())
def test_names_are_told_from_the_folder_that_all_lie_in(
    paths: tuple[str, ...], short: tuple[str, list[str]]
) -> None:
    assert wording.short_names(paths) == short


@given(TEXTS)
@settings(max_examples=50)
def test_no_text_of_a_log_steers_a_terminal_or_breaks_a_line(text: str) -> None:
    hostile = [diagnosis(text)] * 3 + [Diagnosis(run(path=text), Verdict.UNDECIDED, notes=(text,))]
    skipped = [UnreadableLog(where=text, what=text, do=f"name it: {text}")] * 2
    screen = overview.on_a_screen(hostile, skipped=skipped, width=80)
    pipe = overview.in_a_pipe(hostile, skipped=skipped, verbose=True)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("FORCE_COLOR", "1")
        environment.delenv("NO_COLOR", raising=False)
        stream = io.StringIO()
        terminal.show(screen, stream)

    assert harmful(COLOUR.sub("", stream.getvalue())) == set()
    assert harmful(plain.text(pipe)) == set()
    assert all(
        line.startswith(("warning ", "undecided ")) for line in plain.text(pipe).split("\n")[:4]
    )


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def waiting(judged: int, width: int) -> str:
    line = ProgressLine(Screen())
    line.found(1000)
    for i in range(judged):
        line.judged(("critical", "healthy", "healthy", "unread")[i % 4])
    return line.line(width).plain


def test_the_waiting_line_counts_verdicts_and_fits_its_screen() -> None:
    assert waiting(0, 80) == "reading  1000 logs found  0 s"
    told = waiting(400, 100)
    assert told.startswith("analysing  400 of 1000  ━━━━━━")
    assert "100 critical  200 healthy  100 unread" in told and told.endswith("left")
    assert all(len(waiting(400, width)) <= width for width in (70, 80, 100, 140))


def test_a_short_work_shows_no_waiting_line_and_a_long_one_wipes_it() -> None:
    quick, slow = Screen(), Screen()
    with ProgressLine(quick) as line:
        line.found(9)
    assert quick.getvalue() == ""

    with ProgressLine(slow) as line:
        line.found(9)
        line.judged("healthy")
        time.sleep(0.9)
    assert "1 of 9" in slow.getvalue()
    assert slow.getvalue().endswith("\x1b[2K")  # the line is erased
