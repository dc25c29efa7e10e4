"""TensorBoard event files, as torch, tensorboardX, TensorFlow and Keras wrote them, and broken."""

import math
import os
import shutil
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nndiag.errors import UnreadableLog
from nndiag.readers.tensorboard import event_layout, event_scalars, tensorboard_events, tfrecord
from nndiag.readers.tensorboard.crc32c import masked_of, masked_of_rows
from nndiag.readers.tensorboard.event_scalars import EventFile

FIXTURES = Path(__file__).parent / "fixtures" / "tensorboard"
FILES = sorted(FIXTURES.rglob("*tfevents*"))
NAME = "events.out.tfevents.1700000000.host"
FIRST = 1.7e9  # seconds since 1970

# A few lines of protobuf, so that any bytes can be framed; the real writers' files are FIXTURES.


def number(value):
    out, value = bytearray(), value & (1 << 64) - 1
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def field(place, data):
    return number(place << 3 | 2) + number(len(data)) + data


def scalar(tag, value):
    return field(1, field(1, tag.encode()) + b"\x15" + struct.pack("<f", value))


def tensor(tag, content, plugin="scalars"):
    metadata = field(9, field(1, field(1, plugin.encode())))
    return field(1, field(1, tag.encode()) + field(8, content) + metadata)


def event(summary=b"", step=0, time=FIRST, more=b""):
    start = b"\x09" + struct.pack("<d", time) + (b"\x10" + number(step) if step else b"")
    return start + more + (field(5, summary) if summary else b"")


def frame(data):
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked_of(length)) + data + struct.pack("<I", masked_of(data))


VERSION = frame(event(more=field(3, b"brain.Event:2")))


def log_of(losses, first=0, time=FIRST, tag="loss"):
    """Frames of one loss a step."""
    return [frame(event(scalar(tag, x), first + i, time + i)) for i, x in enumerate(losses)]


def decoded(path):
    """[(tag, step, wall time, value)] in the order of writing."""
    file = EventFile(Path(path))
    found, _ = file.read()
    tags = [file.names[i] for i in found.tags]
    columns = tags, found.steps.tolist(), found.times.tolist(), found.values.tolist()
    return list(zip(*columns, strict=True))


def curve(run, metric):
    [series] = run.series_of(metric)
    return dict(zip(series.steps.tolist(), series.values.tolist(), strict=True))


def read(name, **more):
    return tensorboard_events.read(FIXTURES / name, **more)


def loss(step):
    return float(np.float32(1 / (1 + step)))


# What people log


def test_a_restart_overwrites_the_steps_that_it_repeats():
    run = read("torch_restart")
    losses = curve(run, "loss")

    assert (run.format, list(losses)) == ("tensorboard", list(range(100)))
    assert losses[39] == loss(39)
    assert losses[40] == float(np.float32(1 / 41 + 1))
    assert math.isnan(losses[70]) and losses[71] == math.inf
    assert list(curve(run, "val_loss")) == [0, 20, 40, 60, 80]
    assert "resumed once at an earlier step: the later values count; 20 left out" in run.notes


def test_what_is_no_scalar_is_left_out_and_counted():
    [said] = [note for note in read("torch_restart").notes if "no scalars" in note]

    assert said == (
        "left out, no scalars: 2 histograms, 6 images, 2 precision-recall curves, 2 texts"
    )


def test_a_file_that_is_named_is_read_alone():
    run = tensorboard_events.read(min((FIXTURES / "torch_restart").iterdir()))

    assert list(curve(run, "loss")) == list(range(60))


def test_add_scalars_gives_each_curve_its_name_and_add_hparams_none():
    run = read("torch_scalars")

    assert [series.name for series in run.series] == ["Loss/epoch/train", "Loss/epoch/val"]
    assert curve(run, "val_loss")[3] == float(np.float32(2 / 4))


def test_the_folders_of_tensorboardx_are_curves_too():
    run = read("tensorboardx")

    assert run.one("loss").name == "loss/train" and run.one("val_loss").name == "loss/val"
    assert len(run.one("grad_norm")) == 20


