"""`nndiag analyze` on hostile logs: exit status 0 or 2, no traceback, nothing but text printed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from nndiag.readers.catalogue import READERS

Run = Callable[..., "subprocess.CompletedProcess[str]"]

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
BIDI = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
NASTY = "\x1b]0;owned\x07\x9b31m\u202e\u2066\x00\x08\r\u2028[/red][link=file:x]</script>=cmd|"


def spiky(name: str) -> str:
    """A JSON log with a finding, so that names from it get into every part of a report."""
    values = [2.0 / (1 + step / 50) + (90 if 400 <= step < 404 else 0) for step in range(600)]
    pairs = [{"step": s, f"{name}loss": v, f"{name} lr": 0.1} for s, v in enumerate(values)]
    return "".join(json.dumps(pair) + "\n" for pair in pairs)


@pytest.fixture
def logs(tmp_path: Path) -> list[str]:
    """Names of hostile logs in the working directory of the command."""
    here = {
        "names.jsonl": spiky(NASTY).encode(),
        "surrogates.jsonl": spiky("\ud800").encode(),
        "cells.csv": b"step,=cmd|' /C calc'!A0 loss,@SUM(1)\n" + b"1,0.5,x\n2,0.4,y\n" * 30,
        "deep.json": b"[" * 100_000,
        "huge.jsonl": b'{"step": 1, "loss": ' + b"9" * 5000 + b"}\n",
        "long.log": b"loss " * 10**6,
        "noise.csv": bytes(range(256)) * 40,
        "empty.csv": b"",
        "cut.csv.gz": b"\x1f\x8b\x08\x00\x00",
        "nan.csv": b"step,loss\n" + b"".join(b"%d,nan\n" % s for s in range(50)),
        "extreme.csv": b"step,loss\n" + b"".join(b"%d,1e308\n" % (s * 10**14) for s in range(90)),
    }
    for name, content in here.items():
        (tmp_path / name).write_bytes(content)
    odd = [b"\x1b[31m\n.csv", "\u202egpj.csv".encode(), b"\xff\xfe.csv", b"[red]x[bold.csv"]
    for name in odd:
        (tmp_path / os.fsdecode(name)).write_bytes(b"step,loss\n1,2\n" * 40)
    os.mkfifo(tmp_path / "fifo.csv")
    (tmp_path / "zero.csv").symlink_to("/dev/zero")
    return [path.name for path in sorted(tmp_path.iterdir())]


def harmful(text: str) -> set[str]:
    return {
        c for c in text if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") and c != "\n"
    } | (BIDI & set(text))


@pytest.mark.parametrize("named", [True, False], ids=["each log named", "a folder of them"])
@pytest.mark.parametrize("shape", ["plain", "rich", "json"])
def test_analyze_prints_nothing_but_text(
    shape: str, named: bool, logs: list[str], nndiag: Run
) -> None:
    options = [] if shape == "plain" else ["--format", shape]
    done = nndiag("analyze", *options, "--", *(logs if named else ["."]))

    assert done.returncode == (2 if named else 0)
    assert "Traceback" not in done.stdout + done.stderr
    assert not harmful(COLOUR.sub("", done.stdout) if shape == "rich" else done.stdout)
    assert not harmful(COLOUR.sub("", done.stderr))
    if shape == "json":

        def refuse(constant: str) -> object:
            raise AssertionError(constant)

        document = json.loads(done.stdout, parse_constant=refuse)
        assert len(document["runs"]) > 5
        assert bool(document["errors"]) == named


@pytest.mark.parametrize("name", ["deep.json", "noise.csv", "fifo.csv", "empty.csv", "huge.jsonl"])
@pytest.mark.parametrize("reader", [one.name for one in READERS])
def test_a_forced_reader_refuses_in_one_line(
    name: str, reader: str, logs: list[str], nndiag_here: Callable[..., tuple[int, str, str]]
) -> None:
    status, printed, complaint = nndiag_here("analyze", "--reader", reader, name)

    assert (status, printed) == (2, "")
    assert complaint.startswith(f"{name}")


@pytest.fixture
def nndiag_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run `nndiag ARGUMENTS` in this process: (status, standard output, standard error)."""
    from nndiag.cli.app import main

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.chdir(tmp_path)
        status = main(arguments)
        return status, *capfd.readouterr()

    return run
