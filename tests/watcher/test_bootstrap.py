"""Python with the bootstrap on its path is Python without it: each script is run both ways."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.adapters.observed import BOOTSTRAP, Observed, python

TRAIN = """
import torch, torch.nn as nn
net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
opt = torch.optim.SGD(net.parameters(), lr=0.1)
def fit(steps, before=lambda step: None):
    for step in range(steps):
        opt.zero_grad(); before(step); net(torch.ones(3, 4)).square().mean().backward(); opt.step()
"""


def both(
    folder: Path, script: str, *flags: str, files: dict[str, str] | None = None, **environment: str
) -> tuple[Observed, Observed]:
    """The script run plainly, and watched."""
    work = folder / "work"
    for name, content in {**(files or {}), "train.py": script}.items():
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_text(content, encoding="utf-8")
    arguments = [*flags, "train.py", "--lr", "0.1"]
    plain = python(*arguments, cwd=work, every="auto", **environment)
    watched = python(*arguments, cwd=work, run_dir=folder / "run", every="auto", **environment)
    return plain, watched


def assert_same(plain: Observed, watched: Observed) -> None:
    assert watched.stdout == plain.stdout
    assert watched.stderr == plain.stderr
    assert watched.status == plain.status


# -- without torch: these start in no time

SURROUNDINGS = """
import os, sys
print(sys.argv, sys.path, sys.flags, os.getcwd(), sorted(vars()), __name__, __spec__, __file__)
print(sys.excepthook, sys.displayhook, sys.gettrace(), sys.getprofile(), sys.stdout.write.__name__)
print(sorted(name for name in sys.modules if name != "sitecustomize"))
"""


@pytest.mark.parametrize("flags", [[], ["-O"], ["-W", "error"], ["-X", "utf8=0"], ["-P"], ["-u"]])
def test_the_script_finds_its_surroundings_unchanged(tmp_path: Path, flags: list[str]):
    assert_same(*both(tmp_path, SURROUNDINGS, *flags))


def test_a_script_without_torch_imports_nothing_of_ours_and_leaves_nothing(tmp_path: Path):
    script = "import sys; print([name for name in sys.modules if 'nndiag' in name])"
    plain, watched = both(tmp_path, script)

    assert_same(plain, watched)
    assert watched.stdout == "[]\n"
    assert list(watched.run_dir.iterdir()) == []


FAILING = {
    "torch raises": {"torch/__init__.py": "def f(): raise ValueError('no')\nf()"},
    "torch misses a part": {"torch.py": "import no_such_part"},
    "torch has a syntax error": {"torch.py": "def"},
}


@pytest.mark.parametrize("files", FAILING.values(), ids=FAILING)
def test_an_import_that_fails_shows_the_same_traceback_when(tmp_path: Path, files: dict[str, str]):
    plain, watched = both(tmp_path, "import torch", files=files)

    assert_same(plain, watched)
    assert plain.status == 1


def test_a_module_that_only_is_called_torch_is_left_alone_and_the_reason_kept(tmp_path: Path):
    script = "import torch; print(torch.x, torch.__spec__.loader.__class__, torch.__loader__.path)"
    plain, watched = both(tmp_path, script, files={"torch.py": "x = 1"})

    assert_same(plain, watched)
    [failed] = watched.run_dir.glob("failed-*")
    assert failed.read_text()


SITES = {
    "works": "import sys; sys.hidden = 'ran'; print('hidden')",
    "misses something": "import no_such_part",
    "raises": "raise ValueError('hidden')",
}


@pytest.mark.parametrize("content", SITES.values(), ids=SITES)
def test_the_sitecustomize_that_ours_hides_still_runs(tmp_path: Path, content: str):
    script = "import sys; print(getattr(sys, 'hidden', None)); import torch; print(torch.x)"
    files = {"site/sitecustomize.py": content, "torch.py": "x = 1"}
    plain, watched = both(tmp_path, script, files=files, PYTHONPATH="site")

    assert_same(plain, watched)
    assert list(watched.run_dir.glob("failed-*"))  # the import of torch was noticed


def test_nothing_happens_without_a_run_or_when_switched_off(tmp_path: Path):
    script = "import sys; print([type(finder).__name__ for finder in sys.meta_path])"
    path = {"PYTHONPATH": str(BOOTSTRAP)}
    (tmp_path / "train.py").write_text(script)
    plain = python("train.py", cwd=tmp_path)
    for environment in ({}, {"NNDIAG_RUN": ""}, {"NNDIAG_RUN": str(tmp_path), "NNDIAG": "0"}):
        assert python("train.py", cwd=tmp_path, **path, **environment).stdout == plain.stdout


# -- with torch

TRACEBACKS = """
import sys, traceback
def attempt(name, function):
    try: function()
    except Exception: print(name); traceback.print_exc(file=sys.stdout)
class Picky(nn.Module):
    def __init__(self): super().__init__(); self.layer, self.calls = nn.Linear(4, 1), 0
    def forward(self, x):
        self.calls += 1
        return self.layer(x[:, :3] if self.calls == wrong_call else x)
