"""What the mutations begin with: small sound logs, some for each reader.

They are the fixtures of the readers' tests, the sample runs, and the minimal logs below. A reader
without a seed is an error, so that nobody forgets to add one.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from nndiag.errors import UnreadableLog
from nndiag.readers.base import HEAD_BYTES, Reader
from nndiag.readers.catalogue import READERS
from tests.fuzz import containers, mutations
from tests.fuzz.mutations import Mutation, damaged

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "tests" / "readers" / "fixtures"
SAMPLE_RUNS = ROOT / "sample_runs"
LARGEST_TEXT = 6 * 1024  # bytes of a text that is kept, in whole lines
LARGEST = 512 * 1024  # bytes of a seed: a database of MLflow has that many
MOST_FILES = 60  # in a folder
MOST_SEEDS = 24  # of one reader

Special = tuple[str, str]  # ("fifo", ""), ("folder", ""), ("link", target)
Files = Mapping[str, bytes | Special]


@dataclass(frozen=True)
class Seed:
    """A log: a file, or a folder with files."""

    reader: str
    name: str
    files: Files  # relative path -> content
    entry: str  # the file that the reader is given; "" for the folder

    @property
    def is_folder(self) -> bool:
        return self.entry == ""


@cache
def seeds_of(reader: str) -> tuple[Seed, ...]:
    """The seeds of a reader.

    Raises:
        LookupError: there is none.
    """
    found = [seed for seed in _all() if seed.reader == reader]
    if not found:
        raise LookupError(f"no seed for reader {reader!r}: add a fixture, or one in {__name__}")
    step = -(-len(found) // MOST_SEEDS)
    return tuple(found[::step])


@cache
def _all() -> tuple[Seed, ...]:
    own = [Seed(reader, name, {name: text.encode()}, name) for reader, name, text in _minimal()]
    return (*own, *_of_folder(FIXTURES), *_sample_runs())


def _of_folder(folder: Path) -> list[Seed]:
    """Every file and folder that a reader recognises, by the reader that comes first."""
    found: list[Seed] = []
    if not folder.is_dir():
        return found
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".py", ".pyc", ".md") or path.is_symlink():
            continue
        if path.is_file() and path.stat().st_size > 4 * LARGEST:
            continue
        head = path.read_bytes()[:HEAD_BYTES] if path.is_file() else b""
        if path.is_file() and not head:
            continue
        reader = _reader_of(path, head)
        if reader is None:
            continue
        if path.is_file():
            files: Files = {path.name: shortened(path.name, path.read_bytes())}
            found.append(Seed(reader.name, str(path.relative_to(folder)), files, path.name))
        else:
            inside = sorted(file for file in path.rglob("*") if file.is_file())[:MOST_FILES]
            files = {
                str(file.relative_to(path)): shortened(file.name, file.read_bytes())
                for file in inside
                if file.stat().st_size <= 4 * LARGEST
            }
            found.append(Seed(reader.name, str(path.relative_to(folder)), files, ""))
    return [s for s in found if sum(len(content) for content in s.files.values()) <= LARGEST]


def _reader_of(path: Path, head: bytes) -> Reader | None:
    for reader in READERS:
        try:
            if reader.recognises(path, head):
                return reader
        except UnreadableLog:
            continue
    return None


def _sample_runs() -> list[Seed]:
    """Our own run directories, with the first rows of each stream."""
    found = []
    for run in sorted(SAMPLE_RUNS.glob("*/run")):
        files = {
            str(file.relative_to(run)): shortened(file.name, file.read_bytes())
            for file in sorted(run.rglob("*"))
            if file.is_file()
        }
        found.append(Seed("nndiag", run.parent.name, files, ""))
    return found


def shortened(name: str, content: bytes) -> bytes:
    """The beginning of a long log, cut where it stays sound."""
    if name.endswith(".arrows"):
        return content[: 48 * 1024]  # damage costs the last row
    if content.startswith(b"SQLite") or len(content) <= LARGEST_TEXT:
        return content
    if content.startswith(containers.WANDB_HEADER[:4]):
        records = containers.wandb_records(content)
        kept = [record for record in records if len(record) < LARGEST_TEXT]
        return containers.wandb_file(kept[:60] + kept[-4:])
    payloads = containers.event_payloads(content)
    if len(payloads) > 1:
        return b"".join(map(containers.event_frame, payloads[:80]))
    try:
        return json.dumps(_fewer(json.loads(content))).encode()
    except (ValueError, RecursionError):
        return content[: content.rfind(b"\n", 0, LARGEST_TEXT) + 1]


def _fewer(document: Any) -> Any:
    if isinstance(document, list):
        return [_fewer(entry) for entry in document[:30]]
    if isinstance(document, dict):
        return {key: _fewer(document[key]) for key in list(document)[:60]}
    return document


def mutant(seed: Seed, rng: random.Random, scratch: Path) -> Seed:
    """`seed` damaged. `scratch` is a file that may be written to on the way."""
    files = dict(seed.files)
    if seed.is_folder and rng.random() < 0.08:
        return replace(seed, files=_other_tree(files, rng))
    for _ in range(1 if not seed.is_folder else rng.choice((1, 1, 2, 3))):
        name = seed.entry or rng.choice(list(files))
        content = files[name]
        if isinstance(content, bytes):
            files[name] = _mutant_file(seed, content, rng, scratch)
    if seed.entry and _is_database(files[seed.entry]) and rng.random() < 0.05:
        journal = rng.choice((mutations.WAL, mutations.JOURNAL)) + rng.randbytes(
            rng.choice((0, 4120))
        )
        end = "-wal" if journal.startswith(mutations.WAL) else "-journal"
        files[seed.entry + end] = rng.choice((journal, b"", ("fifo", ""), ("link", "/dev/zero")))
    return replace(seed, files=files)


def _is_database(content: bytes | Special) -> bool:
    return isinstance(content, bytes) and content.startswith(b"SQLite format 3\0")


def _mutant_file(seed: Seed, content: bytes, rng: random.Random, scratch: Path) -> bytes:
    if rng.random() < 0.03:
        other = rng.choice(
            seeds_of(rng.choice(READERS).name if rng.random() < 0.3 else seed.reader)
        )
        part = rng.choice(list(other.files.values()))
        if isinstance(part, bytes):
            content = mutations.splice(content, part, rng)
            if rng.random() < 0.5:
                return content
    if _is_database(content):
        if rng.random() < 0.75:
            return containers.change_database(content, rng, scratch)
        for _ in range(rng.choice((1, 2, 8))):
            content = rng.choice(mutations.BLIND)(content, rng)
        return content
    ways, structured = _ways(content)
    if structured and rng.random() < structured:
        for _ in range(rng.choice((1, 1, 2))):
            content = ways[0](content, rng)
        return content
    return damaged(content, ways, rng)


def _kind(head: bytes) -> str:
    if head.startswith(containers.WANDB_HEADER[:4]):
        return "wandb"
    if len(containers.event_payloads(head)) > 0:
        return "events"
    if b'"nndiag.stream/' in head or b"nndiag.stream" in head:
        return "stream"
    text = head.lstrip(b"\xef\xbb\xbf \r\n\t")
    if text[:1] in (b"{", b"["):
        return "json"
    return "table"


def _ways(content: bytes) -> tuple[tuple[Mutation, ...], float]:
    """The mutations that fit a content, and how often only the first one is to be used."""
    match _kind(content[:2048]):
        case "wandb":
            return (containers.change_wandb_record, mutations.insert, mutations.cut), 0.8
        case "events":
            return (containers.change_event, mutations.insert, mutations.cut), 0.8
        case "stream":
            return (containers.change_row, mutations.insert, mutations.change_word), 0.5
        case "json":
            return mutations.JSON, 0.0
        case _:
            return mutations.TABLE, 0.0


def _other_tree(files: dict[str, bytes | Special], rng: random.Random) -> Files:
    """Another set of files: one gone, moved, doubled, or something that is no file in its place."""
    name = rng.choice(list(files))
    match rng.randrange(6):
        case 0:
            del files[name]
        case 1:
            files[name] = ("fifo", "")
        case 2:
            files[name] = ("link", rng.choice(("/dev/zero", "/etc/passwd", ".", "loop", "..")))
        case 3:
            files[name] = ("folder", "")
        case 4:
            odd = rng.choice(
                ("x\n.csv", "\x1b[31m.json", "\u202elog", "a" * 200, "[red]", "rank-9")
            )
            files[str(Path(name).with_name(odd))] = files[name]
        case _:
            files[name] = b""
    return files


def _minimal() -> list[tuple[str, str, str]]:
    """(reader, file name, text)"""
    steps = range(0, 120, 10)
    table = "step,loss,val_loss,lr\n" + "".join(
        f"{s},{2 / (s + 1):.4f},{'' if s % 20 else round(2.2 / (s + 1), 4)},0.001\n" for s in steps
    )
    spaces = "# step  rmse_trn  rmse_val  lr\n" + "".join(f"{s} 0.5 0.6 1e-3\n" for s in steps)
    semicolons = "epoch;train loss;val loss\n" + "".join(
        f"{s};0,{99 - s % 90};0,7\n" for s in steps
    )
    bare = "".join(f"{s}\t{1 / (s + 1)}\n" for s in steps)
    long = "step,name,value\n" + "".join(f"{s},loss,0.5\n{s},acc,0.9\n" for s in steps)
    restart = table + table.partition("\n")[2]
    objects = "".join(
        json.dumps({"step": s, "loss": 1 / (s + 1), "mode": "train", "extra": {"lr": 0.1}}) + "\n"
        for s in steps
    )
    mixed = "".join(
        json.dumps({"epoch": s, "mode": m, "loss": 0.5, "acc": [0.9]}) + "\n"
        for s in steps
        for m in ("train", "val")
    )
    history = json.dumps({"loss": [1.0, 0.5, 0.4] * 4, "val_loss": [1.1, 0.6, 0.5] * 4})
    golden = json.dumps(
        {"lm loss": {"start_step": 1, "end_step": 9, "step_interval": 5, "values": [1.0, 0.5, 0.4]}}
    )
    by_step = json.dumps({"loss": {"1": 0.5, "2": 0.4, "3": float("nan")}})
    array = json.dumps([{"iter": s, "total_loss": 0.5, "loss_cls": 0.2} for s in steps])
    state = json.dumps(
        {
            "global_step": 120,
            "log_history": [
                *({"step": s, "epoch": s, "loss": 2 / (s + 1), "grad_norm": 1.0} for s in steps),
                {"step": 110, "eval_loss": 0.4, "eval_runtime": 1.0},
                {"step": 120, "train_runtime": 10.0, "total_flos": 1e15, "train_loss": 0.6},
            ],
            "trial_params": None,
        }
    )  # fmt: skip
    printed = "INFO 2024-10-29 12:00:01 start\n" + "".join(
        f"Epoch [{s}/120], Step [{s}/938], Loss: {1 / (s + 1):.4f}, lr: 1e-3 (1.5 s)\n"
        for s in steps
    )
    bars = "".join(
        f"Epoch 1:  {s}%|##  | {s}/120 [00:0{s % 9}<00:10, 9.1it/s, loss=0.{s + 100}, v_num=1]\r"
        for s in steps
    )
    dicts = "".join(f"{{'loss': 0.5, 'learning_rate': 5e-05, 'epoch': {s / 10}}}\n" for s in steps)
    networks = "".join(f"[2/25][{s}/782] Loss_D: 0.5 Loss_G: 1.5 D(x): 0.6\n" for s in steps)
    parts = "".join(f"iter {s}: loss_cls 0.5, loss_box 0.2, val: acc 98/100\n" for s in steps)
    tensors = "".join(f"step {s} loss tensor(0.{s + 100}, device='cuda:0') nan\n" for s in steps)
    return [
        ("csv", "metrics.csv", table),
        ("csv", "lcurve.out", spaces),
        ("csv", "results.csv", semicolons),
        ("csv", "bare.tsv", bare),
        ("csv", "long.csv", long),
        ("csv", "restarted.csv", restart),
        ("jsonl", "log.jsonl", objects),
        ("jsonl", "log.json", mixed),
        ("jsonl", "history.json", history),
        ("jsonl", "golden.json", golden),
        ("jsonl", "steps.json", by_step),
        ("jsonl", "array.json", array),
        ("hf-trainer-state", "trainer_state.json", state),
        ("text", "train.log", printed),
        ("text", "bars.txt", bars),
        ("text", "dicts.out", dicts),
        ("text", "gan.log", networks),
        ("text", "parts.log", parts),
        ("text", "tensors.log", tensors),
    ]
