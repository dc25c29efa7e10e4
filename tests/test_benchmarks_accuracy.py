"""The rules of benchmarks/accuracy/scoring.py, and that its command judges our own sample runs."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "benchmarks" / "accuracy"


def loaded(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"accuracy_{name}", FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look their module up
    spec.loader.exec_module(module)
    return module


scoring = loaded("scoring")


def truth(*labels: str, also_ok: tuple[str, ...] = (), **more: str):
    entry = {"id": "r", "file": "log.csv", "labels": labels, "also_ok": also_ok, **more}
    return scoring.truth_of(entry, Path("/runs"))


def said(*alarms: str, info: tuple[str, ...] = ()):
    return scoring.Said(frozenset({*alarms, *info}), frozenset(alarms))


def judged(labels, also_ok, alarms, info=()):
    judgement = scoring.judge(truth(*labels, also_ok=also_ok), said(*alarms, info=info))
    return judgement.right, judgement.false, judgement.missed


RULES = {
    "what is expected is right": (
        (("plateau",), (), ("loss-plateau",)),
        (("loss-plateau",), (), ()),
    ),
    "a remark counts as seen": (
        (("plateau",), (), (), ("loss-plateau",)),
        (("loss-plateau",), (), ()),
    ),
    "silence about a fault is a miss": (
        (("plateau",), (), ()),
        ((), (), ("loss-plateau",)),
    ),
    "another fault is a miss and a false alarm": (
        (("plateau",), (), ("overfitting",)),
        ((), ("overfitting",), ("loss-plateau",)),
    ),
    "an alarm about a healthy run is false": (
        (("healthy",), (), ("loss-spike",)),
        ((), ("loss-spike",), ()),
    ),
    "a remark about a healthy run is none": (
        (("converged",), (), (), ("loss-spike",)),
        ((), (), ()),
    ),
    "what is also fine is neither right nor false": (
        (("healthy",), ("plateau",), ("loss-plateau",)),
        ((), (), ()),
    ),
    "what is also fine excuses the miss": (
        (("divergence",), ("oscillation",), ("loss-oscillation",)),
        ((), (), ()),
    ),
    "silence is excused where quiet is also fine": (
        (("plateau",), ("converged",), ()),
        ((), (), ()),
    ),
    "but not an alarm about something else": (
        (("plateau",), ("converged",), ("overfitting",)),
        ((), ("overfitting",), ("loss-plateau",)),
    ),
    "a spike that stayed may be called a divergence": (
        (("spike_unrecovered",), (), ("loss-divergence",)),
        (("loss-spike",), (), ()),
    ),
    "a divergence may not be called a spike": (
        (("divergence",), (), ("loss-spike",)),
        ((), ("loss-spike",), ("loss-divergence",)),
    ),
    "each of two labels counts": (
        (("spike_recovered", "overfitting"), (), ("loss-spike",)),
        (("loss-spike",), (), ("overfitting",)),
    ),
}


@pytest.mark.parametrize(("case", "expected"), RULES.values(), ids=RULES)
def test_scoring_rule(case, expected):
    assert judged(*case) == expected


def test_only_runs_without_any_fault_count_as_healthy():
    runs = [
        (truth("healthy"), said("loss-spike")),
        (truth("converged"), said()),
        (truth("spike_recovered", "healthy"), said("overfitting")),
    ]

    total = scoring.Tally.of(scoring.judge(*run) for run in runs)

    assert (total.blamed, total.healthy) == (1, 2)
    assert total.blamed_share == 0.5


def test_macro_f1_is_the_mean_over_the_findings_that_were_expected_or_said():
    runs = [
        (truth("plateau"), said("loss-plateau")),
        (truth("plateau"), said()),
        (truth("healthy"), said("overfitting")),
    ]

    total = scoring.Tally.of(scoring.judge(*run) for run in runs)

    assert total.precision("loss-plateau") == 1.0
    assert total.recall("loss-plateau") == 0.5
    assert total.f1("loss-plateau") == pytest.approx(2 / 3)
    assert total.f1("overfitting") == 0.0
    assert total.macro_f1 == pytest.approx(1 / 3)


def test_a_manifest_says_where_the_logs_are_and_which_labels_are_sure(tmp_path: Path):
    entry = {"id": "r1", "file": "r1/log.csv", "labels": ["plateau"], "confidence": "arguable"}
    (tmp_path / "MANIFEST.jsonl").write_text(json.dumps(entry) + "\n", encoding="utf-8")

    [run] = scoring.truths_in(tmp_path)

    assert run.path == tmp_path / "r1" / "log.csv"
    assert not run.sure and not run.is_healthy


def accuracy(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(FOLDER / "run.py"), *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )


def test_the_command_finds_what_our_sample_runs_show(tmp_path: Path):
    done = accuracy("--by-source", "--out", str(tmp_path / "rows.jsonl"))

    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    expected = {row["id"]: row["expected"] for row in rows}

    assert done.returncode == 0, done.stdout + done.stderr
    assert expected["spike_recovered"] == ["loss-spike"] and expected["healthy_mlp"] == []
    assert not any(row["false"] or row["missed"] or row["error"] for row in rows)


def test_the_command_fails_where_a_label_is_not_met(tmp_path: Path):
    log = tmp_path / "log.csv"
    log.write_text("step,loss\n" + "".join(f"{i},{2.0 / (1 + i / 50)}\n" for i in range(400)))
    entry = {"id": "r1", "file": log.name, "labels": ["divergence"]}
    (tmp_path / "MANIFEST.jsonl").write_text(json.dumps(entry) + "\n", encoding="utf-8")

    done = accuracy("--manifest", str(tmp_path), "--jobs", "1")

    assert done.returncode == 1
    assert "missed       loss-divergence" in done.stdout
    assert "macro-F1 0.000" in done.stdout
