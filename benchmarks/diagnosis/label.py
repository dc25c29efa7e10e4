"""Show what really happens in a scenario, without nndiag: the look that its label rests on.

    python label.py --only 'mlp-*'

For each scenario the script runs bare, in this process, with only its losses, gradients, parameters
and activations read along the way. One block of text per scenario says how the loss went in twenty
windows, how large gradients and updates were, what never moved, and what was dead or saturated.
"""

import argparse
import contextlib
import fnmatch
import io
import itertools
import runpy
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import torch
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.overrides import TorchFunctionMode

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HERE = Path(__file__).parent
RELUS = {torch.relu, torch.relu_, torch.nn.functional.relu, torch.nn.functional.relu_,
         torch.Tensor.relu, torch.Tensor.relu_}  # fmt: skip
SQUASHERS = {
    torch.tanh: 0.97,
    torch.Tensor.tanh: 0.97,
    torch.sigmoid: 0.94,
    torch.Tensor.sigmoid: 0.94,
}


class Activations(TorchFunctionMode):
    """Per call of an activation in a step: units never active, units saturated."""

    def __init__(self) -> None:
        self.call = 0
        self.ever: dict[int, list[torch.Tensor]] = defaultdict(list)
        self.saturated: dict[int, list[float]] = defaultdict(list)
        super().__init__()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func in RELUS and out.requires_grad and not torch.compiler.is_compiling():
            with torch._C.DisableTorchFunctionSubclass():
                dims = [d for d in range(out.dim()) if d != (1 if out.dim() != 3 else 2)]
                self.ever[self.call].append((out.detach() > 0).any(dim=dims[0]) if len(dims) == 1
                                            else (out.detach() > 0).amax(dim=dims))  # fmt: skip
                self.ever[self.call] = self.ever[self.call][-60:]
            self.call += 1
        elif func in SQUASHERS and out.requires_grad:
            centred = out.detach() * 2 - 1 if "sigmoid" in func.__name__ else out.detach()
            self.saturated[self.call].append(
                (centred.abs() > SQUASHERS[func]).float().mean().item()
            )
            self.saturated[self.call] = self.saturated[self.call][-60:]
            self.call += 1
        return out

    def text(self) -> str:
        dead = []
        for masks in self.ever.values():
            same = [m for m in masks if m.shape == masks[-1].shape]
            dead.append(f"{1 - torch.stack(same).any(dim=0).float().mean().item():.2f}")
        full = [f"{sum(v) / len(v):.2f}" for v in self.saturated.values()]
        return f"dead {' '.join(dead[:24])} | saturated {' '.join(full[:24])}"