def test_tensors_of_one_number_are_scalars_whatever_their_type():
    run = read("tf2")
    values = {series.name: series.values for series in run.series}

    exact = 1 / (1 + np.arange(20.0))
    upper_half = np.uint32(0xFFFF0000)
    brain = (exact.astype(np.float32).view(np.uint32) + np.uint32(0x8000)) & upper_half
    assert list(values) == ["loss", "half", "brain", "double", "whole", "one"]
    assert values["loss"].tolist() == values["one"].tolist() == exact.astype(np.float32).tolist()
    assert values["half"].tolist() == exact.astype(np.float16).tolist()
    assert np.allclose(values["brain"], brain.view(np.float32), rtol=2**-8, atol=0)
    assert values["double"].tolist() == exact.tolist()
    assert values["whole"].tolist() == [-step for step in range(20)]
    assert any("20 histograms, 20 tensors, 20 texts" in note for note in run.notes)


def test_tensors_of_torch_are_scalars_in_single_and_double_precision():
    values = {series.name: series.values for series in read("torch_tensors").series}

    assert values["loss"].tolist() == [loss(step) for step in range(20)]
    assert values["exact/loss"].tolist() == [1 / (1 + step) for step in range(20)]


def test_the_eval_folder_of_an_estimator_is_the_validation():
    run = read("tf1")

    assert list(curve(run, "loss")) == list(range(0, 100, 5))
    assert curve(run, "val_loss") == {step: loss(step) for step in range(15, 100, 20)}


def test_train_and_validation_of_keras_are_one_run_in_steps():
    run = read("keras")

    assert run.one("loss").name == "train/batch_loss"
    assert run.one("val_loss").name == "val/epoch_loss"
    assert run.one("val_loss").steps.tolist() == [8, 16, 24, 32, 40, 48]


def test_validation_counted_in_epochs_is_put_where_the_training_was():
    run = read("epochs_beside_steps")

    assert curve(run, "val_loss") == {s: float(np.float32(2 / (1 + s))) for s in range(9, 50, 10)}
    assert any("counted in epochs" in note and "'val/loss'" in note for note in run.notes)


def test_a_validation_of_every_step_stays_where_it_is(log):
    frames = [VERSION]
    for step in range(30):
        frames += log_of([1.0], step, FIRST + step, "train/loss")
        frames += log_of([2.0], step, FIRST + step, "val/loss")
    run = tensorboard_events.read(log(NAME, b"".join(frames)))

    assert run.one("val_loss").steps.tolist() == list(range(30))


def test_a_run_of_the_hugging_face_trainer_is_blind_to_nan(log):
    text = tensor("args/text_summary", b"\x08\x07", "text")
    frames = [VERSION, frame(event(text)), *log_of([3, 2, 1], tag="train/loss")]
    run = tensorboard_events.read(log(NAME, b"".join(frames)))

    assert run.blind == ("loss non-finite",)
    assert any("logging_nan_inf_filter" in note for note in run.notes)


def test_the_order_is_that_of_the_clock_where_file_names_tell_none(log):
    log("run/a.tfevents", b"".join([VERSION, *log_of([5, 6, 7], 10, FIRST + 100)]))
    path = log("run/b.tfevents", b"".join([VERSION, *log_of([1, 2, 3], 8, FIRST)]))
    run = tensorboard_events.read(path.parent)

    assert curve(run, "loss") == {8: 1, 9: 2, 10: 5, 11: 6, 12: 7}


def test_several_processes_that_write_the_same_series_are_told_of(log):
    log(f"run/{NAME}.0", b"".join(log_of([3, 2, 1])))
    path = log(f"run/{NAME}.1", b"".join(log_of([3, 2, 1], time=FIRST + 0.5)))
    run = tensorboard_events.read(path.parent)

    assert any("several files hold 'loss' at the same time" in note for note in run.notes)


