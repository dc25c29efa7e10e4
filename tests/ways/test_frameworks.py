"""Trainers that own the loop: Lightning, the Hugging Face Trainer, Accelerate.

They are not in the development environment, since they weigh more than all the rest of it:

    pip install -c constraints.txt -e '.[dev,frameworks]'
    python -m pytest tests/ways -m frameworks
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tests.ways.watching import Way, watch_alone

pytestmark = pytest.mark.frameworks


def needs(*names: str) -> pytest.MarkDecorator:
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    reason = f"{', '.join(missing)} not installed: pip install -e '.[frameworks]'"
    return pytest.mark.skipif(bool(missing), reason=reason)


def same(way: Way, *metrics: str, owner: str | None = None, rel: float = 1e-5) -> None:
    for metric in metrics:
        measured = way.run.values(metric, owner=owner)
        assert measured == pytest.approx(way.column(metric), rel=rel), metric


def reported(way: Way, name: str, source: str) -> list[float]:
    events = way.run.of_kind("metric")
    return [e["value"] for e in events if e["name"] == name and e["source"] == source]


@needs("lightning")
@pytest.mark.parametrize("kind", ["validated", "unvalidated", "clipped", "bf16"])
def test_lightning_is_seen_step_by_step(tmp_path: Path, kind: str):
    way = watch_alone(tmp_path, "with_lightning.py", kind)

    assert way.run.owners == ["Adam(Classifier)"]
    assert list(way.run.series("loss")) == list(range(16))
    same(way, "loss", "lr")
    same(way, "grad_norm", rel=1e-4)
    assert way.run.places("activation_mean") == ["net.0", "net.1", "net.2", "net.3"]
    if kind == "clipped":
        assert set(way.run.values("clip_threshold")) == {0.1}
    losses = [] if kind == "unvalidated" else way.column("val_loss")
    assert reported(way, "val_loss", "lightning") == pytest.approx(losses)


@needs("lightning")
def test_lightning_accumulates_and_each_step_has_the_mean_of_its_micro_batches(tmp_path: Path):
    way = watch_alone(tmp_path, "with_lightning.py", "accumulated")

    losses = way.column("loss")
    means = [sum(losses[i : i + 4]) / 4 for i in range(0, 16, 4)]
    assert way.run.values("loss") == pytest.approx(means, rel=1e-5)
    assert set(way.run.values("backward_calls")) == {4}
    same(way, "lr", "grad_norm")


@needs("lightning")
def test_lightning_with_two_optimizers_by_hand(tmp_path: Path):
    way = watch_alone(tmp_path, "with_lightning.py", "manual")

    assert way.run.owners == ["SGD(TwoSides)", "Adam(TwoSides)"]
    same(way, "loss", owner="Adam(TwoSides)")
    judged = way.run.values("loss", owner="SGD(TwoSides)")
    assert judged == pytest.approx(way.column("judge_loss"))
    for owner, part in (("SGD(TwoSides)", "judge"), ("Adam(TwoSides)", "maker")):
        assert len(way.run.series("param_grad_norm", f"{part}.0.weight", owner)) == 16


@needs("transformers", "accelerate")
@pytest.mark.parametrize("kind, micro_batches", [("plain", 1), ("accumulated", 2), ("bf16", 1)])
def test_the_hugging_face_trainer_is_seen_step_by_step(
    tmp_path: Path, kind: str, micro_batches: int
):
    way = watch_alone(tmp_path, "with_hf_trainer.py", kind)

    assert way.run.owners == ["AdamW(BertForSequenceClassification)"]
    assert set(way.run.values("backward_calls")) == {micro_batches}
    logged = [loss / micro_batches for loss in way.column("loss")]  # it logs their sum
    assert way.run.values("loss") == pytest.approx(logged, abs=1e-3)
    same(way, "lr")
    same(way, "grad_norm", rel=1e-3)
    assert set(way.run.values("clip_threshold")) == {0.5 if kind == "accumulated" else 1.0}
    places = way.run.places("activation_mean")
    assert "bert.encoder.layer.1.attention.self.query" in places and "classifier" in places
    assert reported(way, "eval_loss", "transformers") == pytest.approx(way.column("eval_loss"))


@needs("accelerate")
@pytest.mark.parametrize("micro_batches, precision", [(1, "no"), (2, "no"), (2, "bf16")])
def test_accelerate_is_seen_step_by_step(tmp_path: Path, micro_batches: int, precision: str):
    way = watch_alone(tmp_path, "with_accelerate.py", str(micro_batches), precision)

    assert way.run.owners == ["AdamW(Sequential)"]
    assert len(way.run.series("loss")) == 16 // micro_batches
    same(way, "loss", "lr", "grad_norm")
    assert set(way.run.values("backward_calls")) == {micro_batches}
    assert set(way.run.values("clip_threshold")) == {0.2}
