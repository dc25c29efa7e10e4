"""No bytes, whatever they are, get more out of a reader than a run or one typed error.

The rule and the mutations are those of `python -m tests.fuzz`, which tries many more inputs.
"""

from __future__ import annotations

import ast
import bz2
import gzip
import importlib
import inspect
import json
import lzma
import pkgutil
import random
import re
import struct
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import nndiag.readers
import nndiag.vocabulary
from nndiag.detectors import catalogue as detectors
from nndiag.errors import UnreadableLog
from nndiag.readers.catalogue import READERS
from nndiag.readers.tables.rows import MAX_DEPTH, MAX_FIELDS, measurements
from tests.fuzz.judge import PATIENCE, READ, Fault, Judge
from tests.fuzz.mutations import NUMBERS, TOKENS
from tests.fuzz.patterns import attacks
from tests.fuzz.seeds import Seed, mutant, seeds_of
from tests.fuzz.stage import Stage

Write = Callable[..., Path]

BY_NAME = {reader.name: reader for reader in READERS}
every_reader = pytest.mark.parametrize("reader", BY_NAME)
TEXTUAL = ("csv", "jsonl", "text", "hf-trainer-state")
textual_reader = pytest.mark.parametrize("reader", TEXTUAL)

MUTANTS = 40  # of each reader; python -m tests.fuzz tries 100 000
CUTS = 60  # of each reader at most
FLIPS = 60


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage() as stage:
        yield stage


def judge(reader: str | None, *, diagnoses: bool = True) -> Judge:
    return Judge(BY_NAME[reader] if reader else None, detectors.every() if diagnoses else ())


def outcome(path: Path, reader: str | None = None) -> str:
    """What came of it; `Fault` is raised where the rule was broken."""
    return judge(reader).judged(path)


@every_reader
def test_mutants_of_sound_logs_give_a_run_or_one_typed_error(reader: str, stage: Stage) -> None:
    told, judging = set(), judge(reader)
    for index in range(MUTANTS):
        rng = random.Random(f"suite/{reader}/{index}")
        given_ = mutant(rng.choice(seeds_of(reader)), rng, stage.scratch)
        told.add(judging.judged(stage.place(given_)))

    assert any(one.startswith(READ) for one in told)  # mutants that all end at the door test a door


@every_reader
def test_a_sound_seed_is_read(reader: str, stage: Stage) -> None:
    told = [judge(reader).judged(stage.place(seed)) for seed in seeds_of(reader)]

    assert any(one.startswith(READ) for one in told)


def smallest(reader: str) -> tuple[Seed, str, bytes]:
    """A seed that is read, one of its files, and its content: the file that holds most."""
    seed = min(seeds_of(reader), key=lambda seed: sum(map(len, seed.files.values())))
    name = seed.entry or max(seed.files, key=lambda name: len(seed.files[name]))
    content = seed.files[name]
    assert isinstance(content, bytes)
    return seed, name, content


@every_reader
def test_a_log_may_be_cut_anywhere(reader: str, stage: Stage) -> None:
    seed, name, content = smallest(reader)
    judging = judge(reader, diagnoses=False)
    for end in range(0, len(content), -(-len(content) // CUTS)):
        judging.judged(stage.place(replace(seed, files={**seed.files, name: content[:end]})))


@every_reader
def test_any_bit_may_be_wrong(reader: str, stage: Stage) -> None:
    seed, name, content = smallest(reader)
    judging, rng = judge(reader, diagnoses=False), random.Random(reader)
    places = range(min(len(content), 64)) if len(content) > FLIPS else range(len(content))
    for at in [*places, *(rng.randrange(len(content)) for _ in range(FLIPS - len(places)))]:
        flipped = bytearray(content)
        flipped[at] ^= 1 << rng.randrange(8)
        judging.judged(stage.place(replace(seed, files={**seed.files, name: bytes(flipped)})))


@every_reader
def test_a_declared_length_is_not_believed(reader: str, stage: Stage) -> None:
    seed, name, content = smallest(reader)
    judging = judge(reader, diagnoses=False)
    for at in range(min(len(content), 24)):
        for size in (2**31 - 1, 2**64 - 1):
            packed = struct.pack("<Q", size)[: 4 if size < 2**32 else 8]
            wrong = content[:at] + packed + content[at + len(packed) :]
            judging.judged(stage.place(replace(seed, files={**seed.files, name: wrong})))


@pytest.fixture
def place(tmp_path: Path) -> Write:
    def write(name: str, content: bytes | str) -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


quick = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=6)
    | st.sampled_from(["loss", "NaN", "val", "step"]),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(
        st.sampled_from(["loss", "step", "epoch", "mode", "name", "value", "values", "0", "1"])
        | st.text(max_size=4), inner, max_size=5,
    ),
    max_leaves=20,
)  # fmt: skip