def test_values_of_one_step_that_come_twice_are_two_rows(log):
    frames = [frame(event(scalar("loss", i) + scalar("lr", i), 0)) for i in range(30)]
    run = tensorboard_events.read(log(NAME, b"".join(frames)))

    assert run.one("loss").values.tolist() == list(range(30))  # counted from 0
    assert run.one("lr").steps.tolist() == list(range(30))


def test_a_tag_called_global_step_does_not_take_the_place_of_the_step(log):
    rows = [frame(event(scalar("loss", 9 - i) + scalar("global_step", 5), i)) for i in range(9)]
    run = tensorboard_events.read(log(NAME, b"".join(rows)))

    assert [series.name for series in run.series] == ["loss"]
    assert run.one("loss").steps.tolist() == list(range(9))
    assert "left out: global_step: events have steps of their own" in run.notes


# Against TensorBoard's own reader


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(FIXTURES)) for path in FILES])
def test_all_values_are_those_of_tensorboard_bit_for_bit(path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    theirs = EventAccumulator(
        str(path), size_guidance={"scalars": 0, "tensors": 0}, purge_orphaned_data=False
    )
    theirs.Reload()
    expected = {
        tag: [(e.step, e.wall_time, e.value) for e in theirs.Scalars(tag)]
        for tag in theirs.Tags()["scalars"]
    }
    no_bfloat16 = {"brain"}  # TensorBoard makes no array of them without TensorFlow
    for tag in set(theirs.Tags()["tensors"]) - no_bfloat16:
        points = [(e.step, e.wall_time, make_ndarray(e.tensor_proto)) for e in theirs.Tensors(tag)]
        said = theirs.summary_metadata.get(tag)
        is_scalar = said is None or said.plugin_data.plugin_name in ("", "scalars")
        if is_scalar and all(array.size == 1 for _, _, array in points):
            expected[tag] = [(step, time, float(array.reshape(()))) for step, time, array in points]
    ours = {}
    for tag, step, time, value in decoded(path):
        if tag in no_bfloat16:
            continue
        ours.setdefault(tag, []).append((step, time, value))

    assert bits(ours) == bits(expected)


def bits(series):
    return {
        tag: [(step, time, struct.pack("<d", value)) for step, time, value in points]
        for tag, points in series.items()
    }


tags = st.text(min_size=1, max_size=12)
float32s = st.floats(width=32)
events = st.lists(
    st.tuples(
        st.lists(st.tuples(tags, float32s), min_size=1, max_size=3),
        st.integers(-(2**63), 2**63 - 1) | st.integers(0, 300),
        st.floats(allow_nan=False),
    ),
    max_size=60,
)


@settings(max_examples=100, deadline=None)
@given(events, st.sampled_from([1, 4, 10**9]), st.sampled_from([40, 1000, 1 << 24]))
def test_what_was_written_is_read_in_bulk_or_one_by_one(tmp_path_factory, written, fewest, chunk):
    path = tmp_path_factory.mktemp("events") / NAME
    frames = [
        frame(event(b"".join(scalar(*one) for one in values), step, time))
        for values, step, time in written
    ]
    path.write_bytes(b"".join([VERSION, *frames]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(event_scalars, "FEWEST", fewest)
        patch.setattr(tfrecord, "CHUNK", chunk)
        found = decoded(path)

    expected = [(tag, step, time, x) for values, step, time in written for tag, x in values]
    assert [one[:3] for one in found] == [one[:3] for one in expected]
    assert np.array_equal([one[3] for one in found], [one[3] for one in expected], equal_nan=True)


DTYPES = {  # DataType: (numpy's name, the field for single numbers)
    1: ("<f4", 5), 2: ("<f8", 6), 3: ("<i4", 7), 4: ("u1", 7), 5: ("<i2", 7), 6: ("i1", 7),
    9: ("<i8", 10), 10: ("u1", 11), 17: ("<u2", 7), 19: ("<f2", 13), 22: ("<u4", 16),
    23: ("<u8", 17),
}  # fmt: skip


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_tensor_is_read_from_its_content_and_from_its_own_field(dtype, packed, log):
    form, place = DTYPES[dtype]
    values = np.array([0, 1, 100], form)
    frames = []
    for step, value in enumerate(values):
        raw = value.tobytes()
        if form[1] == "f" and form != "<f2":
            own = (
                field(place, raw) if packed else number(place << 3 | (5 if place == 5 else 1)) + raw
            )
        else:
            as_number = number(int(value.view("<u2")) if form == "<f2" else int(value))
            own = field(place, as_number) if packed else number(place << 3) + as_number
        of_type = b"\x08" + number(dtype)
        frames.append(frame(event(tensor("content", of_type + field(4, raw)), step)))
        frames.append(frame(event(tensor("own", of_type + field(2, b"") + own), step)))
    found = decoded(log(NAME, b"".join(frames)))

    expected = [float(value) for value in values for _ in range(2)]
    assert [value for _, _, _, value in found] == expected


NO_SCALARS = {
    "of three numbers": b"\x08\x01" + field(5, bytes(12)),
    "of shape (3,)": b"\x08\x01" + field(2, field(2, b"\x08\x03")) + field(5, bytes(4)),
    "of unknown rank": b"\x08\x01" + field(2, b"\x18\x01") + field(5, bytes(4)),
    "of text": b"\x08\x07" + field(8, b"hello"),
    "of a type that does not exist": b"\x08\x63" + field(5, bytes(4)),
    "without a value": b"\x08\x01",
    "of too many bytes": b"\x08\x01" + field(4, bytes(5)),
    "whose value is of another type": b"\x08\x01" + field(6, bytes(8)),
}


@pytest.mark.parametrize("content", NO_SCALARS.values(), ids=NO_SCALARS)
def test_no_scalar_is_a_tensor(content, log):
    path = log(NAME, VERSION + frame(event(tensor("loss", content))))

    assert decoded(path) == []


def test_a_number_of_another_plugin_is_no_scalar_even_if_only_said_once(log):
    content = b"\x08\x01" + field(5, bytes(4))
    unsaid = field(1, field(1, b"x") + field(8, content))
    path = log(NAME, frame(event(tensor("x", content, "mesh"))) + frame(event(unsaid, 1)))

    assert decoded(path) == []
    with pytest.raises(UnreadableLog, match="only 2 meshes"):
        tensorboard_events.read(path)


# Which folder is a run


@pytest.fixture
def tree(tmp_path):
    """Event files at these places, and the folder that holds them."""

    def make(*places):
        for place in places:
            (tmp_path / place).mkdir(parents=True, exist_ok=True)
            shutil.copy(min((FIXTURES / "torch_tensors").iterdir()), tmp_path / place)
        return tmp_path

    return make


RUNS = {
    "event files": (".",),
    "event files and splits": (".", "train", "validation"),
    "splits": ("train", "validation"),
    "splits of gradient_tape": ("train", "test"),
    "event files and other runs": (".", "exp1"),
}
NO_RUNS = {
    "versions of Lightning": ("version_0", "version_1"),
    "several runs": ("exp1", "exp2"),
    "runs, one of them called train": ("train", "exp2"),
    "a project": ("runs/Jan01_host",),
    "runs with splits": ("exp1/train", "exp1/validation"),
    "a test without a training": ("test",),
    "a run called train": ("train",),
}


@pytest.mark.parametrize("places", RUNS.values(), ids=RUNS)
def test_a_run_is_a_folder_with(places, tree):
    assert tensorboard_events.recognises(tree(*places), b"")


@pytest.mark.parametrize("places", NO_RUNS.values(), ids=NO_RUNS)
def test_no_run_is_a_folder_with(places, tree):
    assert tensorboard_events.recognises(tree(*places), b"") is None


def test_the_folders_of_a_run_are_named_and_other_runs_are_not(tree):
    folder = tree(".", "train", "validation", "exp1", "1700000000.25")

    merged = tensorboard_events.merged_folders(folder)
    assert [path.name for path in merged] == ["1700000000.25", "train", "validation"]


@pytest.mark.parametrize(
    ("name", "merged"),
    [
        ("torch_scalars", ["1700000030.625", "Loss_epoch_train", "Loss_epoch_val"]),
        ("tensorboardx", ["loss"]),
        ("tf1", ["eval"]),
    ],
)
def test_curves_and_splits_are_folders_of_the_run(name, merged):
    assert [path.name for path in tensorboard_events.merged_folders(FIXTURES / name)] == merged


def test_equal_tags_of_two_folders_stay_apart(log):
    path = log(f"run/{NAME}", b"".join([VERSION, *log_of([1, 1, 1], tag="train/loss")]))
    log(f"run/train/{NAME}", b"".join([VERSION, *log_of([2, 2, 2], tag="loss")]))
    run = tensorboard_events.read(path.parent)

    assert {s.name: s.values.tolist() for s in run.series} == {
        "train/loss": [1, 1, 1], "train/loss (train)": [2, 2, 2],
    }  # fmt: skip


def test_a_tag_that_names_its_split_is_not_given_it_twice(log):
    path = log(f"run/train/{NAME}", b"".join(log_of([1, 1, 1], tag="train/loss")))
    log(f"run/validation/{NAME}", b"".join(log_of([2, 2, 2], tag="val/loss")))

    run = tensorboard_events.read(path.parent.parent)
    assert [series.name for series in run.series] == ["train/loss", "val/loss"]


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(FIXTURES)) for path in FILES])
def test_every_writer_is_recognised_by_its_first_bytes(path):
    assert tensorboard_events.recognises(Path("x"), path.read_bytes())


