"""A cut or a flipped bit costs the rows it touches, and is counted; nothing else is lost."""

from __future__ import annotations

import os
import random
import socket
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nndiag.errors import UnreadableLog
from nndiag.journal.format import RecordEncoder, schema_message, stream_metadata
from nndiag.journal.reader import (
    open_run,
    read_events,
    read_manifest,
    read_process,
    read_stream,
)
from nndiag.journal.stream import decode_stream

COLUMNS = [("loss", ""), ("backward_calls", ""), ("lr", "")]
HEADER = schema_message(3, stream_metadata("Adam", COLUMNS), "f8")
ENCODER = RecordEncoder(3, "f8")
ROWS = [(step, step / 8, [1 / (step + 1), 1.0, 0.1]) for step in range(6)]
WHOLE = HEADER + b"".join(ENCODER.encode(*row) for row in ROWS)


def rows_of(content: bytes) -> list[tuple[int, float, list[float]]]:
    stream = decode_stream(content, "a stream")
    return list(zip(stream.steps.tolist(), stream.t.tolist(), stream.values.tolist(), strict=True))


def test_a_stream_cut_anywhere_keeps_every_row_before_the_cut():
    for end in range(len(HEADER), len(WHOLE) + 1):
        stream = decode_stream(WHOLE[:end], "a stream")

        whole, torn = divmod(end - len(HEADER), ENCODER.size)
        assert rows_of(WHOLE[:end]) == ROWS[:whole]
        assert (stream.torn_bytes, stream.damaged_records) == (torn, 0)


def test_a_header_cut_anywhere_is_unreadable_or_has_no_row():
    for end in range(len(HEADER)):
        try:
            assert rows_of(WHOLE[:end]) == []
        except UnreadableLog as problem:
            assert "header" in problem.what


def test_a_flipped_bit_in_a_row_costs_that_row_and_is_counted():
    for place in range(len(HEADER), len(WHOLE)):
        for bit in range(8):
            damaged = flipped(WHOLE, place, bit)

            stream = decode_stream(damaged, "a stream")

            hit = (place - len(HEADER)) // ENCODER.size
            expected = [row[0] for row in ROWS if row[0] != hit]
            assert stream.steps.tolist() == expected, (place, bit)
            assert (stream.torn_bytes, stream.damaged_records) == (0, 1)


def test_a_flipped_bit_in_the_header_costs_no_row_or_makes_the_stream_unreadable():
    readable = 0
    for place in range(len(HEADER)):
        for bit in range(8):
            try:
                stream = decode_stream(flipped(WHOLE, place, bit), "a stream")
            except UnreadableLog:
                continue
            if len(stream.columns) == 3:
                readable += 1
                assert stream.steps.tolist() == [0, 1, 2, 3, 4, 5], (place, bit)
    assert readable > len(HEADER) * 8 / 2  # only the names and their brackets are beyond repair


def flipped(content: bytes, place: int, bit: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]


