"""Weights & Biases: `.wandb` files, run folders, and the folder of many runs.

The files in fixtures/wandb were written by wandb itself, see fixtures/make_wandb.py; those made
here follow wandb_internal.proto, in the layout of today's clients or in that of old ones.
"""

import json
import math
import os
import random
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nndiag.errors import UnreadableLog
from nndiag.readers.wandb import wandb_datastore, wandb_history, wandb_run
from nndiag.readers.wandb.wandb_datastore import BLOCK, Datastore
from nndiag.readers.wandb.wandb_history import History

FIXTURES = Path(__file__).parent / "fixtures" / "wandb"
FILES = sorted(FIXTURES.rglob("*.wandb"))
IDS = [str(path.relative_to(FIXTURES).parts[:2]) for path in FILES]
HEADER = b":W&B\xe1\xbe\0"


def store(name):
    return FIXTURES / name / "wandb"


def fixture(name):
    return next((FIXTURES / name).rglob("*.wandb"))


def varint(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def part(number, data):
    return varint(number << 3 | 2) + varint(len(data)) + data


def item(key, text, layout="new"):
    """A metric of a row; a key that is a tuple is nested."""
    keys = [key] if isinstance(key, str) else key
    tag = 2 if layout == "new" else 1
    return b"".join(part(tag, one.encode()) for one in keys) + part(16, text.encode())


def row(number, values, layout="new"):
    """A history record; `values` are the texts of JSON by key."""
    items = b"".join(part(1, item(key, text, layout)) for key, text in values.items())
    return b"\x08" + varint(number) + part(2, items)


def chunk(kind, data, checksum=None):
    checksum = zlib.crc32(bytes([kind]) + data) if checksum is None else checksum
    return struct.pack("<IHB", checksum, len(data), kind) + data


def framed(records):
    """A `.wandb` file of these records."""
    out = bytearray(HEADER)
    for record in records:
        kinds, rest = (1, 2), record
        while True:
            left = BLOCK - len(out) % BLOCK
            if left < 7:
                out += bytes(left)
                continue
            data, rest = rest[: left - 7], rest[left - 7 :]
            out += chunk(kinds[1] if rest else kinds[0], data)
            kinds = (4, 3)
            if not rest:
                break
    return bytes(out)


def losses(count, layout="new"):
    rows = [{"loss": repr(1 / (1 + i)), "_step": str(i)} for i in range(count)]
    return [row(i, values, layout) for i, values in enumerate(rows)]


def table_of(path):
    datastore, history = Datastore(path), History()
    for batch in datastore.batches():
        history.take(batch)
    return history.table()


def bits(table):
    return {
        name: (column.rows.tolist(), column.values.tobytes())
        for name, column in table.columns.items()
    }


def note(run, words):
    return next((one for one in run.notes if words in one), None)


# --- runs that wandb wrote ------------------------------------------------------------------------


def test_a_healthy_run_has_its_series_at_the_steps_that_its_framework_counts():
    run = wandb_run.read(fixture("healthy"))
    loss = run.one("loss")

    assert (loss.name, len(loss), loss.steps[-1]) == ("train/loss", 80, 395)
    assert loss.values[1] == 2.5 * math.exp(-5 / 150) + 0.3 + 0.02 * math.sin(5)
    assert run.one("val_loss").steps.tolist() == list(range(0, 400, 50))
    assert run.one("lr").values[-1] == 0.1 * (1 - 395 / 400)
    assert note(run, "healthy01 'healthy', written by wandb 0.31.0")
    assert note(run, "steps are 'train/global_step'")


def test_a_resumed_run_is_one_run():
    assert wandb_run.runs_in(store("resumed")) == ("resumed01",)
    run = wandb_run.read_run(store("resumed"), "resumed01", None)
    loss = run.one("loss")

    assert run.path == f"{store('resumed')}#resumed01"
    assert loss.steps.tolist() == list(range(0, 601, 10))
    assert loss.values[30] == 2.5 * math.exp(-2) + 0.3 + 0.02 * math.sin(300) + 0.05
    assert note(run, "2 starts of one run")
    assert note(run, "resumed once at an earlier step")


def test_of_a_killed_run_all_is_there_that_reached_the_file():
    run = wandb_run.read(store("killed"))
    loss = run.one("loss")

    assert 100 < len(loss) < 150
    assert loss.steps.tolist() == list(range(len(loss)))
    assert note(run, "no record of its end")


def test_a_run_that_failed_is_said_to_have():
    assert note(wandb_run.read(fixture("crashed")), "failed: exit code 1")
    assert not note(wandb_run.read(fixture("healthy")), "failed")


@pytest.mark.parametrize("client", ["", "old"])
def test_nan_and_infinity_stay_in_and_nested_keys_are_joined(client):
    run = wandb_run.read(fixture(os.path.join(client, "nonfinite")))
    values = run.one("loss").values

    assert run.one("loss").name == "model.train.loss"
    assert np.isfinite(values[:16]).all()
    assert values[16:18].tolist() == [math.inf, -math.inf]
    assert np.isnan(values[18:]).all()
    [count] = [series for series in run.series if series.name == "count"]
    assert count.values[1] == float(2**60 + 1)


@pytest.mark.parametrize("client", ["", "old"])
def test_media_and_texts_are_left_out_and_said_to_be(client):
    run = wandb_run.read(fixture(os.path.join(client, "media")))

    assert {series.name for series in run.series} == {"loss", "one", "_runtime", "_timestamp"}
    assert note(run, "objects of W&B: ") and "'weights'" in note(run, "objects of W&B: ")
    assert note(run, "no numbers: 'text'")


def test_a_zero_that_stands_for_not_computed_is_a_gap():
    run = wandb_run.read(fixture("zeros"))

    assert len(run.one("loss")) == len(run.one("val_loss")) == 12
    assert run.one("loss").values.min() > 0.2 and run.one("val_loss").values.min() > 0.2
    assert set(run.one("val_accuracy").values.tolist()) == {0.5}
    assert "'val_acc'" in note(run, "0 taken for 'not computed in this row'")


def test_a_run_that_logged_nothing_is_read_from_its_console():
    for path in (store("silent"), fixture("silent")):
        run = wandb_run.read(path)

        assert run.format == "wandb"
        assert run.one("loss").steps.tolist() == list(range(0, 400, 10))
        assert note(run, "no history") and note(run, "output.log is read instead")


def test_rows_without_a_number_of_the_record_are_read(tmp_path):
    """As wandb 0.13.5 wrote them: `num` is left out, and a step of 0 is an empty message."""
    rows = []
    for i in range(30):
        values = {"train loss": repr(2.5 / (1 + i)), "step": str(i + 1), "_step": str(i)}
        items = b"".join(part(1, item(key, text, "old")) for key, text in values.items())
        rows.append(part(2, items + part(2, b"\x08" + varint(i) if i else b"")))
    path = tmp_path / "run-a.wandb"
    path.write_bytes(framed(rows))
    loss = wandb_run.read(path).one("loss")

    assert loss.name == "train loss"
    assert loss.values.tolist() == [2.5 / (1 + i) for i in range(30)]
    assert loss.steps.tolist() == list(range(1, 31))


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_wandbs_own_protobuf_gives_the_same_numbers_to_the_bit(path):
    messages = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    expected, height = {}, 0
    for batch in Datastore(path).batches():
        for record in map(messages.Record.FromString, batch):
            if record.WhichOneof("record_type") != "history":
                continue
            for one in record.history.item:
                value = json.loads(one.value_json)
                if isinstance(value, dict) and len(value) == 1 and "_type" not in value:
                    continue  # how an old client writes a nested key: the test above has it
                if isinstance(value, int | float) and not isinstance(value, bool):
                    name = one.key or ".".join(one.nested_key)
                    expected.setdefault(name, []).append((height, float(value)))
            height += 1
    table = table_of(path)

    assert table.height == height
    for name, points in expected.items():
        if name.startswith(("weights.", "table.")):
            continue
        rows, values = zip(*points, strict=True)
        assert table.columns[name].rows.tolist() == list(rows)
        assert table.columns[name].values.tobytes() == np.array(values).tobytes()


# --- the ways in ----------------------------------------------------------------------------------


def test_it_knows_files_run_folders_and_the_folder_of_runs(tmp_path):
    file = fixture("healthy")
    (tmp_path / "latest-run").symlink_to(file.parent)
    (tmp_path / "renamed" / "files").mkdir(parents=True)
    (tmp_path / "renamed" / "run-abc.wandb").write_bytes(HEADER)

    assert wandb_run.recognises(file, file.read_bytes()[:100])
    for folder in (file.parent, file.parent.parent, tmp_path / "latest-run", tmp_path / "renamed"):
        assert wandb_run.recognises(folder, b""), folder
    assert wandb_run.runs_in(tmp_path / "renamed") == ("abc",)
    assert wandb_run.runs_in(tmp_path / "latest-run") == ("healthy01",)


def test_it_claims_nothing_else(tmp_path):
    (tmp_path / "wandb").mkdir()
    (tmp_path / "runs" / "run-20240101_000000-abc").mkdir(parents=True)
    (tmp_path / "runs" / "metrics.csv").write_text("step,loss\n1,2\n")

    assert not wandb_run.recognises(tmp_path / "metrics.csv", b"step,loss\n")
    for folder in (tmp_path, tmp_path / "wandb", tmp_path / "runs"):
        assert not wandb_run.recognises(folder, b""), folder


def test_a_folder_of_several_runs_gives_each_and_latest_run_is_none(log, tmp_path):
    for name in ("run-20240102_000000-b", "offline-run-20240101_000000-a"):
        log(f"wandb/{name}/run-{name[-1]}.wandb", framed(losses(5)))
    (tmp_path / "wandb" / "latest-run").symlink_to("run-20240102_000000-b")
    folder = tmp_path / "wandb"

    assert wandb_run.runs_in(folder) == ("a", "b")
    assert len(wandb_run.read_run(folder, "b", None).one("loss")) == 5
    with pytest.raises(UnreadableLog, match="holds 2 runs") as error:
        wandb_run.read(folder)
    assert "a, b" in error.value.do
    with pytest.raises(UnreadableLog, match="no run 'c'"):
        wandb_run.read_run(folder, "c", None)


def test_one_empty_start_of_a_run_does_not_hide_the_other(log, tmp_path):
    log("wandb/run-20240101_000000-a/run-a.wandb", framed(losses(5)))
    log("wandb/run-20240102_000000-a/run-a.wandb", b"")
    run = wandb_run.read(tmp_path / "wandb")

    assert len(run.one("loss")) == 5
    assert note(run, "run-20240102_000000-a: is empty")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("wandb-history.jsonl", '{"loss": 2.0, "_step": 0}\n{"loss": 1.0, "_step": 1}\n'),
        ("files/output.log", "step 0 loss 2.0\nstep 1 loss 1.0\n"),
    ],
)
def test_a_run_folder_without_a_wandb_file_is_read_from_what_it_has(log, tmp_path, name, text):
    log(f"run-20190101_000000-a/{name}", text)
    run = wandb_run.read(tmp_path / "run-20190101_000000-a")

    assert run.one("loss").values.tolist() == [2.0, 1.0]
    assert note(run, f"holds no .wandb file; {Path(name).name} is read instead")


