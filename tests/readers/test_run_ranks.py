"""The ranks of a distributed training read as one: exact where that is defined, said where not."""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import pytest

from nndiag.journal.writer import write_json
from nndiag.readers import run_directory
from nndiag.records import NonfiniteOrigin
from tests.readers.test_run_directory import ADAM, NAN, HandWritten, counted, points

MERGED = "2 ranks were recorded and are merged: losses are means"


def process(rank: int, world: int = 2, *, shards: int = 1, shape=(4, 3), **more) -> dict:
    parameter = {"name": "net.0.weight", "shape": list(shape), "optimizer": "Adam"}
    parameter |= {"shards": shards} if shards > 1 else {}
    optimizer = {**ADAM, "sharded": True} if shards > 1 else ADAM
    return {
        "schema": "nndiag.process/1",
        "rank": rank,
        "world_size": world,
        "optimizers": [optimizer],
        "models": [{"name": "Net", "layers": [], "parameters": [parameter]}],
        **more,
    }


def team(path: Path, *rows_of_ranks: list[dict], events=(), **told) -> HandWritten:
    """Each argument is what a rank recorded, one dict for each step."""
    journal = HandWritten(path)
    for rank, rows in enumerate(rows_of_ranks):
        of_rank = events[rank] if events else ()
        journal.rank(f"rank-{rank}", process(rank, len(rows_of_ranks), **told), of_rank)
        journal.steps(*rows, file=f"rank-{rank}/steps-0.arrows")
    return journal


def with_layers(journal: HandWritten, rank: int, columns, *rows) -> HandWritten:
    return journal.stream(f"rank-{rank}/layers-0.arrows", columns, rows, dtype="f4")


def losses(values) -> list[dict]:
    return [counted(loss=float(value)) for value in values]


# -- what is merged


def test_the_loss_is_the_mean_of_the_ranks_at_each_step(tmp_path):
    run = team(tmp_path, losses([1, 2, 3]), losses([3, 6, 5])).read()

    assert points(run, "loss") == [(0, 2.0), (1, 4.0), (2, 4.0)]
    assert run.notes == (MERGED,)


def test_activations_are_those_of_all_samples_together(tmp_path):
    batches = [np.random.default_rng(rank).normal(rank, 2, (8 * (rank + 1), 5)) for rank in (0, 1)]
    names = "count mean variance abs_max zero_fraction nonfinite"
    columns = [(f"activation_{name}", "net.1") for name in names.split()]
    journal = team(tmp_path, *[losses([1])] * 2)
    for rank, x in enumerate(batches):
        row = [x.size, x.mean(), x.var(), abs(x).max(), rank / 4, rank]
        with_layers(journal, rank, columns, (0, row))

    run, x = journal.read(), np.concatenate(batches)

    for name, expected in (("mean", x.mean()), ("variance", x.var()), ("abs_max", abs(x).max())):
        [(_, value)] = points(run, f"activation_{name}", "net.1")
        assert value == pytest.approx(expected, rel=1e-6)
    assert points(run, "activation_zero_fraction", "net.1") == [(0, 0.25 * 2 / 3)]
    assert points(run, "activation_nonfinite", "net.1") == [(0, 1.0)]


def test_a_layer_that_one_rank_measured_more_often_is_merged_where_both_did(tmp_path):
    columns = [(f"activation_{name}", "a") for name in ("count", "mean")]
    journal = team(tmp_path, losses([1] * 20), losses([1] * 20))
    with_layers(journal, 0, columns, (0, [10, 1.0]), (10, [10, 1.0]), (15, [10, 7.0]))
    with_layers(journal, 1, columns, (0, [30, 2.0]), (10, [30, 2.0]), (18, [30, 9.0]))

    assert points(journal.read(), "activation_mean", "a") == [
        (0, 1.75),
        (10, 1.75),
        (15, 7.0),
        (18, 9.0),
    ]


def test_no_more_units_are_dead_than_on_the_liveliest_rank(tmp_path):
    columns = [("dead_unit_fraction", "r"), ("dead_unit_samples", "r")]
    journal = team(tmp_path, losses([1]), losses([1]))
    with_layers(journal, 0, columns, (0, [0.75, 512]))
    with_layers(journal, 1, columns, (0, [0.25, 512]))

    run = journal.read()

    assert points(run, "dead_unit_fraction", "r") == [(0, 0.25)]
    assert points(run, "dead_unit_samples", "r") == [(0, 1024.0)]