@textual_reader
@quick
@given(content=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_have_an_outcome(reader: str, content: bytes, place: Write) -> None:
    outcome(place("any.log", content), reader)


@pytest.mark.parametrize("reader", ["jsonl", "hf-trainer-state"])
@quick
@given(document=JSON_VALUES)
def test_any_json_has_an_outcome(reader: str, document: object, place: Write) -> None:
    outcome(place("any.json", json.dumps(document)), reader)
    outcome(place("any.json", json.dumps({"log_history": [document, document]})), reader)
    outcome(place("any.json", (json.dumps({"loss": document}) + "\n") * 3), reader)


CELL = st.sampled_from([token.decode("latin-1") for token in (*NUMBERS, *TOKENS)]) | st.text(
    max_size=5
)


@pytest.mark.parametrize("reader", ["csv", "text"])
@quick
@given(
    header=st.lists(st.sampled_from(["step", "loss", "val_loss", "epoch", "lr", ""]), max_size=5),
    rows=st.lists(st.lists(CELL | st.floats().map(str), max_size=5), max_size=8),
    delimiter=st.sampled_from([",", "\t", ";", " ", ": "]),
)
def test_any_table_has_an_outcome(
    reader: str, header: list[str], rows: list[list[str]], delimiter: str, place: Write
) -> None:
    lines = [delimiter.join(cells) for cells in (header, *rows)]
    outcome(place("any.csv", "\n".join(lines).encode("utf-8", "surrogatepass")), reader)


MIB = 1 << 20
LONG_LINES = {
    "one letter": b"a" * (10 * MIB),
    "one digit": b"7" * (10 * MIB),
    "opening brackets": b"[" * (10 * MIB),
    "opening objects": b'{"a":' * (2 * MIB),
    "NULs": b"\0" * (10 * MIB),
    "a quote never closed": b'step,loss\n1,"' + b"0.5,1\n" * (MIB // 4),
    "many cells": b"step,loss\n" + b"1," * (5 * MIB),
    "many columns": b",".join(b"c%d" % i for i in range(200_000)) + b"\n" + b"1," * 200_000,
    "many measurements": b"step 1 loss 0.5 " * (MIB // 2),
    "spaces": b"loss" + b" " * (10 * MIB) + b"0.5",
    "escapes": b"\x1b[" * (5 * MIB),
    "empty objects": b"{}," * (3 * MIB),
    "escaped surrogates": b'{"loss": "' + b"\\ud800" * MIB + b'"}',
}


@textual_reader
@pytest.mark.parametrize("content", LONG_LINES.values(), ids=LONG_LINES)
def test_a_line_of_ten_megabytes_has_an_outcome(
    reader: str, content: bytes, place: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    # other tests may keep the machine busy: the time is that of this process
    monkeypatch.setattr("tests.fuzz.judge.PATIENCE", 20.0)
    started = time.process_time()
    outcome(place("long.log", content), reader)

    assert time.process_time() - started < PATIENCE


DEEP = {
    "lists": "[" * 100_000,
    "lists, closed": "[" * 100_000 + "]" * 100_000,
    "objects": '{"a":' * 100_000 + "1" + "}" * 100_000,
    "in a record": '{"loss": ' + "[" * 100_000 + "]" * 100_000 + "}",
    "in a history": '{"log_history": ' + "[" * 100_000 + "]" * 100_000 + "}",
    "just below the limit": '{"step": 1, "loss": ' + '{"a":' * 900 + "1" + "}" * 900 + "}",
}


@textual_reader
@pytest.mark.parametrize("text", DEEP.values(), ids=DEEP)
def test_deep_json_has_an_outcome(reader: str, text: str, place: Write) -> None:
    outcome(place("deep.json", text), reader)
    outcome(place("deep.jsonl", f'{{"step": 1, "loss": 0.5}}\n{text}\n' * 2), reader)


@pytest.mark.parametrize("reader", ["jsonl", "hf-trainer-state"])
def test_a_document_above_the_limit_is_refused(
    reader: str, place: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nndiag.readers.formats.json_lines.MAX_DOCUMENT", 2 * MIB)
    rows = [{"step": step, "loss": 0.5} for step in range(100_000)]
    path = place("large.json", json.dumps({"log_history": rows}))

    assert "above" in outcome(path, reader)


def test_deep_json_in_a_run_directory_has_an_outcome(tmp_path: Path) -> None:
    (tmp_path / "rank-0").mkdir()
    for name in ("run.json", "rank-0/process.json", "rank-0/events.jsonl"):
        (tmp_path / name).write_text(DEEP["lists, closed"])

    assert "refused" in outcome(tmp_path, "nndiag")


DIGITS = "9" * 5000
HUGE = {
    "csv": f"step,loss\n1,{DIGITS}\n{DIGITS},0.5\n3,0.4\n",
    "jsonl": f'{{"step": 1, "loss": {DIGITS}}}\n{{"step": {DIGITS}, "loss": 1}}\n{{"loss": 0.5}}\n',
    "text": f"step 1 loss {DIGITS}\nstep {DIGITS} loss 0.5\nstep 3 loss 0.4\n",
    "hf-trainer-state": f'{{"log_history": [{{"step": 1, "loss": {DIGITS}}}, {{"loss": 0.5}}]}}',
}


@pytest.mark.parametrize("reader", HUGE)
def test_an_integer_of_5000_digits_is_no_number(reader: str, place: Write) -> None:
    path = place("huge.log", HUGE[reader])
    told = outcome(path, reader)
    if told.startswith(READ):
        run = BY_NAME[reader].read(path, None)
        assert all(abs(series.values).max() < 10 for series in run.series_of("loss"))


@pytest.mark.parametrize("reader", ["jsonl", "hf-trainer-state", "llama-factory", "detectron2"])
def test_an_integer_beyond_float64_is_left_out(reader: str, place: Write) -> None:
    lines = [{"step": s, "loss": 0.5, "iteration": s, "total_loss": 0.5} for s in range(9)]
    lines[4].update(loss=10**400, total_loss=-(10**400))
    text = "".join(json.dumps(line) + "\n" for line in lines)
    if reader == "hf-trainer-state":
        text = json.dumps({"log_history": lines})
    run = BY_NAME[reader].read(place("log.json", text), None)

    [loss] = run.series_of("loss")
    assert loss.values.tolist() == [0.5] * 8


def test_a_record_has_a_depth_and_a_width() -> None:
    deep: object = 1
    for _ in range(MAX_DEPTH + 1):
        deep = {"a": deep}
    wide = {f"k{number}": 1.0 for number in range(MAX_FIELDS + 10)}

    assert list(measurements({"loss": 0.5, "b": deep})) == [("loss", 0.5)]
    assert sum(1 for _ in measurements(wide)) == MAX_FIELDS


NUMBERS_THAT_ARE_NONE = ("1_000", "١٢", "1e400", "-1e400", "0x10", "1e", "--1", "1.2.3", "½")


@pytest.mark.parametrize("text", NUMBERS_THAT_ARE_NONE)
def test_only_plain_numbers_are_numbers(text: str, place: Write) -> None:
    rows = "".join(f"{step},{text if step == 2 else 0.5}\n" for step in range(5))
    run = BY_NAME["csv"].read(place("log.csv", "step,loss\n" + rows), None)

    [loss] = run.series_of("loss")
    assert loss.steps.tolist() == [0, 1, 3, 4]


def test_cells_that_a_spreadsheet_would_run_are_texts(place: Write) -> None:
    rows = "".join(f"{s},0.5,=cmd|' /C calc'!A0\n" for s in range(5))
    run = BY_NAME["csv"].read(place("log.csv", "step,loss,@SUM(1+1)\n" + rows), None)

    assert [series.metric for series in run.series] == ["loss"]
    assert any("@SUM(1+1)" in note for note in run.notes)


def test_of_two_equal_keys_the_last_counts(place: Write) -> None:
    line = '{"step": %d, "loss": 9, "loss": 0.5}\n'
    run = BY_NAME["jsonl"].read(place("log.jsonl", "".join(line % s for s in range(5))), None)

    [loss] = run.series_of("loss")
    assert set(loss.values) == {0.5}


@pytest.mark.parametrize("key", ["\\ud800", "\\u0000", "\\u001b[31m", "\\u202e", "[/red]"])
def test_an_odd_name_is_kept_as_it_is_and_harms_no_report(key: str, place: Write) -> None:
    line = f'{{"step": %d, "loss": 0.5, "{key}": 1, "{key}loss": 2}}\n'
    path = place("log.jsonl", "".join(line % step for step in range(30)))
    told = outcome(path, "jsonl")

    assert told.startswith(READ)
    run = BY_NAME["jsonl"].read(path, None)
    assert json.loads(f'"{key}"') in [series.name for series in run.series]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig"])
@pytest.mark.parametrize("name", ["log.csv", "log.jsonl", "log.log"])
def test_other_encodings_are_read(encoding: str, name: str, place: Write) -> None:
    text = {
        "log.csv": "step,loss\n" + "".join(f"{s},0.5\n" for s in range(20)),
        "log.jsonl": "".join(f'{{"step": {s}, "loss": 0.5}}\n' for s in range(20)),
        "log.log": "".join(f"step {s}: loss 0.5\n" for s in range(20)),
    }[name]

    assert outcome(place(name, text.encode(encoding))).startswith(READ)


BOMBS = {
    "log.csv.gz": lambda: gzip.compress(b"step,loss\n" + b"0" * (80 * MIB), 9),
    "log.jsonl.gz": lambda: gzip.compress(b"[" * (80 * MIB), 9),
    "nested.csv.gz": lambda: gzip.compress(gzip.compress(b"step,loss\n" * 10**6)),
    "log.csv.bz2": lambda: bz2.compress(b"\0" * (50 * MIB)),
    "log.csv.xz": lambda: lzma.compress(b"0" * (50 * MIB), preset=0),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_compressed_log_that_swells_has_an_outcome(
    name: str, place: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = place(name, BOMBS[name]())
    monkeypatch.setattr("tests.fuzz.judge.PATIENCE", 20.0)
    started = time.process_time()
    outcome(path)

    assert time.process_time() - started < PATIENCE


def test_an_archive_that_swells_has_an_outcome(tmp_path: Path) -> None:
    path = tmp_path / "logs.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("log.csv", "0" * (20 * MIB))

    assert outcome(path).startswith("refused")


@pytest.mark.parametrize(
    "content",
    [
        gzip.compress(b"step,loss\n1,2\n" * 200)[:-20],
        b"\x1f\x8b\x08\x00" + b"\xff" * 50,
        b"\x1f\x8b",
    ],
    ids=["cut off", "noise", "nothing else"],
)
def test_a_damaged_compressed_log_has_an_outcome(content: bytes, place: Write) -> None:
    outcome(place("log.csv.gz", content))
    outcome(place("log.csv", content))


# --- regular expressions --------------------------------------------------------------------------

ATTACKED = 64 * 1024  # characters
PATIENCE_OF_A_PATTERN = 0.05  # seconds


def patterns() -> Iterable[tuple[str, re.Pattern[Any]]]:
    """Every regular expression of the readers and the vocabulary, and the place where it is."""
    found = {}
    for package in (nndiag.readers, nndiag.vocabulary):
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            module, place = importlib.import_module(info.name), info.name.rpartition(".")[2]
            for name, value in vars(module).items():
                if isinstance(value, re.Pattern):
                    found[f"{place}.{name}"] = value
            for node in ast.walk(ast.parse(inspect.getsource(module))):
                match node:
                    case ast.Call(
                        func=ast.Attribute(value=ast.Name("re")),
                        args=[ast.Constant(str(text) | bytes(text)), *_],
                    ):
                        found.setdefault(f"{place}, line {node.lineno}", re.compile(text))
    return {one.pattern: (name, one) for name, one in reversed(found.items())}.values()


PATTERNS = dict(patterns())


def test_the_patterns_of_all_packages_are_tried() -> None:
    assert {"printed._NUMBER", "table._NUMBER", "fairseq._FIELD"} <= set(PATTERNS)


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
def test_no_pattern_takes_long_over_64_kilobytes(pattern: re.Pattern[str]) -> None:
    for attack in attacks(pattern, ATTACKED):
        text = attack.encode() if isinstance(pattern.pattern, bytes) else attack
        assert _seconds(pattern, text) < PATIENCE_OF_A_PATTERN or (
            min(_seconds(pattern, text) for _ in range(3)) < PATIENCE_OF_A_PATTERN
        ), f"{attack[:40]!r} and so on"


@pytest.mark.parametrize(
    ("careless", "sizes"),
    [
        (r"([0-9]*\.?[0-9]*)+x", (4, 9)),
        (r"loss: .*?a.*?z", (300, 1200)),
        (r"^ *Epoch +(.*\bbox\b.*)", (300, 1200)),
    ],
)
def test_an_attack_is_found_for_a_pattern_that_backtracks(
    careless: str, sizes: tuple[int, int]
) -> None:
    pattern = re.compile(careless)
    small, large = (
        max(_seconds(pattern, text) for text in attacks(pattern, size)) for size in sizes
    )

    assert large > 7 * small  # linear would be 4 at most


def _seconds(pattern: re.Pattern[str], text: str | bytes) -> float:
    started = time.process_time()
    pattern.findall(text)  # type: ignore[arg-type]
    return time.process_time() - started


# --- the rule itself ------------------------------------------------------------------------------


class Careless:
    """A reader that breaks the rule in a given way."""

    name = "careless"

    def __init__(self, read: Callable[[Path, str | None], object]) -> None:
        self.read = read

    def recognises(self, path: Path, head: bytes) -> str | None:
        return None


def _endless(path: Path, loss: str | None) -> object:
    while True:
        pass


OPEN: list[IO[str]] = []


def _leaves_open(path: Path, loss: str | None) -> object:
    OPEN.append(path.open())
    raise UnreadableLog(where=str(path), what="is open")


BROKEN_RULES: dict[str, tuple[Callable[[Path, str | None], object], str]] = {
    "another exception": (lambda path, loss: {}["x"], "KeyError at"),
    "no end": (_endless, "took more than"),
    "an open file": (_leaves_open, "a file was left open"),
    "no run": (lambda path, loss: 3, "read gives int"),
    "a warning": (lambda path, loss: __import__("warnings").warn("x", stacklevel=1), "UserWarning"),
}


@pytest.mark.parametrize(("read", "kind"), BROKEN_RULES.values(), ids=BROKEN_RULES)
def test_the_judge_sees(
    read: Callable[[Path, str | None], object],
    kind: str,
    place: Write,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tests.fuzz.judge.PATIENCE", 0.2)
    with pytest.raises(Fault, match=kind):
        Judge(Careless(read), ()).judged(place("log.csv", "step,loss\n1,2\n"))
    while OPEN:
        OPEN.pop().close()


def test_the_same_seed_gives_the_same_mutants(stage: Stage) -> None:
    for reader in BY_NAME:
        for index in range(10):
            one, other = (
                mutant(seeds_of(reader)[0], random.Random(index), stage.scratch) for _ in range(2)
            )
            assert one == other
