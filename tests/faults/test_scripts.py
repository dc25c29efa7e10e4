"""Scripts that do what scripts do: watched, they end, speak and learn as they do without us.

Standard output, standard error with its tracebacks and the exit status are compared byte for byte,
and the weights are part of the output. The numbers are those of the fault matrix in the tests' ids.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from nndiag.journal.reader import open_run, read_stream
from tests.adapters.observed import Train
from tests.faults.conftest import PRELUDE, Alike

# name -> script, and how many steps are in the journal (None: it may have any number)
SCRIPTS: dict[str, tuple[str, int | None]] = {
    "F14 an exception in forward, caught": ("""
class Fails(nn.Module):
    def forward(self, x):
        if len(seen) == 5: seen.append(1); raise ValueError("in forward")
        seen.append(1); return x * 1
seen = []
net.append(Fails())
for _ in range(8):
    try: fit(1)
    except ValueError as error: print(repr(error), error.__context__, error.__cause__)
""", 7),
    "F14 an exception in a hook of the gradient, caught": ("""
def fail(grad): raise KeyError("in backward")
fit(2)
handle = net[0].weight.register_hook(fail)
try: fit(1)
except KeyError as error: print(repr(error))
handle.remove(); fit(2)
""", 4),
    "F14 an exception in the optimizer's step, caught": ("""
class Fails(torch.optim.SGD):
    def step(self, closure=None): raise ZeroDivisionError("in step")
mine = Fails(net.parameters(), lr=0.1)
for _ in range(3):
    net(torch.ones(3, 4)).sum().backward()
    try: mine.step()
    except ZeroDivisionError as error: print(repr(error))
fit(2)
""", 2),
    "F15 an exception without text": ("""
class Mean(Exception):
    def __str__(self): raise ValueError("no text")
    __repr__ = __str__
fit(2)
try: raise Mean
except Mean: pass
fit(2)
""", 4),
    "F16 hooks of the script's own raise and come and go": ("""
from torch.nn.modules.module import register_module_forward_hook
calls = []
def once(module, inputs, output): calls.append(1); handle.remove()
def fails(module, inputs, output): raise RuntimeError("the script's own hook")
fit(2); handle = register_module_forward_hook(once); fit(2)
other = register_module_forward_hook(fails)
try: fit(1)
except RuntimeError as error: print(error)
other.remove(); fit(2); print(calls)
""", 6),
    "F17 the global hooks are cleared": ("""
fit(2); nn.modules.module._global_forward_hooks.clear(); fit(2)
""", 4),
    "F18 Ctrl-C, caught again and again": ("""
import signal
def press(step): os.kill(os.getpid(), signal.SIGINT)
for _ in range(5):
    try: fit(1, press)
    except KeyboardInterrupt: print("caught")
fit(2)
""", 2),
    "F20 a handler of SIGTERM and SIGUSR1 that saves": ("""
import signal
def save(number, frame): print("saving", number, signal.getsignal(number) is save)
for number in (signal.SIGTERM, signal.SIGUSR1): signal.signal(number, save)
fit(4, lambda step: os.kill(os.getpid(), (signal.SIGTERM, signal.SIGUSR1)[step % 2]))
""", 4),
    "F20 a timer that interrupts every millisecond": ("""
import signal
ticks = []
signal.signal(signal.SIGALRM, lambda *a: ticks.append(1))
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
fit(60); signal.setitimer(signal.ITIMER_REAL, 0); print(len(ticks) > 1)
""", 60),
    "F24 an excepthook for threads, and faulthandler": ("""
import faulthandler, threading
faulthandler.enable()
threading.excepthook = lambda told: print("hook", told.exc_type.__name__)
def fail(): fit(2); raise KeyError
thread = threading.Thread(target=fail); thread.start(); thread.join()
print(faulthandler.is_enabled(), sys.excepthook is sys.__excepthook__)
""", 2),
    "F24 settrace and setprofile": ("""
lines = []
def trace(frame, event, arg):
    if frame.f_code.co_name == "fit": lines.append(event)
    return trace
sys.settrace(trace); fit(3); print(sys.gettrace() is trace); sys.settrace(None)
sys.setprofile(lambda frame, event, arg: None); fit(2); print(sys.getprofile() is not None)
sys.setprofile(None); print(len(lines))
""", 5),
    "F24 cProfile": ("""
import cProfile
profile = cProfile.Profile(); profile.enable(); fit(3); profile.disable(); fit(1)
""", 4),
    "F25 atexit of the script pickles its classes, and one fails": ("""
