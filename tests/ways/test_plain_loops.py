"""The loop of every tutorial, and its backward call in each of its spellings."""

from __future__ import annotations

import pytest

from tests.ways.watching import Watch


def test_a_plain_loop_is_recorded_as_it_ran(watch: Watch):
    way = watch("plain_loop.py")

    assert way.run.owners == ["AdamW(Sequential)"]
    assert list(way.run.series("loss")) == list(range(12))
    for metric in ("loss", "lr", "grad_norm"):
        assert way.run.values(metric) == pytest.approx(way.column(metric), rel=1e-5), metric
    assert set(way.run.values("clip_threshold")) == {0.5}
    assert way.run.places("activation_mean") == ["0", "1", "2", "3"]
    assert way.run.places("param_grad_norm") == ["0.weight", "0.bias", "3.weight", "3.bias"]


def test_what_is_validated_is_told_apart(watch: Watch):
    way = watch("plain_loop.py")

    told = {e["step"]: e["value"] for e in way.run.of_kind("metric") if e["name"] == "val_loss"}
    assert list(told) == [3, 7, 11]
    assert list(told.values()) == pytest.approx(way.column("val_loss"), abs=1e-6)


def test_the_default_sampling_changes_nothing_and_misses_no_loss(watch: Watch):
    way = watch("plain_loop.py", every="auto")

    assert way.run.values("loss") == pytest.approx(way.column("loss"))


WAYS = {
    "one": "torch.autograd.backward(loss)",
    "several": "torch.autograd.backward(list of losses): the objective is their sum",
    "vector": "errors.backward(weights)",
    "by_hand": "torch.autograd.grad, and gradients that are put in place by hand",
    "penalised": "a gradient penalty beside the backward call",
}


def test_every_spelling_of_backward_shows_its_loss(watch: Watch):
    way = watch("direct_backward.py")

    assert way.run.owners == [f"SGD({name})" for name in WAYS]
    for name, spelling in WAYS.items():
        owner = f"SGD({name})"
        assert way.run.values("loss", owner=owner) == pytest.approx(way.column(name)), spelling
        assert set(way.run.values("backward_calls", owner=owner)) == {1}, spelling
        assert len(way.run.series("grad_norm", owner=owner)) == 4, spelling


def test_mistakes_around_backward_show_the_tracebacks_that_torch_gives(watch: Watch):
    way = watch("autograd_errors.py")  # which compares what was printed, too

    assert way.run.stdout.count("Traceback") == 6
    assert "nndiag" not in way.run.stdout
    losses = way.run.values("loss", owner="SGD(Sequential)")
    assert losses[1:] == pytest.approx(way.column("loss")[1:])  # the first has the mistakes, too
