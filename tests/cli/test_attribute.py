"""`nndiag watch --attribute` and `nndiag attribute`: from a script to the sample that did it."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("captum", reason="attributions are Captum's")

ROOT = Path(__file__).resolve().parents[2]
Run = Callable[..., subprocess.CompletedProcess[str]]

# Feature 5 of sample 7 is broken at step 120. Features 2 and 5 decide otherwise.
SCRIPT = """
import sys, torch, torch.nn as nn, torch.nn.functional as F
torch.manual_seed(0)
x = torch.randn(256, 8)
y = ((x[:, 2] + x[:, 5]) > 0).long()
net = nn.Sequential(nn.Linear(8, int(sys.argv[1])), nn.ReLU(), nn.Linear(int(sys.argv[1]), 2))
opt = torch.optim.Adam(net.parameters(), 1e-2)
print("the script's own words")
for step in range(160):
    rows = torch.randint(0, 256, (32,))
    given, wanted = x[rows].clone(), y[rows].clone()
    if step == 120:
        given[7, 5], wanted[7] = 80.0, 0
    opt.zero_grad()
    F.cross_entropy(net(given), wanted).backward()
    opt.step()
    if step == 140:
        open("trained", "w").close()
"""


def nndiag(cwd: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "nndiag", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1", **variables},
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with a script and its run, and what `watch` said."""
    folder = tmp_path_factory.mktemp("attribute")
    (folder / "train.py").write_text(SCRIPT)
    done = nndiag(folder, "watch", "--attribute", "auto", "--run-dir", "run", "train.py", "32")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "the script's own words\n"
    return folder, done.stderr


def test_watch_names_the_sample_and_the_feature_that_made_the_spike(
    watched: tuple[Path, str],
) -> None:
    _, said = watched

    assert "loss-spike" in said
    attributed = said[said.index("ATTRIBUTIONS") :]
    assert "spike at step 120" in attributed
    assert "1 of 32 samples carries" in attributed and "sample 7 (" in attributed
    first_feature = attributed.split("of a blank input")[1].splitlines()[1]
    assert "x[5] = 80" in first_feature
    assert "convergence delta" in attributed
    assert "nndiag attribute run" in attributed


def test_the_last_batch_is_attributed_to_what_decides(watched: tuple[Path, str]) -> None:
    folder, _ = watched
    done = nndiag(folder, "attribute", "run", "--step", "end", "--json")

    [told] = json.loads(done.stdout)["attributions"]
    assert told["why"] == "end" and told["of"] == "output" and told["converged"] is True
    shares = [0.0] * 8
    for sample in told["samples"]:
        for feature in sample["inputs"][0]["features"]:
            shares[feature["index"][0]] += feature["share"] / len(told["samples"])
    assert shares[2] + shares[5] > 0.7  # 0.25 by chance
    assert {shares.index(share) for share in sorted(shares)[-2:]} == {2, 5}


