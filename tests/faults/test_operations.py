"""Each tensor operation of ours may fail, be it for want of memory: the training stays the same.

A mode of torch's dispatcher lies over the places where we compute and raises at the N-th operation,
for every N, in one process. (tests/adapters/test_faults.py does the same for each call.)
"""

from __future__ import annotations

import os

import pytest

from tests.adapters.observed import Train

# Every N in one process: after each training the guard forgets what it has counted. The journal
# must have named each fault; in the mode `every` the operations from the N-th on fail, and it ends.
SCRIPT = """
import glob, hashlib, json, os, sys
import torch, torch.nn as nn, torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from nndiag.adapters.pytorch.quiet import unseen
from nndiag.watcher import session
kind = sys.argv[1]
error = {"MemoryError": MemoryError, "KeyboardInterrupt": KeyboardInterrupt}.get(kind, torch.OutOfMemoryError)
made, failing, modes, bare, answers = 0, 0, [], set(), set()
def answered(frame):  # there a RuntimeError is torch's own answer that a tensor is gone
    return frame is not None and (frame.f_code.co_name == "saved" or answered(frame.f_back))
class Fails(TorchDispatchMode):
    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        global made
        made += 1
        if failing and (made == failing or kind == "for ever" and made > failing):
            if answered(sys._getframe()): answers.add(failing)
            raise error("injected")
        return operation(*args, **kwargs or {})
class Notices(TorchDispatchMode):
    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        bare.add(str(operation)); return operation(*args, **kwargs or {})
enter, leave, guard = unseen.__enter__, unseen.__exit__, session.Guard.__call__
def entered(self):
    allowed = enter(self); modes.append(Fails()); modes[-1].__enter__(); return allowed
def left(self, *told):
    modes.pop().__exit__(*told); return leave(self, *told)
def noticed(self, function):
    def inside(*args, **kwargs):
        with Notices(): return function(*args, **kwargs)
    return guard(self, inside)
def train():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.BatchNorm1d(8), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))
    opt = torch.optim.AdamW(net.parameters(), lr=0.1)
    interrupts = 0
    for step in range(4):
        try:
            opt.zero_grad()
            F.relu(net(torch.randn(16, 4) * (float("inf") if step == 2 else 1))).square().mean().backward()
            nn.utils.clip_grad_norm_(net.parameters(), 0.1); opt.step()
        except KeyboardInterrupt: interrupts += 1
        assert torch.is_grad_enabled() and not torch._C._len_torch_dispatch_stack()
    sha = hashlib.sha256(b"".join(t.detach().numpy().tobytes() for t in [*net.parameters(), *net.buffers()]))
    sha.update(torch.get_rng_state().numpy().tobytes())
    return interrupts if kind == "KeyboardInterrupt" else sha.hexdigest()
def said():  # one that never recorded a step has a file of its own
    files = glob.glob("run*/rank-0/events.jsonl") + glob.glob("run*/failed-*")
    return sum(open(file).read().count("injected") for file in files)
def watched(run):
    os.mkdir(run)
    one = session.Session(torch, os.path.abspath(run), {"every": 1}); one.start({})
    return one
def outcome():
    result = train()
    return "none" if made < failing else "right" if result == expected else str(result)
def forked():  # what has ended does not begin again: a process for each
    back, to = os.pipe(); pid = os.fork()
    if pid == 0:
        watched(f"run-{failing}")
        try: os.write(to, outcome().encode())
        finally: os._exit(0)
    os.close(to); os.waitpid(pid, 0)
    return os.fdopen(back).read()
plain = train()
expected = plain + 1 if kind == "KeyboardInterrupt" else plain
if kind == "outside": session.Guard.__call__ = noticed
else: unseen.__enter__, unseen.__exit__ = entered, left
if kind != "for ever":
    one = watched("run")
    assert train() == plain
wrong, unsaid = [], []
while kind != "outside":
    made, failing, before = 0, failing + int(sys.argv[2]), said()
    found = forked() if kind == "for ever" else outcome()
    if kind != "for ever": one._guard._faults = 0
    if found == "none" or failing > 9999: break  # there is no such operation any more
    if found != "right": wrong.append([failing, found])
    if said() == before and failing not in answers: unsaid.append(failing)
print(json.dumps([failing, wrong, unsaid, sorted(bare)]))
"""


# Of some 850 operations each one, or each so-and-so-many-th; all under NNDIAG_FAULTS=all.
STRIDES = {"OutOfMemoryError": 1, "MemoryError": 5, "KeyboardInterrupt": 5, "for ever": 29}


@pytest.mark.parametrize("kind, stride", STRIDES.items(), ids=STRIDES)
def test_the_n_th_operation_of_ours_fails(train: Train, kind: str, stride: int) -> None:
    """F11, F12, F13; of a Ctrl-C in an operation of ours the script hears once."""
    stride = 1 if os.environ.get("NNDIAG_FAULTS") == "all" else stride
    count, wrong, unsaid, _ = train(SCRIPT, kind, str(stride), watched=False).told

    assert count > 100
    assert wrong == []
    assert unsaid == [] or kind == "KeyboardInterrupt"


def test_nothing_is_computed_where_the_script_could_see_it(train: Train) -> None:
    """F12, F13: else the loop above would miss it."""
    assert train(SCRIPT, "outside", "1", watched=False).told[3] == []
