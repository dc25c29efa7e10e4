"""Steps that call no hook: by hand, compiled, or none at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from nndiag import analysis
from tests.adapters.observed import Zygote, train_in
from tests.ways.watching import SCRIPTS, Watch


@pytest.mark.parametrize("way", ["tensors", "modules", "data"])
def test_updates_by_hand_are_told_from_changed_parameters(watch: Watch, way: str):
    told = watch("by_hand.py", way)

    assert told.run.owners == ["ByHand" if way == "tensors" else "ByHand(Sequential)"]
    assert told.run.values("loss") == pytest.approx(told.column("loss"))
    assert set(told.run.values("backward_calls")) == {1}
    norms = told.run.values("grad_norm")
    assert norms[0] == -1 and min(norms[1:]) > 0  # of the first step they were not looked at
    assert len(told.run.places("param_grad_norm")) == 4
    assert all(0 < ratio < 0.1 for ratio in told.run.values("update_ratio")[1:])
    assert "by hand" in told.notes


def test_a_script_that_never_steps_is_judged_and_told_so(watch: Watch):
    told = watch("by_hand.py", "nothing")

    assert told.run.owners == ["NoStep(Sequential)"]
    assert told.run.values("loss") == pytest.approx(told.column("loss"))
    [diagnosis] = analysis.analyze(str(told.run.run_dir)).diagnoses
    assert any("each backward call counts as a step" in note for note in diagnosis.run.notes)


COMPILED = ["compiled_model", "compiled_step", "compiled_both"]


@pytest.mark.parametrize("every", [1, "auto"])
def test_compiled_regions_are_made_as_without_us_and_what_they_hide_is_said(
    watch: Watch, every: int | str
):
    # `watch` compares the history too: graphs, graph breaks, recompilations, weights.
    told = watch("compiled.py", "plain", *COMPILED, every=every)

    assert told.run.owners == [f"Adam({way})" for way in ("plain", *COMPILED)]
    for way, history in told.history.items():
        owner = f"Adam({way})"
        assert told.run.values("loss", owner=owner) == pytest.approx(history["loss"]), way
        assert told.run.values("lr", owner=owner) == pytest.approx(history["lr"]), way
        norms = told.run.values("grad_norm", owner=owner)
        unseen = 0 if way in ("plain", "compiled_model") else 1
        assert norms[unseen:] == pytest.approx(history["grad_norm"][unseen:], rel=1e-5), way
        assert set(told.run.values("backward_calls", owner=owner)) == {1}, way
    assert "Adam(compiled_step): its steps call no hooks" in told.notes
    assert "inside compiled regions was not observed" in told.notes


def test_a_compiled_step_shows_its_updates(watch: Watch):
    told = watch("compiled.py", "plain", "compiled_step")
    plain, unseen = (
        told.run.series("update_ratio", owner=f"Adam({way})") for way in ("plain", "compiled_step")
    )

    for step in range(1, 8):  # the first was not looked at, of the last nothing is left
        assert unseen[step] == pytest.approx(plain[step], rel=1e-2)


def test_nothing_of_a_run_without_steps_is_lost_when_the_function_has_returned(
    watch: Watch,
):
    told = watch("in_a_function.py")

    assert told.run.owners == ["ByHand(Sequential)"]
    assert told.run.values("loss") == pytest.approx(told.column("loss"))


@pytest.mark.parametrize("name, way", [("by_hand.py", "modules"), ("in_backward.py", "")])
def test_max_steps_holds_where_no_hook_of_an_optimizer_can_count(
    tmp_path: Path, zygote: Zygote, name: str, way: str
):
    source = (SCRIPTS / name).read_text(encoding="utf-8")
    run = train_in(tmp_path, zygote)(source, way, max_steps=3)

    assert (run.stdout, run.stderr) == ("", "")
    assert list(run.series("loss")) == [0, 1, 2]
    assert not (tmp_path / "model.pt").exists()
