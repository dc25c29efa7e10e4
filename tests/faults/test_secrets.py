"""What a user has in variables, arguments and texts stays there: the run directory is searched."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from nndiag.journal.private import harmless_environment, option_names, scrubbed
from nndiag.watcher import run_directory
from tests.adapters.observed import Train
from tests.faults.conftest import PRELUDE

KEYS = {
    "Hugging Face": "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",
    "OpenAI": "sk-proj-abcDEF123456ghiJKL789012",
    "GitHub": "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
    "GitHub, fine": "github_pat_11ABCDEFG0123456789_abcdefghij",
    "GitLab": "glpat-abcdefghijklmnopqrst",
    "AWS": "AKIAIOSFODNN7EXAMPLE",
    "AWS secret": "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY12",
    "Slack": "xoxb-123456789012-abcdefghijkl",
    "Google": "AIzaSyA1234567890abcdefghijklmnopqrstuv",
    "npm": "npm_abcdefghijklmnopqrstuvwxyz0123456789",
    "PyPI": "pypi-AgEIcHlwaS5vcmcCJDU3ZjM2",
    "wandb": "0123456789abcdef0123456789abcdef01234567",
    "JSON web token": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abc-DEF_123",
}
SENTENCES = {
    "a password": ("could not log in: password=hunter2 for ada", "hunter2"),
    "a token in JSON": ('{"token": "hunter2", "user": "ada"}', "hunter2"),
    "a header": ("Authorization: Bearer hunter2hunter2", "hunter2"),
    "a URL": ("https://ada:hunter2@example.org/x", "hunter2"),
    "an option": ("--api-key=hunter2", "hunter2"),
    **{name: (f"{key} was refused by the server", key) for name, key in KEYS.items()},
}
HARMLESS = (
    "TorchAdapter._on_forward: RuntimeError: mat1 and mat2 shapes cannot be multiplied (3x5 and 4x8)",
    "[Errno 28] No space left on device: '/home/ada/nndiag-runs/train-20250101-120000/rank-0'",
    "model.layers.0.self_attn.q_proj.weight",
    "the tokenizer has 32000 tokens, key_padding_mask is None",
)


@pytest.mark.parametrize("text, secret", SENTENCES.values(), ids=SENTENCES)
def test_a_text_loses_its_secret(text: str, secret: str) -> None:
    assert secret not in scrubbed(text)


@pytest.mark.parametrize("text", HARMLESS)
def test_a_text_of_ours_stays_whole(text: str) -> None:
    assert scrubbed(text) == text


@pytest.mark.parametrize("piece", ["a", "a1", "key=", "://a", "-----BEGIN PRIVATE KEY-----", " "])
def test_a_long_text_is_cleaned_in_little_time(piece: str) -> None:
    began = time.perf_counter()
    scrubbed((piece * 4096)[:8192])

    assert time.perf_counter() - began < 1.0


def test_of_the_environment_only_harmless_names_with_plain_values_are_kept() -> None:
    environment = {
        **{f"PLANTED_{i}": key for i, key in enumerate(KEYS.values())},
        **{"OMP_NUM_THREADS": "4", "CUDA_VISIBLE_DEVICES": "0,1", "HOME": "/home/ada"},
        **{"WANDB_API_KEY": "hunter2", "PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:128"},
        **{"NCCL_DEBUG": KEYS["GitHub"], "MKL_NUM_THREADS": "4; password=hunter2"},
    }

    assert harmless_environment(environment) == {
        "OMP_NUM_THREADS": "4",
        "CUDA_VISIBLE_DEVICES": "0,1",
        "PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:128",
    }


ARGUMENTS = [
    *("train.py", "--lr", "0.1", "--batch-size=64", "-v", "-pHUNTER2", "--password", "--HUNTER2"),
    *("--token=HUNTER2", "data.key=HUNTER2", "--resume", "https://ada:HUNTER2@example.org", "--lr"),
    *("--hf_QwErTyUiOpAsDfGhJkLzXcVb", "HUNTER2", "--", "--rest"),
]


def test_of_the_arguments_only_the_names_of_options_are_kept() -> None:
    names = option_names(ARGUMENTS)

    assert names == ["--lr", "--batch-size", "-v", "-p", "--password", "--token", "--resume"]


def test_no_planted_secret_is_found_anywhere_in_a_run_directory(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = {f"PLANTED_{i}": key for i, key in enumerate(KEYS.values())}
    planted |= {"DB_PASSWORD": "HUNTER2", "NCCL_DEBUG": KEYS["OpenAI"], "OMP_NUM_THREADS": "3"}
    run = train(
        PRELUDE
        + """
import nndiag.adapters.pytorch.optimizer_hooks as hooks, nndiag.watcher.recorder as recorder
keys = [value for name, value in os.environ.items() if name.startswith("PLANTED_")]
print("val_loss: 0.5", *keys); print("token=" + keys[0], "password: HUNTER2")
fit(3)
whole = recorder.Recorder.step
def broken(self, *args): raise OSError(f"password=HUNTER2 {keys}")
recorder.Recorder.step = broken
fit(5)
raise ValueError(f"password=HUNTER2 {keys}")
""",
        *[key for name in KEYS for key in ("--token", KEYS[name])],
        environment=planted,
        status=1,
    )
    for name, value in planted.items():
        monkeypatch.setenv(name, value)
    run_directory.make(
        run.run_dir / "again",
        stem="train",
        script=f"https://ada:HUNTER2@example.org/{KEYS['GitHub']}.py",
        settings={},
        arguments=[*ARGUMENTS, *KEYS.values()],
    )

    files = [path for path in run.run_dir.rglob("*") if path.is_file()]
    content = b"\n".join(path.read_bytes() for path in files)
    content += "\n".join(map(str, files)).encode()
    assert len(files) >= 6 and b"observation-ended" in content
    assert [key for key in (*KEYS.values(), "HUNTER2") if key.encode() in content] == []
    manifest = json.loads((run.run_dir / "again" / "run.json").read_text())
    assert manifest["environment"]["OMP_NUM_THREADS"] == "3"
    assert manifest["options"][0] == "--lr"


@pytest.mark.parametrize("umask", ["0o000", "0o777"])
def test_every_file_is_private_whatever_the_umask(
    nndiag, train: Train, tmp_path: Path, umask: str
) -> None:
    run = train(f"import os; os.umask({umask})\n" + PRELUDE + "fit(3); os._exit(0)")
    (tmp_path / "x.py").write_text("")
    before = os.umask(int(umask, 8) & 0o077)
    try:
        assert nndiag("watch", "x.py").returncode == 0
    finally:
        os.umask(before)
    made = [*run.rank.rglob("*"), run.rank, *run.run_dir.glob("attached-*")]
    made += [tmp_path / "nndiag-runs", *(tmp_path / "nndiag-runs").rglob("*")]

    assert len(made) > 8
    for path in made:
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path