def test_gradients_that_are_averaged_are_those_of_one_rank(tmp_path):
    rows = [counted(grad_norm=3.0)] * 3
    columns = [("param_norm", "net.0.weight"), ("param_grad_norm", "net.0.weight")]
    journal = team(tmp_path, rows, rows)
    for rank in (0, 1):
        with_layers(journal, rank, columns, (0, [5.0, 3.0]))

    run = journal.read()

    assert points(run, "grad_norm") == [(0, 3.0), (1, 3.0), (2, 3.0)]
    assert points(run, "param_grad_norm", "net.0.weight") == [(0, 3.0)]


def test_the_step_time_is_that_of_the_slowest(tmp_path):
    run = team(tmp_path, [counted(step_time_s=0.1)] * 2, [counted(step_time_s=0.3)] * 2).read()

    assert points(run, "step_time_s") == [(0, 0.3), (1, 0.3)]


# -- shards


def sharded(path: Path, *, clip: float = NAN, world: int = 2, shards: int = 2) -> HandWritten:
    shares = (3.0, 4.0, 3.0, 4.0)[:world]
    first, second = counted(update_ratio=0.1), counted(clip_threshold=clip)
    rows = [
        [{**first, "grad_norm": n}, {**second, "grad_norm": 7.0 if clip == clip else n}]
        for n in shares
    ]
    journal = team(path, *rows, shards=shards)
    columns = [(f"param_{name}", "net.0.weight") for name in ("norm", "grad_norm", "update_norm")]
    for rank, share in enumerate(shares):
        with_layers(journal, rank, columns, (0, [share, -1.0, share]))
    return journal


def test_norms_of_shards_are_those_of_the_whole(tmp_path):
    run = sharded(tmp_path).read()

    assert points(run, "grad_norm") == [(0, 5.0), (1, 5.0)]
    assert points(run, "param_norm", "net.0.weight") == [(0, 5.0)]
    assert points(run, "param_grad_norm", "net.0.weight") == [(0, -1.0)]
    assert run.notes[1].startswith("the model is sharded")


def test_the_norm_that_clipping_worked_out_is_the_whole_already(tmp_path):
    assert points(sharded(tmp_path, clip=1.0).read(), "grad_norm") == [(0, 5.0), (1, 7.0)]


def test_a_shard_that_two_ranks_hold_counts_once(tmp_path):
    run = sharded(tmp_path, world=4, shards=2).read()

    assert points(run, "param_norm", "net.0.weight") == [(0, 5.0)]


def test_norms_of_shards_are_left_out_where_a_rank_is_missing(tmp_path):
    journal = sharded(tmp_path)
    for path in sorted((tmp_path / "rank-1").iterdir()):
        path.unlink()
    (tmp_path / "rank-1").rmdir()

    run = journal.read()

    assert {s.metric for s in run.series}.isdisjoint({"grad_norm", "param_norm", "update_ratio"})
    assert len(points(run, "loss")) == 2
    assert run.notes == (
        "1 of 2 ranks were recorded",
        "parts of the model lie on ranks that are missing: its norms are left out",
    )


def test_what_a_rank_holds_nothing_of_has_a_gradient_all_the_same(tmp_path):
    """The first FSDP: parameters of each rank's own shape, marked on the model."""
    journal = HandWritten(tmp_path)
    columns = [("param_norm", "net.0.weight"), ("param_grad_norm", "net.0.weight")]
    for rank, (shape, has_grad, norm) in enumerate([([0], False, -1.0), ([12], True, 4.0)]):
        told = process(rank, shape=shape)
        [model], [optimizer] = told["models"], told["optimizers"]
        optimizer["model"], model["shards"] = "Net", 2
        model["parameters"][0]["has_grad"] = has_grad
        journal.rank(f"rank-{rank}", told)
        rows = [counted(grad_norm=3.0 + rank)]
        journal.steps(*rows, file=f"rank-{rank}/steps-0.arrows")
        with_layers(journal, rank, columns, (0, [abs(norm), norm]))

    run = journal.read()

    assert points(run, "grad_norm") == [(0, 5.0)]
    assert points(run, "param_grad_norm", "net.0.weight") == [(0, 4.0)]
    assert [parameter.has_grad for parameter in run.parameters] == [True]


