"""Hand-built diagnoses with a name: what reports have to be able to show."""

from __future__ import annotations

import numpy as np

from nndiag.records import (
    Abstention,
    Diagnosis,
    Evidence,
    Finding,
    Layer,
    Remedy,
    Run,
    Series,
    Severity,
    Verdict,
)

STEPS = np.arange(1240)
DESCENT = 2.0 * np.exp(-STEPS / 200) + 0.4 + 0.05 * np.sin(STEPS * 1.7)


def run(values: np.ndarray = DESCENT, path: str = "runs/resnet", **changes: object) -> Run:
    """A watched run whose loss takes these values."""
    steps = np.arange(len(values))
    facts = {
        "path": path,
        "format": "nndiag",
        "series": (
            Series("loss", steps, values),
            Series("lr", steps, np.full(len(values), 0.003)),
            Series("dead_unit_fraction", steps, np.full(len(values), 0.2), where="net.3.relu"),
        ),
        "layers": (Layer("net.0", "Linear", 0), Layer("net.3.relu", "ReLU", 1)),
    }
    return Run(**{**facts, **changes})  # type: ignore[arg-type]


def spiky() -> np.ndarray:
    values = DESCENT.copy()
    values[612:640] += 7.4 * np.exp(-np.arange(28) / 8)
    return values


EXPLODED = Finding(
    name="exploding-gradient",
    severity=Severity.WARNING,
    confidence=0.8,
    message="the gradient norm rose to 214, 94 times its median",
    step_start=611,
    step_end=613,
    series="grad_norm",
    evidence=(Evidence("ratio", 94.2, 10.0),),
)

SPIKE = Finding(
    name="loss-spike",
    severity=Severity.CRITICAL,
    confidence=0.97,
    message=(
        "The loss rose from 0.42 to 7.9 at step 612 and was back at 0.45 by step 640; "
        "the gradient norm rose first, to 214."
    ),
    step_start=612,
    step_end=640,
    series="loss",
    evidence=(
        Evidence("peak", 7.9),
        Evidence("baseline", 0.4213),
        Evidence("score", 41.23, 6.0),
        Evidence("recovered", True),
        Evidence("recovered_step", 640),
    ),
    symptoms=(EXPLODED,),
    remedies=(
        Remedy(
            "lower-clip",
            text="clip gradients at the 99th percentile of healthy steps",
            why="a step with a gradient norm of 214 passed under a threshold of 10",
            setting="clip_grad_norm_.max_norm",
            old=10.0,
            new=0.8,
        ),
        Remedy(
            "lower-lr", "lower the learning rate", "the spike came at its peak", "lr", 0.003, 0.001
        ),
        Remedy("inspect-data", "look at the batches of steps 605 to 612", ""),
        Remedy("add-warmup", "warm the learning rate up", ""),
        Remedy("add-normalisation", "normalise", ""),
    ),
)

DEAD = Finding(
    name="dead-relu",
    severity=Severity.WARNING,
    confidence=0.9,
    message="70 % of the units of net.3.relu output 0 for every input since step 800.",
    step_start=800,
    step_end=1239,
    layers=tuple(f"net.{index}.relu" for index in range(3, 24, 3)),
    evidence=(Evidence("dead_unit_fraction", 0.7, 0.5),),
    remedies=(
        Remedy(
            "change-activation", "use LeakyReLU or GELU in the layers named", "they never came back"
        ),
    ),
)

ABSTAINED = (
    Abstention("overfitting", "no validation loss"),
    Abstention("slow-convergence", "41 steps; 200 needed"),
    Abstention("vanishing-gradient", "41 steps; 200 needed"),
)

HOSTILE = "\x1b[31mred\x1b[0m \u202eevil\u2066 \x9b2J [bold]x[/bold] \x07\r\nCRITICAL \ud800 \x7f"

BLIND = ("loss non-finite",)

MUSEUM: dict[str, tuple[Diagnosis, ...]] = {
    "a_healthy_run": (Diagnosis(run(), Verdict.HEALTHY, notes=("overhead 1.3 %",)),),
    "a_spike_with_its_symptom": (
        Diagnosis(
            run(spiky()),
            Verdict.CRITICAL,
            (SPIKE, DEAD),
            ABSTAINED,
            ("rank 1 stopped at step 800", "overhead 1.3 %"),
        ),
    ),
    "too_short_to_judge": (
        Diagnosis(
            run(DESCENT[:7]),
            Verdict.UNDECIDED,
            (),
            ABSTAINED,
            ("undecided: the loss has 7 points; 20 are needed", "overhead 1.3 %"),
        ),
    ),
    "a_log_without_a_loss": (
        Diagnosis(Run("logs/x.csv", "csv", (Series("lr", STEPS, STEPS * 0.1),)), Verdict.UNDECIDED),
    ),
    "a_run_without_any_series": (Diagnosis(Run("empty", "nndiag", ()), Verdict.UNDECIDED),),
    "several_runs": (
        Diagnosis(run(path="runs/a"), Verdict.HEALTHY),
        Diagnosis(run(spiky(), path="runs/b"), Verdict.CRITICAL, (SPIKE,)),
        Diagnosis(run(path="runs/c"), Verdict.WARNING, (DEAD,)),
    ),
    "a_loss_that_ends_in_nan": (
        Diagnosis(
            run(np.concatenate([DESCENT[:700], np.exp(np.arange(40) / 4), [np.inf, np.nan]])),
            Verdict.CRITICAL,
            (
                Finding(
                    "loss-nonfinite",
                    Severity.CRITICAL,
                    1.0,
                    "The loss is NaN from step 741 on.",
                    step_start=740,
                    series="loss",
                    evidence=(Evidence("value", float("nan")), Evidence("last_finite", 17154.2)),
                ),
            ),
        ),
    ),
    "logs_that_hide_a_nan": (
        Diagnosis(run(path="a", format="hf-trainer-state", blind=BLIND), Verdict.HEALTHY),
        Diagnosis(run(path="b", format="hf-trainer-state", blind=BLIND), Verdict.WARNING, (DEAD,)),
    ),
    "hostile_text": (
        Diagnosis(
            run(
                path=HOSTILE,
                format=HOSTILE,
                series=(Series("loss", STEPS, DESCENT, name=HOSTILE, owner=HOSTILE),),
            ),
            Verdict.WARNING,
            (
                Finding(
                    HOSTILE,
                    Severity.WARNING,
                    0.5,
                    HOSTILE,
                    step_start=3,
                    step_end=9,
                    series=HOSTILE,
                    owner=HOSTILE,
                    layers=(HOSTILE,),
                    evidence=(Evidence(HOSTILE, HOSTILE, 3),),
                    symptoms=(EXPLODED.with_(name=HOSTILE, message=HOSTILE),),
                    remedies=(Remedy(HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE),),
                ),
            ),
            (Abstention(HOSTILE, HOSTILE),),
            (HOSTILE,),
        ),
    ),
}