def test_a_file_that_begins_with_the_time_alone_is_told_by_its_name(log):
    """As old versions of tensorboardX begin it."""
    head = b"".join([frame(event()), *log_of([0.5, 0.4])])

    assert tensorboard_events.recognises(Path("events.out.tfevents.1559290445.host"), head)
    assert tensorboard_events.recognises(Path("x"), head) is None


OTHERS = {
    "a text": b"step,loss\n1,0.5\n",
    "a record file of examples": frame(field(1, field(1, b"image"))),
    "nothing but a length": VERSION[:8],
}


@pytest.mark.parametrize("head", OTHERS.values(), ids=OTHERS)
def test_it_does_not_recognise(head):
    assert tensorboard_events.recognises(Path("x"), head) is None


# What holds no loss

EMPTY = {
    "hp_metric_only": "holds only hp_metric",
    "nothing_logged": "nothing was logged into it",
}


@pytest.mark.parametrize("name", EMPTY)
def test_without_a_curve_the_error_says_what_is_in_it(name):
    with pytest.raises(UnreadableLog, match=EMPTY[name]):
        read(name)


def test_a_file_of_a_graph_alone_says_so(log):
    path = log(NAME, VERSION + frame(event(more=field(4, b"graph"))))

    with pytest.raises(UnreadableLog, match="holds no scalar, only 1 graph"):
        tensorboard_events.read(path)


