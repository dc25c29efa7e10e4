from __future__ import annotations

import dataclasses

import pytest

from nndiag.detectors import catalogue
from nndiag.detectors.base import HEADINGS
from nndiag.errors import BadUsage

LAYERS = {
    "vanishing-gradient", "exploding-gradient", "dead-relu", "saturated-activation",
    "activation-vanishing", "activation-exploding", "nonfinite-tensor", "clip-always-active",
    "unused-parameters", "untrained-parameters",
}  # fmt: skip
CURVES = {
    "loss-spike", "loss-divergence", "loss-nonfinite", "loss-plateau", "slow-convergence",
    "loss-oscillation", "overfitting", "converged",
}  # fmt: skip


def test_every_detector_of_the_folder_is_found():
    assert set(catalogue.names()) >= LAYERS | CURVES
    assert catalogue.names() == tuple(sorted(catalogue.names()))
    assert [d.name for d in catalogue.every()] == list(catalogue.names())


@pytest.mark.parametrize("kind", catalogue.kinds(), ids=lambda kind: kind.name)
def test_a_detector_is_its_own_page(kind):
    lines = kind.page().splitlines()

    assert [line for line in lines if line in HEADINGS] == list(HEADINGS)
    assert kind.headline().endswith(".")
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize("kind", catalogue.kinds(), ids=lambda kind: kind.name)
def test_a_detector_explains_only_what_exists(kind):
    assert set(kind.explains) <= set(catalogue.names()) | {"loss-oscillation"}
    assert kind.name not in kind.explains


def test_two_detectors_of_one_name_are_refused(monkeypatch, tmp_path):
    twin = "from nndiag.detectors.dead_relu import DeadRelu\nclass Twin(DeadRelu): pass\n"
    (tmp_path / "a_twin.py").write_text(twin)
    path = [*catalogue.nndiag.detectors.__path__, str(tmp_path)]
    monkeypatch.setattr(catalogue.nndiag.detectors, "__path__", path)

    with pytest.raises(RuntimeError, match="two detectors are called dead-relu"):
        catalogue.kinds.__wrapped__()


def test_selecting_and_ignoring():
    chosen = catalogue.selected(select=["dead-relu", "loss-spike"], ignore=["loss-spike"])

    assert [detector.name for detector in chosen] == ["dead-relu"]
    assert len(catalogue.selected(ignore=["dead-relu"])) == len(catalogue.every()) - 1


def test_thresholds_change_the_detector_they_name():
    [detector] = catalogue.selected(["dead-relu"], (), {"dead-relu": {"limit": 0.7, "samples": 64}})

    assert detector == dataclasses.replace(catalogue.named("dead-relu")(), limit=0.7, samples=64)


def test_an_unknown_name_is_bad_usage_with_the_closest():
    with pytest.raises(BadUsage) as caught:
        catalogue.selected(select=["dead-rellu"])

    assert caught.value.where == "dead-rellu"
    assert "dead-relu" in caught.value.do


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"limitt": 0.7}, "no such threshold"),
        ({"limit": "much"}, "'much' is not a number"),
        ({"limit": True}, "True is not a number"),
        ({"samples": 0.5}, "0.5 is not a whole number"),
    ],
)
def test_a_wrong_threshold_is_bad_usage(change, says):
    with pytest.raises(BadUsage) as caught:
        catalogue.selected(thresholds={"dead-relu": change})

    assert caught.value.what == says
    assert caught.value.where.startswith("dead-relu.")