import atexit, pickle
class Mine: pass
class Fails:
    def __call__(self): raise ValueError("at exit")
    def __repr__(self): return "Fails()"
atexit.register(lambda: print(len(pickle.dumps(Mine()))))
atexit.register(Fails()); fit(3)
""", 3),
    "F27 a fork that trains and exits by sys.exit": ("""
import atexit
atexit.register(print, "at exit", flush=True)
fit(2); sys.stdout.flush()
pid = os.fork()
if pid == 0: fit(3); sys.exit(3)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])); fit(2)
""", 4),
    "F27 a hundred forks, some out of a hook": ("""
def forks(*_):
    for _ in range(5):
        pid = os.fork()
        if pid == 0: os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
handle = net.register_forward_hook(forks)
fit(20)
handle.remove()
""", 20),
    "F27 a fork pool": ("""
import multiprocessing
def work(x): fit(1); return x
fit(1)
with multiprocessing.get_context("fork").Pool(2) as pool: print(pool.map(work, range(4)))
fit(1)
""", 2),
    "F28 modules in the workers of a DataLoader that forks": ("""
class Set(torch.utils.data.Dataset):
    def __len__(self): return 8
    def __getitem__(self, i): return net(torch.full((4,), float(i))).detach()
fit(1)
for batch in torch.utils.data.DataLoader(Set(), 4, num_workers=2): print(batch.tolist())
fit(1)
""", 2),
    "F30 it changes the working directory": ("""
os.mkdir("elsewhere" + str(bool(run_dir))); os.chdir("elsewhere" + str(bool(run_dir)))
fit(3)
""", 3),
    "F30 its working directory is deleted": ("""
folder = "gone" + str(bool(run_dir)); os.mkdir(folder); os.chdir(folder); os.rmdir(os.path.abspath("."))
fit(3); os.chdir("/")
""", 3),
    "F31 standard streams are None": ("""
out, err = sys.stdout, sys.stderr
sys.stdout = sys.stderr = None; fit(3); print("nowhere"); sys.stdout, sys.stderr = out, err
""", 3),
    "F31 standard output is redirected": ("""
import contextlib, io
with contextlib.redirect_stdout(io.StringIO()) as text: fit(2); print("val_loss: 0.5")
print(repr(text.getvalue()))
saved = os.dup(1); os.dup2(os.open(os.devnull, os.O_WRONLY), 1); print("gone", flush=True)
os.dup2(saved, 1); fit(1)
""", 3),
    "F31 standard output is replaced by an object of its own": ("""
class Tee:
    def __init__(self, stream): self.stream = stream
    def write(self, text): return self.stream.write(text.upper())
    def flush(self): self.stream.flush()
sys.stdout = Tee(sys.stdout); fit(2); print("val_loss: 1")
""", 2),
    "F31 descriptors 1 and 2 are closed": ("""
sys.stdout.flush(); kept = os.dup(1), os.dup(2)
os.close(1); os.close(2); fit(3)
os.dup2(kept[0], 1); os.dup2(kept[1], 2)
""", 3),
    "F31 all descriptors are closed, and their numbers used again": ("""
fit(2); os.closerange(3, 60)
files = [open(f"own-{i}", "wb", buffering=0) for i in range(12)]
for file in files: file.write(b"mine")
fit(4)
for file in files: file.write(b" only"); file.close()
print({open(f"own-{i}", "rb").read() for i in range(12)})
""", 2),
    "F35 a warning that is shown once": ("""
import warnings
for step in range(4):
    fit(1); warnings.warn("careful", DeprecationWarning, stacklevel=1)
print(warnings.filters, len(warnings.__dict__.get("__warningregistry__", ())))
""", 4),
    "F36 builtins and clocks are patched": ("""
import builtins, json, time
def no(*a, **k): raise RuntimeError("patched")
fit(1); kept = builtins.open, time.perf_counter, builtins.len
builtins.open = time.perf_counter = time.monotonic = json.dumps = json.loads = os.fstat = no
fit(3)
""", 4),
    "F37 the clock goes back": ("""
import time
time.time = lambda: 0.0; fit(1); time.time = lambda: -1e9; fit(1); time.time = lambda: 4e9; fit(1)
""", 3),
    "F39 two thousand layers": ("""
net = nn.Sequential(nn.Linear(4, 4), *(nn.Identity() for _ in range(2000)), nn.Linear(4, 1))
opt = torch.optim.SGD(net.parameters(), lr=0.1); fit(2)
""", 2),
    "F40 names of modules that no terminal should see": ("""