class Bad(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x): return x * 2
    @staticmethod
    def backward(ctx, grad): raise RuntimeError("in backward")
def loop(step):
    if step == 5: raise ValueError("in the loop")
def late():
    global net, opt, wrong_call
    net, wrong_call = Picky(), 13; opt = torch.optim.SGD(net.parameters(), lr=0.1); fit(30)
def clipping():
    net(torch.ones(3, 4)).sum().backward(); opt.zero_grad()
    for p in net.parameters(): p.grad = torch.full_like(p, float("nan"))
    nn.utils.clip_grad_norm_(net.parameters(), 1.0, error_if_nonfinite=True)
def closure():
    raise ValueError("in a closure")
attempt("loop", lambda: fit(9, loop))
attempt("backward", lambda: Bad.apply(net(torch.ones(3, 4))).mean().backward())
attempt("no graph", lambda: torch.ones(()).backward())
attempt("not a scalar", lambda: net(torch.ones(3, 4)).backward())
attempt("closure", lambda: opt.step(closure))
attempt("clipping", clipping)
attempt("forward", late)
"""


def test_tracebacks_are_those_of_plain_python(tmp_path: Path):
    plain, watched = both(tmp_path, TRAIN + TRACEBACKS + "raise SystemError('at the end')")

    assert_same(plain, watched)
    assert plain.stdout.count("Traceback") == 7 and plain.status == 1
    assert [event["what"] for event in watched.of_kind("exit")] == ["SystemError"]


MEASURED = """
import traceback
class Outer(nn.Module):
    def __init__(self, hooked=None):
        super().__init__(); self.body = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))
        if hooked: self.body[2].register_forward_hook(hooked)
    def forward(self, x): return self.body(x)
class Again(nn.Module):
    def __init__(self): super().__init__(); self.body = Outer()
    def forward(self, x):
        try: return self.body(x[:, :3])
        except RuntimeError: traceback.print_exc(file=sys.stdout); return self.body(x)
def refuse(module, inputs, output): raise ValueError("the script's own hook")
def show(net, x, training=True):
    try: net.train(training)(x)
    except Exception: traceback.print_exc(file=sys.stdout); print(len(traceback.extract_stack()))
show(Outer(), torch.ones(3, 5))
show(Outer(), torch.ones(3, 5), False)
show(Outer(lambda *a: None), torch.ones(3, 5))
show(Outer(refuse), torch.ones(3, 4))
try: raise KeyError("training goes on in an except clause")
except KeyError: show(Outer(), torch.ones(3, 5)); Outer()(torch.ones(3, 4)).sum().backward()
Again()(torch.ones(3, 4)).sum().backward()
Outer()(torch.ones(3, 5))
"""


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 shows the line of another call")
def test_so_are_those_of_measured_forwards(tmp_path: Path):
    plain, watched = both(tmp_path, TRAIN + "import sys" + MEASURED)

    assert_same(plain, watched)
    assert plain.stdout.count("Traceback") == 7 and plain.stderr.count("in forward") == 3
    assert watched.faults == []


AFTERWARDS = """
fit(12)
import json, sys, warnings
print(sorted(name for name in sys.modules if not name.startswith(("nndiag", "sitecustomize"))))
print(sys.path, sys.argv, sorted(vars()), sys.excepthook, warnings.filters, sys.gettrace())
print(torch.__spec__.loader.__class__, torch.__loader__.__class__, torch.__file__)
print(torch.Tensor.backward.__qualname__, torch.ones(()).backward.__func__ is torch.Tensor.backward)
print("loss: 0.5", file=sys.stderr); print("val_loss", 0.25)
class Mine: pass
import atexit, pickle
atexit.register(lambda: print(len(pickle.dumps(Mine()))))
"""


def test_a_training_finds_its_surroundings_unchanged(tmp_path: Path):
    names = (
        "schedule session recorder vocabulary journal watch adapters base format nndiag rich numpy"
    )
    files = {f"{name}.py": "raise RuntimeError('shadowed')" for name in names.split()[:-1]}
    plain, watched = both(tmp_path, TRAIN + AFTERWARDS, "-W", "error", files=files)

    assert_same(plain, watched)
    assert plain.status == 0
    assert list(watched.series("loss")) == list(range(12)) and watched.faults == []
    heard = {(e["source"], e["name"], e["value"]) for e in watched.of_kind("metric")}
    assert heard == {("stderr", "loss", 0.5), ("stdout", "val_loss", 0.25)}


def test_spawned_processes_that_train_have_directories_of_their_own(tmp_path: Path):
    script = (
        TRAIN
        + """
import multiprocessing
if __name__ == "__main__":
    process = multiprocessing.get_context("spawn").Process(target=fit, args=(3,))
    fit(2); process.start(); process.join()
    print(process.exitcode)
"""
    )
    (tmp_path / "train.py").write_text(script)
    watched = python("train.py", cwd=tmp_path, run_dir=tmp_path / "run")

    assert (watched.stdout, watched.stderr) == ("0\n", "")
    assert sorted(p.name for p in watched.run_dir.glob("rank-*")) == ["rank-0", "rank-1"]
    assert len(watched.series("loss")) == 2