def test_a_pointer_to_a_file_that_was_not_downloaded_says_so(log):
    text = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4242\n"
    path = log(f"run/{NAME}", text)

    assert tensorboard_events.recognises(path, text)
    for place in (path, path.parent):
        with pytest.raises(UnreadableLog, match="pointer of Git LFS"):
            tensorboard_events.read(place)


def test_an_empty_file_in_a_folder_says_so(log):
    with pytest.raises(UnreadableLog, match="is empty"):
        tensorboard_events.read(log(f"run/{NAME}", "").parent)


def test_a_folder_without_event_files_says_so(tmp_path):
    with pytest.raises(UnreadableLog, match="no event file"):
        tensorboard_events.read(tmp_path)


def test_a_file_in_a_folder_that_cannot_be_read_is_told_and_the_rest_is_read(log):
    path = log(f"run/{NAME}", b"".join([VERSION, *log_of([3, 2, 1])]))
    os.mkfifo(path.with_name(f"{NAME}.pipe"))
    (path.with_name(f"{NAME}.gone")).symlink_to("nowhere")

    assert curve(tensorboard_events.read(path.parent), "loss") == {0: 3, 1: 2, 2: 1}
    with pytest.raises(UnreadableLog, match="not a regular file"):
        tensorboard_events.read(path.with_name(f"{NAME}.pipe"))