def test_a_summary_alone_gives_the_last_values(log, tmp_path):
    log("run-20190101_000000-a/run-a.wandb", HEADER)
    log("run-20190101_000000-a/files/wandb-summary.json", '{"loss": 0.5, "_step": 99}')
    run = wandb_run.read(tmp_path / "run-20190101_000000-a")

    assert (run.one("loss").steps.tolist(), run.one("loss").values.tolist()) == ([99], [0.5])


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "is empty"),
        (HEADER, "has no history"),
        (HEADER[:3], "only a part of its header"),
        (HEADER[:6] + b"\x01", "version 1"),
        (b"PK\x03\x04 something else", "does not begin with ':W&B'"),
        (framed([row(1, {"acc": '"a"'})]), "no named numbers"),
        (framed([row(1, {"speed": "1"})]), "no series in it looks like a loss"),
    ],
)
def test_a_file_without_a_history_says_why(log, content, what):
    with pytest.raises(UnreadableLog, match=what):
        wandb_run.read(log("run-a.wandb", content))


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "run-a.wandb")
    with pytest.raises(UnreadableLog, match="not a regular file"):
        wandb_run.read(tmp_path / "run-a.wandb")


# --- steps ----------------------------------------------------------------------------------------


def run_with(log, rows):
    texts = [{key: json.dumps(value) for key, value in one.items()} for one in rows]
    return wandb_run.read(log("run-a.wandb", framed([row(i, t) for i, t in enumerate(texts)])))