# -- what is not merged


def test_a_rank_with_other_parameters_is_left_out_and_named(tmp_path):
    journal = HandWritten(tmp_path)
    for rank, shape in enumerate([(4, 3), (4, 3), (9, 9)]):
        journal.rank(f"rank-{rank}", process(rank, 3, shape=shape))
        journal.steps(*losses([rank] * 3), file=f"rank-{rank}/steps-0.arrows")

    run = journal.read()

    assert points(run, "loss") == [(0, 0.5), (1, 0.5), (2, 0.5)]
    assert run.notes == (
        "3 ranks were recorded, 2 of them are merged: losses are means",
        "rank 2 trained other parameters, or another part of the model: left out",
    )


def test_ranks_that_share_nothing_leave_rank_0(tmp_path):
    journal = HandWritten(tmp_path)
    for rank, shape in enumerate([(4, 3), (9, 9)]):
        journal.rank(f"rank-{rank}", process(rank, shape=shape))
        journal.steps(*losses([rank] * 3), file=f"rank-{rank}/steps-0.arrows")

    run = journal.read()

    assert points(run, "loss") == [(0, 0.0), (1, 0.0), (2, 0.0)]
    assert run.notes[0] == "2 ranks were recorded; the series are those of rank 0"


# -- which rank stands out


def gradients(values) -> list[dict]:
    return [counted(grad_norm=float(value)) for value in values]


def test_ranks_that_nothing_joins_are_told_and_rank_0_is_judged(tmp_path):
    run = team(tmp_path, gradients([1.0] * 30), gradients([2.0] * 30)).read()

    assert points(run, "grad_norm")[0] == (0, 1.0)
    assert run.notes == (
        "2 ranks were recorded; the series are those of rank 0",
        "the gradients of ranks 0 and 1 differ from step 0 on (norm 1 against 2): each trains on "
        "its own, as without DistributedDataParallel, or holds another part",
    )


def test_the_one_rank_that_fell_out_of_step_is_named(tmp_path):
    same = gradients([1.0] * 30)
    run = team(tmp_path, same, same, gradients([1.0] * 12 + [4.0] * 18)).read()

    assert run.notes == (
        "3 ranks were recorded, 2 of them are merged: losses are means",
        "the gradients of rank 2 differ from those of the other ranks from step 12 on "
        "(norm 4 against 1): no longer in step with them",
    )


def test_the_rank_whose_loss_alone_is_nan_is_named(tmp_path):
    run = team(tmp_path, losses([1.0] * 9), losses([1.0] * 5 + [NAN] * 4)).read()

    assert math.isnan(dict(points(run, "loss"))[5])
    assert run.notes == (MERGED, "the loss became nan on rank 1 alone, at step 5")


def test_a_loss_that_is_nan_on_all_ranks_names_none(tmp_path):
    rows = losses([1.0] * 5 + [NAN] * 4)

    assert team(tmp_path, rows, rows).read().notes == (MERGED,)


def test_a_rank_whose_loss_stays_above_the_others_is_named(tmp_path):
    noise = np.random.default_rng(0).normal(0, 0.1, (3, 100))
    level = [np.ones(100), np.ones(100), np.where(np.arange(100) < 50, 1, 3)]
    run = team(tmp_path, *[losses(own + n) for own, n in zip(level, noise, strict=True)]).read()

    assert run.notes[1].startswith("the loss of rank 2 stays above that of the others: median 2.97")


@pytest.mark.parametrize("seed", range(5))
def test_batches_drawn_alike_make_no_rank_stand_out(tmp_path, seed: int):
    generator = np.random.default_rng(seed)
    course = np.exp(-np.arange(80) / 30)
    rows = [
        [
            counted(loss=a, grad_norm=1.0, step_time_s=0.01, time_to_backward_s=b)
            for a, b in zip(course * noise, generator.uniform(0.004, 0.006, 80), strict=True)
        ]
        for noise in generator.lognormal(0, 0.5, (4, 80))
    ]

    assert team(tmp_path, *rows).read().notes == (
        "4 ranks were recorded and are merged: losses are means",
    )


