"""Python itself, started anew: its flags, its start-up files, and what a script starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.adapters.observed import BOOTSTRAP, SETTINGS, Observed
from tests.faults.conftest import PRELUDE, WEIGHTS


def python(folder: Path, *arguments: str, run_dir: Path | None = None, path: str = "") -> Observed:
    """`python ARGUMENTS` in `folder`, with "Ada" on standard input."""
    environment = {k: v for k, v in os.environ.items() if k not in SETTINGS}
    if run_dir is not None:
        run_dir.mkdir(exist_ok=True)
        environment["NNDIAG_RUN"] = str(run_dir)
        environment["NNDIAG_SETTINGS"] = json.dumps({"every": 1})
    boot = [str(BOOTSTRAP)] if run_dir is not None else []
    environment["PYTHONPATH"] = os.pathsep.join([*boot, *filter(None, [path])])
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**environment, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUSERBASE": str(folder / "user")},
        input="Ada\n",
        capture_output=True,
        text=True,
        timeout=120,
    )
    return Observed(done.returncode, done.stdout, done.stderr, run_dir or folder)


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def both(folder: Path, *arguments: str, path: str = "") -> Observed:
    plain = python(folder, *arguments, path=path)
    watched = python(folder, *arguments, run_dir=folder / "run", path=path)
    assert watched.stdout == plain.stdout
    assert watched.stderr == plain.stderr
    assert watched.status == plain.status
    return watched


EVERYTHING = """
print(input("name? "), sys.flags.dev_mode)
import nndiag, rich, utils
print(nndiag.mine, rich.mine, utils.mine, [n for n in sys.modules if n.startswith("nndiag")])
class Mine: pass
if __name__ == "__main__":
    fit(6)
    import atexit, pickle
    atexit.register(lambda: print(len(pickle.dumps(Mine()))))
"""


def test_flags_start_up_files_and_modules_of_the_same_name(tmp_path: Path) -> None:
    """F34, F38: -X dev and -W error (-O: see test_bootstrap), and an nndiag.py of its own."""
    mine = {name: "mine = __name__" for name in ("nndiag", "rich", "utils", "session", "recorder")}
    site = "import sys; print('site of their own', 'torch' in sys.modules)"
    script = PRELUDE + EVERYTHING + WEIGHTS
    write(tmp_path, {"train": script, "site/sitecustomize": site, **mine})
    flags = ("-X", "dev", "-W", "error::DeprecationWarning")

    pytest.importorskip("torch")
    run = both(tmp_path, *flags, "train.py", path="site")

    assert "site of their own False" in run.stdout and "name? Ada True" in run.stdout
    assert run.status == 0
    assert len(run.series("loss")) == 6 and run.faults == []


def test_an_nndiag_of_its_own_that_was_imported_before_torch(tmp_path: Path) -> None:
    """F38: theirs stays theirs, and the training is recorded all the same."""
    script = "import nndiag\n" + PRELUDE + "fit(3)\nimport nndiag as n\nprint(n is nndiag, n.mine)"
    write(tmp_path, {"train": script, "nndiag": "mine = 1"})
    run = python(tmp_path, "train.py", run_dir=tmp_path / "run")

    assert (run.stdout, run.stderr) == ("True 1\n", "")
    assert len(run.series("loss")) == 3


SHADOWS = {
    "logging": "raise ImportError('a logging.py beside the script')",
    "warnings": "x = 1",
    "typing": "x = 1",
}


@pytest.mark.parametrize("name", SHADOWS)
def test_a_module_that_shadows_the_standard_library_fails_as_without_us(
    tmp_path: Path, name: str
) -> None:
    """F38: such a script cannot import torch; it must learn that in the same words."""
    write(tmp_path, {"train": "import torch", name: SHADOWS[name]})

    both(tmp_path, "train.py")


def test_a_usercustomize_and_a_run_by_m(tmp_path: Path) -> None:
    """F34: also -m with a package, and -c."""
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    user = f"user/lib/{version}/site-packages/usercustomize"
    main = "import sys; print(__package__, sys.argv)"
    write(tmp_path, {user: "import sys; sys.custom = 1", "package/__main__": main})

    assert both(tmp_path, "-m", "package", "-x").status == 0
    assert both(tmp_path, "-c", "import sys; print(getattr(sys, 'custom', 0), sys.argv)").stdout


STARTS = """
import torch.multiprocessing as mp
class Set(torch.utils.data.Dataset):
    def __init__(self): self.layer = nn.Linear(1, 1)
    def __len__(self): return 4
    def __getitem__(self, i): self.layer(torch.ones(1)); return torch.tensor([float(i)])
class K:
    def __init__(self, x): fit(1); self.x = x
if __name__ == "__main__":
    fit(2)
    for method in ("spawn", "forkserver"):
        loader = torch.utils.data.DataLoader(Set(), 2, num_workers=1, multiprocessing_context=method)
        print(method, [batch.tolist() for batch in loader], flush=True)
    with mp.get_context("spawn").Pool(1) as pool: print([k.x for k in pool.map(K, range(2))])
    fit(2)
"""


def test_workers_and_pools_of_each_start_method(tmp_path: Path) -> None:
    """F26, F28: what they do is right, and none of them writes into the journal of another."""
    pytest.importorskip("torch")
    write(tmp_path, {"train": PRELUDE + STARTS})
    run = python(tmp_path, "train.py", run_dir=tmp_path / "run")

    batches = [[[0.0], [1.0]], [[2.0], [3.0]]]
    assert run.stdout == f"spawn {batches}\nforkserver {batches}\n[0, 1]\n"
    assert run.stderr == ""
    assert len(run.series("loss")) == 4 and run.faults == []
    assert sorted(path.name for path in run.run_dir.glob("rank-*")) == ["rank-0", "rank-1"]
    assert list(run.run_dir.glob("failed-*")) == []