def test_iterations_that_the_user_logs_are_the_steps(log):
    run = run_with(log, [{"iter": 2000 * i, "_step": i, "train/loss": 1.0 - i} for i in range(9)])
    assert run.one("loss").steps.tolist() == list(range(0, 18000, 2000))


def test_a_batch_number_that_starts_again_each_epoch_is_no_axis(log):
    rows = [{"batch": i % 10, "_step": i, "loss": 1.0 - i} for i in range(60)]
    run = run_with(log, rows)

    assert run.one("loss").steps.tolist() == list(range(60))
    assert note(run, "steps are '_step': 'batch' does not count them all")


def test_a_framework_step_that_goes_back_where_a_run_was_resumed_is_one(log, tmp_path):
    for day, first, shift in ((1, 0, 0), (2, 40, 10)):
        rows = [
            {"trainer/global_step": str(i - shift), "_step": str(i), "loss": repr(1 / (i + 1))}
            for i in range(first, first + 50)
        ]
        records = [row(i, one) for i, one in enumerate(rows)]
        log(f"wandb/run-2024010{day}_000000-a/run-a.wandb", framed(records))
    run = wandb_run.read(tmp_path / "wandb")

    assert run.one("loss").steps.tolist() == list(range(80))
    assert run.one("loss").values[30] == 1 / 41  # of the second start