def observe(script: Path, arguments: list[str]) -> str:
    """Run `script` in this process and describe its training."""
    losses: list[float] = []
    norms: list[float] = []  # after each backward, before any clipping
    steps: list[int] = []
    weights: dict[torch.Tensor, list[torch.Tensor]] = {}
    grads: dict[torch.Tensor, list[float]] = defaultdict(list)
    updates: dict[torch.Tensor, list[float]] = defaultdict(list)
    bad: list[str] = []
    modules: list[torch.nn.Module] = []
    optimizers: list[torch.optim.Optimizer] = []
    activations = Activations()
    backward = torch.Tensor.backward

    def recorded_backward(self, *args, **kwargs):
        with torch._C.DisableTorchFunction():  # or the mode sends us here a second time
            losses.append(self.detach().float().mean().item())
            activations.call = 0
            backward(self, *args, **kwargs)
            squares = [p.grad.detach().norm() ** 2 for p in weights if p.grad is not None]
            norms.append(sum(squares, torch.tensor(0.0)).item() ** 0.5)

    def before(optimizer, args, kwargs):
        if optimizer not in optimizers:
            optimizers.append(optimizer)
        steps.append(len(losses))
        for group in optimizer.param_groups:
            for p in group["params"]:
                weights.setdefault(p, [p.detach().clone(), p.detach().clone()])
                weights[p][1] = p.detach().clone()
                if p.grad is not None:
                    g = p.grad.detach()
                    n = (g.coalesce().values() if g.is_sparse else g).norm().item()
                    if n != n or n == float("inf"):
                        bad.append(
                            f"grad at step {len(steps)}, loss {losses[-1] if losses else '?'}"
                        )
                    grads[p].append(n)

    def after(optimizer, args, kwargs):
        for group in optimizer.param_groups:
            for p in group["params"]:
                change = (p.detach() - weights[p][1]).norm().item()
                updates[p].append(change / (weights[p][1].norm().item() + 1e-12))

    plain_init = torch.nn.Module.__init__

    def init(self, *args, **kwargs):
        modules.append(self)
        plain_init(self, *args, **kwargs)

    register_optimizer_step_pre_hook(before)
    register_optimizer_step_post_hook(after)
    torch.Tensor.backward = recorded_backward
    torch.nn.Module.__init__ = init
    sys.argv = [str(script), *arguments]
    sys.path.insert(0, str(script.parent))
    printed = io.StringIO()
    start = time.perf_counter()
    outcome = "ok"
    with contextlib.redirect_stdout(printed), activations:
        try:
            runpy.run_path(str(script), run_name="__main__")
        except SystemExit as stop:
            outcome = f"exit {stop.code}"
        except Exception as error:
            outcome = f"{type(error).__name__}: {error}"
    seconds = time.perf_counter() - start

    names = {
        p: n for m in modules for n, p in sorted(m.named_parameters(), key=lambda x: len(x[0]))
    }
    for m in modules:
        for n, p in m.named_parameters():
            names[p] = max(names[p], n, key=len)
    held = {p for o in optimizers for g in o.param_groups for p in g["params"]}
    absent = [n for p, n in names.items() if p not in held and p.requires_grad]
    graceless = [names.get(p, "?") for p in held if p.requires_grad and not any(grads[p])]
    still = [names.get(p, "?") for p in held if torch.equal(p.detach(), weights[p][0])]
    windows = 20
    edges = [len(losses) * i // windows for i in range(windows + 1)]
    curve = [losses[a:b] for a, b in itertools.pairwise(edges) if b > a]
    matrices = [p for p in held if p.dim() > 1]

    def median(v: list[float]) -> float:
        return sorted(v)[len(v) // 2] if v else float("nan")

    lines = [
        f"  {outcome}, {seconds:.1f} s, {len(losses)} backwards, {len(steps)} steps"
        f" | first {losses[:3]}",
        "  loss " + " ".join(f"{median(w):.4g}" for w in curve),
        f"  max loss {max(losses, default=0):.4g} at {losses.index(max(losses)) if losses else '-'}"
        f", nonfinite losses {sum(v != v or abs(v) == float('inf') for v in losses)}"
        f", nonfinite gradients {len(bad)} {bad[:1]}",
        f"  grad norm median {median(norms):.3g}, max {max(norms, default=0):.3g}",
        "  per matrix grad " + " ".join(f"{median(grads[p]):.1g}" for p in matrices[:24]),
        "  per matrix update/weight "
        + " ".join(f"{median(updates[p]):.1g}" for p in matrices[:24]),
        f"  not in an optimizer {absent[:6]} | no gradient {graceless[:6]} | unchanged {still[:6]}",
        "  " + activations.text(),
    ]
    tail = printed.getvalue().strip().splitlines()
    return "\n".join(lines + [f"    > {line[-110:]}" for line in (tail[:2] + tail[-2:])])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="*", help="a glob of scenario names")
    parser.add_argument("--one", nargs=argparse.REMAINDER, help="SCRIPT ARGS... in this process")
    options = parser.parse_args()
    if options.one:
        print(observe(Path(options.one[0]), options.one[1:]))
        return
    with open(HERE / "scenarios.toml", "rb") as file:
        scenarios = tomllib.load(file)["scenario"]
    for scenario in scenarios:
        if not fnmatch.fnmatch(scenario["name"], options.only):
            continue
        print(f"{scenario['name']}  {scenario['args']}  expect {scenario['expect']}", flush=True)
        script = HERE / "scenarios" / scenario["script"]
        subprocess.run([sys.executable, __file__, "--one", script, *scenario["args"].split()])


if __name__ == "__main__":
    main()
