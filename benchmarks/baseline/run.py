"""How often does a healthy run leave the band of `nndiag check --baseline`, and what is found?

    python benchmarks/baseline/run.py                  # simulated curves, some minutes
    python benchmarks/baseline/run.py --torch 200      # and a small network, trained with 200 seeds

For each kind of training many runs are made that differ in their seed only. Again and again n of
them are the baseline, and all others are compared with it: those that leave the band are false
alarms. Then the others are made worse by some factor, and the share that is found is counted.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from nndiag.curves import band, resample
from nndiag.records import Series

Array = np.ndarray
Curves = dict[str, Series]  # by metric
STEPS = 600
RATE = 0.001
SIZES = (5, 10, 20)
SHIFTS = (1.02, 1.05, 1.1, 1.2, 1.5, 2.0)


def series(metric: str, values: Array, every: int = 1) -> Series:
    steps = every * np.arange(1, values.size + 1) - 1
    return Series(metric, steps, values)


def simulated(
    g: np.random.Generator,
    level: Callable[[np.random.Generator], float],
    noise: Callable[[np.random.Generator, int], Array],
) -> Curves:
    """A falling loss; `level` is where a seed ends (log), `noise` that of the batches (log)."""
    t = np.arange(STEPS)
    end = 0.4 * np.exp(level(g))
    pace = 90 * np.exp(0.05 * g.standard_normal())
    course = end + 2.0 * np.exp(-t / pace)
    validation = (1.1 * course)[29::30] * np.exp(0.01 * g.standard_normal(STEPS // 30))
    return {
        "loss": series("loss", course * np.exp(noise(g, STEPS))),
        "val_loss": series("val_loss", validation, every=30),
    }


def normal(width: float) -> Callable[[np.random.Generator], float]:
    return lambda g: width * g.standard_normal()


def white(width: float) -> Callable[[np.random.Generator, int], Array]:
    return lambda g, steps: width * g.standard_normal(steps)


def wandering(g: np.random.Generator, steps: int) -> Array:
    out, level = np.empty(steps), 0.0
    for i, shock in enumerate(g.standard_normal(steps)):
        level = 0.97 * level + 0.02 * shock
        out[i] = level
    return out + 0.1 * g.standard_normal(steps)


KINDS: dict[str, Callable[[np.random.Generator], Curves]] = {
    "quiet, seeds 3 % apart": lambda g: simulated(g, normal(0.03), white(0.05)),
    "noisy, seeds 3 % apart": lambda g: simulated(g, normal(0.03), white(0.4)),
    "noise of batch size 1": lambda g: simulated(
        g, normal(0.05), lambda g, n: np.log(g.gamma(1.0, 1.0, n) + 1e-9)
    ),
    "a level that wanders": lambda g: simulated(g, normal(0.03), wandering),
    "seeds 20 % apart": lambda g: simulated(g, normal(0.2), white(0.15)),
    "seeds alike but for noise": lambda g: simulated(g, normal(0.0), white(0.2)),
    "heavy tails (t, 5 dof)": lambda g: simulated(g, lambda g: 0.03 * g.standard_t(5), white(0.15)),
    "skewed (exponential)": lambda g: simulated(g, lambda g: 0.05 * g.exponential(), white(0.15)),
    "one seed in ten 20 % worse": lambda g: simulated(
        g, lambda g: 0.03 * g.standard_normal() + 0.18 * (g.random() < 0.1), white(0.15)
    ),
}


def trained(seed: int, steps: int = 400) -> Curves:
    """A small classifier on noisy data; the seed decides start, batches and data order."""
    import torch
    from torch import nn

    torch.manual_seed(12345)  # the data are the same for all
    x = torch.randn(768, 12)
    y = (x[:, :4].prod(dim=1) + 0.5 * x[:, 4] + 0.3 * torch.randn(768) > 0).long()
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 2)
    )
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    losses, validation = [], []
    for step in range(steps):
        batch = torch.randint(0, 512, (32,))
        loss = nn.functional.cross_entropy(net(x[batch]), y[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if (step + 1) % 20 == 0:
            with torch.no_grad():
                validation.append(nn.functional.cross_entropy(net(x[512:]), y[512:]).item())
    return {
        "loss": series("loss", np.array(losses)),
        "val_loss": series("val_loss", np.array(validation), every=20),
    }


class Pool:
    """Runs of one kind, as levels of common blocks, so that each is cut up only once."""

    def __init__(self, runs: list[Curves]) -> None:
        self.count = len(runs)
        self.learned = {}
        for metric in runs[0]:
            learned = band.learn([run[metric] for run in runs])
            assert learned is not None
            self.learned[metric] = learned

    def baseline(self, chosen: Array) -> dict[str, band.Learned]:
        from dataclasses import replace

        return {
            metric: replace(one, levels=one.levels[chosen], errors=one.errors[chosen])
            for metric, one in self.learned.items()
        }

    def leaves(self, run: int, baseline: dict[str, band.Learned], factor: float = 1.0) -> bool:
        """Whether a run, made worse by a factor, leaves the band of any of its curves."""
        for metric, learned in baseline.items():
            whole = self.learned[metric]
            new = resample.Levels(
                whole.edges, factor * whole.levels[run], factor * whole.errors[run]
            )
            if any(p.is_outside for p in band.stand(learned, new, RATE / len(baseline))):
                return True
        return False


def measured(pool: Pool, size: int, trials: int, seed: int = 0) -> tuple[int, int, list[float]]:
    """(false alarms, comparisons, share found for each of SHIFTS)."""
    g = np.random.default_rng(seed)
    alarms = compared = 0
    found, asked = np.zeros(len(SHIFTS)), 0
    while compared < trials:
        order = g.permutation(pool.count)
        baseline = pool.baseline(order[:size])
        others = order[size : size + 25]
        for run in others:
            alarms += pool.leaves(run, baseline)
            compared += 1
        for run in others[:2]:
            found += [pool.leaves(run, baseline, factor) for factor in SHIFTS]
            asked += 1
    return alarms, compared, (found / asked).round(2).tolist()


def rows(runs: int, trials: int, torch_seeds: int) -> Iterator[dict[str, object]]:
    pools = [
        (name, lambda make=make: [make(np.random.default_rng((7, seed))) for seed in range(runs)])
        for name, make in KINDS.items()
    ]
    if torch_seeds:
        pools.append(("a small network, trained", lambda: [trained(s) for s in range(torch_seeds)]))
    for name, make in pools:
        pool = Pool(make())
        for size in SIZES:
            alarms, compared, found = measured(pool, size, trials)
            yield {
                "kind": name,
                "baseline": size,
                "false alarms": alarms,
                "comparisons": compared,
                "found": dict(zip(map(str, SHIFTS), found, strict=True)),
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=300, help="simulated runs of each kind")
    parser.add_argument("--trials", type=int, default=20_000, help="comparisons of each row")
    parser.add_argument("--torch", type=int, default=0, metavar="SEEDS", help="train a network")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    asked = parser.parse_args()
    start = time.perf_counter()
    head = "  ".join(f"x{shift:<4g}" for shift in SHIFTS)
    if not asked.json:
        print(f"{'runs that differ in':<28} {'n':>3} {'false alarms':>16}   found: {head}")
    for row in rows(asked.runs, asked.trials, asked.torch):
        if asked.json:
            print(json.dumps(row), flush=True)
            continue
        alarms, compared = row["false alarms"], row["comparisons"]
        share = f"{alarms} of {compared}"
        found = "  ".join(f"{value:5.0%}" for value in row["found"].values())
        print(f"{row['kind']:<28} {row['baseline']:>3} {share:>16}          {found}", flush=True)
    print(f"{time.perf_counter() - start:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