@pytest.mark.parametrize("size", [1, 7, 8, 100, ENCODER.size, 1000])
def test_rows_after_foreign_bytes_are_found_again(size):
    middle = len(HEADER) + 2 * ENCODER.size
    foreign = random.Random(size).randbytes(size)

    stream = decode_stream(WHOLE[:middle] + foreign + WHOLE[middle:], "a stream")

    assert stream.steps.tolist() == [0, 1, 2, 3, 4, 5]
    assert stream.damaged_records == -(-size // ENCODER.size)


@pytest.mark.parametrize("lost", [1, 7, 8, 100, ENCODER.size - 1, ENCODER.size + 1, 1000])
def test_rows_after_a_hole_are_found_again(lost):
    middle = len(HEADER) + ENCODER.size + 20

    stream = decode_stream(WHOLE[:middle] + WHOLE[middle + lost :], "a stream")

    touched = range(1, 1 + -(-(20 + lost) // ENCODER.size))
    assert stream.steps.tolist() == [step for step in range(6) if step not in touched]
    assert stream.damaged_records >= 1


def test_blocks_of_zeros_that_a_power_cut_leaves_are_no_rows():
    end = len(HEADER) + 2 * ENCODER.size

    stream = decode_stream(WHOLE[:end] + bytes(4 * ENCODER.size), "a stream")

    assert stream.steps.tolist() == [0, 1]
    assert stream.damaged_records == 4


@given(st.binary(max_size=300), st.integers(0, len(WHOLE)), st.integers(0, 300))
@settings(max_examples=500, deadline=None)
def test_any_bytes_are_a_stream_or_unreadable(inserted, place, removed):
    try:
        decode_stream(WHOLE[:place] + inserted + WHOLE[place + removed :], "a stream")
    except UnreadableLog as problem:
        assert problem.where == "a stream"
        assert problem.what


def test_what_a_newer_minor_version_adds_is_ignored():
    metadata = stream_metadata("Adam", COLUMNS)
    text = metadata["nndiag"].replace("nndiag.stream/1", "nndiag.stream/1.4")
    told = {"pandas": "{}", "nndiag": text[:-1] + ', "clock": "monotonic"}'}

    stream = decode_stream(schema_message(3, told, "f8") + WHOLE[len(HEADER) :], "a stream")

    assert stream.steps.tolist() == [0, 1, 2, 3, 4, 5]


def test_a_newer_major_version_is_refused_by_name():
    told = {"nndiag": '{"schema": "nndiag.stream/2", "rows": "compressed"}'}

    with pytest.raises(UnreadableLog, match="stream format 2 is not known, only 1") as caught:
        decode_stream(schema_message(3, told, "f8"), "a stream")

    assert "nndiag that wrote it" in caught.value.do


BAD_HEADERS = {
    "no columns": '{"schema": "nndiag.stream/1", "owner": "Adam", "columns": []}',
    "no owner": '{"schema": "nndiag.stream/1", "columns": [["loss", ""]]}',
    "a column of three": '{"schema": "nndiag.stream/1", "owner": "", "columns": [["a", "b", "c"]]}',
    "a column of numbers": '{"schema": "nndiag.stream/1", "owner": "", "columns": [[1, 2]]}',
    "broken JSON": '{"schema": "nndiag.stream/1", "owner": ',
    "deep JSON": '{"schema": "nndiag.stream/1", "columns": ' + "[" * 100_000,
    "a huge number": '{"schema": "nndiag.stream/1", "columns": ' + "9" * 10_000 + "}",
}


@pytest.mark.parametrize("text", BAD_HEADERS.values(), ids=BAD_HEADERS)
def test_unreadable_is_a_header_with(text):
    with pytest.raises(UnreadableLog):
        decode_stream(schema_message(3, {"nndiag": text}, "f8") + WHOLE[len(HEADER) :], "a stream")


# -- events


EVENTS = b'{"event":"note","text":"a"}\n{"event":"note","text":"b"}\n{"event":"note","text":"c"}\n'


def test_events_cut_anywhere_keep_all_whole_lines(tmp_path):
    path = tmp_path / "events.jsonl"
    for end in range(len(EVENTS)):
        path.write_bytes(EVENTS[:end])

        events, skipped = read_events(path)

        whole = EVENTS[:end].count(b"\n")
        assert [event["text"] for event in events][:whole] == ["a", "b", "c"][:whole]
        assert len(events) + skipped == whole + (not EVENTS[:end].endswith(b"\n") and end > 0)


GARBAGE = {
    "no JSON": b"hello",
    "no object": b"[1, 2]",
    "no event": b'{"text": "a"}',
    "a nameless event": b'{"event": 3}',
    "no text at all": bytes(range(128, 256)),
    "depth": b"[" * 60_000,
    "a line beyond the limit": b'{"event": "note", "text": "' + b"x" * 70_000 + b'"}',
    "a number beyond the limit": b'{"event": "metric", "step": ' + b"9" * 10_000 + b"}",
}


@pytest.mark.parametrize("line", GARBAGE.values(), ids=GARBAGE)
def test_events_around_it_survive(tmp_path, line):
    path = tmp_path / "events.jsonl"
    path.write_bytes(EVENTS + line + b"\n" + EVENTS)

    events, skipped = read_events(path)

    assert (len(events), skipped) == (6, 1)


# -- files and folders


def not_a_file(tmp_path, kind):
    path = tmp_path / kind
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "link":
        (tmp_path / "target").write_bytes(WHOLE)
        path.symlink_to(tmp_path / "target")
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(os.path.relpath(path))  # the path of a socket is short
    return path


@pytest.mark.parametrize("kind", ["missing", "folder", "fifo", "link", "socket"])
@pytest.mark.parametrize("read", [read_stream, read_events, read_manifest, read_process])
@pytest.mark.timeout(20)  # opening a FIFO can wait for ever
def test_only_regular_files_are_opened(tmp_path, monkeypatch, kind, read):
    monkeypatch.chdir(tmp_path)

    with pytest.raises(UnreadableLog) as caught:
        read(not_a_file(tmp_path, kind))

    assert kind in caught.value.where


JSON_FILES = {
    "empty": b"",
    "another tool's": b'{"schema": "frictionless/1"}',
    "no object": b"[]",
    "torn": b'{"schema": "nndiag.run/1", "sta',
    "a newer major version": b'{"schema": "nndiag.run/2"}',
    "not text": b"\xff\xfe\x00",
    "deep": b"[" * 200_000,
}


@pytest.mark.parametrize("content", JSON_FILES.values(), ids=JSON_FILES)
def test_unreadable_is_a_manifest_that_is(tmp_path, content):
    (tmp_path / "run.json").write_bytes(content)

    with pytest.raises(UnreadableLog):
        read_manifest(tmp_path / "run.json")
    with pytest.raises(UnreadableLog):
        open_run(tmp_path)


def test_a_run_opens_by_its_ranks_where_its_manifest_is_missing(tmp_path):
    for name in ("rank-10", "rank-2", "rank-x", "other"):
        (tmp_path / name).mkdir()
    for name in ("steps-10.arrows", "steps-9.arrows", "layers-0.arrows", "steps-1.arrows.tmp"):
        (tmp_path / "rank-2" / name).write_bytes(WHOLE)
    (tmp_path / "rank-3").symlink_to(tmp_path / "rank-2")

    journal = open_run(tmp_path)

    assert journal.manifest == {}
    assert [rank.rank for rank in journal.ranks] == [2, 10]
    names = [os.path.basename(path) for path in journal.ranks[0].step_files]
    assert names == ["steps-9.arrows", "steps-10.arrows"]
    assert len(journal.ranks[0].layer_files) == 1


@pytest.mark.parametrize("path", ["missing", "a\0b"])
def test_what_is_no_folder_is_unreadable(tmp_path, path):
    with pytest.raises(UnreadableLog):
        open_run(tmp_path / path)


def test_a_stream_that_is_still_growing_is_read_up_to_its_newest_whole_row(tmp_path):
    path = tmp_path / "s"
    done = threading.Event()

    def write():
        with open(path, "ab", buffering=0) as file:
            for step in range(20_000):
                file.write(ENCODER.encode(step, 0.0, [0.0, 0.0, 0.0]))
        done.set()

    path.write_bytes(HEADER)
    threading.Thread(target=write).start()
    while not done.is_set():
        stream = read_stream(path)
        assert np.array_equal(stream.steps, np.arange(len(stream.steps)))
        assert stream.damaged_records == 0
    assert len(read_stream(path).steps) == 20_000