def test_a_damaged_file_without_a_scalar_says_both(log):
    path = log(NAME, VERSION + bytes(5000))

    with pytest.raises(UnreadableLog) as error:
        tensorboard_events.read(path)
    assert error.value.what == (
        "nothing was logged into it (5000 bytes in 1 place belong to no record)"
    )


# Damage

SMALL = [VERSION, *log_of([5, 4, 3, 2, 1])]  # 310 bytes


@pytest.fixture(params=[1, 10**9], ids=["in bulk", "one by one"])
def fewest(request, monkeypatch):
    monkeypatch.setattr(event_scalars, "FEWEST", request.param)


def test_at_every_cut_the_whole_records_before_it_are_read(tmp_path, fewest):
    data, path = b"".join(SMALL), tmp_path / NAME
    ends = np.cumsum([len(one) for one in SMALL[1:]]) + len(VERSION)
    for cut in range(len(VERSION) + 1, len(data)):
        path.write_bytes(data[:cut])
        whole = int((ends <= cut).sum())
        assert [value for *_, value in decoded(path)] == [5, 4, 3, 2, 1][:whole]
        _, frames = EventFile(path).read()
        assert (frames.torn_bytes > 0) == (cut not in ends)


def test_a_cut_is_told(log):
    run = tensorboard_events.read(log(NAME, b"".join(SMALL)[:-1]))

    assert "the last record is cut off: left out" in run.notes


def test_every_flipped_bit_costs_one_record_and_is_told(tmp_path, fewest):
    data, path = b"".join(SMALL), tmp_path / NAME
    wanted = [5.0, 4.0, 3.0, 2.0, 1.0]
    for place in range(len(VERSION), len(data)):
        for bit in (place % 8, 7 - place % 8):
            broken = bytearray(data)
            broken[place] ^= 1 << bit
            path.write_bytes(broken)
            file = EventFile(path)
            found, frames = file.read()
            values = found.values.tolist()
            lost = set(wanted) - set(values)
            assert len(lost) == 1 and values == [x for x in wanted if x not in lost]
            assert file.damaged or frames.lost_bytes or frames.torn_bytes


def test_records_behind_lost_bytes_are_found_again(log):
    data = b"".join([VERSION, *log_of(range(100))])
    path = log(NAME, data[:1000] + data[1101:])
    values = [value for *_, value in decoded(path)]
    run = tensorboard_events.read(path)

    assert len(values) >= 96 and values == sorted(values)
    assert any("belong to no record" in note for note in run.notes)


