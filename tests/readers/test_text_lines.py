"""Lines of files of any kind: compressed, without an end, in any encoding, larger than memory."""

import bz2
import gzip
import lzma
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from nndiag.errors import UnreadableLog
from nndiag.readers.formats import csv_table, json_lines, plain_text
from nndiag.readers.lines import compression, text_lines
from nndiag.readers.lines.text_lines import (
    TextLines,
    head_of,
    open_regular,
    suffix_of,
    uncompressed_name,
)

TABLE = "step,loss\n" + "".join(f"{i},{1 / (i + 1):.6f}\n" for i in range(5000))


def zstd(data: bytes) -> bytes:
    pyarrow = pytest.importorskip("pyarrow")
    return pyarrow.compress(data, codec="zstd", asbytes=True)


def xz(data: bytes) -> bytes:
    return lzma.compress(data, preset=0)


COMPRESSIONS = {"gz": gzip.compress, "bz2": bz2.compress, "xz": xz, "zst": zstd}


def lines_in(path, limit=1 << 20):
    lines = TextLines(path, limit)
    return list(lines), lines


@pytest.mark.parametrize("suffix", COMPRESSIONS)
def test_a_compressed_log_is_read_like_the_log(suffix, log):
    path = log(f"metrics.csv.{suffix}", COMPRESSIONS[suffix](TABLE.encode()))

    assert csv_table.recognises(path, head_of(path))
    run = csv_table.read(path)
    assert run.one("loss").steps.tolist() == list(range(5000))
    assert not [note for note in run.notes if "cut off" in note]


@pytest.mark.parametrize("suffix", COMPRESSIONS)
def test_what_is_inside_counts_and_not_the_name(suffix, log):
    path = log("metrics.csv", COMPRESSIONS[suffix](TABLE.encode()))

    assert lines_in(path)[0] == TABLE.splitlines()


@pytest.mark.parametrize("suffix", COMPRESSIONS)
def test_a_log_that_was_compressed_piece_by_piece_is_read_to_its_end(suffix, log):
    half = TABLE.encode()
    path = log("log", COMPRESSIONS[suffix](half) + COMPRESSIONS[suffix](half))

    assert lines_in(path)[0] == 2 * TABLE.splitlines()


