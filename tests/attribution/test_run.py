"""All captures of a rank: what is written, what is refused, and in what time."""

from __future__ import annotations

import copy
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("captum")

import torch
import torch.nn.functional as F
from torch import nn

from nndiag.adapters.pytorch import captures as keeping
from nndiag.attribution import run
from nndiag.attribution.attribute import Request
from nndiag.attribution.run import Batches, Looking, attribute_all
from nndiag.readers.attributions import read_attribution
from tests.attribution import trainings as t
from tests.attribution.trainings import trained


def kept_in(folder: Path, *why: str) -> t.Trained:
    known = trained("table")
    for one in why:
        t.capture(folder, known.model, known.loss_of, why=one)
    return known


def test_what_is_written_is_read_again(tmp_path: Path):
    known = kept_in(tmp_path, "spike", "end")

    written = attribute_all(known.model, Batches(str(tmp_path), Request(samples=3)))

    spike, end = map(read_attribution, written)
    assert [spike.why, end.why] == ["spike", "end"]
    assert spike.method == "integrated-gradients" and spike.of == "loss" and end.of == "output"
    assert spike.batch.shape == (32,) and len(spike.samples) == len(spike.inputs[0].values) == 3
    for one in (spike, end):
        total = one.inputs[0].attributions.reshape(3, -1).sum(axis=1)
        for i, sample in enumerate(one.samples):
            change = sample.at_sample - sample.at_baseline
            assert total[i] - change == pytest.approx(sample.delta, abs=1e-4)
    assert {path.name for path in (tmp_path / "attributions").iterdir()} == {
        f"{name}-integrated-gradients{ending}"
        for name in ("step-7", "end")
        for ending in (".json", ".safetensors")
    }
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in tmp_path.rglob("*.*"))


def test_parameters_that_were_too_large_are_missed_of_a_spike_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(keeping, "WEIGHT_BYTES", 100)
    known = kept_in(tmp_path, "spike", "end")

    written = attribute_all(known.model, Batches(str(tmp_path), Request(), is_trained=True))
    spike, end = map(read_attribution, written)

    assert "its parameters at step 7 were not kept" in spike.failed and "GB" in spike.failed
    assert spike.batch is not None and spike.batch.shape == (
        32,
    )  # who it was is known all the same
    assert not end.failed and end.samples
    [again] = attribute_all(known.model, Batches(str(tmp_path), Request(), names=("end",)))
    assert "were not kept" in read_attribution(again).failed


def test_sharded_parameters_are_missed_of_both(tmp_path: Path):
    known = kept_in(tmp_path, "end")
    path = tmp_path / "captures" / "end" / "capture.json"
    told = json.loads(path.read_text())
    path.write_text(
        json.dumps({**told, "no_weights_because": "they are sharded over several ranks"})
    )

    [end] = attribute_all(known.model, Batches(str(tmp_path), Request(), is_trained=True))

    assert "sharded over several ranks" in read_attribution(end).failed


def test_the_time_is_that_of_all_batches_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    known = kept_in(tmp_path, "spike", "end")
    given = []
    monkeypatch.setattr(
        run, "attribute", lambda m, c, w, request: given.append(request.seconds) or t.ask(m, c)
    )
    clock = iter(range(100, 999, 20))
    monkeypatch.setattr(run.time, "monotonic", lambda: float(next(clock)))

    attribute_all(known.model, Batches(str(tmp_path), Request(seconds=30.0)))

    assert given == [10.0, 0.0]


