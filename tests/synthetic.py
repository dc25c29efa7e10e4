"""Seeded curves and runs with a name, for any test that needs one.

`curve(name, seed)` is a loss, `run(name, seed)` the run around it, with the learning rate and the
gradient norm that such a training would log. HEALTHY names ask for no warning at all.

    from tests import synthetic
    run = synthetic.run("warm-up bump", seed=3)
    run = synthetic.run_of(loss=my_values, lr=my_rates)
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nndiag.records import Optimizer, Run, Series

Array = np.ndarray
Parts = dict[str, Array]


def run_of(
    *, owner: str = "", format: str = "nndiag", start: int = 0, every: int = 1, **columns: object
) -> Run:
    """A run with one series per column; its step numbers are start, start + every, ..."""
    series = []
    for metric, values in columns.items():
        column = np.asarray(values, dtype=np.float64)
        steps = start + every * np.arange(column.size)
        series.append(Series(metric, steps, column, owner=owner))
    return Run(path="synthetic", format=format, series=tuple(series))


def validated(run: Run, val_loss: object, every: int) -> Run:
    """`run` with a validation loss every `every` steps."""
    values = np.asarray(val_loss, dtype=np.float64)
    steps = every * (1 + np.arange(values.size))
    return Run(run.path, run.format, (*run.series, Series("val_loss", steps, values)))


def noise(g: np.random.Generator, steps: int, width: float) -> Array:
    """Log of minibatch noise: skewed to the right, as losses are, with mean near 0."""
    return width * (0.7 * g.standard_normal(steps) + 0.5 * (g.gumbel(size=steps) - 0.577))


def wander(g: np.random.Generator, steps: int, width: float, memory: float = 0.95) -> Array:
    """The slow drift of a level that a constant learning rate keeps alive: AR(1)."""
    out = np.empty(steps)
    level = 0.0
    for i, shock in enumerate(g.standard_normal(steps)):
        level = memory * level + width * (1 - memory**2) ** 0.5 * shock
        out[i] = level
    return out


def falling(steps: int, start: float = 2.3, end: float = 0.2, pace: float = 0.15) -> Array:
    """An exponential approach of `end`; `pace` is its time constant as a share of the run."""
    return end + (start - end) * np.exp(-np.arange(steps) / (pace * steps))


def with_gradient(g: np.random.Generator, loss: Array, **others: Array) -> Parts:
    """A gradient norm that goes with the loss, as a norm of batch gradients does."""
    norm = (0.3 + np.maximum(loss, 0.0)) * np.exp(0.2 * g.standard_normal(loss.size))
    return {"loss": loss, "grad_norm": norm, **others}


def constant(steps: int, lr: float = 0.1) -> Array:
    return np.full(steps, lr)


def warm_up_cosine(steps: int, warm: int, lr: float = 1e-3) -> Array:
    t = np.arange(steps)
    decay = 0.5 * (1 + np.cos(np.pi * np.clip((t - warm) / max(1, steps - warm), 0, 1)))
    return lr * np.where(t < warm, (t + 1) / warm, decay)


# healthy


def healthy(g: np.random.Generator, steps: int = 800) -> Parts:
    loss = falling(steps) * np.exp(noise(g, steps, 0.15))
    return with_gradient(g, loss, lr=constant(steps))


def short(g: np.random.Generator) -> Parts:
    return healthy(g, 120)


def noisy_batch_1(g: np.random.Generator, steps: int = 2000) -> Parts:
    loss = falling(steps, end=0.3) * g.gamma(1.0, 1.0, steps)
    return with_gradient(g, loss, lr=constant(steps))


def noisy_batch_8(g: np.random.Generator, steps: int = 800) -> Parts:
    loss = falling(steps) * np.exp(noise(g, steps, 0.5) + wander(g, steps, 0.08))
    return with_gradient(g, loss, lr=constant(steps))


def interpolating(g: np.random.Generator, steps: int = 1000) -> Parts:
    loss = falling(steps, end=1e-6, pace=0.1) * np.exp(noise(g, steps, 0.9))
    return with_gradient(g, loss, lr=constant(steps))


def warm_up_bump(g: np.random.Generator, steps: int = 800) -> Parts:
    warm = 100
    t = np.arange(steps)
    bump = 0.35 * np.exp(-(((t - 60) / 20.0) ** 2))
    course = np.concatenate([np.linspace(2.4, 2.2, warm), falling(steps - warm, 2.2, 0.4)])
    loss = course * np.exp(bump + noise(g, steps, 0.05))
    return with_gradient(g, loss, lr=warm_up_cosine(steps, warm))


def cosine_tail(g: np.random.Generator, steps: int = 1000) -> Parts:
    loss = falling(steps, end=0.5, pace=0.3) * np.exp(noise(g, steps, 0.1))
    late = np.exp(1.5 * np.arange(steps) / steps)  # gradient norms grow late under weight decay
    parts = with_gradient(g, loss, lr=warm_up_cosine(steps, 50))
    return {**parts, "grad_norm": parts["grad_norm"] * late}


def step_decay(g: np.random.Generator, steps: int = 900) -> Parts:
    third = steps // 3
    level = np.concatenate(
        [falling(third, 2.3, 0.9), falling(third, 0.6, 0.5, 0.1), falling(third, 0.45, 0.4, 0.1)]
    )
    lr = np.repeat([0.1, 0.01, 0.001], third)
    return with_gradient(g, level * np.exp(noise(g, steps, 0.1)), lr=lr)


def warm_restarts(g: np.random.Generator, steps: int = 800) -> Parts:
    period = 200
    phase = np.arange(steps) % period / period
    lr = 1e-3 * (0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * phase)))
    lift = np.where(np.arange(steps) >= period, 0.45 * np.exp(-phase * 12), 0.0)
    loss = falling(steps, end=0.5) * np.exp(lift + noise(g, steps, 0.06))
    return with_gradient(g, loss, lr=lr)


def epoch_sawtooth(g: np.random.Generator, steps: int = 1000) -> Parts:
    epoch = 100
    phase = np.arange(steps) % epoch / epoch
    loss = falling(steps, end=0.6, pace=0.3) * np.exp(0.08 * phase + noise(g, steps, 0.03))
    return with_gradient(g, loss, lr=constant(steps), epoch=np.arange(steps) / epoch)


def regime_change(g: np.random.Generator, steps: int = 1000) -> Parts:
    width = np.where(np.arange(steps) < 500, 0.08, 0.25)  # a smaller batch from the middle on
    loss = falling(steps) * np.exp(width * noise(g, steps, 1.0))
    return with_gradient(g, loss, lr=constant(steps))


def finished(g: np.random.Generator, steps: int = 1000) -> Parts:
    loss = falling(steps, end=0.45, pace=0.05) * np.exp(noise(g, steps, 0.08))
    return with_gradient(g, loss, lr=constant(steps))


def full_batch(g: np.random.Generator, steps: int = 400) -> Parts:
    loss = falling(steps, end=0.3, pace=0.25)
    kappa = np.full(steps, -0.95)  # successive gradients agree where there is no noise
    return with_gradient(g, loss, lr=constant(steps), update_gradient_cosine=kappa)


def edge_of_stability(g: np.random.Generator, steps: int = 600) -> Parts:
    flutter = 0.06 * np.sin(np.arange(steps) * 2.6) * np.linspace(0, 1, steps)
    return with_gradient(g, falling(steps, end=0.1) * np.exp(flutter), lr=constant(steps, 1.0))


def negative_elbo(g: np.random.Generator, steps: int = 800) -> Parts:
    loss = falling(steps, 80.0, -120.0) + 4.0 * g.standard_normal(steps)
    return with_gradient(g, loss, lr=constant(steps))


def shelf_then_learning(g: np.random.Generator, steps: int = 1500) -> Parts:
    flat = np.full(600, 2.3)
    loss = np.concatenate([flat, falling(steps - 600, 2.3, 0.2)]) * np.exp(noise(g, steps, 0.01))
    return with_gradient(g, loss, lr=constant(steps))


# faulty


def lone_spike(g: np.random.Generator, steps: int = 800) -> Parts:
    parts = healthy(g, steps)
    loss, norm = parts["loss"].copy(), parts["grad_norm"].copy()
    loss[500] *= 12.0
    norm[500] *= 30.0
    return {**parts, "loss": loss, "grad_norm": norm}


def recovering_spike(g: np.random.Generator, steps: int = 800) -> Parts:
    parts = healthy(g, steps)
    t = np.arange(steps)
    lift = np.where(t >= 500, 3.0 * np.exp(-(t - 500) / 8.0), 0.0)
    return {**with_gradient(g, parts["loss"] * np.exp(lift)), "lr": parts["lr"]}


def unrecovered_spike(g: np.random.Generator, steps: int = 800) -> Parts:
    parts = healthy(g, steps)
    level = np.where(np.arange(steps) >= 500, 3.5, 1.0)
    return {**with_gradient(g, parts["loss"] * level), "lr": parts["lr"]}


def three_spikes(g: np.random.Generator, steps: int = 1200) -> Parts:
    parts = healthy(g, steps)
    loss, norm = parts["loss"].copy(), parts["grad_norm"].copy()
    for at in (400, 610, 1050):
        loss[at : at + 3] *= 10.0
        norm[at : at + 3] *= 20.0
    return {**parts, "loss": loss, "grad_norm": norm}


def diverging(g: np.random.Generator, steps: int = 800) -> Parts:
    t = np.arange(steps)
    climb = np.where(t > 400, np.exp((t - 400) / 80.0), 1.0)
    return with_gradient(
        g, falling(steps) * climb * np.exp(noise(g, steps, 0.2)), lr=constant(steps)
    )


def climbs_into_nan(g: np.random.Generator, steps: int = 800) -> Parts:
    parts = diverging(g, steps)
    loss = parts["loss"].copy()
    loss[600:] = np.nan
    return {**parts, "loss": loss}


def blow_up_at_start(g: np.random.Generator, steps: int = 600) -> Parts:
    t = np.arange(steps)
    loss = 2.3 * np.exp(np.where(t > 0, 5.0 * np.exp(-t / 15.0), 0.0) + noise(g, steps, 0.02))
    return with_gradient(g, loss, lr=constant(steps, 1.0))


def nan_from_the_middle(g: np.random.Generator, steps: int = 600) -> Parts:
    parts = healthy(g, steps)
    loss = parts["loss"].copy()
    loss[300:] = np.nan
    return {**parts, "loss": loss}


def flat(g: np.random.Generator, steps: int = 600) -> Parts:
    return with_gradient(g, 2.303 * np.exp(noise(g, steps, 0.01)), lr=constant(steps))


def decayed_too_early(g: np.random.Generator, steps: int = 800) -> Parts:
    course = np.concatenate([np.linspace(2.3, 1.8, 100), np.full(steps - 100, 1.8)])
    lr = 0.1 * 0.1 ** (np.arange(steps) / 45.0)
    return with_gradient(g, course * np.exp(noise(g, steps, 0.03)), lr=lr)


def too_slow(g: np.random.Generator, steps: int = 800) -> Parts:
    loss = np.linspace(2.3, 2.1, steps) * np.exp(noise(g, steps, 0.01))
    kappa = -0.3 + 0.15 * g.standard_normal(steps)
    return with_gradient(g, loss, lr=constant(steps, 1e-4), update_gradient_cosine=kappa)


def straight_and_short(g: np.random.Generator, steps: int = 800) -> Parts:
    return with_gradient(
        g, np.linspace(2.3, 2.15, steps) * np.exp(noise(g, steps, 0.005)), lr=constant(steps, 1e-5)
    )


def swinging(g: np.random.Generator, steps: int = 1000) -> Parts:
    pace = 2 * np.pi / (60 + 20 * wander(g, steps, 1.0, 0.98))  # a period that drifts
    loss = 0.8 * np.exp(0.6 * np.sin(np.cumsum(pace)) + noise(g, steps, 0.15))
    loss[:50] = np.linspace(2.3, 0.8, 50)
    return with_gradient(g, loss, lr=constant(steps, 1.0))


CURVES: dict[str, Callable[[np.random.Generator], Parts]] = {
    "healthy": healthy,
    "short": short,
    "noisy batch-1": noisy_batch_1,
    "noisy batch-8": noisy_batch_8,
    "interpolating": interpolating,
    "warm-up bump": warm_up_bump,
    "cosine tail": cosine_tail,
    "step decay": step_decay,
    "warm restarts": warm_restarts,
    "epoch sawtooth": epoch_sawtooth,
    "regime change": regime_change,
    "finished": finished,
    "full batch": full_batch,
    "edge of stability": edge_of_stability,
    "negative ELBO": negative_elbo,
    "shelf, then learning": shelf_then_learning,
    "lone spike": lone_spike,
    "recovering spike": recovering_spike,
    "unrecovered spike": unrecovered_spike,
    "three spikes": three_spikes,
    "diverging": diverging,
    "climbs into NaN": climbs_into_nan,
    "blow-up at the start": blow_up_at_start,
    "NaN from the middle": nan_from_the_middle,
    "flat": flat,
    "decayed too early": decayed_too_early,
    "too slow": too_slow,
    "straight and short": straight_and_short,
    "swinging": swinging,
}

HEALTHY = tuple(CURVES)[:16]
FAULTY = tuple(CURVES)[16:]


def curve(name: str, seed: int = 0) -> Array:
    """The loss of a named run."""
    return CURVES[name](np.random.default_rng(seed))["loss"]


def run(name: str, seed: int = 0) -> Run:
    """A named run: loss, learning rate, gradient norm, and what else such a run would log."""
    return run_of(**CURVES[name](np.random.default_rng(seed)))


def gan(seed: int = 0, steps: int = 600) -> Run:
    """Two models against each other: both losses swing, none falls."""
    g = np.random.default_rng(seed)
    tide = 0.3 * np.sin(np.arange(steps) / 25.0)
    series: list[Series] = []
    for owner, sign in (("Adam-1", 1.0), ("Adam-2", -1.0)):
        loss = 1.2 * np.exp(sign * tide + noise(g, steps, 0.1))
        series.append(Series("loss", np.arange(steps), loss, owner=owner))
        series.append(Series("lr", np.arange(steps), constant(steps), owner=owner))
    optimizers = tuple(Optimizer(owner, "Adam", steps) for owner in ("Adam-1", "Adam-2"))
    return Run("synthetic", "nndiag", tuple(series), optimizers=optimizers)


def critics(seed: int = 0, steps: int = 320) -> Run:
    """Two losses of any sign against each other: damped swings around 0."""
    g = np.random.default_rng(seed)
    t = np.arange(steps)
    series: list[Series] = []
    for owner, shift in (("D", 0.0), ("G", 1.5)):
        swing = np.exp(-t / 40.0) * np.sin(t / 6.0 + shift)
        values = swing + 0.02 * g.standard_normal(steps) + 0.1 * shift
        series.append(Series("loss", t, values, owner=owner))
    return Run("synthetic", "csv", tuple(series))


def resumed(seed: int = 0) -> Run:
    """A log with a gap of 5000 steps, after which the loss is a little higher for a while."""
    g = np.random.default_rng(seed)
    loss = falling(800) * np.exp(noise(g, 800, 0.1))
    loss[400:] *= np.exp(0.5 * np.exp(-np.arange(400) / 20.0))
    steps = np.arange(800) + np.where(np.arange(800) >= 400, 5000, 0)
    return Run("synthetic", "nndiag", (Series("loss", steps, loss),))


def overfitted(seed: int = 0, epochs: int = 30) -> Run:
    """The training loss falls on, the validation loss turns at a third of the run."""
    g = np.random.default_rng(seed)
    t = np.arange(epochs)
    val = 1.0 * np.exp(-t / 4.0) + 0.6 + 0.03 * np.maximum(0, t - epochs // 3)
    train = run_of(loss=falling(epochs * 20, end=0.01) * np.exp(noise(g, epochs * 20, 0.2)))
    return validated(train, val * np.exp(0.02 * g.standard_normal(epochs)), every=20)


def well_fitted(seed: int = 0, epochs: int = 30) -> Run:
    """Both losses fall; the validation loss is noisy, the higher one, and flat at the end."""
    g = np.random.default_rng(seed)
    val = (np.exp(-np.arange(epochs) / 5.0) + 0.6) * np.exp(0.08 * g.standard_normal(epochs))
    train = run_of(loss=falling(epochs * 20, end=0.2) * np.exp(noise(g, epochs * 20, 0.2)))
    return validated(train, val, every=20)