@settings(max_examples=150, deadline=None)
@given(st.data(), st.sampled_from([40, 200, 1 << 24]))
def test_what_is_read_of_a_mangled_file_was_written_so(tmp_path_factory, data, chunk):
    """Cut, flipped, doubled, filled: whatever is done to the file, no number is made up."""
    parts = bytearray(b"".join([VERSION, *log_of(range(40))]))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(parts)))
        end = data.draw(st.integers(start, min(start + 300, len(parts))))
        parts[start:end] = data.draw(
            st.binary(max_size=40) | st.just(bytes(parts[start:end][::-1])) | st.just(bytes(99))
        )
    path = tmp_path_factory.mktemp("events") / NAME
    path.write_bytes(parts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tfrecord, "CHUNK", chunk)
        found = decoded(path)

    assert {(tag, step, time, value) for tag, step, time, value in found} <= {
        ("loss", i, FIRST + i, float(i)) for i in range(40)
    }


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_mangled_message_in_a_right_frame_gives_a_run_or_one_error(tmp_path_factory, data):
    content = b"\x08\x01" + field(2, field(2, b"\x08\x01")) + field(5, bytes(4))
    seeds = [
        event(scalar("loss", 1.0) + scalar("lr", 2.0), 300), event(tensor("loss", content), 3),
        event(more=field(3, b"brain.Event:2")), event(tensor("text", content, "text")),
    ]  # fmt: skip
    frames = []
    for _ in range(data.draw(st.integers(1, 20))):
        message = bytearray(data.draw(st.sampled_from(seeds)))
        for _ in range(data.draw(st.integers(0, 3))):
            place = data.draw(st.integers(0, len(message) - 1))
            message[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
        frames.append(frame(bytes(message)))
    path = tmp_path_factory.mktemp("events") / NAME
    path.write_bytes(b"".join(frames))
    runs = []
    with pytest.MonkeyPatch.context() as patch:
        for fewest in (1, 10**9):
            patch.setattr(event_scalars, "FEWEST", fewest)
            try:
                runs.append(tensorboard_events.read(path))
            except UnreadableLog as error:
                runs.append(str(error))
    assert repr(runs[0]) == repr(runs[1])  # in bulk, and one by one


LENGTHS = [2**24, 2**31, 2**40, 2**63, 2**64 - 1, 10**6]


@pytest.mark.parametrize("length", LENGTHS)
def test_memory_is_not_taken_by_a_length_that_lies(length, log):
    header = struct.pack("<Q", length)
    lie = header + struct.pack("<I", masked_of(header))
    path = log(NAME, b"".join(SMALL) + lie + b"abc" * 10)
    decoded(path)  # numpy and our tables are loaded
    tracemalloc.start()
    values = [value for *_, value in decoded(path)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert values == [5, 4, 3, 2, 1] and peak < tfrecord.CHUNK + (4 << 20)


def test_a_record_too_long_to_hold_is_passed_over(tmp_path):
    path, length = tmp_path / NAME, tfrecord.MAX_RECORD + 1
    header = struct.pack("<Q", length)
    with path.open("wb") as file:
        file.write(b"".join(SMALL) + header + struct.pack("<I", masked_of(header)))
        file.seek(length + 4, os.SEEK_CUR)
        file.write(b"".join(log_of([9, 8], 5, FIRST + 5)))
    run = tensorboard_events.read(path)

    assert list(curve(run, "loss").values()) == [5, 4, 3, 2, 1, 9, 8]
    assert "1 records above 15 MiB left out" in run.notes


def test_a_message_of_many_empty_values_takes_little_memory(log):
    path = log(NAME, VERSION + frame(event(b"\x0a\x00" * 200_000)))
    tracemalloc.start()
    found = decoded(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert found == [] and peak < 32 << 20


def test_of_a_message_with_too_many_scalars_the_first_are_kept(log):
    count = event_layout.MAX_SCALARS + 5
    run = tensorboard_events.read(log(NAME, frame(event(scalar("loss", 1.0) * count, 1))))

    assert any("5 values left out" in note for note in run.notes)


def test_names_beyond_the_limit_are_left_out_and_counted(log):
    frames = [frame(event(scalar(f"layer.{i}", 1.0))) for i in range(event_scalars.MAX_COLUMNS)]
    run = tensorboard_events.read(log(NAME, b"".join([*SMALL, *frames])))

    assert any("1 values left out" in note for note in run.notes)
    assert len(run.one("loss")) == 5


def test_checksums_are_those_of_the_standard():
    # RFC 3720, B.4; with TFRecord's mask
    def mask(crc):
        return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF

    known = {bytes(32): 0x8A9136AA, b"\xff" * 32: 0x62A8AB43, bytes(range(32)): 0x46DD794E}
    assert {data: masked_of(data) for data in known} == {d: mask(crc) for d, crc in known.items()}
    assert masked_of(b"123456789") == mask(0xE3069283)


@given(st.binary(max_size=3000))
def test_a_checksum_is_the_same_by_bytes_and_by_rows(data):
    rows = np.frombuffer(data * 2, np.uint8).reshape(2, len(data))

    assert masked_of_rows(rows).tolist() == [masked_of(data)] * 2
