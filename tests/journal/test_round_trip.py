"""What is written is what is read: by us bit for bit, and by other Arrow readers."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nndiag.journal.format import RecordEncoder, schema_message, stream_metadata
from nndiag.journal.reader import read_events, read_manifest, read_process, read_stream
from nndiag.journal.stream import Stream, decode_stream
from nndiag.journal.writer import EventWriter, StreamWriter, write_json

COLUMNS = [("loss", ""), ("lr", ""), ("lr", "group-1")]
ROWS = [(0, 0.25, [1.5, 0.1, -0.0]), (1, 0.5, [math.nan, math.inf, -math.inf]), (7, 9.0, [0, 1, 2])]

any_float64 = st.floats(width=64) | st.integers(0, 2**64 - 1).map(
    lambda bits: struct.unpack("<d", struct.pack("<Q", bits))[0]  # every NaN there is
)
int64 = st.integers(-(2**63), 2**63 - 1)


def written(path: Path, dtype: str = "f8", columns=COLUMNS, rows=ROWS) -> Path:
    writer = StreamWriter(str(path), owner="Adam", columns=columns, dtype=dtype)
    for row in rows:
        writer.append(*row)
    writer.close()
    return path


def encoded(owner, columns, dtype, rows) -> bytes:
    encoder = RecordEncoder(len(columns), dtype)
    header = schema_message(len(columns), stream_metadata(owner, columns), dtype)
    return header + b"".join(encoder.encode(*row) for row in rows)


@given(data=st.data(), owner=st.text(), dtype=st.sampled_from(["f8", "f4"]))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_stream_read_back_is_what_was_written(data, owner, dtype):
    columns = data.draw(st.lists(st.tuples(st.text(), st.text()), min_size=1, max_size=9))
    value = any_float64 if dtype == "f8" else st.floats(width=32)
    width = len(columns)
    row = st.tuples(int64, any_float64, st.lists(value, min_size=width, max_size=width))
    rows = data.draw(st.lists(row, max_size=5))

    stream = decode_stream(encoded(owner, columns, dtype, rows), "a stream")

    assert (stream.owner, stream.columns) == (owner, tuple(columns))
    assert stream.steps.tolist() == [step for step, _, _ in rows]
    assert stream.t.tobytes() == struct.pack(f"<{len(rows)}d", *(t for _, t, _ in rows))
    assert stream.values.dtype == np.dtype(dtype) or not rows
    assert stream.values.shape == (len(rows), width)
    code = {"f8": "d", "f4": "f"}[dtype]
    expected = b"".join(struct.pack(f"<{width}{code}", *values) for _, _, values in rows)
    assert stream.values.tobytes() == expected
    assert (stream.torn_bytes, stream.damaged_records) == (0, 0)


def test_the_arrays_of_a_stream_are_read_only(tmp_path):
    stream = read_stream(written(tmp_path / "s"))

    for array in (stream.steps, stream.t, stream.values):
        assert not array.flags.writeable


def test_every_row_has_the_same_size(tmp_path):
    encoder = RecordEncoder(3, "f8")

    assert {len(encoder.encode(*row)) for row in ROWS} == {encoder.size}


def test_a_value_beyond_float32_is_infinite_in_a_float32_stream(tmp_path):
    stream = read_stream(written(tmp_path / "s", "f4", rows=[(0, 0.0, [1e39, -1e300, 1.0])]))

    assert stream.values.tolist() == [[math.inf, -math.inf, 1.0]]


def test_a_stream_without_columns_is_refused(tmp_path):
    with pytest.raises(ValueError, match="column"):
        StreamWriter(str(tmp_path / "s"), owner="Adam", columns=[])

    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("width", [1, 2, 3, 8, 401])
def test_pyarrow_reads_the_same(tmp_path, dtype, width):
    pa = pytest.importorskip("pyarrow", reason="the oracle pyarrow is not installed")
    rows = [(step, step / 2, [float(step + i) for i in range(width)]) for step in range(5)]
    rows[3][2][-1] = math.nan
    columns = [("param_norm", f"layer.{i}.weight") for i in range(width)]
    path = written(tmp_path / "s", dtype, columns, rows)

    with pa.ipc.open_stream(path.read_bytes()) as reader:
        table = reader.read_all()

    table.validate(full=True)
    mine = read_stream(path)
    assert table.schema.names == ["step", "t", "v"]
    assert table["step"].to_numpy().tolist() == mine.steps.tolist()
    assert table["t"].to_numpy().tolist() == mine.t.tolist()
    theirs = table["v"].combine_chunks().flatten().to_numpy().reshape(-1, width)
    assert theirs.tobytes() == mine.values.tobytes()
    told = json.loads(table.schema.metadata[b"nndiag"])
    assert told["schema"] == "nndiag.stream/1"
    assert told["columns"] == [list(pair) for pair in columns]


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_polars_reads_the_same(tmp_path, dtype):
    pl = pytest.importorskip("polars", reason="the oracle polars is not installed")
    path = written(tmp_path / "s", dtype)

    frame = pl.read_ipc_stream(path)

    mine = read_stream(path)
    assert frame["step"].to_list() == mine.steps.tolist()
    assert frame["t"].to_list() == mine.t.tolist()
    assert np.array_equal(frame["v"].to_numpy(), mine.values, equal_nan=True)


def test_pyarrow_sees_an_empty_stream_before_the_first_row(tmp_path):
    pa = pytest.importorskip("pyarrow", reason="the oracle pyarrow is not installed")
    path = written(tmp_path / "s", rows=[])

    assert pa.ipc.open_stream(path.read_bytes()).read_all().num_rows == 0
    assert read_stream(path).steps.size == 0


json_number = st.integers(-(2**53), 2**53) | st.floats()
json_value = st.recursive(
    st.none() | st.booleans() | json_number | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(st.text(), json_value, max_size=4), max_size=4))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_events_read_back_are_what_was_written(tmp_path_factory, found):
    path = tmp_path_factory.mktemp("run") / "events.jsonl"
    events = [{**event, "event": "metric"} for event in found]
    writer = EventWriter(str(path))
    for event in events:
        writer.append(event)
    writer.close()

    read, skipped = read_events(path)

    assert skipped == 0
    assert list(read) == [with_strings(event) for event in events]


def with_strings(value):
    """NaN and infinities as the contract spells them."""
    if isinstance(value, dict):
        return {key: with_strings(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [with_strings(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def test_an_event_of_strict_json_is_one_line(tmp_path):
    writer = EventWriter(str(tmp_path / "e"))
    writer.append({"event": "note", "text": "two\nlines \u2028 and \ud800", "value": math.nan})
    writer.close()

    [line] = (tmp_path / "e").read_text("ascii").splitlines()
    assert json.loads(line, parse_constant=pytest.fail)["value"] == "NaN"


def test_an_event_that_is_too_long_leaves_a_note_in_its_place(tmp_path):
    writer = EventWriter(str(tmp_path / "e"))
    writer.append({"event": "metric", "name": "x" * 70_000})
    writer.close()

    [event], skipped = read_events(tmp_path / "e")
    assert (event["event"], skipped) == ("note", 0)
    assert "metric" in event["text"]


def test_an_object_of_the_script_is_written_as_its_type_and_none_of_its_code_runs(tmp_path):
    class Hostile:
        def __repr__(self):
            raise RuntimeError("the user's code ran")

    write_json(str(tmp_path / "run.json"), {"schema": "nndiag.run/1", "settings": [Hostile()]})

    assert read_manifest(tmp_path / "run.json")["settings"] == ["<Hostile>"]


def test_a_json_file_is_replaced_as_a_whole_and_leaves_no_other_file(tmp_path):
    path = tmp_path / "process.json"
    for pid in (1, 2):
        write_json(str(path), {"schema": "nndiag.process/1", "pid": pid, "lr": math.inf})

    assert read_process(path) == {"schema": "nndiag.process/1", "pid": 2, "lr": "Infinity"}
    assert list(tmp_path.iterdir()) == [path]


def test_empty_stream_is_a_stream(tmp_path):
    stream = read_stream(written(tmp_path / "s", rows=[]))

    assert isinstance(stream, Stream)
    assert stream.values.shape == (0, 3)
