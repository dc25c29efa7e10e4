"""Judge `nndiag watch` and `nndiag analyze` on the scenarios, whose truth is known.

    python run.py                                    all scenarios, with this interpreter's nndiag
    python run.py --only 'mlp-*' --no-bare           a few of them, quickly
    python run.py --out results.jsonl --keep runs    one line of JSON each, run directories kept

Each script runs twice: bare, and under `watch`, which must change neither its exit status nor a
byte of its standard output. `analyze --json` then says what it found; scenarios.toml says what is
true.

Exit status: 0 when nothing crashed or changed, at most 2 % of the healthy runs were blamed and at
least 90 % of the faults were named; 1 otherwise; 2 for bad usage.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HERE = Path(__file__).resolve().parent
ALARMS = ("warning", "critical")
BLAMED_LIMIT = 0.02  # share of healthy runs
RECALL_LIMIT = 0.9  # share of faulty runs


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A script, its arguments, and the finding names that are true of the run."""

    name: str
    script: str
    args: str
    expect: tuple[str, ...]  # one of them must be found; empty for a healthy run
    allow: tuple[str, ...] = ()  # true as well, but not asked for
    twin: str = ""
    why: str = ""

    @property
    def command(self) -> list[str]:
        return [str(HERE / "scenarios" / self.script), *shlex.split(self.args)]


@dataclass(kw_only=True)
class Outcome:
    """What happened to one scenario. `problems` is empty when all went as it should."""

    scenario: str
    expect: tuple[str, ...]
    said: dict[str, str] = field(default_factory=dict)  # finding -> its worst severity
    verdict: str = ""
    problems: list[tuple[str, str]] = field(default_factory=list)  # (kind, detail)
    bare_s: float = 0.0
    watch_s: float = 0.0
    analyze_s: float = 0.0

    @property
    def kinds(self) -> set[str]:
        return {kind for kind, _ in self.problems}


def load_scenarios(path: Path, pattern: str) -> list[Scenario]:
    with open(path, "rb") as file:
        entries = tomllib.load(file)["scenario"]
    lists = ("expect", "allow")
    scenarios = [
        Scenario(**(entry | {key: tuple(entry.get(key, ())) for key in lists})) for entry in entries
    ]
    return [s for s in scenarios if fnmatch.fnmatch(s.name, pattern)]


def run(command: Sequence[str], cwd: Path, limit_s: float) -> tuple[int, bytes, str, float]:
    """Exit status (124 when out of time), standard output, end of standard error, seconds."""
    start = time.perf_counter()
    env = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, timeout=limit_s, env=env)
    except subprocess.TimeoutExpired:
        return 124, b"", f"still running after {limit_s:.0f} s", time.perf_counter() - start
    stderr = done.stderr.decode(errors="replace").strip()
    return done.returncode, done.stdout, stderr, time.perf_counter() - start


def last_line(text: str) -> str:
    return text.splitlines()[-1] if text else "(nothing on standard error)"


def first_difference(bare: bytes, watched: bytes) -> str:
    pairs = zip_longest(bare.splitlines(keepends=True), watched.splitlines(keepends=True))
    number, (left, right) = next((n, p) for n, p in enumerate(pairs, start=1) if p[0] != p[1])
    return f"line {number}: {left!r} became {right!r}"


def with_symptoms(
    findings: Iterable[dict[str, Any]], above: str = "info"
) -> Iterator[tuple[str, str]]:
    """(name, severity) of each finding and of each symptom attached to it."""
    for finding in findings:
        severity = finding.get("severity", above)
        yield finding["name"], severity
        yield from with_symptoms(finding.get("symptoms", ()), severity)


def judge(outcome: Outcome, scenario: Scenario) -> None:
    """Compare what was said with what is true."""
    alarms = [name for name, severity in outcome.said.items() if severity in ALARMS]
    said = ", ".join(f"{n} ({s})" for n, s in sorted(outcome.said.items())) or outcome.verdict
    if not scenario.expect:
        blamed = [name for name in alarms if name not in scenario.allow]
        if blamed:
            outcome.problems.append(("false alarm", ", ".join(sorted(blamed))))
        return
    if not set(scenario.expect) & set(outcome.said):
        wanted = " | ".join(scenario.expect)
        outcome.problems.append(("missed", f"{wanted}; said {said or 'nothing'}"))
    extra = sorted(set(alarms) - set(scenario.expect) - set(scenario.allow))
    if extra:
        outcome.problems.append(("extra alarm", ", ".join(extra)))


def examine(
    scenario: Scenario, nndiag: Sequence[str], runs: Path, options: argparse.Namespace
) -> Outcome:
    """Run one scenario bare and watched, diagnose it and judge the diagnosis."""
    outcome = Outcome(scenario=scenario.name, expect=scenario.expect)
    run_dir = runs / scenario.name
    with tempfile.TemporaryDirectory() as empty:
        cwd = Path(empty)
        expected_status, stdout = 0, None
        if not options.no_bare:
            expected_status, stdout, stderr, outcome.bare_s = run(
                [sys.executable, *scenario.command], cwd, options.limit
            )
            if expected_status == 124:
                outcome.problems.append(("broken scenario", stderr))
                return outcome
        watch = [*nndiag, "watch", "--no-live", "--run-dir", str(run_dir), *scenario.command]
        status, watched, stderr, outcome.watch_s = run(watch, cwd, options.limit * 4)
        if status != expected_status:
            outcome.problems.append(
                ("changed exit status", f"{expected_status} -> {status}: {last_line(stderr)}")
            )
        elif stdout is not None and watched != stdout:
            outcome.problems.append(("changed stdout", first_difference(stdout, watched)))
        analyze = [*nndiag, "analyze", str(run_dir), "--json"]
        status, report, stderr, outcome.analyze_s = run(analyze, cwd, options.limit)
    try:
        if status != 0:
            raise ValueError(f"exit status {status}: {stderr or report.decode()[-400:]}")
        [judged] = json.loads(report)["runs"]
        outcome.verdict = judged["verdict"]
        for name, severity in with_symptoms(judged["findings"]):
            if outcome.said.get(name) not in ALARMS or severity == "critical":
                outcome.said[name] = severity
    except (ValueError, KeyError, TypeError) as error:
        outcome.problems.append(("analyze failed", f"{type(error).__name__}: {error}"))
        return outcome
    judge(outcome, scenario)
    return outcome