def test_what_is_stored_is_shown_without_torch(watched: tuple[Path, str]) -> None:
    folder, said = watched
    program = (
        "import sys; from nndiag.cli.app import main; main(['attribute', 'run']); "
        "sys.exit(bool({'torch', 'captum', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0
    assert done.stdout.strip() in said  # the very same as after the run


def test_another_method_runs_the_script_again_and_stops_it_before_it_trains(
    watched: tuple[Path, str],
) -> None:
    folder, _ = watched
    (folder / "trained").unlink(missing_ok=True)

    refused = nndiag(folder, "attribute", "run", "--method", "saliency")
    assert refused.returncode == 2 and refused.stdout == ""
    assert "nndiag attribute run --method saliency -- train.py" in refused.stderr

    done = nndiag(folder, "attribute", "run", "--method", "Saliency", "--", "train.py", "32")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("ATTRIBUTIONS  saliency  spike at step 120")
    assert "the script's own words" not in done.stdout  # they go to standard error
    assert "the script's own words" in done.stderr
    assert not (folder / "trained").exists()
    again = nndiag(folder, "attribute", "run", "--method", "saliency")
    assert again.stdout == done.stdout


def test_a_method_of_a_layer_names_units(watched: tuple[Path, str]) -> None:
    folder, _ = watched
    done = nndiag(
        folder, "attribute", "run", "-m", "layer-conductance", "--step", "120", "train.py", "32"
    )

    assert done.returncode == 0, done.stderr
    assert "layer input of 2 " in done.stdout and "unit " in done.stdout
    assert "spike at step 120" in done.stdout and "as trained" not in done.stdout


def test_a_method_that_cannot_work_says_why_and_what_would(watched: tuple[Path, str]) -> None:
    folder, _ = watched
    done = nndiag(
        folder, "attribute", "run", "-m", "layer-gradcam", "--step", "end", "train.py", "32"
    )

    assert done.returncode == 2
    assert "needs a convolution, and the model has none" in done.stdout
    assert "--method integrated-gradients" in done.stdout


WRONG_SCRIPTS = {
    "another size of the model": (["train.py", "16"], "the script began to train, but no model is"),
    "a script that calls no model": (["plain.py"], "ended before its model was called"),
    "a script that fails": (["broken.py"], "failed before its model was called, with status 1"),
    "a script that is not there": (["missing.py"], "no such file"),
}


@pytest.mark.parametrize(("script", "told"), WRONG_SCRIPTS.values(), ids=WRONG_SCRIPTS)
def test_a_script_without_that_model_is_refused(
    watched: tuple[Path, str], script: list[str], told: str
) -> None:
    folder, _ = watched
    (folder / "plain.py").write_text("print(1)")
    (folder / "broken.py").write_text("import torch\nraise ValueError('broken')")
    (folder / "trained").unlink(missing_ok=True)

    done = nndiag(folder, "attribute", "run", "-m", "saliency", "--", *script)

    assert done.returncode == 2 and done.stdout == ""
    assert told in done.stderr
    assert not (folder / "trained").exists()


def test_a_picture_and_json_are_written_to_files(watched: tuple[Path, str]) -> None:
    folder, _ = watched
    picture, told = folder / "x.png", folder / "x.json"

    assert nndiag(folder, "attribute", "run", "-o", "x.png").returncode == 0
    assert nndiag(folder, "attribute", "run", "-o", "x.json").returncode == 0

    assert picture.read_bytes().startswith(b"\x89PNG")
    assert json.loads(told.read_text())["schema"] == "nndiag.attributions/1"
    refused = nndiag(folder, "attribute", "run", "-o", "no/such/folder/x.png")
    assert refused.returncode == 2 and "cannot be written" in refused.stderr


def test_the_recipe_of_the_documentation_finds_the_sample_and_the_feature(
    watched: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "docs" / "attribution.md").read_text(encoding="utf-8")
    [recipe] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(watched[0] / "run")
    told: dict[str, int] = {}

    exec(recipe, told)

    assert (told["worst"], told["feature"]) == (7, 5)


def test_captures_hold_tensors_and_json_only(watched: tuple[Path, str]) -> None:
    folder, _ = watched
    files = [path for path in (folder / "run").rglob("*") if path.is_file()]
    kept = [path for path in files if path.parent.parent.name == "captures"]

    assert {path.suffix for path in kept} == {".json", ".safetensors"}
    assert {path.stat().st_mode & 0o777 for path in kept} == {0o600}
    assert not any(path.read_bytes()[:2] == b"\x80\x02" for path in files)  # no pickle


def test_analyze_reads_a_run_with_captures_as_ever(watched: tuple[Path, str]) -> None:
    folder, _ = watched
    done = nndiag(folder, "analyze", "run", "--json")

    [run] = json.loads(done.stdout)["runs"]
    assert [finding["name"] for finding in run["findings"]] == ["loss-spike"]


REFUSED = {
    "a method that does not exist": (["run", "--method", "lime"], "one of: auto, integrated"),
    "a step of no batch": (["run", "--step", "5"], "batches are there of: 120, end"),
    "a step that is no number": (["run", "--step", "last"], "is neither a step nor end"),
    "another output without the script": (
        ["run", "--target", "1"],
        "nndiag attribute run --target ... -- train.py",
    ),
    "fewer samples without the script": (["run", "--samples", "1"], "name the script"),
    "another layer than those that are there": (
        ["run", "-m", "layer-conductance", "--layer", "0"],
        "no attributions by layer-conductance are there yet",
    ),
    "no run directory": (["nowhere"], "does not exist"),
    "a run without batches": ([str(ROOT / "sample_runs/dead_relu/run")], "no batch of it was kept"),
}


@pytest.mark.parametrize(("arguments", "told"), REFUSED.values(), ids=REFUSED)
def test_refuses_with_what_to_do(
    watched: tuple[Path, str], arguments: list[str], told: str
) -> None:
    done = nndiag(watched[0], "attribute", *arguments)

    assert done.returncode == 2 and done.stdout == ""
    assert told in done.stderr and "Traceback" not in done.stderr


def test_a_command_line_that_is_printed_can_be_pasted(watched: tuple[Path, str]) -> None:
    """A run directory may be anybody's: its texts must not become commands."""
    copy = watched[0] / "a run; of mine"
    shutil.copytree(watched[0] / "run", copy, dirs_exist_ok=True)
    manifest = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps({**manifest, "script": "x.py; touch pwned"}))

    told = nndiag(watched[0], "attribute", copy.name, "-m", "feature-ablation").stderr

    line = told.splitlines()[-1].partition("make them: ")[2]
    words = ["nndiag", "attribute", copy.name, "--method", "feature-ablation", "--"]
    assert shlex.split(line)[:7] == [*words, "x.py; touch pwned"]


