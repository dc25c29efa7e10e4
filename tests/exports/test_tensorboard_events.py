"""Event files, read back by TensorBoard itself and by our own reader."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nndiag.analysis import analyze
from nndiag.exports import tensorboard_events
from nndiag.exports.tables import Tables

NOW_S = 1_700_000_000.5


def written(tables: Tables, folder: Path) -> Path:
    path = folder / tensorboard_events.FILE
    path.write_bytes(b"".join(tensorboard_events.events(tables, NOW_S)))
    return path


def by_tensorboard(path: Path):
    """Each event of the file, by TensorBoard's own loader, which checks the checksums."""
    loader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_file_loader",
        reason="the oracle is TensorBoard: pip install tensorboard",
    )
    return list(loader.LegacyEventFileLoader(str(path)).Load())


def test_tensorboard_reads_every_value(hostile, tmp_path):
    events = by_tensorboard(written(hostile, tmp_path))

    assert events[0].file_version == "brain.Event:2"
    values: dict[str, list[tuple[int, float]]] = {}
    for event in events[1:]:
        assert event.wall_time == NOW_S
        for value in event.summary.value:
            if value.WhichOneof("value") == "simple_value":
                values.setdefault(value.tag, []).append((event.step, value.simple_value))
    assert [step for step, _ in values["loss"]] == [-2, 0, 1, 5, 300, 2**40]
    assert str([v for _, v in values["loss"]]) == f"[{np.float32(1 / 3)}, nan, inf, -inf, 0.0, inf]"
    assert values["Adam/lr"] == [(0, np.float32(0.1)), (5, np.float32(1e-05))]
    assert [step for step, _ in values["parameters/Adam/@net.0.weight/norm"]] == [0, 5]
    assert "layers/(model)/activation_variance" in values
    assert len(values) == 10


def test_tensorboard_shows_the_findings_as_texts(hostile, tmp_path):
    path = written(hostile, tmp_path)
    module = "tensorboard.backend.event_processing.event_accumulator"
    accumulator = pytest.importorskip(module).EventAccumulator(str(path))
    accumulator.Reload()

    [tag] = [t for t in accumulator.Tags()["tensors"] if t.startswith("nndiag/findings/")]
    [event] = accumulator.Tensors(tag)
    text = event.tensor_proto.string_val[0].decode()

    assert tag == "nndiag/findings/1-loss-nonfinite"
    assert accumulator.SummaryMetadata(tag).plugin_data.plugin_name == "text"
    assert "**loss-nonfinite** (critical, steps 0-5)" in text
    assert "`@net.0`" in text and "1. lower-lr: Lower it" in text
    assert accumulator.Scalars("loss")[0].step == -2


def test_a_watched_run_is_judged_alike_after_the_way_through_tensorboard(spike, tmp_path):
    written(spike, tmp_path)

    [again] = analyze(str(tmp_path)).diagnoses

    [before], [after] = spike.diagnosis.findings, again.findings
    assert again.verdict == spike.diagnosis.verdict
    assert (after.name, after.severity) == (before.name, before.severity)
    assert (after.step_start, after.step_end) == (before.step_start, before.step_end)
    assert [r.name for r in after.remedies] == [r.name for r in before.remedies]
    assert [r.new for r in after.remedies] == [r.new for r in before.remedies]


def test_our_own_reader_sees_the_same_numbers(spike, tmp_path):
    from nndiag.readers.tensorboard import tensorboard_events as reader

    written(spike, tmp_path)
    run = reader.read(tmp_path)

    found = {s.label: s for s in run.series}
    for series in spike.layers:
        kind = "parameters" if series.metric.startswith("param_") else "layers"
        tag = f"{kind}/{series.where}/{series.metric.removeprefix('param_')}"
        assert np.array_equal(found[tag].steps, series.steps)
        expected = series.values.astype(np.float32)
        assert np.array_equal(found[tag].values.astype(np.float32), expected, equal_nan=True)