def test_a_row_whose_step_stands_in_its_own_field_only(log):
    items = [part(1, item("loss", repr(0.5 / (i + 1)))) for i in range(100)]
    records = [
        b"\x08\x01" + part(2, one + part(2, b"\x08" + varint(5 * i) if i else b""))
        for i, one in enumerate(items)
    ]
    run = wandb_run.read(log("run-a.wandb", framed(records)))

    assert run.one("loss").steps.tolist() == list(range(0, 500, 5))


# --- rows of any layout ---------------------------------------------------------------------------

TEXTS = st.one_of(
    st.floats().map(json.dumps),
    st.integers().map(str),
    st.sampled_from(
        [
            *["1e999", "-1e999", "1" * 400, "1" * 5000, "01", "-", "1,2", "1 2", "", "1e5", "-0.0"],
            *["5e-324", "NaN", "-Infinity", "Inf", '"NaN"', '"text"', "null", "true", "[" * 500],
            *["[1.5]", "[1,2]", '{"a": 1, "b": {"c": 2}}', '{"_type": "histogram", "bins": [1]}'],
        ]
    ),
)
KEYS = st.one_of(
    st.sampled_from(["loss", "_step", "train/loss", ("train", "loss"), "_wandb", "k" * 200]),
    st.text(max_size=5),
    st.lists(st.text(min_size=1, max_size=3), min_size=1, max_size=10).map(tuple),
)
ROWS = st.lists(
    st.tuples(st.dictionaries(KEYS, TEXTS, max_size=6), st.sampled_from(["new", "old"])),
    min_size=1,
    max_size=12,
)


def taken(records, few):
    history = History()
    usual, wandb_history.FEW = wandb_history.FEW, few
    try:
        history.take(records)
    finally:
        wandb_history.FEW = usual
    return history.table()


