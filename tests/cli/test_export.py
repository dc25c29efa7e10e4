"""`nndiag export`: what it writes where, and what it refuses."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from nndiag.cli.exporting import default_place

ROOT = Path(__file__).parents[2]
RUN = ROOT / "sample_runs" / "spike_recovered" / "run"
Run = Callable[..., "subprocess.CompletedProcess[str]"]
CSV = "step,loss\n" + "".join(f"{i},{1 / (i + 1)}\n" for i in range(200))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    (tmp_path / "log.csv").write_text(CSV)
    return tmp_path / "log.csv"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_three_tables_and_the_report_come_beside_the_run(nndiag: Run, log: Path) -> None:
    done = nndiag("export", "log.csv", "--to", "csv")

    assert (done.returncode, done.stdout) == (0, "log-csv\n")
    assert done.stderr == "nndiag: wrote 200 steps, 0 layer values, 0 findings\n"
    folder = log.parent / "log-csv"
    assert names(folder) == ["findings.csv", "layers.csv", "report.json", "steps.csv"]
    assert (folder / "steps.csv").read_text() == CSV
    assert json.loads((folder / "report.json").read_text())["runs"][0]["verdict"] == "healthy"
    assert sorted(names(log.parent)) == ["log-csv", "log.csv"]


def test_what_is_there_stays_and_force_replaces_it(nndiag: Run, log: Path) -> None:
    arguments = ("export", "log.csv", "--to", "jsonl", "--table", "steps")
    first, again = nndiag(*arguments), nndiag(*arguments)

    assert (first.returncode, first.stdout) == (0, "log-steps.jsonl\n")
    assert again.returncode == 2
    assert again.stderr.startswith("log-steps.jsonl: is there already\n")
    assert nndiag(*arguments, "--force").returncode == 0
    assert len((log.parent / "log-steps.jsonl").read_text().splitlines()) == 200


def test_standard_output_has_the_table_and_nothing_else(nndiag: Run, log: Path) -> None:
    done = nndiag("export", "-", "--to", "csv", "-o", "-", stdin=CSV)
    findings = nndiag("export", RUN, "--to", "jsonl", "-o", "-", "--table", "findings")

    assert (done.stdout, done.stderr) == (CSV, "")
    assert json.loads(findings.stdout)["name"] == "loss-spike"
    assert names(log.parent) == ["log.csv"]


REFUSED = {
    "an unknown format": (["log.csv", "--to", "excel"], "one of: parquet, csv"),
    "an unknown table": (["log.csv", "--to", "csv", "--table", "rows"], "one of: steps"),
    "no format": (["log.csv"], "'--to'"),
    "a table of a tool": (["log.csv", "--to", "tensorboard", "--table", "steps"], "means nothing"),
    "bytes to a terminal": (["log.csv", "--to", "parquet", "-o", "-"], "is no text"),
    "a missing log": (["none.csv", "--to", "csv"], "none.csv"),
    "several runs": (["many", "--to", "csv"], "name one of: many/a.csv, many/b.csv"),
    "a place under a file": (["log.csv", "--to", "csv", "-o", "log.csv/x"], "its folder is a file"),
    "a folder that is a file": (["log.csv", "--to", "csv", "-o", "log.csv"], "there already"),
}


@pytest.mark.parametrize(("arguments", "told"), REFUSED.values(), ids=REFUSED)
def test_refuses(arguments: list[str], told: str, nndiag: Run, log: Path) -> None:
    (log.parent / "many").mkdir()
    (log.parent / "many" / "a.csv").write_text(CSV)
    (log.parent / "many" / "b.csv").write_text(CSV.replace("0.5\n", "0.6\n"))
    before = sorted(log.parent.rglob("*"))
    done = nndiag("export", *arguments)

    assert done.returncode == 2
    assert told in done.stderr and done.stdout == ""
    assert sorted(log.parent.rglob("*")) == before


def test_a_missing_library_is_named_with_the_line_that_installs_it(nndiag: Run, log: Path) -> None:
    (log.parent / "shadow").mkdir()
    for library in ("pyarrow", "wandb"):
        text = f"raise ModuleNotFoundError('no {library}', name='{library}')\n"
        (log.parent / "shadow" / f"{library}.py").write_text(text)
    shadow = f"{log.parent / 'shadow'}:{ROOT}"

    parquet = nndiag("export", "log.csv", "--to", "parquet", PYTHONPATH=shadow)
    wandb = nndiag("export", "log.csv", "--to", "wandb", PYTHONPATH=shadow)

    assert (parquet.returncode, wandb.returncode) == (2, 2)
    assert "pip install 'nndiag[export]'" in parquet.stderr
    assert "pip install 'nndiag[wandb]'" in wandb.stderr
    assert names(log.parent) == ["log.csv", "shadow"]


def test_the_default_place_is_beside_the_run(tmp_path: Path) -> None:
    (tmp_path / "run.d").mkdir()

    assert default_place(str(tmp_path / "run.d"), "csv", None) == tmp_path / "run.d-csv"
    assert default_place("a/log.csv", "parquet", "steps") == Path("a/log-steps.parquet")
    assert default_place("-", "csv", None) == Path("stdin-csv")
    store = default_place("mlflow.db#../../x y", "jsonl", None)
    assert store == Path("mlflow-.._.._x_y-jsonl")