for name in ("", " ", "a" * 100_000, "new\\nline", "\\x1b[31m", "\\0", "</script>", "\\ud800", "[/red]"):
    net._modules[name] = nn.Linear(1, 1)
for name in list(net._modules)[3:]: net[0]._modules["x" + name] = nn.Linear(1, 1)
fit(2)
""", 2),
    "F41 modules made at each step": ("""
for _ in range(30):
    part = nn.Linear(4, 4); net(part(torch.ones(3, 4))).sum().backward(); opt.step(); del part
""", 30),
    "F42 a module with hostile special methods": ("""
def no(self, *a): raise RuntimeError("special method")
class Hostile(nn.Module):
    __repr__ = __len__ = __bool__ = __iter__ = no
    def forward(self, x): return x * 1
    def __getattr__(self, name):
        if name.startswith("nndiag"): raise RuntimeError(name)
        return super().__getattr__(name)
net.append(Hostile()); fit(3)
""", 3),
    "F43 outputs of every shape": ("""
import dataclasses
@dataclasses.dataclass
class Out: x: object
loop = []; loop.append(loop)
def endless():
    while True: yield torch.ones(1)
GIVES = [None, "text", {"a": {"b": torch.ones(2)}}, Out(torch.ones(1)), endless(), loop, [0] * 10**5]
class Odd(nn.Module):
    def forward(self, x, i): return GIVES[i]
odd = Odd(); net.add_module("3", nn.Identity())
def before(step): odd(torch.ones(1), step % len(GIVES))
fit(len(GIVES), before)
""", 7),
    "F52 a skipped step and a closure": ("""
scaler = torch.amp.GradScaler("cpu")
for factor in (1.0, float("inf"), 1.0):
    opt.zero_grad(); scaler.scale(net(torch.ones(3, 4)).mean() * factor).backward()
    scaler.step(opt); scaler.update()
lbfgs = torch.optim.LBFGS(net.parameters(), max_iter=2)
def closure(): lbfgs.zero_grad(); loss = net(torch.ones(3, 4)).square().mean(); loss.backward(); return loss
lbfgs.step(closure)
""", None),
    "F54 inference mode, anomaly mode, another default": ("""
torch.set_default_dtype(torch.float64); net.double()
with torch.inference_mode(): net(torch.ones(3, 4))
import warnings; warnings.simplefilter("ignore")
with torch.autograd.detect_anomaly(check_nan=False): fit(2)
torch.use_deterministic_algorithms(True); fit(2); print(torch.is_grad_enabled())
""", 4),
    "F56 saving, pickling and copying under way": ("""
import copy, io, pickle
fit(2); file = io.BytesIO(); torch.save(net, file); torch.save(opt.state_dict(), file)
print(len(file.getvalue()) > 0, b"nndiag" in file.getvalue(), b"nndiag" in pickle.dumps(net))
other = copy.deepcopy(net); other(torch.ones(3, 4)); print(sorted(vars(net)), sorted(vars(opt)))
net.share_memory(); fit(2)
""", 4),
    "F57 threads that train two models": ("""
import threading
def work(seed):
    own = nn.Linear(4, 1); mine = torch.optim.SGD(own.parameters(), lr=0.01)
    with torch.no_grad(): own.weight.fill_(1.0), own.bias.fill_(seed)
    for _ in range(40): mine.zero_grad(); own(torch.ones(2, 4)).sum().backward(); mine.step()
    told[seed] = [p.tolist() for p in own.parameters()]
told = {}
threads = [threading.Thread(target=work, args=(seed,)) for seed in (1, 2)]
[t.start() for t in threads]; [t.join() for t in threads]
print(sorted(told.items())); torch.manual_seed(0)
""", None),
    "F57 asyncio": ("""
import asyncio
async def work():
    for _ in range(3): fit(1); await asyncio.sleep(0)
async def main(): await asyncio.gather(work(), work())
asyncio.run(main())
""", 6),
    "F11 a limit of memory, and allocations of its own that fail": ("""
import resource
fit(2)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), resource.RLIM_INFINITY))
for allocate in (lambda: torch.empty(1 << 32), lambda: bytearray(1 << 33)):
    try: allocate()
    except (RuntimeError, MemoryError) as error: print(type(error))
    fit(1)
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
""", 4),
    "F44 outputs of every kind of tensor": ("""
