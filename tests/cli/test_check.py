"""`nndiag check` as a CI server runs it: exit status, reports, annotations, baselines."""

from __future__ import annotations

import json
import math
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.cli.test_analyze import loss_log

Run = Callable[..., "subprocess.CompletedProcess[str]"]
ON_GITHUB = {"CI": "true", "GITHUB_ACTIONS": "true"}


@pytest.fixture(autouse=True)
def no_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever runs these tests, each says itself where it is."""
    for name in ("CI", "GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)


def seeded(path: Path, seed: int, factor: float = 1.0, steps: int = 400, every: int = 1) -> Path:
    """A CSV log of one training with some seed; `factor` makes it end worse."""
    g = np.random.default_rng(seed)
    end = 0.4 * factor * math.exp(0.03 * g.standard_normal())
    lines = ["step,loss"]
    for step in range(0, steps, every):
        loss = (end + 2 * math.exp(-step / 60)) * math.exp(0.1 * g.standard_normal())
        lines.append(f"{step},{loss:.6g}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_healthy_run_passes(nndiag: Run, tmp_path: Path) -> None:
    loss_log(tmp_path / "log.csv")
    done = nndiag("check", "log.csv")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0].startswith("HEALTHY  log.csv")
    assert done.stdout.splitlines()[-1] == "PASSED  1 run  (fails on warning)"


def test_a_sick_run_fails_with_the_reason_last(nndiag: Run, tmp_path: Path) -> None:
    loss_log(tmp_path / "log.csv", spike=True)
    done = nndiag("check", "log.csv")

    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.splitlines()[-2:] == [
        "FAILED  1 of 1 run  (fails on warning)",
        "  log.csv: loss-spike",
    ]


@pytest.mark.parametrize(
    ("options", "status"),
    [
        (("--fail-on", "critical"), 0),
        (("--fail-on", "critical,loss-spike"), 1),
        (("--fail-on", "dead-relu"), 0),
        (("--ignore", "loss-spike"), 0),
        (("--select", "loss-divergence"), 0),
        (("--fail-on", "info"), 1),
    ],
)
def test_what_fails_can_be_chosen(
    options: tuple[str, ...], status: int, nndiag: Run, tmp_path: Path
) -> None:
    loss_log(tmp_path / "log.csv", spike=True)

    assert nndiag("check", "log.csv", *options).returncode == status


def test_settings_of_the_project_act(nndiag: Run, tmp_path: Path) -> None:
    loss_log(tmp_path / "log.csv", spike=True)
    (tmp_path / "pyproject.toml").write_text('[tool.nndiag]\nfail-on = ["critical"]\n')
    assert nndiag("check", "log.csv").returncode == 0
    assert nndiag("check", "log.csv", "--fail-on", "warning").returncode == 1

    other = tmp_path / "lenient.toml"
    other.write_text("[thresholds.loss-spike]\nfewest = 100000\n")
    assert nndiag("check", "log.csv", "--config", other).returncode == 0


def test_an_undecided_run_passes_unless_strict(nndiag: Run, tmp_path: Path) -> None:
    loss_log(tmp_path / "log.csv", steps=12)

    assert nndiag("check", "log.csv").returncode == 0
    strict = nndiag("check", "--strict", "log.csv")
    assert strict.returncode == 1
    assert strict.stdout.splitlines()[-1] == "  log.csv: undecided"


@pytest.mark.parametrize("path", ["empty.csv", "missing.csv", "folder"])
def test_what_cannot_be_read_is_an_error_not_a_pass(path: str, nndiag: Run, tmp_path: Path) -> None:
    (tmp_path / "empty.csv").touch()
    (tmp_path / "folder").mkdir()
    done = nndiag("check", path)

    assert done.returncode == 2
    assert path in done.stderr and "Traceback" not in done.stderr


def test_of_several_paths_the_worst_counts_and_all_are_told(nndiag: Run, tmp_path: Path) -> None:
    loss_log(tmp_path / "well.csv")
    loss_log(tmp_path / "sick.csv", spike=True, steps=500)
    assert nndiag("check", "well.csv", "sick.csv").returncode == 1

    done = nndiag("check", "missing.csv", "well.csv", "sick.csv")
    assert done.returncode == 2
    assert "sick.csv" in done.stdout and "well.csv" in done.stdout
    assert "1 path could not be read; 1 of 2 runs failed" in done.stdout


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--fail-on", "loss-spikee"), "did you mean loss-spike?"),
        (("--format", "xml"), "no such format"),
        (("--baseline", "none.json"), "cannot be read"),
        (("--baseline", "a.json", "--write-baseline", "b.json"), "contradicts --baseline"),
        (("--false-alarm-rate", "0.01"), "needs --baseline"),
        (("--write-baseline", "b.json", "--false-alarm-rate", "2"), "is no rate of false alarms"),
        (("--write-baseline", "no/b.json"), "cannot be written"),
    ],
)
def test_bad_usage_is_one_clear_error(
    options: tuple[str, ...], says: str, nndiag: Run, tmp_path: Path
) -> None:
    loss_log(tmp_path / "log.csv")
    done = nndiag("check", "log.csv", *options)

    assert done.returncode == 2
    assert says in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["check", "analyze"])
def test_every_format_says_what_was_found(command: str, nndiag: Run, tmp_path: Path) -> None:
    loss_log(tmp_path / "log.csv", spike=True)

    def out(name: str) -> str:
        done = nndiag(command, "log.csv", "--format", name)
        assert (done.returncode, done.stderr) == (int(command == "check"), "")
        return done.stdout

    assert json.loads(out("sarif"))["runs"][0]["results"][0]["ruleId"] == "loss-spike"
    rules = json.loads(out("sarif"))["runs"][0]["tool"]["driver"]["rules"]
    page = next(rule for rule in rules if rule["id"] == "loss-spike")
    assert "Evidence" in page["help"]["text"]
    assert ET.fromstring(out("junit")).get("failures") == "1"
    assert "| **loss-spike** | warning |" in out("markdown")
    assert out("github").startswith("::warning title=loss-spike in log.csv::")
    document = json.loads(out("json"))
    assert ("check" in document) == (command == "check")


def test_json_tells_what_failed(nndiag: Run, tmp_path: Path) -> None:
    loss_log(tmp_path / "log.csv", spike=True)
    document = json.loads(nndiag("check", "--json", "log.csv").stdout)

    assert document["check"] == {
        "status": 1,
        "fail_on": ["warning"],
        "strict": False,
        "failed": [{"path": "log.csv", "findings": ["loss-spike"], "reason": ""}],
    }


def test_a_report_in_a_file_leaves_the_verdict_on_standard_error(
    nndiag: Run, tmp_path: Path
) -> None:
    loss_log(tmp_path / "log.csv", spike=True)
    done = nndiag("check", "log.csv", "--format", "sarif", "-o", "out.sarif")

    assert (done.returncode, done.stdout) == (1, "")
    assert "FAILED  1 of 1 run" in done.stderr
    assert json.loads((tmp_path / "out.sarif").read_text())["version"] == "2.1.0"


def test_in_github_actions_annotations_and_summary_come_unasked(
    nndiag: Run, tmp_path: Path
) -> None:
    loss_log(tmp_path / "log.csv", spike=True)
    summary = tmp_path / "summary.md"
    summary.write_text("before\n", encoding="utf-8")
    done = nndiag("check", "log.csv", **ON_GITHUB, GITHUB_STEP_SUMMARY=str(summary))

    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("WARNING  log.csv")
    assert done.stdout.splitlines()[-1].startswith("::warning title=loss-spike in log.csv::")
    assert summary.read_text(encoding="utf-8").startswith("before\n## nndiag: failed\n")


@pytest.mark.parametrize("name", ["json", "sarif", "junit", "markdown", "github"])
def test_annotations_do_not_spoil_what_a_program_reads(
    name: str, nndiag: Run, tmp_path: Path
) -> None:
    loss_log(tmp_path / "log.csv", spike=True)
    summary = tmp_path / "summary.md"
    there = nndiag(
        "check", "log.csv", "--format", name, **ON_GITHUB, GITHUB_STEP_SUMMARY=str(summary)
    )

    assert there.stdout == nndiag("check", "log.csv", "--format", name).stdout
    assert "## nndiag: failed" in summary.read_text(encoding="utf-8")


def test_annotations_come_beside_a_report_in_a_file(nndiag: Run, tmp_path: Path) -> None:
    loss_log(tmp_path / "log.csv", spike=True)
    done = nndiag("check", "log.csv", "--format", "junit", "-o", "report.xml", **ON_GITHUB)

    assert done.stdout.startswith("::warning title=loss-spike")
    assert ET.parse(tmp_path / "report.xml").getroot().tag == "testsuites"


def test_a_summary_that_cannot_be_written_changes_nothing(nndiag: Run, tmp_path: Path) -> None:
    loss_log(tmp_path / "log.csv")
    done = nndiag("check", "log.csv", **ON_GITHUB, GITHUB_STEP_SUMMARY=str(tmp_path / "no/s.md"))

    assert done.returncode == 0
    assert len(done.stderr.splitlines()) == 1 and "GITHUB_STEP_SUMMARY" in done.stderr


def test_a_name_in_a_log_is_no_command_to_the_runner(nndiag: Run, tmp_path: Path) -> None:
    loss_log(tmp_path / "::error::owned.csv", spike=True)
    done = nndiag("check", "::error::owned.csv", "::stop-commands::x.csv", **ON_GITHUB)

    said = [*done.stdout.splitlines(), *done.stderr.splitlines()]
    commands = [line for line in said if line.lstrip().startswith(("::", "##["))]
    assert [line.split(" title=")[0] for line in commands] == ["::error", "::warning"]
    assert all(line.count("::") == 2 or "%3A" in line for line in commands)


def test_known_findings_do_not_fail_and_new_ones_do(nndiag: Run, tmp_path: Path) -> None:
    loss_log(tmp_path / "old.csv", spike=True)
    wrote = nndiag("check", "old.csv", "--write-baseline", "base.json")
    assert wrote.returncode == 0
    assert "loss-spike loss warning in 1 run" in wrote.stdout

    loss_log(tmp_path / "new.csv", spike=True, steps=580)
    known = nndiag("check", "new.csv", "--baseline", "base.json")
    assert known.returncode == 0
    assert "loss-spike  warning known" in known.stdout
    assert known.stdout.splitlines()[-1] == (
        "PASSED  1 run  (fails on warning; baseline base.json, 1 known)"
    )
    assert json.loads(nndiag("check", "new.csv", "--baseline", "base.json", "--json").stdout)[
        "runs"
    ][0]["findings"][0]["known"]

    loss_log(tmp_path / "calm.csv")
    assert nndiag("check", "calm.csv", "--write-baseline", "calm.json").returncode == 0
    assert nndiag("check", "new.csv", "--baseline", "calm.json").returncode == 1


def test_twenty_seeds_pass_their_baseline_and_a_worse_training_does_not(
    nndiag: Run, tmp_path: Path
) -> None:
    seeds = [seeded(tmp_path / f"s{seed}.csv", seed).name for seed in range(25)]
    wrote = nndiag("check", *seeds[:5], "--write-baseline", "base.json")
    assert (wrote.returncode, wrote.stderr) == (0, "")
    assert "a healthy run leaves the bands about once in 1000" in wrote.stdout

    healthy = nndiag("check", *seeds[5:], "--baseline", "base.json", "--json")
    assert healthy.returncode == 0, healthy.stdout
    assert len(json.loads(healthy.stdout)["runs"]) == 20

    seeded(tmp_path / "worse.csv", 77, factor=2.0)
    worse = nndiag("check", "worse.csv", "--baseline", "base.json", "--json")
    [finding] = json.loads(worse.stdout)["runs"][0]["findings"]
    assert (worse.returncode, finding["name"]) == (1, "outside-baseline")
    assert finding["evidence"]["baseline_runs"] == 5
    ignoring = ("--baseline", "base.json", "--ignore", "outside-baseline")
    assert nndiag("check", "worse.csv", *ignoring).returncode == 0


def test_runs_of_other_length_and_interval_are_compared(nndiag: Run, tmp_path: Path) -> None:
    seeds = [seeded(tmp_path / f"s{seed}.csv", seed).name for seed in range(6)]
    nndiag("check", *seeds, "--write-baseline", "base.json")
    seeded(tmp_path / "short.csv", 31, steps=250)
    seeded(tmp_path / "long.csv", 32, steps=900)
    seeded(tmp_path / "coarse.csv", 33, every=10)
    seeded(tmp_path / "short_and_worse.csv", 34, steps=250, factor=3.0)
    against = ("--baseline", "base.json", "--json")

    done = nndiag("check", "short.csv", "long.csv", "coarse.csv", *against)
    short, long, coarse = json.loads(done.stdout)["runs"]
    assert done.returncode == 0
    assert any("only what both cover was compared" in note for note in short["notes"])
    assert any("compared with the baseline up to step 399" in note for note in long["notes"])
    assert not any("baseline" in note for note in coarse["notes"])
    assert nndiag("check", "short_and_worse.csv", *against).returncode == 1


def test_a_baseline_of_too_few_runs_says_so(nndiag: Run, tmp_path: Path) -> None:
    names = [seeded(tmp_path / f"s{seed}.csv", seed).name for seed in range(3)]
    wrote = nndiag("check", *names[:2], "--write-baseline", "base.json")
    assert "no band: 2 different runs, 3 are needed, with different seeds" in wrote.stdout

    done = nndiag("check", names[2], "--baseline", "base.json")
    assert done.returncode == 0
    assert "the baseline has 2 different runs; a band needs 3" in done.stdout
    strict = nndiag("check", "--strict", names[2], "--baseline", "base.json")
    assert strict.returncode == 1
    assert strict.stdout.splitlines()[-1].endswith("not compared with the baseline")


def test_writing_a_baseline_again_changes_nothing(nndiag: Run, tmp_path: Path) -> None:
    names = [seeded(tmp_path / f"s{seed}.csv", seed).name for seed in range(4)]
    nndiag("check", *names, "--write-baseline", "one.json")
    nndiag("check", *reversed(names), "--write-baseline", "two.json")

    assert (tmp_path / "one.json").read_text() == (tmp_path / "two.json").read_text()


def test_half_a_baseline_is_not_written(nndiag: Run, tmp_path: Path) -> None:
    seeded(tmp_path / "s.csv", 1)
    done = nndiag("check", "s.csv", "missing.csv", "--write-baseline", "base.json")

    assert done.returncode == 2
    assert "base.json: not written" in done.stderr
    assert not (tmp_path / "base.json").exists()


def test_the_settings_of_the_project_fail_a_watched_run_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only where they say so: else the status of watch is the script's own."""
    from nndiag.cli import watching
    from nndiag.errors import BadUsage

    monkeypatch.chdir(tmp_path)
    settings = tmp_path / "nndiag.toml"
    settings.write_text('ignore = ["converged"]\n')
    assert watching.failing_names(None) == ()

    settings.write_text('fail-on = ["critical", "dead-relu"]\n')
    assert watching.failing_names(None) == ("critical", "dead-relu")
    assert watching.failing_names("warning") == ("warning",)

    settings.write_text('fail-on = "dead-rellu"\n')
    with pytest.raises(BadUsage, match="dead-rellu"):
        watching.failing_names(None)
