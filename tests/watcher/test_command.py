"""What was typed -> what is started, and the mistakes that are told before anything is."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from nndiag.errors import BadUsage, CannotStart, NndiagError
from nndiag.watcher import command, launchers
from nndiag.watcher.command import parse


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a few things to run; our own Python is the one that has torch."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "_we_have_torch", lambda: True)
    monkeypatch.setattr(sys, "orig_argv", [sys.executable, "/bin/nndiag", "watch"])
    for name in ("train.py", "a b.py", "noext", "app/__main__.py", "bare/readme.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("print('hi')")
    program = tmp_path / "tool"
    program.write_text("#!/bin/sh\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return tmp_path


PYTHON = sys.executable
STARTED = {
    "a script": (
        ["train.py", "--lr", "3", "--", "-m"],
        (PYTHON, "train.py", "--lr", "3", "--", "-m"),
    ),
    "a script with a space": (["a b.py"], (PYTHON, "a b.py")),
    "a script without a suffix": (["noext", "1"], (PYTHON, "noext", "1")),
    "a folder": (["app"], (PYTHON, "app")),
    "a module": (["-m", "pkg.train", "--help"], (PYTHON, "-m", "pkg.train", "--help")),
    "a module, glued": (["-mpkg", "-x"], (PYTHON, "-m", "pkg", "-x")),
    "a program beside us": (["./tool", "1"], ("./tool", "1")),
    "a program on PATH": (["sh", "-c", "true"], ("sh", "-c", "true")),
    "a python as given": ([PYTHON, "-u", "train.py"], (PYTHON, "-u", "train.py")),
}


@pytest.mark.parametrize(("typed", "argv"), STARTED.values(), ids=STARTED)
def test_starts(typed: list[str], argv: tuple[str, ...]) -> None:
    assert parse(typed).argv == argv


NAMED = {
    "a script": (["train.py"], "train.py", "train"),
    "a module": (["-m", "pkg.train"], "-m pkg.train", "pkg.train"),
    "a launcher's script": (["env", "X=1", "train.py", "other.py"], "train.py", "train"),
    "python's script": ([PYTHON, "-X", "dev", "-Wonce", "train.py", "x.py"], "train.py", "train"),
    "python's module": ([PYTHON, "-u", "-m", "pkg"], "-m pkg", "pkg"),
    "a folder": (["."], ".", ""),
    "odd characters": (["a b.py"], "a b.py", "a-b"),
}


@pytest.mark.parametrize(("typed", "label", "stem"), NAMED.values(), ids=NAMED)
def test_is_named_after_the_script(typed: list[str], label: str, stem: str, here: Path) -> None:
    if typed == ["."]:
        (here / "__main__.py").touch()
        stem = command._file_name(here.name)
    assert (parse(typed).label, parse(typed).stem) == (label, stem)


MISTAKES = {
    "nothing": ([], BadUsage, "nndiag watch train.py"),
    "an option that is not ours": (["--evry", "3", "train.py"], BadUsage, "no such option"),
    "-m without a module": (["-m"], BadUsage, "name of a module"),
    "a missing script": (["missing.py"], CannotStart, "no such file"),
    "a missing program": (["no-such-program"], CannotStart, "no such script or program"),
    "a folder without a main module": (["bare"], CannotStart, "__main__"),
    "a missing script after python": ([PYTHON, "missing.py"], CannotStart, "missing.py"),
}


@pytest.mark.parametrize(("typed", "kind", "told"), MISTAKES.values(), ids=MISTAKES)
def test_refuses(typed: list[str], kind: type[NndiagError], told: str) -> None:
    with pytest.raises(kind) as error:
        parse(typed)

    assert told in f"{error.value} {error.value.do}"
    assert error.value.exit_status == 2


BLIND = {
    "-I": ["-I", "train.py"],
    "-E": ["-uE", "train.py"],
    "-S": ["-X", "dev", "-S", "train.py"],
    "": ["-u", "-W", "error", "-X", "importtime", "train.py", "-I", "-E", "-S"],
}


@pytest.mark.parametrize(("flag", "arguments"), BLIND.items())
def test_knows_which_flags_keep_the_bootstrap_out(flag: str, arguments: list[str]) -> None:
    assert parse([PYTHON, *arguments]).blinded_by == flag


def test_flags_of_our_own_python_go_on_to_the_scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = [PYTHON, "-W", "error", "-E", "-Xutf8", "-m", "nndiag", "watch", "-W", "train.py"]
    monkeypatch.setattr(sys, "orig_argv", ours)

    assert parse(["train.py"]).argv == (PYTHON, "-W", "error", "-Xutf8", "train.py")


def fake_python(folder: Path, has_torch: bool) -> str:
    """A program that answers the question for torch."""
    folder.mkdir(parents=True)
    path = folder / "python"
    path.write_text(f"#!/bin/sh\nexit {0 if has_torch else 1}\n")
    path.chmod(0o755)
    return str(path)


def test_the_python_of_the_project_is_taken_where_ours_lacks_torch(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "_we_have_torch", lambda: False)
    without = fake_python(here / "venv" / "bin", has_torch=False)
    having = fake_python(here / "path", has_torch=True)
    environment = {"VIRTUAL_ENV": str(here / "venv"), "PATH": str(here / "path")}

    assert parse(["train.py"], environment).argv == (having, "train.py")
    assert parse(["train.py"], {"VIRTUAL_ENV": str(here / "venv"), "PATH": ""}).argv[0] == PYTHON
    assert os.access(without, os.X_OK)


def test_a_folder_called_torch_is_not_torch(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.chdir(here)
    (here / "torch").mkdir()
    monkeypatch.setattr(sys, "path", [str(here)])
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(sys, "path_importer_cache", {})

    assert not command.finds_torch(sys.executable)


OWNED = {
    "a person": ({}, ""),
    "torchrun": ({"TORCHELASTIC_RUN_ID": "none"}, "torchrun"),
    "some launcher": ({"RANK": "0", "WORLD_SIZE": "2"}, "a launcher"),
    "RANK alone": ({"RANK": "0"}, ""),
    "srun": ({"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "4"}, "srun"),
    "a batch script of Slurm": ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, ""),
    "srun of one task": ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}, ""),
    "mpirun": ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"}, "mpirun"),
}


@pytest.mark.parametrize(("environment", "owner"), OWNED.values(), ids=OWNED)
def test_knows_who_started_us(environment: dict[str, str], owner: str) -> None:
    assert launchers.launcher_of(environment) == owner


def test_ranks_on_several_machines_find_one_name() -> None:
    common = {"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "job 7/x"}
    common |= {"MASTER_ADDR": "node0", "MASTER_PORT": "29500"}
    names = {launchers.shared_run_name("train", {**common, "RANK": rank}) for rank in "0123"}

    assert names == {"train-job_7_x-29500"}