import warnings; warnings.simplefilter("ignore")
x = torch.ones(2, 3)
KINDS = [x[:0], x[0, 0], x.int(), x > 0, x.half(), x.bfloat16(), x.to(torch.float8_e4m3fn), x.to(torch.complex64), x.to("meta"),
         x.to_sparse(), x.to_sparse_csr(), torch.nested.nested_tensor([x, x[:1]]), torch.quantize_per_tensor(x, 0.1, 0, torch.quint8),
         x.expand(4, 2, 3), x.T, x.conj(), x.to(torch.complex64).conj(), x.detach()]
class Gives(nn.Module):
    def forward(self, x, i): return KINDS[i]
gives = Gives(); net.add_module("3", nn.Identity())
fit(len(KINDS), lambda step: gives(x, step))
""", 18),
    "F45 values at the ends of what a float holds": ("""
VALUES = [0.0, -0.0, 1e-45, 1e-38, 3.4e38, -3.4e38, float("inf"), float("-inf"), float("nan")]
class Gives(nn.Module):
    def forward(self, value): return torch.full((2, 3), value)
gives = Gives(); net.add_module("3", nn.Identity())
fit(len(VALUES), lambda step: gives(VALUES[step]))
""", 9),
    "F47 traced, scripted and exported": ("""
import warnings; warnings.simplefilter("ignore")
x = torch.ones(3, 4); fit(1)
with torch.no_grad(): traced = torch.jit.trace(net, x)
print(traced.graph, torch.export.export(net, (x,)).graph, torch.fx.symbolic_trace(net).code)
for net in (torch.jit.script(net), torch.jit.trace(net, x), torch.fx.symbolic_trace(net)):
    opt = torch.optim.SGD(net.parameters(), lr=0.1); fit(2)
""", 7),
    "F53 functions of functions": ("""
from torch.func import functional_call, grad, hessian, jacrev, jvp, vmap
x, weights = torch.ones(3, 4), dict(net.named_parameters())
def of(weights, x): return functional_call(net, weights, (x,)).square().sum()
fit(2)
print(jvp(net, (x,), (x,)), jacrev(net)(x).sum(), hessian(lambda x: of(weights, x))(x).sum(), vmap(net)(x))
per_sample = vmap(grad(of), (None, 0))(weights, x); print({name: g.tolist() for name, g in per_sample.items()})
with torch.autograd.forward_ad.dual_level(): print(net(torch.autograd.forward_ad.make_dual(x, x)))
fit(2)
""", 4),
    "F55 parametrizations, normed weights and lazy layers": ("""
from torch.nn.utils import parametrizations as P
net = nn.Sequential(P.weight_norm(nn.Linear(4, 8)), P.spectral_norm(nn.Linear(8, 8)), P.orthogonal(nn.Linear(8, 8)), nn.LazyLinear(1))
net(torch.ones(3, 4)); opt = torch.optim.SGD(net.parameters(), lr=0.1); fit(4)
print({name: buffer.tolist() for name, buffer in net.named_buffers()}, [sorted(vars(m)) for m in net.modules()])
""", 4),
    "F67 a thread that still trains when the script ends": ("""
import threading
own = nn.Linear(4, 1); mine = torch.optim.SGD(own.parameters(), lr=0.01); x = torch.ones(2, 4); begun = threading.Event()
def work():
    while True: mine.zero_grad(); own(x).sum().backward(); mine.step(); begun.set()
threading.Thread(target=work, daemon=True).start(); begun.wait()
""", None),
    "sys.modules is emptied of us": ("""
fit(2)
for name in [n for n in sys.modules if n.startswith("nndiag") or n in ("json", "struct", "errno")]:
    del sys.modules[name]
fit(3)
""", 5),
    "the environment is cleared": ("os.environ.clear(); fit(3)", 3),
    "the umask takes all rights away": ("os.umask(0o777); fit(3)", 3),
    "the stack is nearly full": ("""
def deep(n):
    try: return deep(n + 1)
    except RecursionError: pass
    if n % 3 == 0 and len(done) < 40: done.append(1); sys.setrecursionlimit(1000 + 3 * len(done)); net(x)
done = []; x = torch.ones(3, 4)
try: deep(0)
except RecursionError: pass
sys.setrecursionlimit(3000); opt.zero_grad(); fit(2)
""", None),
    "runpy runs another script inside": ("""