def print_problems(outcomes: Sequence[Outcome]) -> None:
    width = max((len(o.scenario) for o in outcomes), default=0)
    for kind in ("broken scenario", "changed exit status", "changed stdout", "analyze failed",
                 "false alarm", "missed", "extra alarm"):  # fmt: skip
        rows = [(o.scenario, d) for o in outcomes for k, d in o.problems if k == kind]
        if rows:
            print(f"\n{kind} ({len(rows)})")
        for scenario, detail in rows:
            print(f"  {scenario:<{width}}  {detail}")


def print_recall(faulty: Sequence[Outcome]) -> None:
    """Faults by the name a specialist would choose: any accepted name said, that very name said."""
    total: Counter[str] = Counter()
    found: Counter[str] = Counter()
    exact: Counter[str] = Counter()
    for o in faulty:
        total[o.expect[0]] += 1
        found[o.expect[0]] += bool(set(o.expect) & set(o.said))
        exact[o.expect[0]] += o.expect[0] in o.said
    print(f"\n{'fault':<30}{'runs':>6}{'found':>7}{'by this name':>14}")
    for name in sorted(total):
        print(f"{name:<30}{total[name]:>6}{found[name]:>7}{exact[name]:>14}")


def share(part: int, whole: Sequence[Outcome]) -> str:
    return f"{part} of {len(whole)}" + (f"  ({part / len(whole):.1%})" if whole else "")


def summarise(outcomes: Sequence[Outcome]) -> bool:
    """Print the totals; say whether they are within the limits."""
    healthy = [o for o in outcomes if not o.expect]
    faulty = [o for o in outcomes if o.expect]
    broken = {"broken scenario", "changed exit status", "changed stdout", "analyze failed"}
    crashes = sum(bool(o.kinds & broken) for o in outcomes)
    blamed = sum("false alarm" in o.kinds for o in healthy)
    found = sum(bool(set(o.expect) & set(o.said)) for o in faulty)
    exact = sum(o.expect[0] in o.said for o in faulty)
    extra = sum("extra alarm" in o.kinds for o in faulty)
    print_problems(outcomes)
    print_recall(faulty)
    slower = [o.watch_s / o.bare_s for o in outcomes if o.bare_s]
    print(f"\ncrashed or changed        {share(crashes, outcomes)}")
    print(f"healthy runs blamed       {share(blamed, healthy)}")
    print(f"faults found              {share(found, faulty)}")
    print(f"faults by the first name  {share(exact, faulty)}")
    print(f"faulty, with extra alarms {share(extra, faulty)}")
    if slower:
        print(f"watch / bare wall time    {statistics.median(slower):.2f} (median, with start-up)")
    return (
        crashes == 0
        and blamed <= BLAMED_LIMIT * len(healthy)
        and found >= RECALL_LIMIT * len(faulty)
    )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    here = f"{shlex.quote(sys.executable)} -m nndiag"
    parser.add_argument("--nndiag", metavar="CMD", default=here, help=f"default: {here}")
    parser.add_argument("--scenarios", type=Path, default=HERE / "scenarios.toml")
    parser.add_argument("--jobs", type=int, default=2, help="scenarios at a time (default 2)")
    parser.add_argument("--only", metavar="GLOB", default="*", help="scenario names to run")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the run directories here")
    parser.add_argument("--out", type=Path, metavar="FILE", help="one JSON object a scenario")
    parser.add_argument(
        "--no-bare", action="store_true", help="do not run the scripts bare: output goes unchecked"
    )
    parser.add_argument(
        "--limit", type=float, default=120.0, help="seconds for a bare run (default 120)"
    )
    options = parser.parse_args()
    if options.keep and options.keep.is_dir() and any(options.keep.iterdir()):
        parser.error(f"--keep: {options.keep} is not empty")
    return options


def main() -> int:
    options = parse_arguments()
    scenarios = load_scenarios(options.scenarios, options.only)
    if not scenarios:
        print(f"no scenario is named {options.only!r} in {options.scenarios}", file=sys.stderr)
        return 2
    nndiag = shlex.split(options.nndiag)
    outcomes = []
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(options.jobs) as pool:
        runs = (options.keep or Path(scratch)).resolve()
        runs.mkdir(parents=True, exist_ok=True)
        results = pool.map(lambda s: examine(s, nndiag, runs, options), scenarios)
        for number, outcome in enumerate(results, start=1):
            outcomes.append(outcome)
            mark = ", ".join(sorted(outcome.kinds)) or "ok"
            print(f"{number}/{len(scenarios)} {outcome.scenario}: {mark}", file=sys.stderr)
    if options.out:
        options.out.write_text("".join(json.dumps(asdict(o)) + "\n" for o in outcomes))
    return 0 if summarise(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
