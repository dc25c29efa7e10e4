"""`nndiag check PATH...`"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from nndiag.cli import options
from nndiag.errors import BadUsage

if TYPE_CHECKING:
    from nndiag.analysis import Analysis
    from nndiag.baseline.contents import Baseline
    from nndiag.detectors.outside_baseline import OutsideBaseline
    from nndiag.gate import Gate
    from nndiag.settings import Settings

# What a program reads from standard output: not a word of ours may stand beside it.
FOR_PROGRAMS = ("json", "sarif", "junit", "markdown", "github", "html")


def check(
    paths: options.Paths,
    fail_on: options.FailOn = None,
    strict: bool = typer.Option(False, "--strict", help="A run that cannot be judged fails too."),
    baseline: Path | None = typer.Option(
        None, metavar="FILE", help="Fail only on what is new or worse than in this baseline."
    ),
    write_baseline: Path | None = typer.Option(
        None, metavar="FILE", help="Learn a baseline from these runs: best five seeds or more."
    ),
    false_alarm_rate: str | None = typer.Option(
        None,
        metavar="RATE",
        help="How often a healthy run may leave the band of the baseline. Default: 0.001.",
    ),
    format: options.Format = None,
    json: options.Json = False,
    output: options.Output = None,
    select: options.Select = None,
    ignore: options.Ignore = None,
    loss: options.Loss = None,
    reader: options.Reader = None,
    config: options.Config = None,
    verbose: options.Verbose = False,
    jobs: options.Jobs = None,
    timeout: options.Timeout = None,
) -> None:
    """Fail a build when a training is sick: like analyze, with an exit status.

    Exit status: 0 healthy, or undecided without --strict; 1 when a finding fails the check; 2 when
    a path could not be read. In GitHub Actions it also writes annotations and the job summary.
    """
    options.one_blas_thread()
    from nndiag import analysis
    from nndiag.baseline import document
    from nndiag.cli import output as out
    from nndiag.cli.watching import finding_names
    from nndiag.gate import Gate

    shape = out.chosen_format(format, json)
    if baseline is not None and write_baseline is not None:
        raise BadUsage(where="--write-baseline", what="contradicts --baseline")
    if false_alarm_rate is not None and baseline is None and write_baseline is None:
        raise BadUsage(where="--false-alarm-rate", what="needs --baseline or --write-baseline")
    finding_names("--fail-on", fail_on)
    settings = analysis.project_settings(config).with_options(
        select=select, ignore=ignore, fail_on=fail_on
    )
    detector = _detector(settings, false_alarm_rate)
    known = document.read(baseline) if baseline is not None else None
    gate = Gate(settings, strict)
    result, interrupted = options.analysed(
        paths,
        shape,
        settings=settings,
        loss=loss,
        reader=reader,
        jobs=jobs,
        timeout_s=timeout,
        whole_runs=True if known or write_baseline else None,
    )
    if known is not None:
        result = _against(result, known, detector)
    out.show_report(
        result.diagnoses,
        result.errors,
        skipped=result.skipped,
        format=shape,
        output=output,
        verbose=verbose,
        unfinished=result.unfinished,
        gate=gate,
        rules=out.rules_asked(settings, with_baseline=known is not None),
        has_baseline=known is not None,
    )
    is_plain = shape not in FOR_PROGRAMS and output is None
    learned = _learn(result, write_baseline, detector, interrupted, is_plain)
    if not learned:
        _tell_verdict(gate, result, shape, output, str(baseline or ""))
        if out.in_github_actions():
            tell_github(gate, result, shape, output)
    if interrupted:
        raise typer.Exit(options.INTERRUPTED)
    raise typer.Exit(
        gate.status(() if learned else result.diagnoses, len(result.errors)),
    )


def _detector(settings: Settings, rate: str | None) -> OutsideBaseline | None:
    """The rule for curves, as the settings have it; None where it is not asked for."""
    from dataclasses import replace

    from nndiag.detectors import catalogue
    from nndiag.detectors.outside_baseline import OutsideBaseline

    asked = catalogue.selected(settings.select, settings.ignore, settings.thresholds)
    found = next((one for one in asked if isinstance(one, OutsideBaseline)), None)
    if found is None:
        return None
    if rate is not None:
        return replace(found, false_alarm_rate=_rate(rate, f"--false-alarm-rate {rate}"))
    where = f"{settings.source}, thresholds.{found.name}.false_alarm_rate"
    _rate(str(found.false_alarm_rate), where)
    return found


def _rate(text: str, where: str) -> float:
    """`0.001` or `0.1%` as a share between 0 and 1."""
    try:
        rate = float(text.removesuffix("%")) / (100.0 if text.endswith("%") else 1.0)
    except ValueError:
        rate = 0.0
    if not 1e-9 <= rate <= 0.5:
        raise BadUsage(
            where=where,
            what="is no rate of false alarms",
            do="a number between 0 and 0.5: 0.001, or 0.1%",
        )
    return rate


def _against(result: Analysis, known: Baseline, detector: OutsideBaseline | None) -> Analysis:
    from dataclasses import replace

    from nndiag.baseline.against import judged_against

    judged = (judged_against(diagnosis, known, detector) for diagnosis in result.diagnoses)
    return replace(result, diagnoses=tuple(judged))


def _learn(
    result: Analysis,
    path: Path | None,
    detector: OutsideBaseline | None,
    interrupted: bool,
    is_plain: bool,
) -> bool:
    """Write a baseline where that was asked for and all could be read; whether it was written."""
    if path is None:
        return False
    if result.errors or interrupted or not result.diagnoses:
        print(f"{path}: not written, as not every run could be read", file=sys.stderr)
        return False
    from dataclasses import replace

    from nndiag.baseline import contents, document
    from nndiag.cli.output import show_lines
    from nndiag.curves import band
    from nndiag.detectors.outside_baseline import OutsideBaseline
    from nndiag.reports.gate_lines import KnownFinding, LearnedBand, learned_lines
    from nndiag.reports.lines import BLANK

    baseline = contents.learn(result.diagnoses)
    document.write(baseline, path)
    rate = (detector or OutsideBaseline()).false_alarm_rate
    known = [KnownFinding(one.what.text, one.severity, one.runs) for one in baseline.findings]
    bands = []
    for curve in baseline.curves:
        places = band.band(curve, rate / len(baseline.curves))
        learned = LearnedBand(curve.label, len(curve.levels), curve.last)
        if places:
            end = places[-1]
            learned = replace(learned, lowest=end.lowest, highest=end.highest, limit=end.limit)
        bands.append(learned)
    stream = sys.stdout if is_plain else sys.stderr
    lines = learned_lines(str(path), baseline.runs, known, bands, rate)
    show_lines([*([BLANK] if is_plain else []), *lines], stream)
    return True


def _tell_verdict(
    gate: Gate, result: Analysis, shape: str | None, output: Path | None, baseline: str
) -> None:
    """Passed or failed, and why: last, where a person reads the output."""
    if output is None and shape in FOR_PROGRAMS:
        return
    from nndiag.cli.output import show_lines
    from nndiag.reports.gate_lines import gate_lines

    lines = gate_lines(gate, result.diagnoses, len(result.errors), baseline)
    show_lines(lines, sys.stdout if output is None else sys.stderr)


def tell_github(gate: Gate, result: Analysis, shape: str | None, output: Path | None) -> None:
    """Annotations to standard output, where nothing else is read from it; and the summary page."""
    from nndiag.cli.output import document

    if output is not None or shape not in FOR_PROGRAMS:
        sys.stdout.write(document("github", result.diagnoses, result.errors, gate=gate))
        sys.stdout.flush()
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if not summary:
        return
    text = document("markdown", result.diagnoses, result.errors, result.skipped, gate)
    try:
        with open(summary, "a", encoding="utf-8", errors="backslashreplace") as page:
            page.write(text)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        print(f"nndiag: GITHUB_STEP_SUMMARY cannot be written: {reason}", file=sys.stderr)