def test_a_failure_to_choose_a_method_is_gone_when_one_is_found(tmp_path: Path):
    known = kept_in(tmp_path, "end")
    other = nn.Linear(20, 2)

    [failed] = attribute_all(other, Batches(str(tmp_path), Request()))
    assert failed.endswith("end-auto.json") and "differ" in read_attribution(failed).failed
    [found] = attribute_all(known.model, Batches(str(tmp_path), Request()))

    assert found.endswith("end-integrated-gradients.json") and not os.path.exists(failed)


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile], ids=["DataParallel", "compile"])
def test_the_model_inside_a_wrapper_is_the_one_that_is_kept(tmp_path: Path, wrap):
    torch._dynamo.reset()
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))
    outer = wrap(model, backend="eager") if wrap is torch.compile else wrap(model)
    x, y = torch.randn(8, 6), torch.arange(8) % 2

    captured = t.capture(tmp_path, outer, lambda m: F.cross_entropy(m(x), y))

    assert captured.model == "Sequential" and set(captured.weights()) == set(model.state_dict())
    result = t.ask(model, captured, weights=captured.weights())
    assert result.samples[0].found.at_sample == pytest.approx(result.samples[0].loss, rel=1e-4)
    looking = Looking({"rank_directories": [str(tmp_path)], "names": []})
    assert not looking.is_it(outer) and looking.is_it(model)
    assert not looking.is_it(model)  # asked once


def test_looking_for_a_model_gets_along_with_any_other(tmp_path: Path):
    kept_in(tmp_path, "end")
    looking = Looking({"rank_directories": [str(tmp_path)], "names": []})
    lazy = nn.Sequential(nn.LazyLinear(3))

    assert not looking.is_it(lazy) and not looking.is_it(nn.Identity())
    assert looking.why_not().startswith("no model is Sequential with the captured parameters")
    assert looking.why_not().endswith("the largest is Sequential, of 2 tensors")


def test_a_capture_without_samples_of_its_own_is_attributed_by_an_output(tmp_path: Path):
    known = kept_in(tmp_path, "spike")
    captured = replace(run.read_capture(str(tmp_path / "captures" / "step-7")), per_sample=None)

    assert t.ask(known.model, captured, samples=2).samples[0].row == 0


def test_a_step_names_all_batches_of_it(tmp_path: Path):
    """The second is of the next fold."""
    known = kept_in(tmp_path, "spike", "end")
    captures = tmp_path / "captures"
    shutil.copytree(captures / "step-7", captures / "step-7-2")
    shutil.copytree(captures / "step-7", captures / "step-70")

    assert [os.path.basename(one) for one in run.captures_of(str(tmp_path))] == [
        *("step-7", "step-7-2", "step-70", "end")
    ]
    request = Request("saliency", samples=1)
    written = attribute_all(known.model, Batches(str(tmp_path), request, names=("step-7",)))
    assert [os.path.basename(one) for one in written] == [
        *("step-7-saliency.json", "step-7-2-saliency.json")
    ]


def test_a_model_in_the_place_of_one_that_was_thrown_away_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    kept_in(tmp_path, "end")
    looking = Looking({"rank_directories": [str(tmp_path)], "names": []})
    monkeypatch.setattr(run, "id", lambda module: 1, raising=False)  # ids are given out again

    assert not looking.is_it(nn.Sequential(nn.Linear(2, 3)))
    assert looking.is_it(trained("table").model)


def test_a_model_that_gets_its_layers_when_it_is_called_is_looked_at_again(tmp_path: Path):
    kept_in(tmp_path, "end")
    looking = Looking({"rank_directories": [str(tmp_path)], "names": []})
    grows = copy.deepcopy(trained("table").model)
    children = dict(grows._modules)
    grows._modules.clear()

    assert not looking.is_it(grows)
    grows._modules.update(children)
    assert looking.is_it(grows)


def test_a_link_in_place_of_the_folder_of_attributions_is_not_followed(tmp_path: Path):
    known = kept_in(tmp_path, "end")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "end-auto.json").write_text("somebody else's")
    (tmp_path / "attributions").symlink_to(elsewhere)

    with pytest.raises(OSError, match="symbolic link"):
        attribute_all(known.model, Batches(str(tmp_path), Request()))

    assert [path.name for path in elsewhere.iterdir()] == ["end-auto.json"]


def test_what_the_model_prints_is_not_among_what_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    known = kept_in(tmp_path, "end")
    handle = known.model.register_forward_hook(lambda *_: print("in forward", end="\r"))

    attribute_all(known.model, Batches(str(tmp_path), Request(samples=1)), print)
    handle.remove()

    assert capsys.readouterr().out == "attributions by auto: end\n"