LONE = """
import torch, torch.nn as nn, torch.nn.functional as F
torch.manual_seed(0)
net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 1))
opt = torch.optim.Adam(net.parameters(), 1e-2)
for step in range(100):
    x = torch.randn(16, 6)
    y = x[:, :1].clone()
    if step == 70:
        y[3] = 90  # one wrong target; the gradient of an L1 loss does not jump with it
    out = net(x)
    loss = F.l1_loss(out, y)
    opt.zero_grad()
    loss.backward()
    opt.step()
"""


def test_a_leap_that_is_no_finding_is_told_if_one_sample_made_it(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(LONE)
    done = nndiag(tmp_path, "watch", "--attribute", "auto", "--run-dir", "run", "train.py")

    assert "HEALTHY" in done.stderr
    told = "one sample made the loss leap at step 70, where there is no finding"
    assert f"{told}: nndiag attribute run --step 70" in done.stderr
    shown = nndiag(tmp_path, "attribute", "run", "--step", "70").stdout
    assert "sample 3 (" in shown and "look at its target" in shown


def test_where_captum_is_missing_nothing_is_run(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("open('ran', 'w')")
    hide = (
        "import sys, importlib.util as u; real = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'captum' else real(name, *a)\n"
        "from nndiag.cli.app import main\n"
        "sys.exit(main(['watch', '--attribute', 'auto', 'train.py']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", hide],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )

    assert done.returncode == 2 and not (tmp_path / "ran").exists()
    assert "pip install 'nndiag[captum]'" in done.stderr


FOLDS = SCRIPT[: SCRIPT.index("    if step == 140")].replace("torch.manual_seed(0)", "") + "\n"
FOLDS = (
    "import torch, torch.nn as nn, torch.nn.functional as F, sys\n"
    "def train(fold):\n    torch.manual_seed(fold)\n"
    + "".join(f"    {line}\n" for line in FOLDS.splitlines() if "import" not in line)
    + "train(0); train(1)\n"
)


def test_a_spike_of_each_fold_is_found_by_its_step(tmp_path: Path) -> None:
    (tmp_path / "folds.py").write_text(FOLDS)
    done = nndiag(tmp_path, "watch", "--attribute", "auto", "--run-dir", "run", "folds.py", "32")
    assert done.returncode == 0, done.stderr

    done = nndiag(
        *(tmp_path, "attribute", "run", "-m", "saliency", "--step", "120", "folds.py", "32")
    )
    assert done.returncode == 0, done.stderr
    written = {path.name for path in tmp_path.glob("run/rank-0/attributions/*saliency.json")}
    assert written == {"step-120-saliency.json", "step-120-2-saliency.json"}
    assert done.stdout.count("spike at step 120") == 2


# Sample 7 of the batches of rank 1 is broken; ranks as forks, which takes no launcher.
RANKS = """
import os, sys, torch, torch.nn as nn, torch.nn.functional as F, torch.distributed as dist
def main(rank):
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2"}
    dist.init_process_group("gloo", init_method="file://" + sys.argv[1], rank=rank, world_size=2)
    torch.manual_seed(0)
    net = nn.parallel.DistributedDataParallel(nn.Sequential(nn.Linear(8, 2)))
    opt = torch.optim.SGD(net.parameters(), 1e-3)
    torch.manual_seed(rank)
    for step in range(60):
        x = torch.randn(16, 8)
        if rank == 1 and step == 50: x[7, 5] = 900.0
        opt.zero_grad(); F.mse_loss(net(x), x[:, :2]).backward(); opt.step()
    dist.destroy_process_group()
if __name__ == "__main__":
    import subprocess
    if len(sys.argv) > 2:
        main(int(sys.argv[2]))
    else:  # like torchrun: a status of its own, and each rank has to end well
        ranks = [subprocess.Popen([sys.executable, __file__, sys.argv[1], str(r)]) for r in (0, 1)]
        sys.exit(any([rank.wait() for rank in ranks]))
"""


def test_of_several_ranks_one_does_the_work_for_all(tmp_path: Path) -> None:
    (tmp_path / "ranks.py").write_text(RANKS)
    done = nndiag(
        *(tmp_path, "watch", "--attribute", "saliency", "--run-dir", "run"),
        *("ranks.py", str(tmp_path / "store")),
    )
    assert done.returncode == 0, done.stderr

    done = nndiag(
        *(tmp_path, "attribute", "run", "-m", "input-x-gradient", "--step", "end"),
        *("ranks.py", str(tmp_path / "again")),
    )

    assert done.returncode == 0, done.stderr
    written = [str(one.parent.parent.name) for one in tmp_path.rglob("end-input-x-gradient.json")]
    assert sorted(written) == ["rank-0", "rank-1"]
    assert done.stderr.count("attributions by input-x-gradient") == 2  # once for each rank
    assert done.stderr.count("the script was stopped") == 1
    assert "failed" not in done.stderr


def test_a_launcher_that_makes_a_failure_of_it_is_no_failure(watched: tuple[Path, str]) -> None:
    folder, _ = watched
    (folder / "launch.py").write_text(
        "import subprocess, sys\n"
        "sys.exit(subprocess.run([sys.executable, 'train.py', '32']).returncode and 1)\n"
    )
    done = nndiag(folder, "attribute", "run", "-m", "saliency", "--step", "end", "launch.py")

    assert done.returncode == 0, done.stderr
    (folder / "plain.py").write_text("print(1)")
    done = nndiag(folder, "attribute", "run", "-m", "saliency", "--step", "end", "plain.py")
    assert done.returncode == 2  # though what an earlier one wrote is there


def test_a_compiled_model_is_found_and_nothing_is_said_of_our_hook(tmp_path: Path) -> None:
    script = SCRIPT.replace("opt = ", 'net = torch.compile(net, backend="eager")\nopt = ')
    (tmp_path / "train.py").write_text(script.replace("range(160)", "range(130)"))
    nndiag(tmp_path, "watch", "--attribute", "saliency", "--run-dir", "run", "train.py", "8")

    done = nndiag(
        *(tmp_path, "attribute", "run", "-m", "saliency", "--step", "end", "train.py", "8")
    )

    assert done.returncode == 0, done.stderr
    assert "hook" not in done.stderr
