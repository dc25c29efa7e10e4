"""Score the findings of nndiag against labelled logs of real training runs.

    python run.py                                      our own sample runs
    python run.py --manifest DIR/MANIFEST.jsonl        a labelled collection
    python run.py --manifest DIR --by-source           the same, by repository and by format
    python run.py --manifest DIR --thresholds          is any threshold tuned to these runs?

Each log is read once and judged as `nndiag analyze` judges it, with the default thresholds.

Exit status: 0 when macro-F1 is at least 0.90, at most 2 % of the healthy runs were blamed and every
log was read; 1 otherwise; 2 for bad usage.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from scoring import CURVE, Judgement, Said, Tally, Truth, judge, truths_in

import nndiag
from nndiag.detectors import catalogue
from nndiag.detectors.base import Detector
from nndiag.diagnosis import diagnose
from nndiag.records import Abstention, Diagnosis, Finding, Run, Severity
from nndiag.settings import Settings

SAMPLES = Path(__file__).resolve().parents[2] / "sample_runs"
FACTORS = (0.7, 1.4)  # of a threshold, besides its default
MACRO_F1 = 0.90
BLAMED_SHARE = 0.02

Variant = tuple[str, str, float]  # finding, threshold, factor; ("", "", 1.0) for the defaults
DEFAULTS: Variant = ("", "", 1.0)


@dataclass
class Outcome:
    """What was said of one log under each variant of the thresholds; `error` if it was unread."""

    truth: Truth
    said: dict[Variant, Said] = field(default_factory=dict)
    error: str = ""
    seconds: float = 0.0

    def judgement(self, variant: Variant = DEFAULTS) -> Judgement:
        """With a threshold changed; a variant that was not tried says what the defaults say."""
        return judge(self.truth, self.said.get(variant, self.said.get(DEFAULTS, Said())))


@dataclass(frozen=True)
class Remembered:
    """A detector that looks at each run once, however often it is asked."""

    detector: Detector
    answers: dict[int, list[Finding | Abstention]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.detector.name

    @property
    def explains(self) -> tuple[str, ...]:
        return self.detector.explains

    def examine(self, run: Run) -> Iterable[Finding | Abstention]:
        if id(run) not in self.answers:
            self.answers[id(run)] = list(self.detector.examine(run))
        return self.answers[id(run)]


def variants() -> list[Variant]:
    """Each threshold of each detector of the loss curve, lowered and raised."""
    found = []
    for kind in catalogue.kinds():
        for threshold in fields(kind) if kind.name in CURVE | {"converged"} else ():
            for factor in FACTORS:
                variant = (kind.name, threshold.name, factor)
                if value_of(variant) != threshold.default:
                    found.append(variant)
    return found


def value_of(variant: Variant) -> float:
    """The changed threshold; a whole number stays one, and at least 1."""
    name, threshold, factor = variant
    [default] = [f.default for f in fields(catalogue.named(name)) if f.name == threshold]
    assert isinstance(default, int | float)
    return max(1, round(default * factor)) if isinstance(default, int) else default * factor


def with_threshold(variant: Variant) -> Detector:
    name, threshold, _ = variant
    [detector] = catalogue.selected([name], thresholds={name: {threshold: value_of(variant)}})
    return detector


def summary(diagnoses: Iterable[Diagnosis]) -> Said:
    """Findings of the loss curve in all runs of a log."""
    found = [f for d in diagnoses for f in d.findings if f.name in CURVE]
    alarms = (f.name for f in found if f.severity > Severity.INFO)
    return Said(frozenset(f.name for f in found), frozenset(alarms))


def examine(task: tuple[Truth, Sequence[Variant]]) -> Outcome:
    """Read one log and judge it, once with the defaults and once for each variant."""
    truth, asked = task
    outcome = Outcome(truth)
    start = time.perf_counter()
    try:
        read = nndiag.analyze(truth.path, settings=Settings(), jobs=1, whole_runs=True)
        if not read.diagnoses:
            raise ValueError("; ".join(f"{e.where}: {e.what}" for e in read.errors) or "no run")
    except Exception as error:  # a log that cannot be read is a result
        outcome.error = f"{type(error).__name__}: {error}"
        return outcome
    outcome.said[DEFAULTS] = summary(read.diagnoses)
    outcome.seconds = time.perf_counter() - start
    usual = {kind.name: Remembered(kind()) for kind in catalogue.kinds()}
    for variant in asked:
        detectors = usual | {variant[0]: with_threshold(variant)}
        outcome.said[variant] = summary(
            diagnose(d.run, detectors.values())  # type: ignore[arg-type]
            for d in read.diagnoses
        )
    return outcome


def tally(outcomes: Iterable[Outcome], variant: Variant = DEFAULTS) -> Tally:
    return Tally.of(outcome.judgement(variant) for outcome in outcomes)


def best_elsewhere(outcomes: Sequence[Outcome], tried: Sequence[Variant]) -> list[Judgement]:
    """Judgements of each source with the threshold that is best on all other sources.

    The default wins a tie.
    """
    judgements = []
    for source in sorted({outcome.truth.source for outcome in outcomes}):
        rest = [outcome for outcome in outcomes if outcome.truth.source != source]
        best = max((DEFAULTS, *tried), key=lambda variant: tally(rest, variant).macro_f1)
        judgements += [o.judgement(best) for o in outcomes if o.truth.source == source]
    return judgements


def grouped(outcomes: Iterable[Outcome], key: Callable[[Truth], str]) -> dict[str, list[Outcome]]:
    groups = defaultdict(list)
    for outcome in outcomes:
        groups[key(outcome.truth)].append(outcome)
    return dict(sorted(groups.items()))


def print_wrong(outcomes: Iterable[Outcome]) -> None:
    for outcome in outcomes:
        judgement = outcome.judgement()
        said = ", ".join(sorted(outcome.said.get(DEFAULTS, Said()).seen)) or "nothing"
        for name in judgement.missed:
            print(f"missed       {name:18}{outcome.truth.name}  (said {outcome.error or said})")
        for name in judgement.false:
            wanted = ", ".join(name for name, _ in outcome.truth.expected) or "healthy"
            print(f"false alarm  {name:18}{outcome.truth.name}  (is {wanted})")
    for outcome in outcomes:
        if outcome.error:
            print(f"unread       {outcome.truth.format:18}{outcome.truth.name}  {outcome.error}")


def print_findings(total: Tally) -> None:
    print(
        f"\n{'finding':20}{'right':>6}{'false':>7}{'missed':>8}{'precision':>11}{'recall':>8}{'F1':>7}"
    )
    for name in total.names:
        print(
            f"{name:20}{total.right[name]:6}{total.false[name]:7}{total.missed[name]:8}"
            f"{total.precision(name):11.2f}{total.recall(name):8.2f}{total.f1(name):7.2f}"
        )


def print_groups(title: str, groups: dict[str, list[Outcome]]) -> None:
    width = max(len(title), *map(len, groups)) + 2
    print(f"\n{title:{width}}{'runs':>5}{'unread':>8}{'blamed':>8}{'right':>7}{'false':>7}"
          f"{'missed':>8}{'macro-F1':>10}")  # fmt: skip
    for name, members in groups.items():
        total = tally(members)
        print(
            f"{name:{width}}{len(members):5}{sum(bool(o.error) for o in members):8}"
            f"{f'{total.blamed}/{total.healthy}':>8}{total.right.total():7}"
            f"{total.false.total():7}{total.missed.total():8}{total.macro_f1:10.2f}"
        )


def print_jackknife(outcomes: Sequence[Outcome]) -> None:
    sources = sorted({outcome.truth.source for outcome in outcomes})
    scores = {
        source: tally(o for o in outcomes if o.truth.source != source).macro_f1
        for source in sources
    }
    worst, best = min(sources, key=scores.__getitem__), max(sources, key=scores.__getitem__)
    print(
        f"\nmacro-F1 with one source left out: {scores[worst]:.3f} (without {worst}) "
        f"to {scores[best]:.3f} (without {best}), {len(sources)} sources"
    )


def print_thresholds(outcomes: Sequence[Outcome], tried: Sequence[Variant]) -> None:
    """How much the score depends on each threshold, and what choosing it here would gain."""
    usual = tally(outcomes)
    low, high = FACTORS
    print(
        f"\nmacro-F1 and blamed healthy runs with one threshold changed "
        f"(default: {usual.macro_f1:.3f}, {usual.blamed})\n"
        f"{'threshold':42}{f'x{low}':>12}{f'x{high}':>12}{'best elsewhere':>16}"
    )
    by_threshold = defaultdict(list)
    for variant in tried:
        by_threshold[variant[:2]].append(variant)
    better = 0
    for (name, threshold), its in by_threshold.items():
        cells = {variant[2]: tally(outcomes, variant) for variant in its}
        chosen = Tally.of(best_elsewhere(outcomes, its)).macro_f1
        if all(t.macro_f1 == usual.macro_f1 and t.blamed == usual.blamed for t in cells.values()):
            continue
        better += chosen > usual.macro_f1 + 1e-9
        row = "".join(
            f"{f'{cells[f].macro_f1:.3f} {cells[f].blamed:2}' if f in cells else '':>12}"
            for f in FACTORS
        )
        print(f"{name + '.' + threshold:42}{row}{chosen:16.3f}")
    print(
        f"{len(by_threshold)} thresholds tried; those not listed change nothing. Choosing one on\n"
        f"the other sources beats its default on the source left out for {better} of them."
    )


def print_total(outcomes: Sequence[Outcome], total: Tally) -> bool:
    """The last line; whether the limits are met."""
    unread = sum(bool(outcome.error) for outcome in outcomes)
    print(
        f"\nmacro-F1 {total.macro_f1:.3f}   healthy runs blamed {total.blamed} of {total.healthy}"
        f"   unread {unread} of {len(outcomes)}   {sum(o.seconds for o in outcomes):.0f} s"
    )
    good = math.isnan(total.macro_f1) or total.macro_f1 >= MACRO_F1
    return good and total.blamed_share <= BLAMED_SHARE and not unread


def row_of(outcome: Outcome) -> dict[str, object]:
    said, judgement = outcome.said.get(DEFAULTS, Said()), outcome.judgement()
    return {
        "id": outcome.truth.name,
        "format": outcome.truth.format,
        "source": outcome.truth.source,
        "expected": [name for name, _ in outcome.truth.expected],
        "seen": sorted(said.seen),
        "alarms": sorted(said.alarms),
        "false": judgement.false,
        "missed": judgement.missed,
        "error": outcome.error,
        "seconds": round(outcome.seconds, 3),
    }


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--manifest", type=Path, default=SAMPLES, help="MANIFEST.jsonl, or a folder of runs")
    add("--root", type=Path, help="where the manifest's files are (default: beside it)")
    add("--sure", action="store_true", help="only runs whose labels are sure")
    add("--by-source", action="store_true", help="scores by repository and by format")
    add("--thresholds", action="store_true", help="vary each threshold (takes minutes)")
    add("--jobs", type=int, default=2, help="logs at a time (default 2)")
    add("--out", type=Path, metavar="FILE", help="one JSON object a log")
    options = parser.parse_args(argv)
    if not options.manifest.exists():
        parser.error(f"{options.manifest} does not exist")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    options = arguments(argv)
    truths = [t for t in truths_in(options.manifest, options.root) if t.sure or not options.sure]
    if not truths:
        print(f"no labelled runs in {options.manifest}", file=sys.stderr)
        return 2
    tried = variants() if options.thresholds else []
    with multiprocessing.Pool(options.jobs) as pool:
        outcomes = pool.map(examine, [(truth, tried) for truth in truths], chunksize=1)
    total = tally(outcomes)
    print_wrong(outcomes)
    print_findings(total)
    if options.by_source:
        print_groups("format", grouped(outcomes, lambda truth: truth.format))
        print_groups("source", grouped(outcomes, lambda truth: truth.source))
        print_jackknife(outcomes)
    if options.thresholds:
        print_thresholds(outcomes, tried)
    if options.out:
        options.out.write_text("".join(json.dumps(row_of(o)) + "\n" for o in outcomes))
    return 0 if print_total(outcomes, total) else 1


if __name__ == "__main__":
    sys.exit(main())