import runpy
open("inner.py", "w").write("import torch\\nprint(__name__, torch.ones(1).item())")
runpy.run_path("inner.py", run_name="__main__"); fit(2)
""", 2),
}  # fmt: skip


@pytest.mark.parametrize("script, steps", SCRIPTS.values(), ids=SCRIPTS)
def test_is_as_without_us(alike: Alike, script: str, steps: int | None) -> None:
    run = alike(script)

    if steps is not None:
        found = run.values("loss") if run.rank.exists() else []
        assert len(found) == steps


# None of these gets to the weights at the end, so they are shown each time that `fit` is done.
TELLING = """
def fit(*told, fit=fit):
    fit(*told); print("weights", [p.tolist() for p in net.parameters()], flush=True)
"""
ENDINGS = {
    "F14 an exception in the loop": ("fit(5); raise ValueError('the script')", 1),
    "F14 an exception with a cause and a note": (
        "fit(5)\ntry: {}['a']\nexcept KeyError as e: raise RuntimeError('worse') from e", 1),
    "F14 an exception out of backward": (
        "def fail(g): raise KeyError('grad')\nfit(5)\nnet[0].weight.register_hook(fail)\nfit(1)", 1),
    "F14 an exception between two measured steps": ("fit(7); net(torch.ones(3, 5))", 1),
    "F15 an exception that cannot be printed": (
        "class Mean(Exception):\n  def __str__(self): raise ValueError\nfit(5); raise Mean", 1),
    "F18 Ctrl-C": ("import signal\nfit(5); os.kill(os.getpid(), signal.SIGINT)", -2),
    "F18 Ctrl-C in a step": (
        "import signal\nfit(2); fit(5, lambda s: s == 1 and os.kill(os.getpid(), signal.SIGINT))", -2),
    "F19 SIGTERM": ("import signal\nfit(5); os.kill(os.getpid(), signal.SIGTERM)", -15),
    "F22 os._exit": ("fit(5); os._exit(3)", 3),
    "F22 os.abort": ("fit(5); os.abort()", -6),
    "F22 a segmentation fault": ("import ctypes\nfit(5); ctypes.string_at(0)", -11),
    "F23 sys.exit(None)": ("fit(5); sys.exit(None)", 0),
    "F23 sys.exit('text')": ("fit(5); sys.exit('it failed')", 1),
    "F23 sys.exit([1, 2])": ("fit(5); sys.exit([1, 2])", 1),
    "F23 sys.exit(300)": ("fit(5); sys.exit(300)", 44),
    "F23 sys.exit in a thread and in a hook": ("""
import threading
def leave(*_): raise SystemExit(6)
thread = threading.Thread(target=leave); thread.start(); thread.join()
fit(5); net.register_forward_hook(leave); fit(1)""", 6),
    "F24 an excepthook of its own": (
        "sys.excepthook = lambda *told: print('hook', told[0])\nfit(5); raise ValueError", 1),
    "F24 an excepthook that fails": (
        "def hook(*a): raise KeyError('hook')\nsys.excepthook = hook\nfit(5); raise ValueError", 1),
    "F29 it replaces itself by os.execv": (
        "fit(5); sys.stdout.flush(); os.execv('/bin/sh', ['sh', '-c', 'echo again; exit 4'])", 4),
}  # fmt: skip


@pytest.mark.parametrize("script, status", ENDINGS.values(), ids=ENDINGS)
def test_ends_as_without_us(alike: Alike, script: str, status: int) -> None:
    # On Python 3.10 the traceback of a measured forward shows another line of torch's own.
    every = 1 if sys.version_info >= (3, 11) else 100
    run = alike(TELLING + script, status=status, every=every)

    assert "weights [[[" in run.stdout

    assert run.values("loss").size in (3, 5, 7)
    assert run.faults == []


TWO_AT_ONCE = """
import json
from nndiag.watcher import session
os.environ |= {"NNDIAG_RUN": os.path.abspath("shared"), "NNDIAG_SETTINGS": '{"every": 1}'}
os.mkdir("shared")
for steps in (2, 3):
    if os.fork() == 0: session.start(torch, {}); fit(steps); os._exit(0)
print([os.wait()[1] for _ in range(2)])
"""


def test_two_processes_that_record_to_one_run_have_folders_of_their_own(
    train: Train, tmp_path: Path
) -> None:
    """F61"""
    assert train(PRELUDE + TWO_AT_ONCE, watched=False).stdout == "[0, 0]\n"

    ranks = open_run(tmp_path / "shared").ranks
    steps = [read_stream(path).steps.tolist() for rank in ranks for path in rank.step_files]
    assert sorted(steps) == [[0, 1], [0, 1, 2]]