@pytest.mark.parametrize(
    ("reader", "text"),
    [
        (csv_table, TABLE),
        (json_lines, "".join(f'{{"step": {i}, "loss": {1 / (i + 1)}}}\n' for i in range(5000))),
        (plain_text, "".join(f"step {i} loss {1 / (i + 1)}\n" for i in range(5000))),
    ],
    ids=["csv", "jsonl", "text"],
)
def test_a_torn_gzip_is_read_as_far_as_it_goes_and_says_so(reader, text, log):
    whole = gzip.compress(text.encode())
    run = reader.read(log("log.gz", whole[: len(whole) // 2]))

    assert 1000 < len(run.one("loss")) < 5000
    assert "the gzip data are cut off: read as far as they go" in run.notes


@pytest.mark.parametrize("suffix", COMPRESSIONS)
def test_any_torn_compression_gives_what_is_there(suffix, log):
    text = "".join(f"step {i} loss {i * i % 100003}\n" for i in range(200_000))
    whole = COMPRESSIONS[suffix](text.encode())
    found, source = lines_in(log("log", whole[: len(whole) // 2]))

    assert 50_000 < len(found) < 150_000
    assert found[:-1] == text.splitlines()[: len(found) - 1]
    assert "cut off" in source.damage


@pytest.mark.parametrize("suffix", COMPRESSIONS)
def test_a_damaged_log_is_not_read_as_if_it_were_right(suffix, log):
    lines = "".join(f"step {i} loss {i * i % 100003}\n" for i in range(20_000))
    data = bytearray(COMPRESSIONS[suffix](lines.encode()))
    data[len(data) // 2 : len(data) // 2 + 64] = b"\xff" * 64

    with pytest.raises(UnreadableLog, match="damaged"):
        lines_in(log("log", bytes(data)))


@pytest.mark.parametrize("suffix", ["gz", "bz2", "xz"])
def test_nothing_but_the_first_bytes_of_a_compression_is_one_clear_error(suffix, log):
    path = log("log", COMPRESSIONS[suffix](TABLE.encode())[:14])

    with pytest.raises(UnreadableLog, match=r"cut off|damaged"):
        lines_in(path)


def test_a_bomb_is_refused(log, monkeypatch):
    monkeypatch.setattr(compression, "UNSUSPICIOUS", 1 << 20)
    monkeypatch.setattr(compression, "MOST_TIMES", 100)
    path = log("log.gz", gzip.compress(b"step 1 loss 0.5\n" * 500_000))

    with pytest.raises(UnreadableLog, match="expands to more than") as caught:
        lines_in(path)
    assert "decompress it" in caught.value.do


def test_no_file_gives_more_than_the_limit_of_bytes(log, monkeypatch):
    monkeypatch.setattr(compression, "MOST", 100_000)
    path = log("log.xz", lzma.compress(TABLE.encode() * 3))

    with pytest.raises(UnreadableLog, match="expands to more than"):
        lines_in(path)


def test_an_xz_that_wants_gigabytes_of_memory_is_refused(log):
    data = bytearray(lzma.compress(TABLE.encode()))
    at = data.index(0x21, 12)  # the id of the filter, the size of its settings: one byte
    data[at + 2] = 36  # the code of a dictionary of 1 GiB
    end = 12 + (data[12] + 1) * 4  # of the header of the block, which ends with its checksum
    data[end - 4 : end] = zlib.crc32(data[12 : end - 4]).to_bytes(4, "little")

    with pytest.raises(UnreadableLog, match=r"[Mm]emory"):
        lines_in(log("log.xz", bytes(data)))


def test_without_a_library_zstd_names_what_to_install(log, monkeypatch):
    path = log("log.zst", b"\x28\xb5\x2f\xfd" + bytes(20))
    monkeypatch.setitem(sys.modules, "zstandard", None)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "compression", None)

    with pytest.raises(UnreadableLog) as caught:
        lines_in(path)
    assert "pip install zstandard" in caught.value.do


def test_a_compressed_file_can_only_be_read_forward(log):
    with open_regular(log("log.gz", gzip.compress(b"abc"))) as file:
        assert not file.seekable()
        assert file.read(2) == b"ab"
        assert file.read(9) == b"c"


def test_names_of_compressed_logs():
    assert uncompressed_name(Path("a/Metrics.CSV.gz")) == "Metrics.CSV"
    assert suffix_of(Path("a/Metrics.CSV.gz")) == ".csv"
    assert suffix_of(Path("train.log")) == ".log"


ENDS = {
    "unix": b"a\nb\nc\n",
    "windows": b"a\r\nb\r\nc\r\n",
    "a progress bar": b"a\rb\rc\r",
    "no last end": b"a\nb\nc",
    "zero bytes": b"\0a\nb\0\nc\n\0\0\0\0",
    "a byte order mark": b"\xef\xbb\xbfa\nb\nc\n",
    "UTF-16": "a\r\nb\r\nc\r\n".encode("utf-16"),
    "UTF-32": "a\nb\nc\n".encode("utf-32"),
}


@pytest.mark.parametrize("size", [1, 1 << 20], ids=["tiny blocks", "one block"])
@pytest.mark.parametrize("content", ENDS.values(), ids=ENDS)
def test_lines_end_where_the_file_says(content, size, log, monkeypatch):
    monkeypatch.setattr(text_lines, "BLOCK_BYTES", size)
    found, source = lines_in(log("log", content))

    assert found == ["a", "b", "c"]
    assert source.ends_torn == (content == ENDS["no last end"])


@pytest.mark.parametrize("lengths", [(3, 500_000, 3), (500_000,), (3, 500_000), (100, 101, 99)])
@pytest.mark.parametrize("end", ["\n", ""], ids=["ended", "torn"])
def test_of_a_line_above_the_limit_the_beginning_is_given(lengths, end, log):
    text = "\n".join(str(i) * length for i, length in enumerate(lengths)) + end
    found, source = lines_in(log("log", text), limit=100)

    assert found == [str(i) * min(length, 100) for i, length in enumerate(lengths)]
    assert source.cut == sum(length > 100 for length in lengths)
    assert source.ends_torn == (end == "")


@pytest.mark.parametrize(
    "content",
    [
        "b'step 1 loss 0.5 ' * 65536",  # no end of line in 160 MB
        "b'step 1 loss 0.5 ' + b'x' * 10_000_000 + b'\\n'",
        'b\'{"step": 1, "loss": 0.5, "note": "\' + b\'x\' * 10_000_000 + b\'"}\\n\'',
    ],
    ids=["no line end", "long lines", "long JSON lines"],
)
@pytest.mark.parametrize("reader", ["plain_text", "json_lines", "csv_table"])
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc")
def test_memory_stays_small_whatever_the_lines_are(reader, content, tmp_path):
    path = tmp_path / "train.log"
    program = f"""
from pathlib import Path
from nndiag.errors import UnreadableLog
from nndiag.readers.formats import {reader}
try:
    {reader}.read(Path({str(path)!r}))
except UnreadableLog:
    pass
[peak] = [s.split()[1] for s in open("/proc/self/status") if s.startswith("VmHWM")]
print(int(peak) // 1024)
"""
    piece = eval(content)
    with path.open("wb") as file:
        for _ in range((160 << 20) // len(piece)):
            file.write(piece)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    path.unlink()

    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 250  # MiB; a JSON document may take 128 MiB before it is refused