def test_the_rank_that_the_others_wait_for_is_named_with_numbers(tmp_path):
    def row(seconds: float) -> dict:
        return counted(step_time_s=0.06, time_to_backward_s=seconds)

    run = team(tmp_path, [row(0.011)] * 30, [row(0.052)] * 30).read()

    assert run.notes[1] == (
        "rank 1 is slow: 52 ms until backward, 11 ms on the others; a step takes 60 ms"
    )


def test_the_tensor_that_went_bad_first_is_that_of_any_rank(tmp_path):
    bad = {"event": "nonfinite", "value": NAN, "loss_finite": False, "detail": "LogBackward0"}
    of_0 = [{**bad, "step": 4, "kind": "gradient", "where": "a"}]
    of_1 = [{**bad, "step": 4, "kind": "activation", "where": "b"}]
    run = team(tmp_path, losses([1] * 5), losses([1] * 5), events=[of_0, of_1]).read()

    assert [(o.kind, o.where) for o in run.nonfinite] == [("activation", "b"), ("gradient", "a")]
    assert isinstance(run.nonfinite[0], NonfiniteOrigin)


def test_what_only_one_rank_reports_counts_wherever_it_was(tmp_path):
    def told(name: str, value: float) -> dict:
        return {"event": "metric", "step": 1, "owner": "", "name": name, "value": value}

    events = [[told("f1", 0.5)], [told("f1", 0.25), told("val_loss", 2.0)]]
    run = team(tmp_path, losses([1] * 3), losses([1] * 3), events=events).read()

    assert points(run, "val_loss") == [(1, 2.0)]
    assert [series.values.tolist() for series in run.series_of("other")] == [[0.5]]


def test_what_befell_the_observation_of_another_rank_is_told(tmp_path):
    fault = {"event": "observation-ended", "step": 2, "reason": "disk full"}
    note = {"event": "note", "text": "compiled"}
    run = team(tmp_path, losses([1] * 3), losses([1] * 3), events=[[note], [fault, note]]).read()

    assert run.notes == (MERGED, "rank 1: observation ended at step 2: disk full", "compiled")


def test_a_rank_that_was_killed_is_told_from_those_that_ended(tmp_path):
    ended = {"event": "exit", "how": "exception", "what": "RuntimeError"}
    events = [[ended], []]
    run = team(tmp_path, losses([1] * 9), losses([1] * 8), events=events).read()

    assert "rank 1 left no ending: it was killed, or ended by os._exit" in run.notes


def test_ranks_that_each_watched_themselves_have_ended_when_all_say_so(tmp_path):
    finished = {"event": "exit", "how": "finished", "what": ""}
    rows = losses([1] * 3)
    journal = team(tmp_path, rows, rows, events=[[finished], [finished]])
    manifest = {"schema": "nndiag.run/1", "nndiag": "0.1.0", "launcher": "torchrun"}

    write_json(str(tmp_path / "run.json"), manifest)

    assert run_directory.read(journal.path).notes == (MERGED,)


def test_eight_ranks_of_a_long_run_are_read_in_seconds(tmp_path):

    rows = [[0.5, 1.0, 0.1, 1.0]] * 20_000
    columns = [(metric, "") for metric in ("loss", "backward_calls", "lr", "grad_norm")]
    wide = [(f"activation_{n}", f"h.{i}") for i in range(50) for n in ("count", "mean", "variance")]
    journal = HandWritten(tmp_path)
    for rank in range(8):
        journal.rank(f"rank-{rank}", process(rank, 8))
        journal.stream(f"rank-{rank}/steps-0.arrows", columns, enumerate(rows))
        layer_rows = ((step, [1.0] * 150) for step in range(0, 20_000, 10))
        journal.stream(f"rank-{rank}/layers-0.arrows", wide, layer_rows, dtype="f4")

    began = time.process_time()
    run = journal.read()

    assert time.process_time() - began < 4.0  # seconds; below 1 measured
    assert len(run.series) == 3 + 100
