"""Remedies: the right one for the cause, with the run's own numbers, best first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from nndiag.detectors.activation_exploding import ActivationExploding
from nndiag.detectors.activation_vanishing import ActivationVanishing
from nndiag.detectors.clip_always_active import ClipAlwaysActive
from nndiag.detectors.dead_relu import DeadRelu
from nndiag.detectors.exploding_gradient import ExplodingGradient
from nndiag.detectors.saturated_activation import SaturatedActivation
from nndiag.detectors.untrained_parameters import UntrainedParameters
from nndiag.detectors.unused_parameters import UnusedParameters
from nndiag.detectors.vanishing_gradient import VanishingGradient
from nndiag.records import Evidence, Finding, Remedy, Run, Severity
from nndiag.remedies import prescribe
from nndiag.remedies.facts import about
from tests.detectors.nets import (
    STEPS,
    breaks,
    dead,
    findings,
    flat,
    learns,
    measured,
    net,
    series,
    stays,
    weights,
)

NAMES = (
    "lower-lr raise-lr add-warmup lower-clip raise-clip add-clip larger-batch smaller-batch "
    "change-optimizer change-activation reinitialise add-normalisation change-normalisation "
    "normalise-inputs inspect-data regularise early-stop more-data lower-weight-decay "
    "lower-dropout call-zero-grad call-train-mode remove-softmax fix-graph "
    "add-params-to-optimizer change-precision wait"
)
SPEC_4 = set(NAMES.split())


def norms(peaks: dict[int, float] | None = None, usual: float = 1.0) -> np.ndarray:
    """Gradient norms spread evenly over 0.5..1.5 times their usual level, with some peaks."""
    norm = usual * (0.5 + (np.arange(STEPS) * 37 % 100) / 100)
    for step, value in (peaks or {}).items():
        norm[step] = value
    return norm


def watched(
    loss=None, *, norm=None, clip=None, lr=0.1, kappa=None, ratio=None, optimizer="SGD", **settings
) -> Run:
    """A run with the whole-run series that remedies weigh."""
    more = [series("grad_norm", norms() if norm is None else norm)]
    if clip is not None:
        more.append(series("clip_threshold", [clip] * STEPS))
    if kappa is not None:
        more.append(series("update_gradient_cosine", [kappa] * STEPS))
    if ratio is not None:
        more.append(series("update_ratio", [ratio] * STEPS))
    made = net(learns() if loss is None else loss, *more, optimizer=optimizer, **settings)
    rates = series("lr", lr if np.ndim(lr) else [lr] * STEPS)
    return replace(made, series=(*[s for s in made.series if s.metric != "lr"], rates))


def found(name: str, **evidence: object) -> Finding:
    about_it = {k: evidence.pop(k) for k in ("step_start", "step_end") if k in evidence}
    return Finding(
        name=name,
        severity=Severity.CRITICAL,
        confidence=0.9,
        message=name,
        evidence=tuple(Evidence(k, v) for k, v in evidence.items()),  # type: ignore[arg-type]
        **{"step_start": 0, "step_end": STEPS - 1, **about_it},  # type: ignore[arg-type]
    )


def spike(recovered: bool = True, lasts: int = 20, **evidence: object) -> Finding:
    end = 200 + lasts if recovered else STEPS - 1
    return found("loss-spike", step_start=200, step_end=end, recovered=recovered, **evidence)


def named(remedies: tuple[Remedy, ...]) -> list[str]:
    return [remedy.name for remedy in remedies]


PEAK = {200: 30.0, 201: 25.0, 202: 20.0}


def test_a_spike_whose_gradient_exploded_asks_for_clipping_at_a_healthy_norm_and_a_lower_rate():
    clip, lower = prescribe(spike(), watched(norm=norms(PEAK)))[:2]

    assert (clip.name, clip.setting, clip.old) == ("add-clip", "clip_grad_norm_.max_norm", None)
    assert clip.new == 1.4  # p95 of 0.5..1.5, to two digits
    assert "30" in clip.why
    assert (lower.name, lower.old, lower.new) == ("lower-lr", 0.1, 0.03)
    assert "from 0.99 to 30" in lower.why or "from 1 to 30" in lower.why


def test_a_spike_that_did_not_come_back_asks_for_a_lower_rate_first():
    assert named(prescribe(spike(recovered=False), watched(norm=norms(PEAK)))) == [
        "lower-lr",
        "add-clip",
    ]


def test_a_spike_that_passed_under_a_loose_threshold_asks_for_a_lower_one():
    clip = prescribe(spike(), watched(norm=norms(PEAK), clip=10.0))[0]

    assert (clip.name, clip.old) == ("lower-clip", 10.0)
    assert clip.new == 1.4


def test_a_threshold_that_cuts_every_healthy_step_asks_for_a_higher_one():
    clip = prescribe(spike(), watched(norm=norms(PEAK), clip=0.01))[0]

    assert (clip.name, clip.old) == ("raise-clip", 0.01)
    assert clip.new == pytest.approx(1.4, abs=0.05)  # p90


def test_for_adam_a_stale_second_moment_comes_before_the_threshold():
    adam = watched(norm=norms(PEAK), clip=1.0, optimizer="AdamW", beta2=0.999)

    remedies = prescribe(spike(), adam)

    assert named(remedies) == ["change-optimizer", "lower-lr"]
    assert (remedies[0].setting, remedies[0].old, remedies[0].new) == ("betas[1]", 0.999, 0.95)


def test_a_spike_of_one_batch_asks_for_a_look_at_the_data():
    one = spike(lasts=1)

    first = prescribe(one, watched(norm=norms({200: 30.0})))[0]

    assert first.name == "inspect-data"
    assert "step 200" in first.text


def test_a_spike_after_a_jump_of_the_learning_rate_asks_for_the_old_rate():
    rates = np.full(STEPS, 0.1)
    rates[199:202] = 3.0

    first = prescribe(spike(), watched(norm=norms(PEAK), lr=rates))[0]

    assert (first.name, first.old, first.new) == ("lower-lr", 3.0, 0.1)
    assert first.why == "the learning rate rose from 0.1 to 3 at step 199"


def test_a_spike_in_a_log_without_gradient_norms_gets_no_invented_number():
    log = Run("log.csv", "csv", (learns(),))

    remedies = prescribe(spike(), log)

    assert {"lower-lr", "add-clip"} <= set(named(remedies))
    assert all(remedy.new is None for remedy in remedies)


def test_a_divergence_with_steps_far_too_large():
    lower, clip = prescribe(
        found("loss-divergence", step_start=200),
        watched(norm=np.where(np.arange(STEPS) < 200, norms(), 1e3), ratio=0.5),
    )

    assert (lower.name, lower.old, lower.new) == ("lower-lr", 0.1, 0.01)
    assert "50 %" in lower.why
    assert clip.name == "add-clip"


def test_an_early_divergence_without_a_warm_up_asks_for_one():
    early = found("loss-divergence", step_start=20)

    assert "add-warmup" in named(prescribe(early, watched()))


FLAT = found("loss-plateau", kind="shelf")
STUCK = found("loss-plateau", kind="from-start")


def test_a_plateau_asks_for_a_higher_rate_only_where_the_steps_are_too_short():
    short = prescribe(FLAT, watched(kappa=-0.1))[0]
    shorter = prescribe(FLAT, watched(kappa=-0.3))[0]

    assert (short.name, short.old, short.new) == ("raise-lr", 0.1, 0.3)
    assert (shorter.name, shorter.new) == ("raise-lr", 1.0)
    assert "-0.10" in short.why


def test_a_plateau_of_noise_asks_for_a_decaying_rate_and_a_larger_batch():
    remedies = prescribe(FLAT, watched(kappa=0.01))

    assert named(remedies)[:2] == ["lower-lr", "larger-batch"]
    assert remedies[0].new == 0.0 and "decay" in remedies[0].text
    assert remedies[1].new == "x4"
    assert "raise-lr" not in named(remedies)


def test_a_net_stuck_with_steps_of_the_right_size_asks_for_a_look_at_the_data():
    assert named(prescribe(STUCK, watched(stays(), kappa=0.01)))[0] == "inspect-data"


def test_a_net_stuck_under_steps_far_too_large_asks_for_a_lower_rate():
    first = prescribe(STUCK, watched(stays(), kappa=0.01, ratio=0.4))[0]

    assert (first.name, first.new) == ("lower-lr", 0.01)


def test_a_schedule_that_ended_too_soon_asks_for_a_longer_one():
    rates = np.where(np.arange(STEPS) < 100, 0.1, 1e-5)

    [longer] = prescribe(
        found("loss-plateau", kind="stopped-early", step_start=100), watched(lr=rates)
    )

    assert (longer.name, longer.old, longer.new) == ("raise-lr", 1e-5, 0.1)


def test_slow_convergence_asks_for_a_higher_rate_or_a_larger_batch_as_the_steps_say():
    slow = found("slow-convergence")

    assert prescribe(slow, watched(kappa=-0.2))[0].new == 1.0
    assert named(prescribe(slow, watched(kappa=0.05)))[0] == "larger-batch"
    assert {"raise-lr", "larger-batch"} <= set(named(prescribe(slow, watched())))


def test_sgd_that_clipping_slows_down_asks_for_a_higher_threshold_first():
    first = prescribe(found("slow-convergence"), watched(kappa=-0.2, clip=0.01))[0]

    assert (first.name, first.old, first.new) == ("raise-clip", 0.01, pytest.approx(1.4, abs=0.05))


def test_oscillation_under_high_momentum():
    remedies = prescribe(found("loss-oscillation"), watched(momentum=0.99))

    assert named(remedies)[:2] == ["lower-lr", "change-optimizer"]
    assert (remedies[1].old, remedies[1].new) == (0.99, 0.9)


def test_overfitting_asks_to_stop_at_the_best_step():
    val = series("val_loss", [1.0, 0.7, 0.5, 0.6, 0.8, 0.9], every=50)
    run = watched(weight_decay=0.01)
    run = replace(run, series=(*run.series, val))

    stop, decay, more = prescribe(found("overfitting"), run)

    assert (stop.name, stop.new) == ("early-stop", 100)
    assert stop.why == "val_loss was 0.5 at step 100 and is 0.9 now"
    assert (decay.name, decay.old, decay.new) == ("regularise", 0.01, 0.1)
    assert more.name == "more-data"


@pytest.mark.parametrize(
    ("evidence", "first"),
    [
        ({"origin_kind": "input", "origin_where": "0"}, "inspect-data"),
        ({"origin_kind": "gradient", "origin_detail": "SqrtBackward0"}, "fix-graph"),
        ({"origin_kind": "activation"}, "inspect-data"),
    ],
)
def test_a_loss_that_breaks_out_of_the_blue_is_treated_at_its_origin(evidence, first):
    assert (
        prescribe(found("loss-nonfinite", step_start=200, **evidence), watched())[0].name == first
    )


def test_a_bad_gradient_under_a_finite_loss_asks_for_the_operation():
    bad = found("nonfinite-tensor", step_start=200, kind="gradient", where="4.weight")

    first = prescribe(bad, watched())[0]

    assert first.name == "fix-graph"
    assert "detect_anomaly" in first.text


def test_a_loss_that_climbs_into_nan_asks_for_a_lower_rate():
    run = watched(breaks(after=30), norm=norms())

    first = prescribe(found("loss-nonfinite", step_start=30), run)[0]

    assert (first.name, first.old, first.new) == ("lower-lr", 0.1, 0.01)
    assert "before it broke" in first.why


def test_half_precision_that_breaks_asks_for_bfloat16():
    run = watched()
    run = replace(run, series=(*run.series, series("loss_scale", [65536.0] * STEPS)))

    first = prescribe(found("loss-nonfinite", step_start=200), run)[0]

    assert (first.name, first.old, first.new) == ("change-precision", "float16", "bfloat16")


def only(detector, run: Run) -> tuple[Remedy, ...]:
    [finding] = findings(detector, run)
    return prescribe(finding, run)


SHRINKS = [1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 0.1]
HE = (2 / 64) ** 0.5  # the standard deviation for 64 inputs
XAVIER = (2 / 128) ** 0.5


def test_vanishing_gradients_behind_sigmoids_ask_for_another_activation():
    remedies = only(VanishingGradient(), weights(net(stays(), activation="Sigmoid"), SHRINKS))

    assert named(remedies)[:2] == ["change-activation", "add-normalisation"]
    assert (remedies[0].old, remedies[0].new) == ("Sigmoid", "ReLU, GELU or SiLU")


def test_vanishing_gradients_behind_relus_ask_for_he_initialisation_then_adam():
    tiny = weights(net(stays()), SHRINKS, norm=0.64)  # 0.01 in each of 64 x 64 numbers

    remedies = only(VanishingGradient(), tiny)

    assert named(remedies) == ["reinitialise", "add-normalisation", "change-optimizer"]
    assert (remedies[0].setting, remedies[0].old) == ("std of 0.weight", 0.01)
    assert remedies[0].new == pytest.approx(HE, rel=0.05)
    assert remedies[2].new == "AdamW"


def test_a_signal_that_fades_asks_for_he_initialisation_with_both_numbers():
    run = weights(net(stays()), [0.1] * 6, norm=0.64)
    run = measured(run, "activation_sample_variance", [0.3, 1e-2, 1e-4, 1e-6, 1e-8, 1e-10])

    first = only(ActivationVanishing(), run)[0]

    assert (first.name, first.old) == ("reinitialise", 0.01)
    assert first.new == pytest.approx(HE, rel=0.05)


def test_a_tanh_net_gets_xavier():
    run = weights(net(stays(), activation="Tanh"), [0.1] * 6, norm=64.0)  # N(0, 1)
    run = measured(run, "activation_sample_variance", [1e2, 1e4, 1e6, 1e8, 1e10, 1e12])

    first = only(ActivationExploding(), run)[0]

    assert (first.old, first.new) == (1.0, pytest.approx(XAVIER, rel=0.05))
    assert "Xavier" in first.text


def test_a_normalised_net_is_not_told_to_normalise():
    run = weights(net(stays(), activation="Sigmoid", norm="LayerNorm"), SHRINKS)

    assert "add-normalisation" not in named(only(VanishingGradient(), run))


def test_units_dead_from_the_start_ask_for_biases_at_zero():
    run = dead(weights(net(stays()), [0.0] * 6), "1", flat(1.0))
    run = replace(
        run, series=(*run.series, series("param_norm", flat(160.0), "0.bias", every=10))
    )  # 20 in each of 64 biases

    first, second = only(DeadRelu(), run)[:2]

    assert (first.name, first.setting, first.old, first.new) == (
        "reinitialise",
        "bias of 0",
        20.0,
        0.0,
    )
    assert second.name == "change-activation"


def test_units_that_died_later_ask_for_a_lower_rate():
    run = dead(watched(ratio=0.3), "3", [0.0, 0.2, *flat(0.8, 30)])

    remedies = only(DeadRelu(), run)

    assert named(remedies) == ["lower-lr", "add-warmup", "change-activation"]
    assert (remedies[0].old, remedies[0].new) == (0.1, 0.01)
    assert "from 0 % to 80 %" in remedies[0].why


def squashed(variance: float, first_out: float) -> Run:
    run = net(learns(), depth=3, activation="Tanh")
    run = measured(run, "activation_mean", [0.0] * 2, "Tanh")
    run = measured(run, "activation_variance", [variance] * 2, "Tanh")
    run = measured(run, "activation_sample_variance", [first_out, 1.0, 1.0])
    return weights(run, [0.1] * 3, norm=64 * XAVIER)


def test_a_saturated_net_asks_for_normalised_inputs_where_they_are_large():
    remedies = only(SaturatedActivation(), squashed(0.9, first_out=2500.0))

    assert named(remedies)[0] == "normalise-inputs"
    assert "standard deviation of about 50" in remedies[0].why
    assert "reinitialise" not in named(remedies)  # the weights are as Xavier has them


def test_exploding_gradients_at_the_start_ask_for_initialisation_and_a_clip():
    run = weights(net(breaks(), depth=4), [3e4] * 4, norm=64.0)

    assert named(only(ExplodingGradient(), run)) == ["reinitialise", "add-clip", "lower-lr"]


def test_a_clip_that_throttles_sgd_is_raised_to_the_p90_of_the_norms():
    first = only(ClipAlwaysActive(), watched(stays(), norm=norms(usual=0.5), clip=0.01))[0]

    assert (first.name, first.old) == ("raise-clip", 0.01)
    assert first.new == pytest.approx(0.7, abs=0.02)


def test_unused_and_untrained_parameters():
    unused = weights(net(learns()), [1, 1, 1, -1, 1, 1])
    held = net(learns())
    homeless = replace(
        held, parameters=(*held.parameters[:-1], replace(held.parameters[-1], optimizer=None))
    )

    assert named(only(UnusedParameters(), unused))[0] == "fix-graph"
    assert named(only(UntrainedParameters(), homeless))[0] == "add-params-to-optimizer"


def test_a_group_without_a_rate_gets_that_of_the_others():
    run = weights(net(learns()), [1.0] * 6)
    still = series("param_update_norm", flat(0.0), "4.weight", every=10)
    kept = [s for s in run.series if (s.metric, s.where) != (still.metric, still.where)]
    parameters = tuple(replace(p, lr=0.0) if p.layer == "4" else p for p in run.parameters)

    [rate] = only(UntrainedParameters(), replace(run, series=(*kept, still), parameters=parameters))

    assert (rate.name, rate.old, rate.new) == ("raise-lr", 0.0, 0.1)


def test_remarks_and_unknown_findings_get_no_remedy():
    remark = replace(found("clip-always-active"), severity=Severity.INFO)

    assert prescribe(remark, watched()) == ()
    assert prescribe(found("converged"), watched()) == ()


EVERY_CURVE_FINDING = [
    spike(), spike(recovered=False), FLAT, STUCK, found("loss-divergence"), found("overfitting"),
    found("loss-nonfinite", step_start=200), found("slow-convergence"), found("loss-oscillation"),
    found("nonfinite-tensor", kind="gradient", where="4.weight"),
]  # fmt: skip
RUNS: dict[str, Callable[[], Run]] = {
    "a bare log": lambda: Run("log.csv", "csv", (learns(),)),
    "no series at all": lambda: Run("log.csv", "csv", ()),
    "a watched run": lambda: watched(norm=norms(PEAK), clip=1.0, kappa=-0.1, ratio=0.2),
    "norms that are NaN": lambda: watched(norm=np.full(STEPS, np.nan), clip=1.0),
    "a broken loss": lambda: watched(breaks(), norm=norms({29: np.inf})),
}


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
@pytest.mark.parametrize("finding", EVERY_CURVE_FINDING, ids=lambda f: f.name)
def test_whatever_the_log_tells_a_fault_has_remedies_with_a_reason(finding, run):
    remedies = prescribe(finding, run())

    assert remedies
    assert {remedy.name for remedy in remedies} <= SPEC_4
    assert all(remedy.text and remedy.why for remedy in remedies)
    assert not any("nan" in (remedy.text + remedy.why).lower().split() for remedy in remedies)


@pytest.mark.parametrize(("value", "rounded"), [(0.0333, 0.033), (1234.0, 1200.0), (0.0, 0.0)])
def test_a_setting_is_rounded_to_what_one_types(value, rounded):
    assert about(value) == rounded