@settings(max_examples=150, deadline=None)
@given(ROWS)
def test_rows_decoded_in_step_are_those_decoded_one_by_one(rows):
    records = [row(i, {**one, "_step": str(i)}, layout) for i, (one, layout) in enumerate(rows)]
    together, singly = taken(records, 1), taken(records, 10**9)

    assert together.height == singly.height == len(records)
    assert bits(together) == bits(singly)
    assert set(together.unreadable) == set(singly.unreadable)


def test_a_number_is_what_json_calls_one_and_nothing_more():
    texts = ["1e999", "01", "1,2", "-", "Inf", '"text"', '"NaN"', "NaN", "0.1", "12345678901234567"]
    records = [row(i, {"_step": str(i), "loss": text}) for i, text in enumerate(texts)]
    for few in (1, 10**9):
        column = taken(records, few).columns["loss"]
        assert column.rows.tolist() == [6, 7, 8, 9]
        assert np.array_equal(column.values, [np.nan, np.nan, 0.1, 1.2345678901234568e16], True)


def test_many_names_are_not_kept(log):
    rows = [{f"m{i}/{j}": "1" for j in range(900)} for i in range(10)]
    rows = [{"loss": "0.5", "_step": str(i), **one} for i, one in enumerate(rows)]
    run = wandb_run.read(log("run-a.wandb", framed([row(i, one) for i, one in enumerate(rows)])))

    assert len(run.one("loss")) == 10
    assert note(run, "values left out")


# --- containers that are broken -------------------------------------------------------------------


def test_a_record_over_several_blocks_is_put_together(log):
    long = row(1, {"loss": "0.25", "text": json.dumps("a" * (3 * BLOCK)), "_step": "1"})
    run = wandb_run.read(log("run-a.wandb", framed([*losses(1), long, *losses(3)[2:]])))

    assert run.one("loss").values.tolist() == [1.0, 0.25, 1 / 3]


@pytest.mark.parametrize("size", range(BLOCK - 16, BLOCK + 2))
def test_records_that_end_about_a_blocks_end_are_all_there(log, size):
    filler = part(13, bytes(size - 7 - 7 - 4))  # after the header of the file and of the chunk
    run = wandb_run.read(log("run-a.wandb", framed([filler, *losses(4)])))
    assert run.one("loss").values.tolist() == [1.0, 1 / 2, 1 / 3, 1 / 4]


def test_a_wrong_checksum_costs_one_record(log):
    data = bytearray(framed(losses(50)))
    at = data.index(repr(1 / 21).encode())
    data[at] ^= 1
    run = wandb_run.read(log("run-a.wandb", bytes(data)))

    assert run.one("loss").steps.tolist() == [i for i in range(50) if i != 20]
    assert note(run, "1 record is damaged (wrong checksum or order): left out")


def test_a_length_that_lies_costs_the_rest_of_its_block(log):
    data = bytearray(framed(losses(3000)))
    at = data.index(repr(1 / 21).encode())
    start = data.rindex(b"\x01\x08", 0, at) - 6  # its chunk: the kind, then the record's number
    assert struct.unpack_from("<IHB", data, start)[2] == 1
    data[start + 4 : start + 6] = b"\xff\xff"
    run = wandb_run.read(log("run-a.wandb", bytes(data)))
    steps = run.one("loss").steps

    assert steps[:20].tolist() == list(range(20))
    assert steps[-1] == 2999 and 20 < 3000 - len(steps) < 1000
    assert note(run, "bytes up to the next block")


def test_zeros_after_a_power_loss_are_left_out(log):
    data = framed(losses(50))
    run = wandb_run.read(log("run-a.wandb", data + bytes(3 * BLOCK)))

    assert len(run.one("loss")) == 50
    assert note(run, f"{3 * BLOCK} bytes of zeros")


@pytest.mark.parametrize(
    ("chunks", "left", "words"),
    [
        ([chunk(3, b"x"), chunk(4, b"y")], 4, "1 record is damaged"),
        ([chunk(2, b"x")], 4, "1 record is damaged"),
        ([chunk(2, b"x"), chunk(2, b"x"), chunk(4, b"x")], 4, "1 record is damaged"),
        ([chunk(9, b"x")], 4, "1 record is damaged"),
        ([chunk(1, b"\xff" * 30)], 4, "1 records left out that are malformed"),
        ([chunk(1, b"\x08\x01\x12\x7fx")], 5, "1 records left out that are malformed"),
    ],
    ids=["no first", "no last", "two firsts", "unknown kind", "no message", "length too long"],
)
def test_chunks_in_no_order_cost_no_others(log, chunks, left, words):
    before, after = losses(4)[:2], losses(4)[2:]
    data = HEADER + b"".join(
        [*(chunk(1, r) for r in before), *chunks, *(chunk(1, r) for r in after)]
    )
    path = log("run-a.wandb", data)
    run = wandb_run.read(path)

    assert run.one("loss").values.tolist() == [1.0, 1 / 2, 1 / 3, 1 / 4]
    assert table_of(path).height == left
    assert note(run, words)


def test_a_record_that_is_too_long_is_left_out(log, monkeypatch):
    monkeypatch.setattr(wandb_datastore, "MAX_RECORD", 2 * BLOCK)
    long = part(8, bytes(5 * BLOCK))
    run = wandb_run.read(log("run-a.wandb", framed([*losses(2), long, *losses(4)[2:]])))

    assert len(run.one("loss")) == 4
    assert note(run, "1 records above 0 MiB left out")


def test_a_long_file_takes_little_memory(log):
    path = log("run-a.wandb", framed([part(7, bytes(30_000))] * 1000 + losses(100)))
    tracemalloc.start()
    try:
        wandb_run.read(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert path.stat().st_size > 30e6
    assert peak < 16e6


def outcome(path):
    """The loss by step, {} for an error; anything else is a fault and is raised."""
    try:
        run = wandb_run.read(path)
    except UnreadableLog:
        return {}
    return {
        (series.name, step): value
        for series in run.series_of("loss")
        for step, value in zip(series.steps.tolist(), series.values.tolist(), strict=True)
    }


def test_a_file_cut_anywhere_gives_what_was_whole(log):
    data = framed(losses(12))
    whole, counts = outcome(log("run-a.wandb", data)), []
    for size in range(len(data)):
        found = outcome(log("run-a.wandb", data[:size]))
        assert found.items() <= whole.items()
        counts.append(len(found))

    assert counts == sorted(counts)
    assert set(counts) == set(range(12))


def test_a_flipped_bit_never_changes_a_value(log):
    data, rng = framed(losses(12)), random.Random(0)
    whole, fewest = outcome(log("run-a.wandb", data)), 99
    for at in range(len(HEADER), len(data)):
        flipped = bytearray(data)
        flipped[at] ^= 1 << rng.randrange(8)
        found = outcome(log("run-a.wandb", bytes(flipped)))
        assert found.items() <= whole.items()
        fewest = min(fewest, len(found))

    assert fewest < len(whole)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_messages_in_a_sound_container_give_a_run_or_one_error(tmp_path_factory, data):
    records = [one for batch in Datastore(fixture("crashed")).batches() for one in batch]
    for _ in range(data.draw(st.integers(1, 3))):
        which = data.draw(st.integers(0, len(records) - 1))
        start = data.draw(st.integers(0, len(records[which])))
        end = start + data.draw(st.sampled_from([0, 1, 2, 9]))
        inserted = data.draw(st.binary(max_size=6))
        records[which] = records[which][:start] + inserted + records[which][end:]
    records *= data.draw(st.sampled_from([1, 8]))  # few rows, and enough to be decoded together
    path = tmp_path_factory.mktemp("damaged") / "run-a.wandb"
    path.write_bytes(framed(records))

    outcome(path)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_behind_the_header_give_a_run_or_one_error(tmp_path_factory, tail):
    path = tmp_path_factory.mktemp("any") / "run-a.wandb"
    path.write_bytes(HEADER + tail)

    assert outcome(path) == {}
